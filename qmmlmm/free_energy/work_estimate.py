"""Free energies from the work of switching in both directions, with overlap and errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from openmm import unit
from scipy.special import expit

from qmmlmm.errors import ReweightingError
from qmmlmm.setting_checks import check_array, check_quantity, check_seed, check_whole_number
from qmmlmm.time_series import statistical_inefficiency
from qmmlmm.units import GAS_CONSTANT, FloatArray, IntArray, Scalar, Vectors

POOR_OVERLAP = 0.03
"""Overlap below which a free energy is not to be relied on.

Source: Klimovich, Shirts and Mobley, J. Comput. Aided Mol. Des. 29, 397 (2015).
"""

NO_OVERLAP = 1e-3
"""Overlap below which the second law alone limits the free energy."""

RESAMPLES = 500
MOST_RESAMPLES = 100_000

_BISECTIONS = 100
_FEWEST = 4


@dataclass(frozen=True)
class WorkEstimate:
    """The free energy of B less that of A, from the work of switching between them.

    Parameters
    ----------
    free_energy : Quantity, kJ/mol
        Bennett's acceptance ratio.
    error : Quantity, kJ/mol
        Standard error, from a bootstrap over trajectories. Without overlap it is half of the distance of the mean
        works, between which the second law puts the free energy.
    crossing : Quantity, kJ/mol
        Work at which the distributions of both directions cross, as normal distributions (Crooks).
    crossing_error : Quantity, kJ/mol
        Its standard error.
    overlap : float
        Overlap of the two distributions: 1 if they are one, 0 if they have nothing in common.
    lost_forward, lost_reverse : Quantity, kJ/mol
        Mean work less the free energy, in each direction: the work that is lost as heat.
    n_forward, n_reverse : int
        Numbers of trajectories.
    """

    free_energy: unit.Quantity
    error: unit.Quantity
    crossing: unit.Quantity
    crossing_error: unit.Quantity
    overlap: float
    lost_forward: unit.Quantity
    lost_reverse: unit.Quantity
    n_forward: int
    n_reverse: int

    @property
    def advice(self) -> str:
        """What to do about poor overlap; empty if it is not poor."""
        if self.overlap >= POOR_OVERLAP:
            return ""
        lost = (self.lost_forward + self.lost_reverse).value_in_unit(unit.kilojoule_per_mole) / 2.0
        return (
            f"the works of both directions hardly overlap ({self.overlap:.2g}, {POOR_OVERLAP:g} or more is needed), "
            f"and {lost:.1f} kJ/mol are lost in each: the free energy is not reliable. Switch more slowly (larger "
            "switch_steps), or put a level between these two (through=, such as a learned potential or XTBPotential); "
            "more trajectories do not help much"
        )


def work_estimate(
    forward: Vectors, reverse: Vectors, temperature: Scalar, *, seed: int = 1, resamples: int = RESAMPLES
) -> WorkEstimate:
    """Return the free energy of B less that of A, from the work of switching in both directions.

    Parameters
    ----------
    forward : (n,) Quantity or float array, kJ/mol
        Work of each switching from A to B.
    reverse : (m,) Quantity or float array, kJ/mol
        Work of each switching from B to A.
    temperature : Quantity or float, K
    seed : int
        Seed of the bootstrap.
    resamples : int
        Number of samples of the bootstrap.

    Raises
    ------
    ReweightingError
        If there are fewer than four works in a direction, or one is not a finite number.

    Notes
    -----
    The bootstrap draws blocks of successive trajectories, as long as the statistical inefficiency of their works.
    Sources: Bennett, J. Comput. Phys. 22, 245 (1976); Crooks, Phys. Rev. E 61,
    2361 (2000); crossing: Goette and Grubmüller, J. Comput. Chem. 30, 447 (2009). The overlap is one less the second
    eigenvalue of the overlap matrix of MBAR, as in Klimovich et al. The equation of Bennett's ratio is solved by
    bisection for all samples at once, which always converges; a test compares it with pymbar.
    """
    kt = GAS_CONSTANT * check_quantity("temperature", temperature, unit.kelvin, above=0.0, error=ReweightingError)
    check_seed("seed", seed, ReweightingError)
    check_whole_number("resamples", resamples, at_least=10, at_most=MOST_RESAMPLES, error=ReweightingError)
    works = []
    for name, values in (("forward", forward), ("reverse", reverse)):
        array = check_array(name, values, (None,), unit.kilojoule_per_mole, ReweightingError) / kt
        if len(array) < _FEWEST:
            raise ReweightingError(f"{name} has {_FEWEST} works or more, got {len(array)}")
        works.append(array)
    # Energies of levels have different zeros: numbers near zero lose no digits.
    zero = 0.5 * (works[0].mean() - works[1].mean())
    shifted = works[0] - zero, works[1] + zero
    value = _ratio(*shifted, *(np.ones((1, len(array))) for array in works))[0]
    overlap = work_overlap(*shifted, value)
    random = np.random.default_rng(seed)
    counts = [_bootstrap_counts(array, resamples, random) for array in works]
    drawn = _ratio(*shifted, *counts)
    crossings = _crossings(*shifted, *counts)
    lost = shifted[0].mean() - value, shifted[1].mean() + value
    error = float(drawn.std(ddof=1))
    if overlap < NO_OVERLAP:
        error = max(error, 0.5 * (lost[0] + lost[1]))
    in_kj = kt * unit.kilojoule_per_mole
    return WorkEstimate(
        (value + zero) * in_kj,
        error * in_kj,
        (_crossings(*shifted, *(np.ones((1, len(array))) for array in works))[0] + zero) * in_kj,
        float(crossings.std(ddof=1)) * in_kj,
        overlap,
        lost[0] * in_kj,
        lost[1] * in_kj,
        len(works[0]),
        len(works[1]),
    )


def _ratio(forward: FloatArray, reverse: FloatArray, times: FloatArray, other_times: FloatArray) -> FloatArray:
    """Return the root of Bennett's equation for each sample, in kT.

    Parameters
    ----------
    forward, reverse : (n,) and (m,) float arrays, kT
    times, other_times : (samples, n) and (samples, m) float arrays
        How often each work is in a sample.
    """
    shift = np.log(times.sum(axis=1) / other_times.sum(axis=1))
    low = np.full(len(times), min(forward.min(), -reverse.max()) - 1.0) - np.abs(shift)
    high = np.full(len(times), max(forward.max(), -reverse.min()) + 1.0) + np.abs(shift)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        # The sum rises with the free energy.
        accepted = (times * expit(middle[:, None] - forward - shift[:, None])).sum(axis=1)
        back = (other_times * expit(shift[:, None] - middle[:, None] - reverse)).sum(axis=1)
        above = accepted > back
        high = np.where(above, middle, high)
        low = np.where(above, low, middle)
        if (high - low).max() < 1e-13 * max(1.0, np.abs(middle).max()):
            break
    found: FloatArray = 0.5 * (low + high)
    return found


def work_overlap(forward: FloatArray, reverse: FloatArray, value: float) -> float:
    """Return one less the second eigenvalue of MBAR's overlap matrix of two states.

    Parameters
    ----------
    forward, reverse : (n,) and (m,) float arrays, kT
    value : float, kT
        Free energy.
    """
    shift = math.log(len(forward) / len(reverse))
    first = expit(np.concatenate([forward, -reverse]) - value + shift)
    trace = (first**2).sum() / len(forward) + ((1.0 - first) ** 2).sum() / len(reverse)
    return float(min(1.0, max(0.0, 2.0 - trace)))


def _crossings(forward: FloatArray, reverse: FloatArray, times: FloatArray, other_times: FloatArray) -> FloatArray:
    """Return where two normal distributions cross, nearest to the middle of their means, for each sample, in kT."""
    mean, variance = _moments(forward, times)
    other_mean, other_variance = _moments(-reverse, other_times)
    middle = 0.5 * (mean + other_mean)
    first, second = 1.0 / np.maximum(variance, 1e-24), 1.0 / np.maximum(other_variance, 1e-24)
    # The distributions cross where first (w - mean)^2 - second (w - other_mean)^2 = ln(first / second).
    a = first - second
    half_b = first * mean - second * other_mean
    c = first * mean**2 - second * other_mean**2 - np.log(first / second)
    root = np.sqrt(np.maximum(half_b**2 - a * c, 0.0))
    equal = np.abs(a) < 1e-9 * (first + second)
    safe = np.where(equal, 1.0, a)
    roots = np.stack([(half_b + root) / safe, (half_b - root) / safe])
    nearest = np.take_along_axis(roots, np.abs(roots - middle).argmin(axis=0)[None], axis=0)[0]
    found: FloatArray = np.where(equal, middle, nearest)
    return found


def _moments(values: FloatArray, times: FloatArray) -> tuple[FloatArray, FloatArray]:
    count = times.sum(axis=1)
    mean = times @ values / count
    variance = (times * (values - mean[:, None]) ** 2).sum(axis=1) / np.maximum(count - 1.0, 1.0)
    return mean, variance


def _bootstrap_counts(series: FloatArray, resamples: int, random: np.random.Generator) -> FloatArray:
    """Return how often each work is in each sample of a circular block bootstrap, (resamples, n).

    One block fewer is drawn than there are: so the variance of a mean has no bias.
    """
    n = len(series)
    length = min(math.ceil(statistical_inefficiency(series)), n // 2)
    starts = random.integers(n, size=(resamples, max(1, round(n / length) - 1)))
    drawn: IntArray = ((starts[:, :, None] + np.arange(length)) % n).reshape(resamples, -1)
    counts = np.zeros((resamples, n))
    np.add.at(counts, (np.arange(resamples)[:, None], drawn), 1.0)
    return counts
