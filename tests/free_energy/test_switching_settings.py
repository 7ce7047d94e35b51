"""Advice on settings whose frames are too few relaxation times of the thermostat apart."""

from __future__ import annotations

import pytest

from qmmlmm import ForceFieldPotential
from qmmlmm.free_energy import EndStateCorrection, SwitchingSettings, correction_report
from tests.free_energy.spring_legs import UPPER, leg, quick, spring


def test_default_settings_need_no_advice():
    assert SwitchingSettings().sampling_advice == ""


@pytest.mark.parametrize(("equilibration", "between", "friction"), [(599, 199, 5.0), (2999, 999, 1.0)])
def test_advice_is_enough_to_need_none(equilibration, between, friction):
    given = {"trajectories": 10, "friction": friction, "step_size": 0.001}
    short = SwitchingSettings(equilibration_steps=equilibration, steps_between_frames=between, **given)
    assert f"equilibration_steps = {equilibration + 1} or more; " in short.sampling_advice
    assert short.sampling_advice.endswith(f"steps_between_frames = {between + 1} or more")
    longer = SwitchingSettings(equilibration_steps=equilibration + 1, steps_between_frames=between + 1, **given)
    assert longer.sampling_advice == ""


def test_the_report_has_the_advice_once(tmp_path, monkeypatch):
    monkeypatch.setattr(correction_report, "_save_figure", lambda path, found: path.write_bytes(b""))
    settings = quick(trajectories=4, equilibration_steps=1)
    legs = {"complex": leg(), "solvent": leg()}
    EndStateCorrection(
        tmp_path, legs, ForceFieldPotential(), spring(UPPER), embedding="mechanical", settings=settings
    ).run()
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert report.count("**Note.** The equilibration of 0.005 ps is shorter than 3/friction") == 1
