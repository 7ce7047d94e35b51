"""Averages and free energies of harmonic oscillators, which are known, from samples of other ones."""

from __future__ import annotations

import numpy as np
import pytest
from openmm import unit

from qmmlmm.errors import QmmlmmWarning, ReweightingError
from qmmlmm.free_energy.reweighting import bennett_acceptance_ratio, multistate_free_energies, reweight
from qmmlmm.time_series import statistical_inefficiency

TEMPERATURE = 300.0
KT = (unit.MOLAR_GAS_CONSTANT_R * TEMPERATURE * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)
FIRST, SECOND = (2.0, 0.0, 0.0), (3.0, 0.4, 1.5)  # stiffness / kT, minimum, offset in kJ/mol
EXACT = SECOND[2] + 0.5 * KT * np.log(SECOND[0] / FIRST[0])


def energy(state, x):
    stiffness, minimum, offset = state
    return 0.5 * stiffness * KT * (x - minimum) ** 2 + offset


def samples(state, n, seed, correlation=0.0):
    """Draw from an oscillator, each frame correlated with the one before."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=n)
    x = np.empty(n)
    x[0] = noise[0]
    for k in range(1, n):
        x[k] = correlation * x[k - 1] + np.sqrt(1 - correlation**2) * noise[k]
    return state[1] + x / np.sqrt(state[0])


def difference(x):
    return energy(SECOND, x) - energy(FIRST, x)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_averages_of_the_other_ensemble_and_their_errors(correlation):
    """Over many trajectories: estimates agree with the exact values, and errors with their spread."""
    found = []
    for seed in range(40):
        x = samples(FIRST, 4000, seed, correlation)
        result = reweight(difference(x) * unit.kilojoule_per_mole, TEMPERATURE * unit.kelvin)
        mean, mean_error = result.mean(x * unit.nanometer)
        found.append(
            (
                result.free_energy._value,
                result.free_energy_error._value,
                mean.value_in_unit(unit.nanometer),
                mean_error.value_in_unit(unit.nanometer),
            )
        )
        assert result.weights.sum() == pytest.approx(1.0)
    values = np.array(found)
    for column, exact in ((0, EXACT), (2, SECOND[1])):
        spread = values[:, column].std(ddof=1)
        assert values[:, column].mean() == pytest.approx(exact, abs=3.5 * spread / np.sqrt(40))
        assert values[:, column + 1].mean() == pytest.approx(spread, rel=0.35)


def test_correlated_frames_count_less():
    results = [reweight(difference(samples(FIRST, 4000, 5, c)), TEMPERATURE) for c in (0.0, 0.95)]
    assert results[0].inefficiency < 1.3
    assert results[1].inefficiency > 8
    assert results[1].effective_samples < 0.2 * results[0].effective_samples


def test_no_difference_gives_all_frames_the_same_weight():
    x = samples(FIRST, 500, 3)
    result = reweight(np.full(500, 7.5), TEMPERATURE)
    np.testing.assert_allclose(result.weights, 1 / 500)
    assert result.free_energy._value == pytest.approx(7.5)
    assert result.free_energy_error._value == pytest.approx(0.0, abs=1e-9)
    assert result.mean(x)[0] == pytest.approx(x.mean())
    assert result.effective_samples == pytest.approx(500)


def test_histograms():
    edges = np.linspace(-2, 3, 11)
    result_x = samples(FIRST, 20000, 8)
    result = reweight(difference(result_x), TEMPERATURE)
    found, errors = result.histogram(result_x, edges)
    fresh = np.histogram(samples(SECOND, 200000, 9), edges)[0] / 200000
    assert np.abs(found - fresh).max() < 4 * errors.max()
    assert (np.abs(found - fresh) < 4 * errors + 2e-3).all()
    in_angstrom, _ = result.histogram(result_x * unit.nanometer, edges * 10 * unit.angstrom)
    np.testing.assert_allclose(in_angstrom, found)


def test_a_few_frames_that_carry_all_weight_are_warned_of():
    x = samples((2.0, -3.0, 0.0), 300, 4)
    with pytest.warns(QmmlmmWarning, match=r"effective samples of 300 frames.*A few frames dominate the average"):
        reweight(energy((40.0, 1.0, 0.0), x) - energy((2.0, -3.0, 0.0), x), TEMPERATURE)


def test_a_few_correlated_frames_of_even_weight_are_told_from_uneven_weights():
    rng = np.random.default_rng(6)
    differences = np.repeat(rng.normal(scale=0.2, size=15), 4)  # kJ/mol; in groups of four equal frames
    with pytest.warns(QmmlmmWarning, match=r"of 60 frames: the weights leave 59\.\d.*The weights are even") as caught:
        weights = reweight(differences, TEMPERATURE)
    assert f"only {weights.effective_samples:.1f} effective" in str(caught[0].message)
    assert weights.effective_samples < 30


def test_bennett():
    values = []
    for seed in range(20):
        forward = difference(samples(FIRST, 500, seed))
        reverse = -difference(samples(SECOND, 400, 100 + seed))
        values.append([v._value for v in bennett_acceptance_ratio(forward, reverse, TEMPERATURE)])
    free, errors = np.array(values).T
    assert free.mean() == pytest.approx(EXACT, abs=3.5 * free.std() / np.sqrt(20))
    assert errors.mean() == pytest.approx(free.std(ddof=1), rel=0.4)


def test_several_states():
    states = [FIRST, (2.4, 0.2, 0.5), SECOND]
    tables = []
    for k, state in enumerate(states):
        x = samples(state, 1500, 20 + k, 0.5)
        tables.append(np.stack([energy(other, x) for other in states], axis=1) * unit.kilojoule_per_mole)
    free, errors = (value.value_in_unit(unit.kilojoule_per_mole) for value in multistate_free_energies(tables, 300.0))
    exact = [s[2] + 0.5 * KT * np.log(s[0] / FIRST[0]) for s in states]
    assert free[0] == errors[0] == 0.0
    assert (np.abs(free - exact) < 4 * errors + 1e-12).all()
    assert (errors[1:] < 0.15).all()


def test_inefficiency_of_an_autoregressive_series():
    found = statistical_inefficiency(samples(FIRST, 20000, 1, 0.8))
    assert found == pytest.approx((1 + 0.8) / (1 - 0.8), rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((np.zeros(5), 300.0), "ten energies or more"),
        ((np.zeros((20, 2)), 300.0), r"shape \(20, 2\)"),
        ((np.append(np.zeros(20), np.nan), 300.0), "differences is finite, but is not at 20"),
        ((np.zeros(20), 0.0), "temperature is a number above zero"),
    ],
)
def test_wrong_samples_are_refused(arguments, text):
    with pytest.raises(ReweightingError, match=text):
        reweight(*arguments)


def test_wrong_shapes_are_refused():
    with pytest.raises(ReweightingError, match="2 values were given for 60 frames"):
        reweight(np.zeros(60), 300.0).mean([1.0, 2.0])
    with pytest.raises(ReweightingError, match="state 1 of 2"):
        multistate_free_energies([np.zeros((10, 2)), np.zeros((10, 3))], 300.0)


@pytest.mark.parametrize("gap", [100.0, 1000.0])
def test_works_that_do_not_overlap_are_a_warning(gap):
    rng = np.random.default_rng(4)
    with pytest.warns(QmmlmmWarning, match="forward and reverse hardly overlap .* Switch more slowly"):
        _, error = bennett_acceptance_ratio(gap + rng.normal(size=50), gap + rng.normal(size=50), TEMPERATURE)
    assert not np.isnan(error._value)


def test_states_that_do_not_overlap_have_an_infinite_error_and_a_warning():
    rng = np.random.default_rng(4)
    tables = [np.stack([0.0 * x, sign * 4000.0 + x], axis=1) for sign in (1, -1) for x in [rng.normal(size=50)]]
    with pytest.warns(QmmlmmWarning, match="states 1 hardly overlap with the first one"):
        _, errors = multistate_free_energies(tables, TEMPERATURE)
    assert errors._value.tolist() == [0.0, np.inf]


def test_a_state_that_is_connected_through_others_has_an_error():
    rng = np.random.default_rng(4)
    # States of equal width at 0, 2.5, 5 and 7.5 widths: the first and the last have nothing in common.
    tables = [
        np.stack([0.5 * KT * (x - 2.5 * other) ** 2 for other in range(4)], axis=1)
        for k in range(4)
        for x in [rng.normal(2.5 * k, 1.0, size=400)]
    ]
    free, errors = multistate_free_energies(tables, TEMPERATURE)
    assert np.isfinite(errors._value).all()
    assert np.abs(free._value[1:]) == pytest.approx(0.0, abs=3.0 * errors._value.max())
