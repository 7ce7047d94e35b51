"""Scans: their top, both ways, and a scan that was killed."""

from __future__ import annotations

import functools
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from qmmlmm import XTBPotential
from qmmlmm.errors import RunDirectoryError, SelectionError, SettingError
from qmmlmm.reactions import EnergySurface, ReactionPath, saddle_point, scan
from qmmlmm.reactions.evaluation_log import EvaluationLog
from qmmlmm.sampling import Angle, Combination, CoordinationNumber, Distance
from qmmlmm.units import HARTREE_IN_KJ_PER_MOL
from tests.reactions.molecules import HYDROGEN_CYANIDE, vacuum

START = np.array([[0.0, 0.0, 0.0], [0.1194, 0.0, 0.0], [0.01, 0.118, 0.0]])
CENTRES = [-0.034, -0.025, -0.016, -0.007, 0.002]
XI = Combination([(1.0, Distance(0, 2)), (-1.0, Distance(1, 2))])

STIFF = 2e6

TOP = 1.0
"""kJ/mol: how near the top of a scan with these centres is to the saddle point."""

NO_HYSTERESIS = 0.1
"""kJ/mol: a molecule of three atoms has one path."""


@functools.cache
def cheap():
    return vacuum(HYDROGEN_CYANIDE, XTBPotential())


@functools.cache
def both_ways():
    return scan(cheap().mixed, XI, START, centres=CENTRES, force_constant=STIFF, both_ways=True)


def test_a_scan_shows_its_points_and_what_happens_within_one(monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    monkeypatch.setattr("qmmlmm.progress_display.PAUSE", 0.0)
    scan(cheap().mixed, XI, START, centres=CENTRES[:2], force_constant=STIFF)
    lines = output.getvalue().splitlines()
    within = [line for line in lines if line.startswith("scan, point at -0.025: ")]
    assert re.search(r"3 evaluations \[.* kJ/mol, largest force .* hartree/bohr\]", "\n".join(within))
    assert any(line.startswith("scan: 2/2 points") for line in lines)


def test_the_top_of_a_scan_is_the_saddle_point():
    found = both_ways()
    saddle = saddle_point(cheap().mixed, found.highest)
    assert abs((found.highest.energy - saddle.energy)._value) < TOP
    assert found.highest_index == 2
    assert found.has_barrier
    downhill = ReactionPath(found.mixed, found.structures[2:], found.progress[2:], found.progress_label)
    assert not downhill.has_barrier


def test_both_ways_agree_where_there_is_one_path():
    found = both_ways()
    assert found.hysteresis._value < NO_HYSTERESIS
    assert [point.centres[0] for point in found.back] == CENTRES


def test_the_true_energy_has_no_restraint():
    point = both_ways().forth[0]
    energy = EnergySurface(cheap().mixed, point).verified()[0].energy
    assert abs(energy * HARTREE_IN_KJ_PER_MOL - point.energy._value) < 1e-3
    away = point.values[0] - point.centres[0]
    assert abs(point.restraint_energy._value - 0.5 * STIFF * away**2) < 1e-6


def test_a_scan_that_was_interrupted_repeats_no_evaluation(tmp_path, monkeypatch):
    case = cheap()
    runner = case.mixed.terms["molecule/XTB"].runner
    folder = tmp_path / "scan"
    whole = scan(case.mixed, XI, START, centres=CENTRES[:3], force_constant=STIFF)
    before = runner.evaluations
    real, count = EnergySurface.whole_system, 0

    def interrupted(self, positions):
        nonlocal count
        count += 1
        if count == 10:
            raise KeyboardInterrupt
        return real(self, positions)

    monkeypatch.setattr(EnergySurface, "whole_system", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scan(case.mixed, XI, START, centres=CENTRES[:3], force_constant=STIFF, directory=folder)
    monkeypatch.undo()
    found = scan(case.mixed, XI, START, centres=CENTRES[:3], force_constant=STIFF, directory=folder)
    assert np.allclose(found.energies._value, whole.energies._value, atol=1e-6)
    assert runner.evaluations - before <= whole.evaluations
    assert found.evaluations == whole.evaluations
    assert (folder / "scan.csv").read_text(encoding="utf-8").startswith('#"Centre"')
    assert not list(folder.glob("*_evaluations"))
    again = scan(case.mixed, XI, START, centres=CENTRES[:3], force_constant=STIFF, directory=folder)
    assert np.array_equal(again.energies._value, found.energies._value)
    with pytest.raises(RunDirectoryError, match="with different centres"):
        scan(case.mixed, XI, START, centres=CENTRES[:2], force_constant=STIFF, directory=folder)


KILLED = """
import sys
sys.path.insert(0, {root!r})
from tests.reactions.test_scan import *
case = cheap()
runner = case.mixed.terms["molecule/XTB"].runner
real = EnergySurface.whole_system
def counted(self, positions):
    with open({log!r}, "a") as file:
        file.write("x")
    return real(self, positions)
EnergySurface.whole_system = counted
scan(case.mixed, XI, START, centres=CENTRES, force_constant=STIFF, directory={folder!r})
"""


@pytest.mark.slow
def test_a_scan_that_was_killed_loses_no_call(tmp_path):
    log, folder = tmp_path / "calls", tmp_path / "scan"
    code = KILLED.format(root=str(Path(__file__).parents[2]), log=str(log), folder=str(folder))
    process = subprocess.Popen([sys.executable, "-c", code])
    while (len(log.read_text()) if log.exists() else 0) < 12:
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    whole = scan(cheap().mixed, XI, START, centres=CENTRES, force_constant=STIFF)
    assert len(log.read_text()) <= whole.evaluations + 1


def test_a_log_whose_last_file_is_missing_takes_the_record_of_the_state(tmp_path):
    log = EvaluationLog(tmp_path)
    for k in range(3):
        log.keep(np.full((2, 3), float(k)), -float(k), np.zeros((2, 3)), 0.0, np.zeros((2, 3)), None)
    (tmp_path / "evaluation_00002.npz").unlink()
    found = EvaluationLog(tmp_path)
    assert found.length == 3
    assert found.recalled(np.zeros((2, 3)))[1] is None
    assert found.recalled(np.ones((2, 3)))[1] is None
    record, state = found.recalled(np.full((2, 3), 2.0))
    assert float(record["energy"]) == -2.0
    assert state is not None
    assert found.recalled(np.zeros((2, 3))) is None


def test_two_variables_make_a_grid_with_a_lowest_path():
    found = scan(
        cheap().mixed,
        (Distance(0, 2), Distance(1, 2)),
        START,
        centres=([0.118, 0.122], [0.16, 0.155]),
        force_constant=(2e6, 2e6),
        max_steps=30,
    )
    assert found.energies.shape == (2, 2)
    path = found.path((0, 0), (1, 1))
    assert path.structures[0] is found.points[0][0]
    assert path.structures[-1] is found.points[1][1]
    with pytest.raises(SettingError, match="two different points"):
        found.path((0, 0), (0, 0))
    with pytest.raises(SettingError, match="two indices"):
        found.path((0, 0), (5, 0))


@pytest.mark.parametrize(
    ("variable", "arguments", "error", "message"),
    [
        (XI, {"centres": []}, SettingError, "one value or more"),
        (XI, {"centres": [0.1, 0.1]}, SettingError, "all of them different"),
        (Distance(0, 7), {"centres": [0.1]}, SelectionError, "do not move in internal coordinates"),
        ("distance", {"centres": [0.1]}, SettingError, "variable is a collective variable"),
        ((XI, XI, XI), {"centres": [0.1]}, SettingError, "one variable or two"),
        ((XI, Angle(0, 1, 2)), {"centres": [0.1]}, SettingError, "a list for each of the 2 variables"),
        (XI, {"centres": [0.1], "force_constant": 0.0}, SettingError, "above zero"),
        (CoordinationNumber([0], [2], 0.12), {"centres": [0.5]}, SettingError, "force_constant is needed"),
        (XI, {"centres": [0.02, 0.021], "force_constant": 100.0}, SettingError, "no step reached the restraint"),
    ],
)
def test_wrong_arguments_are_refused(variable, arguments, error, message):
    with pytest.raises(error, match=message):
        scan(cheap().mixed, variable, START, **arguments)
