"""The free energy along a variable from umbrella windows, by MBAR, with errors from blocks of the trajectories."""

from __future__ import annotations

import csv
import io
import itertools
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from openmm import unit
from scipy.special import logsumexp

from qmmlmm.durable_files import replace_file
from qmmlmm.errors import QmmlmmWarning, ReweightingError, SettingError, listed
from qmmlmm.free_energy.reweighting import length_of_blocks, split_into_blocks
from qmmlmm.setting_checks import (
    check_array,
    check_finite_number,
    check_path,
    check_positive,
    check_quantity,
    check_text,
    check_whole_number,
)
from qmmlmm.time_series import import_pymbar, statistical_inefficiency
from qmmlmm.units import GAS_CONSTANT, FloatArray, IntArray, Scalar, Vectors

REPLICATES = 100
"""Number of bootstrap replicates; the standard error has an uncertainty of 7 % from their number."""

LEAST_OVERLAP = 0.03
"""Element of the overlap matrix below which neighbours do not overlap: Klimovich et al., J. Comput. Aided Mol. Des. 29,
397 (2015)."""

FEWEST_PER_BIN = 10
"""Number of effective samples of a bin below which its reweighted free energy is not to be trusted."""

FEWEST_INDEPENDENT = 20
"""Number of independent samples of a window below which its error is uncertain."""

FINE = 0.05
"""Largest width of the bins in which samples are gathered for the bootstrap, in standard deviations of a window."""

MOST_ITERATIONS = 200
CONVERGED = 1e-9

_KJ = unit.kilojoule_per_mole


@dataclass(frozen=True)
class Barrier:
    """The barrier between two minima of a profile.

    Parameters
    ----------
    height, error : Quantity, kJ/mol
        Free energy of the top less that of the reactant's minimum, and its standard error.
    reverse_height, reverse_error : Quantity, kJ/mol
        The same seen from the product.
    reactant, top, product : float
        Values of the variable, in its unit.
    """

    height: unit.Quantity
    error: unit.Quantity
    reverse_height: unit.Quantity
    reverse_error: unit.Quantity
    reactant: float
    top: float
    product: float


@dataclass(frozen=True, eq=False)
class UmbrellaProfile:
    """The free energy along a variable, as `umbrella_profile` returns it.

    Parameters
    ----------
    values : (n,) float array
        Middles of the bins, in the variable's unit.
    free_energy : (n,) Quantity, kJ/mol
        -kT ln of the probability of a bin, zero at the minimum; NaN for a bin without samples.
    error : (n,) Quantity, kJ/mol
        Standard error of -kT ln of the probability of a bin, if those of all bins sum to one.
    samples : (n,) float array
        Number of samples in each bin; effective ones after `reweighted`.
    overlap : (k, k) float array
        Probability of finding a sample of one window in another one.
    inefficiencies : (k,) float array
        Number of samples for each independent sample, by window.
    name : str
        Name of the variable with its unit, such as ``"transfer (nm)"``.
    period : float or None
    """

    values: FloatArray
    free_energy: unit.Quantity
    error: unit.Quantity
    samples: FloatArray
    overlap: FloatArray
    inefficiencies: FloatArray
    name: str
    period: float | None
    _replicates: FloatArray = field(repr=False)
    _windows: _Windows = field(repr=False)
    _edges: FloatArray = field(repr=False)

    def barrier(self, reactant: float | None = None, product: float | None = None) -> Barrier:
        """Return the barrier between two minima, with its standard error.

        Parameters
        ----------
        reactant, product : float, optional
            Values of the variable near the minima. Without them, the bin that is highest above the lowest ones on both
            of its sides is the top, and these are the minima; a periodic variable needs both.

        Raises
        ------
        SettingError
            If only one is given, none is for a periodic variable, or both are in one minimum.
        ReweightingError
            If the profile has no maximum between two minima, or a bin between them has no samples.

        Notes
        -----
        It is a difference of the profile. The free energy of activation of a rate constant also depends on the width of
        the reactant's well and on the mass along the variable.
        """
        energy = self.free_energy.value_in_unit(_KJ)
        if (reactant is None) != (product is None):
            raise SettingError("reactant and product are given both or none")
        if reactant is None or product is None:
            if self.period is not None:
                raise SettingError("along a periodic variable there are two ways: give reactant and product")
            path = np.arange(len(energy))
            first, top, last = _highest_between(energy)
        else:
            ends = [self._bin(name, end) for name, end in (("reactant", reactant), ("product", product))]
            first, last = (_downhill(energy, end, self.period is not None) for end in ends)
            if first == last:
                raise SettingError(
                    f"reactant and product, {reactant:g} and {product:g}, are in the same minimum at "
                    f"{self.values[first]:g}"
                )
            path = min(self._ways(first, last), key=lambda way: float(np.max(_filled(energy[way]))))
            top = int(path[np.argmax(_filled(energy[path]))])
        between = path[(path >= min(first, last)) & (path <= max(first, last))] if self.period is None else path
        empty = self.values[between][~np.isfinite(energy[between])]
        if len(empty):
            raise ReweightingError(
                f"no sample is at {listed(f'{value:.4g}' for value in empty)} between reactant and product; add "
                "windows there, or take fewer bins"
            )
        up, back = (self._replicates[:, top] - self._replicates[:, end] for end in (first, last))
        return Barrier(
            (energy[top] - energy[first]) * _KJ,
            _spread(up) * _KJ,
            (energy[top] - energy[last]) * _KJ,
            _spread(back) * _KJ,
            *(float(self.values[k]) for k in (first, top, last)),
        )

    def reweighted(self, values: Sequence[FloatArray], differences: Sequence[Vectors]) -> UmbrellaProfile:
        """Return the profile of another Hamiltonian, from energies of stored frames.

        Parameters
        ----------
        values : sequence of (m_k,) float arrays
            Values of the variable in the frames of each window, in its unit.
        differences : sequence of (m_k,) Quantity or float arrays, kJ/mol
            Energy of the other Hamiltonian less that of the sampled one, without umbrellas, in these frames.

        Raises
        ------
        ReweightingError
            If there are not as many series as windows, or a series has another length or fewer than ten frames.

        Warns
        -----
        QmmlmmWarning
            If a bin has fewer than `FEWEST_PER_BIN` effective samples.

        Notes
        -----
        MBAR with a state that was not sampled: a frame's weight is exp(-d/kT) over the sum of the windows' densities.
        """
        windows = self._windows
        series = [windows.wrapped(one) for one in _checked_series("values", values, None, len(windows.centres))]
        shifts = _checked_series("differences", differences, _KJ, len(windows.centres))
        for k, (one, other) in enumerate(zip(series, shifts, strict=True)):
            if len(one) != len(other):
                raise ReweightingError(f"window {k} has {len(one)} values and {len(other)} differences")
        lowest = min(shift.min() for shift in shifts)
        reduced = [(shift - lowest) / windows.kt for shift in shifts]
        bins = [np.digitize(one, self._edges) - 1 for one in series]
        n_bins = len(self.values)
        inefficiencies = np.array(
            [max(map(statistical_inefficiency, pair)) for pair in zip(series, reduced, strict=True)]
        )
        logs = [-windows.log_density(one, windows.shifts) - other for one, other in zip(series, reduced, strict=True)]
        energy = _profile(np.concatenate(logs), np.concatenate(bins), n_bins, windows.kt)
        generator = np.random.default_rng(0)
        gathered = _gathered(series, inefficiencies, windows, [np.exp(-one) for one in reduced])
        places = np.digitize(gathered.values, self._edges) - 1
        replicates = [
            _profile(gathered.logs(gathered.draw(generator), shift), places, n_bins, windows.kt)
            for shift in windows.replicate_shifts
        ]
        effective = _effective_samples(np.concatenate(logs), np.concatenate(bins), n_bins) / inefficiencies.mean()
        few = self.values[effective < FEWEST_PER_BIN]
        if len(few):
            warnings.warn(
                f"{len(few)} of {n_bins} bins have fewer than {FEWEST_PER_BIN} effective samples after reweighting, at "
                f"{listed(f'{value:.4g}' for value in few)}: their free energies and errors are not reliable; evaluate "
                "more frames, take fewer bins, or sample with a Hamiltonian that is nearer",
                QmmlmmWarning,
                stacklevel=2,
            )
        return replace(
            self,
            free_energy=(energy - np.nanmin(energy)) * _KJ,
            error=_spread(np.array(replicates)) * _KJ,
            samples=effective,
            inefficiencies=inefficiencies,
            _replicates=np.array(replicates),
        )

    @property
    def centres(self) -> FloatArray:
        """Centres of the umbrellas, (k,), in the variable's unit."""
        return self._windows.centres

    @property
    def smallest_overlap(self) -> float:
        """Smallest element of the overlap matrix between neighbours; `LEAST_OVERLAP` or more is needed."""
        return min(min(self.overlap[i, j], self.overlap[j, i]) for i, j in _neighbours(self._windows))

    @property
    def independent_samples(self) -> FloatArray:
        """Number of independent samples of each window, (k,); `FEWEST_INDEPENDENT` or more are needed."""
        return np.asarray(self._windows.counts / self.inefficiencies)

    @property
    def is_reliable(self) -> bool:
        """Whether neighbours overlap and each window has enough independent samples, of which warnings tell."""
        enough = (self.independent_samples >= FEWEST_INDEPENDENT).all()
        return bool(enough) and self.smallest_overlap >= LEAST_OVERLAP

    def write_overlap_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the overlap matrix, a row for each window, with the centres in header and first column."""
        file = check_path("path", path)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = ("Centre", *(f"{centre:.8g}" for centre in self.centres))
        text.write("#" + ",".join(f'"{name}"' for name in names) + "\n")
        for centre, row in zip(self.centres, self.overlap, strict=True):
            writer.writerow([f"{number:.8g}" for number in (centre, *row)])
        replace_file(Path(file), text.getvalue().encode())

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a table with a row for each bin; the header names the units."""
        file = check_path("path", path)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = (self.name, "Free Energy (kJ/mol)", "Standard Error (kJ/mol)", "Samples")
        text.write("#" + ",".join(f'"{name}"' for name in names) + "\n")
        energies, errors = (q.value_in_unit(_KJ) for q in (self.free_energy, self.error))
        for row in zip(self.values, energies, errors, self.samples, strict=True):
            writer.writerow([f"{number:.8g}" for number in row])
        replace_file(Path(file), text.getvalue().encode())

    def _bin(self, name: str, value: float) -> int:
        check_finite_number(name, value)
        index = int(np.digitize(self._windows.wrapped(np.array([value])), self._edges)[0]) - 1
        if not 0 <= index < len(self.values):
            raise SettingError(
                f"{name} lies between {self._edges[0]:.4g} and {self._edges[-1]:.4g}, the range of the profile, got "
                f"{value:g}"
            )
        return index

    def _ways(self, first: int, last: int) -> list[IntArray]:
        """Return the bins of the ways from one to another: one, or two along a periodic variable."""
        count = len(self.values)
        if self.period is None:
            return [np.arange(min(first, last), max(first, last) + 1)]
        return [
            (first + np.arange((last - first) % count + 1)) % count,
            (first - np.arange((first - last) % count + 1)) % count,
        ]


@dataclass(frozen=True, eq=False)
class _Windows:
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


def umbrella_profile(
    samples: Sequence[FloatArray],
    centres: Sequence[float] | FloatArray,
    force_constants: Sequence[float] | FloatArray,
    temperature: Scalar,
    *,
    bins: int = 40,
    edges: Sequence[float] | None = None,
    period: float | None = None,
    name: str = "variable",
) -> UmbrellaProfile:
    """Return the free energy along a variable from samples of umbrella windows.

    Parameters
    ----------
    samples : sequence of (n_k,) float arrays
        Values of the variable in each window, in the order of time, after equilibration; in its unit.
    centres : (k,) sequence of float
        Centres of the umbrellas.
    force_constants : (k,) sequence of float
        Force constants, kJ/mol per square of the variable's unit: the energy is 0.5 k d^2.
    temperature : Quantity or float, K
    bins : int
        Number of bins, if there are no edges: from the first centre to the last, or over the whole period.
    edges : sequence of float, optional
        Edges of the bins, ascending.
    period : float, optional
        Period of the variable.
    name : str
        Name of the variable with its unit, for tables and figures.

    Raises
    ------
    ReweightingError
        If the series, centres and force constants are not as many, a series has fewer than ten samples, or a number is
        out of range.

    Warns
    -----
    QmmlmmWarning
        If neighbouring windows do not overlap, or a window is not much longer than its correlation time.

    Notes
    -----
    MBAR: Shirts and Chodera, J. Chem. Phys. 129, 124105 (2008), computed by pymbar from all samples. Errors: in each
    window blocks of three correlation times or more, at most 50, are drawn with replacement, and MBAR is solved again
    for each of `REPLICATES` draws. They do not know of what no window has crossed: start windows from both sides and
    compare.
    """
    kt = GAS_CONSTANT * check_quantity("temperature", temperature, unit.kelvin, above=0.0, error=ReweightingError)
    series = _checked_series("samples", samples, None, None)
    centre = check_array("centres", centres, (len(series),), error=ReweightingError)
    constant = check_array("force_constants", force_constants, (len(series),), error=ReweightingError)
    if not (constant > 0.0).all():
        raise ReweightingError(f"force_constants are above zero, got {constant.tolist()[:5]}")
    if period is not None:
        check_positive("period", period, error=ReweightingError)
    check_text("name", name, ReweightingError)
    limits = _limits(centre, bins, edges, period)
    counts = np.array([len(one) for one in series])
    windows = _Windows(centre, constant, counts, period, kt, np.zeros(len(series)), np.zeros((0, len(series))))
    series = [windows.wrapped(one) for one in series]
    inefficiencies = np.array([statistical_inefficiency(_unwrapped(one, period)) for one in series])
    gathered = _gathered(series, inefficiencies, windows)
    values = np.concatenate(series)
    shifts = _solved(windows.reduced(values), counts, gathered.solve(None, np.zeros(len(series))))
    places = np.digitize(values, limits) - 1
    n_bins = len(limits) - 1
    energy = _profile(-windows.log_density(values, shifts), places, n_bins, kt)
    generator = np.random.default_rng(0)
    fine_places = np.digitize(gathered.values, limits) - 1
    replicates, replicate_shifts = [], []
    for _ in range(REPLICATES):
        histogram = gathered.draw(generator)
        found = gathered.solve(histogram, shifts)
        replicates.append(_profile(gathered.logs(histogram, found), fine_places, n_bins, kt))
        replicate_shifts.append(found)
    windows = replace(windows, shifts=shifts, replicate_shifts=np.array(replicate_shifts))
    overlap = _overlap(windows, values)
    _warn(windows, overlap, inefficiencies)
    lowest = np.nanmin(energy)
    return UmbrellaProfile(
        0.5 * (limits[1:] + limits[:-1]),
        (energy - lowest) * _KJ,
        _spread(np.array(replicates)) * _KJ,
        np.bincount(places[(places >= 0) & (places < n_bins)], minlength=n_bins).astype(float),
        overlap,
        inefficiencies,
        name,
        period,
        np.array(replicates),
        windows,
        limits,
    )


@dataclass(frozen=True, eq=False)
class _Gathered:
    """Samples in fine bins, by blocks, for the bootstrap.

    Parameters
    ----------
    values : (m,) float array
        Mean of the samples in each bin that has some.
    block_counts : list of (b_k, m) float arrays
        Samples, or their weights, of each block of each window.
    windows : _Windows
    """

    values: FloatArray
    block_counts: list[FloatArray]
    windows: _Windows

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


def _gathered(
    series: list[FloatArray],
    inefficiencies: FloatArray,
    windows: _Windows,
    weights: list[FloatArray] | None = None,
) -> _Gathered:
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
    return _Gathered(means, counts, windows)


def _solved(reduced: FloatArray, counts: IntArray, start: FloatArray) -> FloatArray:
    """Return the free energies of the windows over kT from all samples, by pymbar."""
    pymbar = import_pymbar()
    with warnings.catch_warnings():
        # pymbar passes one set of options to all of SciPy's solvers.
        warnings.filterwarnings("ignore", "Unknown solver options")
        estimator = pymbar.MBAR(reduced, counts, initial_f_k=start)
    return np.asarray(estimator.f_k, dtype=float)


def _overlap(windows: _Windows, values: FloatArray) -> FloatArray:
    """Return the overlap matrix, (k, k): Klimovich et al. (2015), eq. 23."""
    logs = (windows.shifts + np.log(windows.counts))[:, None] - windows.reduced(values)
    shares = np.exp(logs - logsumexp(logs, axis=0))
    return np.asarray(shares @ shares.T / windows.counts[:, None])


def _neighbours(windows: _Windows) -> list[tuple[int, int]]:
    """Return the pairs of windows that are next to each other, across the period too if no gap is there."""
    order = [int(k) for k in np.argsort(windows.centres)]
    pairs = list(itertools.pairwise(order))
    if windows.period is not None and len(order) > 2:
        gaps = np.diff(windows.centres[order])
        if windows.centres[order[0]] + windows.period - windows.centres[order[-1]] <= 1.5 * gaps.max():
            pairs.append((order[-1], order[0]))
    return pairs


def _warn(windows: _Windows, overlap: FloatArray, inefficiencies: FloatArray) -> None:
    pairs = _neighbours(windows)
    apart = [(i, j) for i, j in pairs if min(overlap[i, j], overlap[j, i]) < LEAST_OVERLAP]
    if apart:
        texts = [f"{windows.centres[i]:.4g} and {windows.centres[j]:.4g} ({overlap[i, j]:.3f})" for i, j in apart]
        warnings.warn(
            f"neighbouring windows overlap by less than {LEAST_OVERLAP}: {listed(texts)}; the profile is not reliable "
            "across these gaps: add windows between them, or lower the force constants",
            QmmlmmWarning,
            stacklevel=3,
        )
    short = [
        f"{windows.centres[k]:.4g} ({windows.counts[k]} samples, {inefficiencies[k]:.0f} for an independent one)"
        for k in range(len(windows.centres))
        if windows.counts[k] < FEWEST_INDEPENDENT * inefficiencies[k]
    ]
    if short:
        warnings.warn(
            f"windows have fewer than {FEWEST_INDEPENDENT} independent samples, so that errors are underestimated: "
            f"{listed(short)}; sample longer",
            QmmlmmWarning,
            stacklevel=3,
        )


def _limits(centres: FloatArray, bins: int, edges: Sequence[float] | None, period: float | None) -> FloatArray:
    check_whole_number("bins", bins, at_least=2, at_most=100_000, error=ReweightingError)
    if edges is not None:
        found = check_array("edges", edges, (None,), error=ReweightingError)
        if len(found) < 3 or not (np.diff(found) > 0.0).all():
            raise ReweightingError(f"edges ascend and are three or more, got {found.tolist()[:5]}")
        if period is not None and (found[0] < -0.5001 * period or found[-1] > 0.5001 * period):
            raise ReweightingError(f"edges lie within half a period about zero, got {found[0]:g} to {found[-1]:g}")
        return found
    if period is not None:
        return np.linspace(-0.5 * period, 0.5 * period, bins + 1)
    if np.ptp(centres) == 0.0:
        raise ReweightingError("all centres are the same; give edges")
    return np.linspace(centres.min(), centres.max(), bins + 1)


def _profile(logs: FloatArray, places: IntArray, n_bins: int, kt: float) -> FloatArray:
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


def _effective_samples(logs: FloatArray, places: IntArray, n_bins: int) -> FloatArray:
    """Return (sum w)^2 / sum w^2 in each bin."""
    found = np.zeros(n_bins)
    for k in range(n_bins):
        own = logs[places == k]
        if len(own):
            weights = np.exp(own - own.max())
            found[k] = weights.sum() ** 2 / (weights @ weights)
    return found


def _spread(replicates: FloatArray) -> FloatArray:
    """Return the standard deviation of replicates along the first axis; NaN where most have no value."""
    finite = np.isfinite(replicates)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of bins without any value
        spread = np.nanstd(np.where(finite, replicates, np.nan), axis=0, ddof=1)
    return np.where(finite.mean(axis=0) > 0.5, spread, np.nan)


def _filled(energy: FloatArray) -> FloatArray:
    return np.where(np.isfinite(energy), energy, np.inf)


def _highest_between(energy: FloatArray) -> tuple[int, int, int]:
    """Return the bins of two minima and of the top between them that is highest above both."""
    known = np.where(np.isfinite(energy), energy, -np.inf)
    filled = _filled(energy)
    rises = np.full(len(energy), -np.inf)
    for k in range(1, len(energy) - 1):
        rises[k] = known[k] - max(filled[:k].min(), filled[k + 1 :].min())
    top = int(rises.argmax())
    if not rises[top] > 0.0:
        raise ReweightingError("the profile has no maximum between two minima; give reactant and product")
    return int(filled[:top].argmin()), top, top + 1 + int(filled[top + 1 :].argmin())


def _downhill(energy: FloatArray, index: int, periodic: bool) -> int:
    """Return the bin of the minimum that one reaches from a bin by going down."""
    filled, count = _filled(energy), len(energy)
    while True:
        near = [(index + step) % count for step in (-1, 1) if periodic or 0 <= index + step < count]
        best = min(near, key=lambda k: float(filled[k]))
        if not filled[best] < filled[index]:
            return index
        index = best


def _unwrapped(series: FloatArray, period: float | None) -> FloatArray:
    return series if period is None else np.unwrap(series, period=period)


def _checked_series(
    name: str, given: Sequence[Vectors], default: unit.Unit | None, count: int | None
) -> list[FloatArray]:
    if isinstance(given, str | bytes | Mapping | unit.Quantity) or not isinstance(given, Iterable):
        raise ReweightingError(f"{name} are a list with a series for each window, got {type(given).__name__}")
    series = [
        check_array(f"{name} of window {k}", one, (None,), default, ReweightingError) for k, one in enumerate(given)
    ]
    if not series or (count is not None and len(series) != count):
        raise ReweightingError(f"{name} are a series for each of {count or 'one or more'} windows, got {len(series)}")
    for k, one in enumerate(series):
        if len(one) < 10:
            raise ReweightingError(f"{name} of window {k} are ten or more, got {len(one)}")
    return series
