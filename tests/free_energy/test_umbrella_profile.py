"""Profiles from samples of windows whose densities are known exactly."""

from __future__ import annotations

import csv
import itertools

import numpy as np
import pytest
from openmm import unit
from scipy.special import ndtr

from qmmlmm.errors import QmmlmmWarning, ReweightingError, SettingError
from qmmlmm.free_energy import umbrella_profile
from qmmlmm.free_energy.umbrella_mbar import Umbrellas, gather, solve_mbar
from qmmlmm.units import GAS_CONSTANT

TEMPERATURE = 300.0
KT = GAS_CONSTANT * TEMPERATURE
CENTRES = np.linspace(-1.2, 1.2, 13)
CONSTANT = 150.0
EDGES = np.linspace(-1.2, 1.2, 25)
GRID = np.linspace(-2.0, 2.0, 40001)


LARGEST_ERROR = 0.8
"""kJ/mol: 0.54 from 4000 samples in each window, a fifth of them independent; the barrier is 21."""

INSIDE = 0.8
"""Share of bins within two standard errors, of which 95 % are expected and neighbours deviate together."""

FARTHEST = 3.5
"""Standard errors that one of some thirty bins may be off, once in a hundred tests."""


def double_well(x):
    """Energy of 20 kJ/mol between two wells of different depth."""
    return 20.0 * (x**2 - 1.0) ** 2 + 3.0 * x


def other_well(x):
    """Energy of another Hamiltonian."""
    return double_well(x) + 4.0 * np.sin(2.0 * x) + 2.0 * x**2


def draw(energy, n, generator, grid=GRID, correlation=0.0):
    """Draw from exp(-E/kT) on a grid; correlated by a Gaussian copula."""
    density = np.exp(-(energy - energy.min()) / KT)
    cumulated = np.cumsum(density) / density.sum()
    noise = generator.normal(size=n)
    for k in range(1, n):
        noise[k] = correlation * noise[k - 1] + np.sqrt(1.0 - correlation**2) * noise[k]
    return np.interp(ndtr(noise), cumulated, grid)


def windows(seed, n=800, correlation=0.8, energy=double_well):
    generator = np.random.default_rng(seed)
    return [
        draw(energy(GRID) + 0.5 * CONSTANT * (GRID - centre) ** 2, n, generator, correlation=correlation)
        for centre in CENTRES
    ]


def exact(energy=double_well, edges=EDGES, grid=GRID):
    """Return -kT ln of the probability of each bin within the edges."""
    density = np.exp(-energy(grid) / KT)
    sums = np.array([density[(grid >= a) & (grid < b)].sum() for a, b in itertools.pairwise(edges)])
    return -KT * np.log(sums / sums.sum())


def profile_of(samples, **settings):
    return umbrella_profile(samples, CENTRES, [CONSTANT] * len(CENTRES), TEMPERATURE, **{"edges": EDGES, **settings})


def normed(profile):
    """Return the profile so that the probabilities of its bins sum to one, as `exact` and the errors have it."""
    energy = profile.free_energy._value
    return energy + KT * np.log(np.exp(-energy / KT).sum())


def test_every_bin_of_a_double_well_is_within_two_standard_errors(truth):
    profile = profile_of(windows(11, n=4000))
    deviations = (normed(profile) - exact()) / profile.error._value
    check = "double well, samples drawn from its windows: every bin from the exact profile"
    truth.below(check, abs(deviations).max(), 2.0, "standard errors")
    assert profile.error._value.max() < LARGEST_ERROR
    barrier = profile.barrier()
    reference = exact()
    k, t, p = (int(np.argmin(abs(profile.values - x))) for x in (barrier.reactant, barrier.top, barrier.product))
    assert (barrier.reactant, barrier.top, barrier.product) == pytest.approx((-1.05, 0.05, 0.95), abs=0.11)
    assert abs(barrier.height._value - (reference[t] - reference[k])) < 2.0 * barrier.error._value
    assert abs(barrier.reverse_height._value - (reference[t] - reference[p])) < 2.0 * barrier.reverse_error._value
    assert barrier.error._value < LARGEST_ERROR


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:windows have fewer:qmmlmm.errors.QmmlmmWarning")
def test_errors_are_honest_over_twenty_seeds(truth):
    """Of the profile itself, and of the reweighted one."""
    inside, reweighted, spread, predicted = [], [], [], []
    for seed in range(20):
        samples = windows(seed)
        profile = profile_of(samples)
        away = normed(profile) - exact()
        inside.append((abs(away) < 2.0 * profile.error._value).mean())
        spread.append(away)
        predicted.append(profile.error._value)
        noise = np.random.default_rng(100 + seed)
        differences = [other_well(x) - double_well(x) + noise.normal(size=len(x)) for x in samples]
        found = profile.reweighted(samples, differences)
        reweighted.append((abs(normed(found) - exact(other_well)) < 2.0 * found.error._value).mean())
    check = "double well, 20 seeds: bins within two standard errors"
    truth.between(check, 100.0 * np.mean(inside), 80.0, 100.0, "%")
    truth.between(f"{check}, reweighted to another well", 100.0 * np.mean(reweighted), 80.0, 100.0, "%")
    measured = np.std(spread, axis=0)
    assert np.mean(predicted) == pytest.approx(measured.mean(), rel=0.25)


def test_the_solver_of_the_bootstrap_is_that_of_pymbar():
    series = windows(3)
    counts = np.array([len(one) for one in series])
    empty = np.zeros(len(series))
    state = Umbrellas(CENTRES, np.full(13, CONSTANT), counts, None, KT, empty, empty[None])
    mine = gather(series, np.ones(13), state).solve(None, empty)
    theirs = solve_mbar(state.reduced(np.concatenate(series)), counts, empty)
    # Samples are gathered in bins of a twentieth of a window's width.
    assert mine == pytest.approx(theirs - theirs[0], abs=2e-3)


def test_a_periodic_variable_is_joined_at_its_period():
    grid = np.linspace(-np.pi, np.pi, 20001)[:-1]
    edges = np.linspace(-np.pi, np.pi, 37)

    def torsion(x):
        return 6.0 * (1.0 + np.cos(3.0 * x)) + 2.0 * np.cos(x)

    centres, generator, samples = np.linspace(-np.pi, np.pi, 19)[:-1] + 0.05, np.random.default_rng(2), []
    for centre in centres:
        away = (grid - centre + np.pi) % (2.0 * np.pi) - np.pi
        order = np.argsort(away)
        drawn = draw((torsion(grid) + 40.0 * away**2)[order], 3000, generator, away[order], 0.5)
        samples.append((drawn + centre + np.pi) % (2.0 * np.pi) - np.pi)
    profile = umbrella_profile(samples, centres, [80.0] * 18, TEMPERATURE, bins=36, period=2.0 * np.pi)
    deviations = abs(normed(profile) - exact(torsion, edges, grid)) / profile.error._value
    assert (deviations < 2.0).mean() >= INSIDE
    assert deviations.max() < FARTHEST
    over_pi = profile.barrier(reactant=2.9, product=-3.0 + 2.0)
    assert over_pi.top == pytest.approx(-2.1, abs=0.2)
    across = profile.barrier(reactant=-1.0, product=1.0)
    # The way over pi has the lower top, 11 in place of 14 kJ/mol.
    assert abs(across.top) == pytest.approx(2.09, abs=0.2)
    with pytest.raises(SettingError, match="two ways: give reactant and product"):
        profile.barrier()
    with pytest.raises(SettingError, match="in the same minimum"):
        profile.barrier(0.9, 1.2)


def test_reweighting_gives_the_profile_of_the_other_hamiltonian():
    samples = windows(4, n=2000)
    generator = np.random.default_rng(5)
    profile = profile_of(samples)
    # A part of the difference does not depend on the variable.
    noise = [generator.normal(size=len(x)) for x in samples]
    differences = [
        (other_well(x) - double_well(x) + e + 700.0) * unit.kilojoule_per_mole
        for x, e in zip(samples, noise, strict=True)
    ]
    found = profile.reweighted(samples, differences)
    deviations = abs(normed(found) - exact(other_well)) / found.error._value
    assert (deviations < 2.0).mean() >= INSIDE
    assert deviations.max() < FARTHEST
    assert (found.samples < profile.samples).all()
    assert (found.error._value > profile.error._value).mean() > 0.5
    assert found.barrier().height._value != profile.barrier().height._value


def test_frames_of_little_weight_are_a_warning():
    samples = windows(4)
    profile = profile_of(samples)
    noise = np.random.default_rng(5)
    differences = [15.0 * noise.normal(size=len(x)) for x in samples]
    with pytest.warns(QmmlmmWarning, match="fewer than 10 effective samples after reweighting"):
        profile.reweighted(samples, differences)


def test_windows_that_do_not_overlap_are_a_warning_that_names_them():
    samples = windows(6)
    kept = [k for k in range(13) if k not in (4, 5)]
    with pytest.warns(QmmlmmWarning, match=r"overlap by less than 0.03: -0.6 and 0 \(0.0.*add windows"):
        umbrella_profile([samples[k] for k in kept], CENTRES[kept], [CONSTANT] * 11, TEMPERATURE)


def test_windows_of_few_correlation_times_are_a_warning():
    with pytest.warns(QmmlmmWarning, match="fewer than 20 independent samples"):
        profile_of(windows(7, n=60, correlation=0.95))


def test_a_profile_knows_whether_its_windows_suffice(tmp_path):
    profile = profile_of(windows(3))
    assert profile.is_reliable
    near = [profile.overlap[k, k + 1] for k in range(len(CENTRES) - 1)]
    back = [profile.overlap[k + 1, k] for k in range(len(CENTRES) - 1)]
    assert profile.smallest_overlap == min(near + back) >= 0.03
    assert np.allclose(profile.independent_samples * profile.inefficiencies, 800)
    profile.write_overlap_csv(tmp_path / "overlap.csv")
    header, *rows = (tmp_path / "overlap.csv").read_text().splitlines()
    assert header.startswith('#"Centre","-1.2","-1",')
    table = np.array([[float(x) for x in row.split(",")] for row in rows])
    assert np.allclose(table[:, 0], CENTRES)
    assert np.allclose(table[:, 1:], profile.overlap, atol=1e-7)
    with pytest.warns(QmmlmmWarning, match="independent samples"):
        assert not profile_of(windows(3, n=30)).is_reliable


def test_the_table_has_a_row_for_each_bin(tmp_path):
    profile = profile_of(windows(1), name="stretch (nm)")
    profile.write_csv(tmp_path / "profile.csv")
    rows = list(csv.reader((tmp_path / "profile.csv").read_text().splitlines()))
    assert rows[0] == ['#"stretch (nm)"', "Free Energy (kJ/mol)", "Standard Error (kJ/mol)", "Samples"]
    numbers = np.array(rows[1:], dtype=float)
    assert numbers[:, 0] == pytest.approx(profile.values)
    assert numbers[:, 1] == pytest.approx(profile.free_energy._value, abs=1e-6)
    assert profile.overlap.sum(axis=1) == pytest.approx(np.ones(13))


def test_a_bin_without_samples_is_no_number_and_no_barrier():
    samples = [one[(one < 0.1) | (one > 0.3)] for one in windows(1, n=2000)]
    profile = profile_of(samples)
    assert np.isnan(profile.free_energy._value).any()
    with pytest.raises(ReweightingError, match="no sample is at 0.15"):
        profile.barrier(-1.0, 1.0)


ONE = {"samples": [np.zeros(20)] * 2, "centres": [0.0, 1.0], "force_constants": [1.0, 1.0], "temperature": 300.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": [np.zeros(5)] * 2}, "samples of window 0 are ten or more, got 5"),
        ({"samples": []}, "a series for each of one or more windows, got 0"),
        ({"samples": "x"}, "samples are a list with a series"),
        ({"centres": [0.0]}, "centres has the shape"),
        ({"force_constants": [1.0, 0.0]}, "force_constants are above zero"),
        ({"temperature": -1.0}, "temperature is a number above zero"),
        ({"bins": 1}, "bins is a whole number from 2"),
        ({"edges": [0.0, 1.0]}, "edges ascend and are three or more"),
        ({"edges": [0.0, 1.0, 9.0], "period": 6.0}, "edges lie within half a period"),
        ({"period": 0.0}, "period is a number above zero"),
        ({"edges": [5.0, 6.0, 7.0]}, "no sample lies within the edges"),
        ({"centres": [0.0, 0.0]}, "all centres are the same"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ReweightingError, match=message):
        umbrella_profile(**{**ONE, **changes})


def test_a_barrier_that_is_not_there_is_an_error():
    profile = profile_of(windows(1, energy=lambda x: 5.0 * x**2), edges=EDGES)
    with pytest.raises(SettingError, match="both or none"):
        profile.barrier(reactant=0.5)
    with pytest.raises(SettingError, match="reactant lies between -1.2 and 1.2"):
        profile.barrier(-3.0, 0.0)
    steep = profile_of(windows(1, energy=lambda x: 20.0 * x), edges=EDGES)
    with pytest.raises(ReweightingError, match="no maximum between two minima"):
        steep.barrier()


def test_series_of_another_length_cannot_be_reweighted():
    samples = windows(1)
    profile = profile_of(samples)
    with pytest.raises(ReweightingError, match="differences are a series for each of 13 windows, got 1"):
        profile.reweighted(samples, samples[:1])
    with pytest.raises(ReweightingError, match="window 0 has 800 values and 799 differences"):
        profile.reweighted(samples, [one[1:] for one in samples])
