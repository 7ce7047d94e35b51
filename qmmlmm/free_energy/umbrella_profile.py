"""The free energy along a variable from umbrella windows, by MBAR, with errors from blocks of the trajectories."""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from openmm import unit

from qmmlmm.durable_files import replace_file
from qmmlmm.errors import QmmlmmWarning, ReweightingError, SettingError, listed
from qmmlmm.free_energy.umbrella_mbar import (
    Umbrellas,
    bin_free_energies,
    effective_samples,
    gather,
    neighbours,
    overlap_matrix,
    solve_mbar,
    spread,
)
from qmmlmm.setting_checks import (
    check_array,
    check_finite_number,
    check_path,
    check_positive,
    check_quantity,
    check_text,
    check_whole_number,
)
from qmmlmm.time_series import statistical_inefficiency
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
    _windows: Umbrellas = field(repr=False)
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
            spread(up) * _KJ,
            (energy[top] - energy[last]) * _KJ,
            spread(back) * _KJ,
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
        energy = bin_free_energies(np.concatenate(logs), np.concatenate(bins), n_bins, windows.kt)
        generator = np.random.default_rng(0)
        gathered = gather(series, inefficiencies, windows, [np.exp(-one) for one in reduced])
        places = np.digitize(gathered.values, self._edges) - 1
        replicates = [
            bin_free_energies(gathered.logs(gathered.draw(generator), shift), places, n_bins, windows.kt)
            for shift in windows.replicate_shifts
        ]
        effective = effective_samples(np.concatenate(logs), np.concatenate(bins), n_bins) / inefficiencies.mean()
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
            error=spread(np.array(replicates)) * _KJ,
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
        return min(min(self.overlap[i, j], self.overlap[j, i]) for i, j in neighbours(self._windows))

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
    windows = Umbrellas(centre, constant, counts, period, kt, np.zeros(len(series)), np.zeros((0, len(series))))
    series = [windows.wrapped(one) for one in series]
    inefficiencies = np.array([statistical_inefficiency(_unwrapped(one, period)) for one in series])
    gathered = gather(series, inefficiencies, windows)
    values = np.concatenate(series)
    shifts = solve_mbar(windows.reduced(values), counts, gathered.solve(None, np.zeros(len(series))))
    places = np.digitize(values, limits) - 1
    n_bins = len(limits) - 1
    energy = bin_free_energies(-windows.log_density(values, shifts), places, n_bins, kt)
    generator = np.random.default_rng(0)
    fine_places = np.digitize(gathered.values, limits) - 1
    replicates, replicate_shifts = [], []
    for _ in range(REPLICATES):
        histogram = gathered.draw(generator)
        found = gathered.solve(histogram, shifts)
        replicates.append(bin_free_energies(gathered.logs(histogram, found), fine_places, n_bins, kt))
        replicate_shifts.append(found)
    windows = replace(windows, shifts=shifts, replicate_shifts=np.array(replicate_shifts))
    overlap = overlap_matrix(windows, values)
    _warn(windows, overlap, inefficiencies)
    lowest = np.nanmin(energy)
    return UmbrellaProfile(
        0.5 * (limits[1:] + limits[:-1]),
        (energy - lowest) * _KJ,
        spread(np.array(replicates)) * _KJ,
        np.bincount(places[(places >= 0) & (places < n_bins)], minlength=n_bins).astype(float),
        overlap,
        inefficiencies,
        name,
        period,
        np.array(replicates),
        windows,
        limits,
    )


def _warn(windows: Umbrellas, overlap: FloatArray, inefficiencies: FloatArray) -> None:
    pairs = neighbours(windows)
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
