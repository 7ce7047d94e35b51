"""Free energies from work of both directions: exact answers, pymbar's, and the coverage of the errors."""

from __future__ import annotations

import numpy as np
import pytest
from openmm import unit

from qmmlmm.errors import ReweightingError
from qmmlmm.free_energy.work_estimate import POOR_OVERLAP, work_estimate
from qmmlmm.time_series import import_pymbar

TEMPERATURE = 300.0
KT = (unit.MOLAR_GAS_CONSTANT_R * TEMPERATURE * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)
STIFF, SHIFT = 3.0, 1.5  # ratio of the force constants; distance of the minima in widths of the first well
EXACT = 0.5 * KT * np.log(STIFF)

SAME_ROOT = 1e-7
"""kT: pymbar's iteration ends at a relative change of 1e-12 of numbers near ten."""


def gaussian_works(seed, n, free_energy=4.0, spread=2.0):
    """Draw works in kT that obey Crooks' theorem: normal, with the mean lost work spread^2/2 in each direction."""
    rng = np.random.default_rng(seed)
    lost = 0.5 * spread**2
    return rng.normal(free_energy + lost, spread, n), rng.normal(-free_energy + lost, spread, n)


def switched_works(seed, repeats, n, parts):
    """Return works, (repeats, n) kT each, of overdamped particles between two harmonic wells, all at once."""
    rng = np.random.default_rng(seed)
    shape = (repeats, n)
    works = []
    for start in (0.0, 1.0):
        stiffness, minimum = (1.0, 0.0) if start == 0.0 else (STIFF, SHIFT)
        x = minimum + rng.normal(size=shape) / np.sqrt(stiffness)
        work = np.zeros(shape)
        for k in range(parts):
            # An exact change of the energy, then a move that keeps the distribution of the present energy.
            upper = 0.5 * STIFF * (x - SHIFT) ** 2 - 0.5 * x**2
            work += (1.0 - 2.0 * start) / parts * upper
            value = (k + 1) / parts if start == 0.0 else 1.0 - (k + 1) / parts
            stiffness = 1.0 - value + value * STIFF
            mean = value * STIFF * SHIFT / stiffness
            x = mean + 0.8 * (x - mean) + rng.normal(size=shape) * np.sqrt((1.0 - 0.8**2) / stiffness)
        works.append(work)
    return works


def in_kj(estimate):
    return estimate.free_energy._value, estimate.error._value


# pymbar passes one set of options to all of SciPy's solvers.
@pytest.mark.filterwarnings("ignore:Unknown solver options")
@pytest.mark.parametrize("counts", [(40, 40), (25, 90)])
def test_the_ratio_is_that_of_pymbar(truth, counts):
    other = import_pymbar().other_estimators
    for seed in range(5):
        forward, reverse = gaussian_works(seed, 100)
        forward, reverse = forward[: counts[0]], reverse[: counts[1]]
        found = work_estimate(forward * KT, reverse * KT, TEMPERATURE, resamples=10)
        expected = other.bar(forward, reverse)["Delta_f"]
        difference = found.free_energy._value / KT - expected
        truth.below("Bennett's ratio against pymbar: free energy", difference, SAME_ROOT, "kT")
        overlap = found.overlap - other.bar_overlap(forward, reverse)
        truth.below("Bennett's ratio against pymbar: overlap", overlap, 1e-6, "")


def test_the_zero_of_energy_does_not_matter():
    forward, reverse = gaussian_works(3, 60)
    near = work_estimate(forward * KT, reverse * KT, TEMPERATURE)
    far = work_estimate(forward * KT - 2e5, reverse * KT + 2e5, TEMPERATURE)
    assert far.free_energy._value + 2e5 == pytest.approx(near.free_energy._value, abs=1e-8)
    assert far.error._value == pytest.approx(near.error._value, rel=1e-6)
    assert far.overlap == pytest.approx(near.overlap, abs=1e-8)


def test_normal_works_cross_at_the_free_energy():
    forward, reverse = gaussian_works(7, 2000)
    found = work_estimate(forward * KT, reverse * KT, TEMPERATURE, resamples=50)
    assert found.crossing._value == pytest.approx(4.0 * KT, abs=2.0 * found.crossing_error._value)
    assert found.free_energy._value == pytest.approx(4.0 * KT, abs=2.0 * found.error._value)
    assert found.lost_forward._value == pytest.approx(2.0 * KT, abs=0.1 * KT)


@pytest.mark.parametrize("n", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_nineteen_of_twenty_intervals_hold_the_exact_free_energy(truth, n):
    repeats = 200
    forward, reverse = switched_works(11, repeats, n, 10)
    inside, errors, values = 0, [], []
    for k in range(repeats):
        value, error = in_kj(work_estimate(forward[k] * KT, reverse[k] * KT, TEMPERATURE, seed=k, resamples=100))
        inside += abs(value - EXACT) < 1.959964 * error
        errors.append(error)
        values.append(value)
    check = "200 repeats with 20 and with 60 trajectories: 95 % intervals that hold the exact free energy"
    truth.between(check, 100.0 * inside / repeats, 90.0, 99.0, "%")
    assert np.mean(values) == pytest.approx(EXACT, abs=4.0 * np.std(values) / np.sqrt(repeats))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


def test_correlated_works_have_larger_errors():
    rng = np.random.default_rng(5)
    series = []
    for _ in range(2):
        noise = rng.normal(size=800)
        for k in range(1, 800):
            noise[k] = 0.9 * noise[k - 1] + np.sqrt(1 - 0.81) * noise[k]
        series.append(0.5 * 0.25 + 0.5 * noise)
    mixed = [rng.permutation(one) for one in series]
    correlated, independent = (work_estimate(a * KT, b * KT, TEMPERATURE, resamples=100) for a, b in (series, mixed))
    # The variance of a mean is (1 + 0.9) / (1 - 0.9) times as large.
    assert correlated.error._value / independent.error._value == pytest.approx(np.sqrt(19.0), rel=0.35)


def test_equal_works_have_no_error():
    found = work_estimate(np.full(10, 7.5), np.full(12, -7.5), TEMPERATURE)
    assert found.free_energy._value == pytest.approx(7.5, abs=1e-12)
    assert found.error._value == pytest.approx(0.0, abs=1e-12)
    assert found.crossing._value == pytest.approx(7.5, abs=1e-9)
    assert found.overlap == pytest.approx(1.0)
    assert found.advice == ""


def test_without_overlap_the_error_is_what_the_second_law_leaves():
    rng = np.random.default_rng(2)
    forward, reverse = 200.0 + rng.normal(size=30), -50.0 + rng.normal(size=30)
    found = work_estimate(forward, reverse, TEMPERATURE)
    value, error = in_kj(found)
    assert found.overlap < 1e-6
    assert value - error <= 50.0 + 1.0
    assert value + error >= 200.0 - 1.0
    assert np.isfinite([value, error, found.crossing._value, found.crossing_error._value]).all()
    assert "larger switch_steps" in found.advice
    assert "put a level between" in found.advice


def test_advice_comes_with_poor_overlap_only():
    for spread, poor in ((1.0, False), (6.0, True)):
        forward, reverse = gaussian_works(1, 100, spread=spread)
        found = work_estimate(forward * KT, reverse * KT, TEMPERATURE)
        assert (found.overlap < POOR_OVERLAP) == poor
        assert bool(found.advice) == poor


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"forward": [1.0, 2.0, 3.0]}, "forward has 4 works or more, got 3"),
        ({"reverse": [1.0, np.nan, 3.0, 4.0]}, "reverse is finite, but is not at 1"),
        ({"temperature": 0.0}, "temperature is a number above zero"),
        ({"resamples": 1}, "resamples is a whole number from 10"),
    ],
)
def test_wrong_arguments_are_refused(change, text):
    arguments = {"forward": np.arange(9.0), "reverse": -np.arange(9.0), "temperature": 300.0} | change
    with pytest.raises(ReweightingError, match=text):
        work_estimate(**arguments)
