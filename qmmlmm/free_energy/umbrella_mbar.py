"""MBAR over umbrella windows along one variable: free energies of windows and bins, and a bootstrap over blocks."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from qmmlmm.errors import ReweightingError
from qmmlmm.free_energy.reweighting import length_of_blocks, split_into_blocks
from qmmlmm.time_series import import_pymbar
from qmmlmm.units import FloatArray, IntArray

FINE = 0.05
"""Largest width of the bins in which samples are gathered for the bootstrap, in standard deviations of a window."""

MOST_ITERATIONS = 200
CONVERGED = 1e-9


@dataclass(frozen=True, eq=False)
class Umbrellas:
    """Umbrellas and their free energies.

    Parameters
    ----------
    centres, constants : (k,) float arrays
    counts : (k,) int array
        Number of samples.
    period : float or None
    kt : float, kJ/mol
    shifts : (k,) float array
        Free energies over kT.
    replicate_shifts : (r, k) float array
        Those of the bootstrap.
    """

    centres: FloatArray
    constants: FloatArray
    counts: IntArray
    period: float | None
    kt: float
    shifts: FloatArray
    replicate_shifts: FloatArray

    def wrapped(self, values: FloatArray) -> FloatArray:
        """Return values within half a period about zero."""
        if self.period is None:
            return values
        return np.asarray(values - self.period * np.floor(values / self.period + 0.5))

    def reduced(self, values: FloatArray) -> FloatArray:
        """Return the energies of all umbrellas over kT, (k, n)."""
        away = self.wrapped(values[None, :] - self.centres[:, None])
        return np.asarray(0.5 * self.constants[:, None] * away**2 / self.kt)

    def log_density(self, values: FloatArray, shifts: FloatArray) -> FloatArray:
        """Return the logarithm of the sum of the windows' densities over the unbiased one, (n,)."""
        return np.asarray(logsumexp((shifts + np.log(self.counts))[:, None] - self.reduced(values), axis=0))


@dataclass(frozen=True, eq=False)
class GatheredSamples:
    """Samples in fine bins, by blocks, for the bootstrap.

    Parameters
    ----------
    values : (m,) float array
        Mean of the samples in each bin that has some.
    block_counts : list of (b_k, m) float arrays
        Samples, or their weights, of each block of each window.
    windows : Umbrellas
    """

    values: FloatArray
    block_counts: list[FloatArray]
    windows: Umbrellas

    def draw(self, generator: np.random.Generator) -> FloatArray:
        """Return the samples of each window, (k, m), after drawing its blocks with replacement."""
        return np.array([
            generator.multinomial(len(counts), np.full(len(counts), 1.0 / len(counts))) @ counts
            for counts in self.block_counts
        ])  # fmt: skip

    def logs(self, histogram: FloatArray, shifts: FloatArray) -> FloatArray:
        """Return the logarithms of the unbiased weights of the bins, (m,)."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(histogram.sum(axis=0)) - self.windows.log_density(self.values, shifts))

    def solve(self, histogram: FloatArray | None, start: FloatArray) -> FloatArray:
        """Return the free energies of the windows over kT, the first zero, of given samples or of all, (k,)."""
        if histogram is None:
            histogram = np.array([counts.sum(axis=0) for counts in self.block_counts])
        numbers, totals = histogram.sum(axis=1), histogram.sum(axis=0)
        reduced = self.windows.reduced(self.values)
        shifts = start.copy()
        for iteration in range(MOST_ITERATIONS):
            logs = (shifts + np.log(numbers))[:, None] - reduced
            shares = np.exp(logs - logsumexp(logs, axis=0))
            expected = shares @ totals
            # Steps of the self-consistent equations come first, and wherever Newton's are long.
            step = np.log(numbers / expected)
            if iteration > 2 or start.any():
                hessian = np.diag(expected) - (shares * totals) @ shares.T
                newton = np.zeros_like(step)
                newton[1:] = np.linalg.lstsq(hessian[1:, 1:], (numbers - expected)[1:], rcond=None)[0]
                if np.abs(newton).max() < 2.0:
                    step = newton
            shifts = shifts + step
            shifts -= shifts[0]
            if np.abs(step - step[0]).max() < CONVERGED:
                break
        return shifts


def gather(
    series: list[FloatArray],
    inefficiencies: FloatArray,
    windows: Umbrellas,
    weights: list[FloatArray] | None = None,
) -> GatheredSamples:
    """Return samples of the windows, with weights if given, in fine bins and in blocks beyond their correlation."""
    width = FINE * float(np.sqrt(windows.kt / windows.constants.max()))
    values = np.concatenate(series)
    _, index = np.unique(np.floor(values / width), return_inverse=True)
    count = np.bincount(index)
    means = np.bincount(index, values) / count
    counts, begin = [], 0
    weighted = [np.ones(len(one)) for one in series] if weights is None else weights
    for one, weight, inefficiency in zip(series, weighted, inefficiencies, strict=True):
        own = index[begin : begin + len(one)]
        parts = split_into_blocks(len(one), length_of_blocks(len(one), inefficiency))
        counts.append(np.array([np.bincount(own[part], weight[part], minlength=len(means)) for part in parts]))
        begin += len(one)
    return GatheredSamples(means, counts, windows)


def solve_mbar(reduced: FloatArray, counts: IntArray, start: FloatArray) -> FloatArray:
    """Return the free energies of the windows over kT from all samples, by pymbar."""
    pymbar = import_pymbar()
    with warnings.catch_warnings():
        # pymbar passes one set of options to all of SciPy's solvers.
        warnings.filterwarnings("ignore", "Unknown solver options")
        estimator = pymbar.MBAR(reduced, counts, initial_f_k=start)
    return np.asarray(estimator.f_k, dtype=float)


def overlap_matrix(windows: Umbrellas, values: FloatArray) -> FloatArray:
    """Return the overlap matrix, (k, k): Klimovich et al. (2015), eq. 23."""
    logs = (windows.shifts + np.log(windows.counts))[:, None] - windows.reduced(values)
    shares = np.exp(logs - logsumexp(logs, axis=0))
    return np.asarray(shares @ shares.T / windows.counts[:, None])


def neighbours(windows: Umbrellas) -> list[tuple[int, int]]:
    """Return the pairs of windows that are next to each other, across the period too if no gap is there."""
    order = [int(k) for k in np.argsort(windows.centres)]
    pairs = list(itertools.pairwise(order))
    if windows.period is not None and len(order) > 2:
        gaps = np.diff(windows.centres[order])
        if windows.centres[order[0]] + windows.period - windows.centres[order[-1]] <= 1.5 * gaps.max():
            pairs.append((order[-1], order[0]))
    return pairs


def bin_free_energies(logs: FloatArray, places: IntArray, n_bins: int, kt: float) -> FloatArray:
    """Return -kT ln of the probability of each bin from logarithms of weights, kJ/mol; NaN for empty bins."""
    inside = (places >= 0) & (places < n_bins)
    if not inside.any():
        raise ReweightingError("no sample lies within the edges of the bins")
    logs, places = logs[inside], places[inside]
    highest = np.full(n_bins, -np.inf)
    np.maximum.at(highest, places, logs)
    with np.errstate(invalid="ignore", divide="ignore"):
        sums = np.bincount(places, np.exp(logs - highest[places]), minlength=n_bins)
        logarithms = np.where(sums > 0.0, highest + np.log(sums), np.nan)
    known = logarithms[np.isfinite(logarithms)]
    return np.asarray(-kt * (logarithms - logsumexp(known)))


def effective_samples(logs: FloatArray, places: IntArray, n_bins: int) -> FloatArray:
    """Return (sum w)^2 / sum w^2 in each bin."""
    found = np.zeros(n_bins)
    for k in range(n_bins):
        own = logs[places == k]
        if len(own):
            weights = np.exp(own - own.max())
            found[k] = weights.sum() ** 2 / (weights @ weights)
    return found


def spread(replicates: FloatArray) -> FloatArray:
    """Return the standard deviation of replicates along the first axis; NaN where most have no value."""
    finite = np.isfinite(replicates)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of bins without any value
        spread = np.nanstd(np.where(finite, replicates, np.nan), axis=0, ddof=1)
    return np.where(finite.mean(axis=0) > 0.5, spread, np.nan)
