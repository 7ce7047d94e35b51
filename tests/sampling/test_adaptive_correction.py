"""The correction follows the uncertainty: thresholds, hysteresis, hand-over, and the energy that it costs."""

import csv

import numpy as np
import openmm
import pytest
from openmm import unit

from qmmlmm.errors import HamiltonianError
from qmmlmm.sampling.adaptive_correction import COLUMNS, AdaptiveCorrection
from tests.sampling.mixed_springs import MixedSprings


class Springs(MixedSprings):
    """With an "uncertainty" that is what the test says."""

    def __init__(self, uncertainties=None):
        super().__init__(400.0, 700.0, 0.04)
        self.uncertainties = uncertainties
        self.context = None

    def force_uncertainty(self, context, name):
        if self.uncertainties is None:  # larger where the springs differ more
            x = context.getState(positions=True).getPositions(asNumpy=True)._value
            value = 1000.0 * abs(float(x[0, 0]))
        else:
            value = self.uncertainties(self.context.getStepCount())
        return np.array([0.0, value]) * unit.kilojoule_per_mole / unit.nanometer

    def started(self, integrator):
        self.context = openmm.Context(self.system, integrator, openmm.Platform.getPlatform("Reference"))
        self.context.setPositions([[0.05, 0.01, 0.0]])
        self.context.setVelocities([[0.3, 0.1, -0.2]])
        return self.context


def run(uncertainties, steps, tmp_path, **options):
    mixed = Springs(uncertainties)
    context = mixed.started(openmm.VerletIntegrator(0.0005))
    settings = {"upper": 60.0, "lower": 40.0, "check_interval": 1, "ramp_steps": 10, "calm_steps": 30} | options
    correction = AdaptiveCorrection(mixed, context, "site/ML", record=tmp_path / "levels.csv", **settings)
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
    context = mixed.started(openmm.VerletIntegrator(0.0001))
    correction = AdaptiveCorrection(
        mixed, context, "site/ML", upper=45.0, lower=25.0, check_interval=20, ramp_steps=40, calm_steps=200
    )

    def total():
        state = context.getState(energy=True)
        return (state.getPotentialEnergy() + state.getKineticEnergy())._value

    balance, works, shares = [], [], []
    for _ in range(400):
        correction.step(20)
        works.append(correction.work._value)
        balance.append(total() - works[-1])
        shares.append(context.getParameter("lambda_qm"))
    assert max(shares) == 1.0
    assert min(shares) == 0.0
    assert np.ptp(works) > 0.1
    assert np.ptp(balance) < 2e-3 * np.ptp(works)


def test_a_run_that_goes_on_takes_the_parameter_where_it_is(tmp_path):
    mixed = Springs(lambda step: 100.0)
    context = mixed.started(openmm.VerletIntegrator(0.0005))
    options = {"upper": 60.0, "lower": 40.0, "ramp_steps": 10}
    AdaptiveCorrection(mixed, context, "site/ML", **options).step(4)
    share = context.getParameter("lambda_qm")
    assert 0 < share < 1
    second = AdaptiveCorrection(mixed, context, "site/ML", **options)
    second.step(1)
    assert share < context.getParameter("lambda_qm") < 1
    second.step(20)
    assert context.getParameter("lambda_qm") == 1.0


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"parameter": "lambda_q"}, HamiltonianError, "no parameter 'lambda_q'.*Nearest names: lambda_qm"),
        ({"lower": 60.0}, ValueError, "0 < lower < upper"),
        ({"upper": float("nan")}, ValueError, "0 < lower < upper"),
        ({"ramp_steps": 0}, ValueError, "ramp_steps is a whole number of steps above zero"),
        ({"check_interval": 2.0}, ValueError, "check_interval is a whole number"),
    ],
)
def test_wrong_settings_are_refused(change, error, text):
    mixed = Springs(lambda step: 0.0)
    context = mixed.started(openmm.VerletIntegrator(0.0005))
    with pytest.raises(error, match=text):
        AdaptiveCorrection(mixed, context, "site/ML", **({"upper": 60.0, "lower": 40.0} | change))
