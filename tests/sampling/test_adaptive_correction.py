"""The correction follows the uncertainty: thresholds, hysteresis, hand-over, and the energy that it costs."""

from __future__ import annotations

import csv

import numpy as np
import openmm
import pytest
from openmm import unit

from qmmlmm.errors import HamiltonianError, RunDirectoryError, SettingError
from qmmlmm.runs.run_directory import RunDirectory
from qmmlmm.sampling.adaptive_correction import COLUMNS, AdaptiveCorrection
from tests.sampling.mixed_springs import MixedSprings, StepReporter, total_energy

SETTINGS = {"upper": 60.0, "lower": 40.0, "check_interval": 1, "ramp_steps": 10, "calm_steps": 30}


class Springs(MixedSprings):
    """With an "uncertainty" that is what the test says, or larger where the springs differ more."""

    def __init__(self, uncertainties=None):
        super().__init__(400.0, 700.0, 0.04)
        self.uncertainties = uncertainties

    def force_uncertainty(self, context, name):
        if self.uncertainties is None:
            x = context.getState(positions=True).getPositions(asNumpy=True)._value
            value = 1000.0 * abs(float(x[0, 0]))
        else:
            value = self.uncertainties(context.getStepCount())
        return np.array([0.0, value]) * unit.kilojoule_per_mole / unit.nanometer

    def started(self, step=0.0005):
        simulation = self.simulation(openmm.VerletIntegrator(step))
        simulation.context.setVelocities([[0.3, 0.1, -0.2]])
        return simulation


def run(uncertainties, steps, tmp_path):
    mixed = Springs(uncertainties)
    correction = AdaptiveCorrection(mixed, mixed.started(), "site/ML", record=tmp_path / "levels.csv", **SETTINGS)
    correction.step(steps)
    rows = list(csv.DictReader((tmp_path / "levels.csv").read_text().splitlines()))
    return correction, rows, mixed


def test_the_levels_follow_the_thresholds(tmp_path):
    """One excursion: QM comes within a ramp and goes only after a calm time."""
    correction, rows, mixed = run(lambda step: 100.0 if 50 <= step < 60 else 10.0, 200, tmp_path)
    shares = np.array([float(row["Share of QM"]) for row in rows])
    assert list(rows[0]) == list(COLUMNS)
    assert (shares[:50] == 0).all()
    assert (np.diff(shares[49:60]) > 0).all()
    assert (shares[59:90] == 1.0).all()  # 60 to 90: calm, but not long enough
    assert (np.diff(shares[89:100]) < 0).all()
    assert (shares[99:] == 0).all()
    assert {rows[10]["Level"], rows[55]["Level"], rows[70]["Level"]} == {"ML", "ML to QM", "QM"}
    assert (correction.steps, correction.steps_with_qm) == (200, 49)
    assert mixed.derivatives == 20
    assert correction.last.level == "ML"


def test_values_between_the_thresholds_change_nothing(tmp_path):
    """No chatter: 50 neither switches on nor lets the calm time run."""
    correction, rows, _ = run(lambda step: 50.0, 100, tmp_path)
    assert correction.steps_with_qm == 0
    (tmp_path / "levels.csv").unlink()
    correction, rows, _ = run(lambda step: 100.0 if step < 5 else (10.0 if step % 20 else 50.0), 300, tmp_path)
    assert float(rows[-1]["Share of QM"]) == 1.0
    assert correction.steps_with_qm == 300


def test_total_energy_less_the_booked_work_is_conserved(tmp_path):
    mixed = Springs()
    simulation = mixed.started(0.0001)
    correction = AdaptiveCorrection(
        mixed, simulation, "site/ML", upper=45.0, lower=25.0, check_interval=20, ramp_steps=40, calm_steps=200
    )
    balance, works, shares = [], [], []
    for _ in range(400):
        correction.step(20)
        works.append(correction.work._value)
        balance.append(total_energy(simulation.context) - works[-1])
        shares.append(simulation.context.getParameter("lambda_qm"))
    assert max(shares) == 1.0
    assert min(shares) == 0.0
    assert np.ptp(works) > 0.1
    assert np.ptp(balance) < 2e-3 * np.ptp(works)


def test_a_run_that_goes_on_takes_the_parameter_where_it_is():
    mixed = Springs(lambda step: 100.0)
    simulation = mixed.started()
    options = {"upper": 60.0, "lower": 40.0, "ramp_steps": 10}
    AdaptiveCorrection(mixed, simulation, "site/ML", **options).step(4)
    share = simulation.context.getParameter("lambda_qm")
    assert 0 < share < 1
    second = AdaptiveCorrection(mixed, simulation, "site/ML", **options)
    second.step(1)
    assert share < simulation.context.getParameter("lambda_qm") < 1
    second.step(20)
    assert simulation.context.getParameter("lambda_qm") == 1.0


def test_reporters_of_the_simulation_report_as_in_any_run():
    mixed = Springs(lambda step: 100.0 if 5 <= step < 12 else 10.0)
    simulation = mixed.started()
    reporter = StepReporter(7)
    simulation.reporters.append(reporter)
    correction = AdaptiveCorrection(mixed, simulation, "site/ML", **SETTINGS)
    correction.step(30)
    correction.step(10)
    assert reporter.steps == [7, 14, 21, 28, 35]
    assert simulation.currentStep == correction.steps == 40


def uncertain_for_a_while(step):
    """QM is switched on at step 8 and off again after a calm time that begins at step 20."""
    return 100.0 if 8 <= step < 20 else 10.0


INTERVALS = {"trajectory_interval": 10, "energy_interval": 5, "checkpoint_interval": 12, "total_steps": 80}


def run_in(folder, steps):
    """Run from the beginning, or go on; return the correction and its Simulation."""
    mixed = Springs(uncertain_for_a_while)
    simulation = mixed.started()
    correction = AdaptiveCorrection(mixed, simulation, "site/ML", **SETTINGS)
    resume = RunDirectory.holds_run(folder)
    with RunDirectory(folder, mixed, sampler=correction, resume=resume) as run:
        done = run.resume(simulation) if resume else 0
        run.attach(simulation, **INTERVALS)
        run.run(simulation, steps - done)
    return correction, simulation


@pytest.mark.parametrize("stop", [13, 30, 52], ids=["on the way up", "calm", "on the way down"])
def test_a_run_that_goes_on_has_its_counts_and_its_work(tmp_path, stop):
    """It stops while the parameter rises, while QM waits for the end of the calm time, and while it falls."""
    whole, simulation = run_in(tmp_path / "whole", 80)
    before, _ = run_in(tmp_path / "parts", stop)
    assert before.steps == stop
    resumed, again = run_in(tmp_path / "parts", 80)
    assert resumed.steps == whole.steps == 80
    assert resumed.steps_with_qm == whole.steps_with_qm > before.steps_with_qm > 0
    assert resumed.work._value == whole.work._value != before.work._value != 0.0
    assert again.context.getParameter("lambda_qm") == simulation.context.getParameter("lambda_qm") == 0.0
    first, second = (s.context.getState(positions=True).getPositions(asNumpy=True)._value for s in (simulation, again))
    np.testing.assert_array_equal(first, second)
    tables = [(tmp_path / name / "energies.csv").read_bytes() for name in ("whole", "parts")]
    assert tables[0] == tables[1]


def test_a_sampler_moves_the_simulation_of_its_run(tmp_path):
    mixed = Springs(lambda step: 10.0)
    correction = AdaptiveCorrection(mixed, mixed.started(), "site/ML", **SETTINGS)
    with (
        RunDirectory(tmp_path, mixed, sampler=correction) as run,
        pytest.raises(RunDirectoryError, match="the sampler of .* moves another Simulation"),
    ):
        run.attach(mixed.started(), **INTERVALS)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"parameter": "lambda_q"}, HamiltonianError, "no parameter 'lambda_q'.*Nearest names: lambda_qm"),
        ({"lower": 60.0}, SettingError, "0 < lower < upper"),
        ({"upper": float("nan")}, SettingError, "upper is a finite number"),
        ({"ramp_steps": 0}, SettingError, "ramp_steps is a whole number of steps of 1 or more, got 0"),
        ({"check_interval": 2.0}, SettingError, "check_interval is a whole number of steps"),
    ],
)
def test_wrong_settings_are_refused(change, error, text):
    mixed = Springs(lambda step: 0.0)
    with pytest.raises(error, match=text):
        AdaptiveCorrection(mixed, mixed.started(), "site/ML", **({"upper": 60.0, "lower": 40.0} | change))
