"""Averages and free energies from samples of other Hamiltonians: exponential weights, BAR and MBAR, with errors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from openmm import unit
from scipy.sparse.csgraph import connected_components
from scipy.special import logsumexp

from qmmlmm.errors import QmmlmmWarning, ReweightingError, listed
from qmmlmm.free_energy.work_estimate import POOR_OVERLAP, work_overlap
from qmmlmm.setting_checks import check_array, check_quantity
from qmmlmm.time_series import import_pymbar, statistical_inefficiency
from qmmlmm.units import GAS_CONSTANT, FloatArray, Scalar, Vectors

FEWEST_EFFECTIVE_SAMPLES = 50
"""Number of effective samples below which there is a warning."""

UNEVEN = 0.5
"""Fraction of the frames left by the weights below which a few frames dominate the average."""

Average: TypeAlias = "unit.Quantity | FloatArray"
"""A mean or its error, with the unit of the values if they have one."""

MOST_BLOCKS = 50
_FEWEST_BLOCKS = 5


@dataclass(frozen=True, eq=False)
class Reweighting:
    """Frames of one ensemble with the weights that they have in another.

    Parameters
    ----------
    weights : (n,) float array
        Weights with the sum one.
    free_energy : Quantity, kJ/mol
        Free energy of the target less that of the sampled ensemble.
    free_energy_error : Quantity, kJ/mol
        Standard error.
    effective_samples : float
        Equivalent number of independent frames of the target: (sum w)^2 / sum w^2 (Kish), divided by the statistical
        inefficiency of the frames.
    inefficiency : float
        Number of frames for each independent frame.
    block_length : int
        Number of frames in each block of the jackknife.
    """

    weights: FloatArray
    free_energy: unit.Quantity
    free_energy_error: unit.Quantity
    effective_samples: float
    inefficiency: float
    block_length: int

    def mean(self, values: Vectors) -> tuple[Average, Average]:
        """Return the mean of an observable over the target ensemble, and its standard error.

        Parameters
        ----------
        values : (n, ...) array or Quantity
            Values of the observable in each frame.

        Raises
        ------
        ReweightingError
            If there are not as many values as frames, or a value is not a finite number.
        """
        given = values.unit if isinstance(values, unit.Quantity) else None
        numbers = check_array("values", values, default=given, error=ReweightingError)
        if numbers.ndim == 0 or len(numbers) != len(self.weights):
            count = len(numbers) if numbers.ndim else "no list of"
            raise ReweightingError(f"{count} values were given for {len(self.weights)} frames")
        blocks = split_into_blocks(len(numbers), self.block_length)
        shape = (-1,) + (1,) * (numbers.ndim - 1)
        weighted = self.weights.reshape(shape) * numbers
        tops = np.array([weighted[block].sum(axis=0) for block in blocks])
        bottoms = np.array([self.weights[block].sum() for block in blocks]).reshape(shape)
        value = tops.sum(axis=0) / bottoms.sum()
        without = (tops.sum(axis=0) - tops) / (bottoms.sum() - bottoms)
        error = _jackknife_error(without)
        return (value, error) if given is None else (value * given, error * given)

    def histogram(self, values: Vectors, edges: Vectors) -> tuple[FloatArray, FloatArray]:
        """Return the probability of each bin and its standard error; the norm includes frames outside the edges.

        Parameters
        ----------
        values : (n,) array or Quantity
        edges : (bins + 1,) array or Quantity, ascending

        Raises
        ------
        ReweightingError
            If there are not as many values as frames, or edges do not ascend.
        """
        given = values.unit if isinstance(values, unit.Quantity) else None
        numbers = check_array("values", values, (len(self.weights),), given, ReweightingError)
        limits = check_array("edges", edges, (None,), given, ReweightingError)
        if len(limits) < 2 or not (np.diff(limits) > 0.0).all():
            raise ReweightingError(f"edges ascend and are two or more, got {limits.tolist()[:5]}")
        bins = np.digitize(numbers, limits) - 1
        inside = bins[:, None] == np.arange(len(limits) - 1)
        value, error = self.mean(inside.astype(float))
        return np.asarray(value), np.asarray(error)


def reweight(differences: Vectors, temperature: Scalar) -> Reweighting:
    """Return the weights of frames under another Hamiltonian, with its free energy.

    Parameters
    ----------
    differences : (n,) Quantity or float array, kJ/mol
        Energy of the target Hamiltonian less that of the sampled one, in the order of the trajectory. For the
        Hamiltonian ``(1-lambda_qm) ML + lambda_qm QM`` these are the results of `MixedSystem.parameter_derivatives`.
    temperature : Quantity or float, K

    Raises
    ------
    ReweightingError
        If there are fewer than ten frames, or a difference is not a number.

    Warns
    -----
    QmmlmmWarning
        If fewer than `FEWEST_EFFECTIVE_SAMPLES` effective samples are left.

    Notes
    -----
    w_k ~ exp(-d_k / kT) and dF = -kT ln <exp(-d / kT)> (Zwanzig, J. Chem. Phys. 22, 1420 (1954)). Standard errors are
    those of a jackknife over blocks of the trajectory that are longer than its correlation time.
    """
    kt = _kt(temperature)
    reduced = _samples("differences", differences) / kt
    logs = -reduced - logsumexp(-reduced)
    weights = np.exp(logs)
    inefficiency = statistical_inefficiency(reduced)
    block_length = length_of_blocks(len(reduced), inefficiency)
    sums = np.array([logsumexp(-reduced[block]) for block in split_into_blocks(len(reduced), block_length)])
    sizes = np.array([len(reduced[block]) for block in split_into_blocks(len(reduced), block_length)])
    total = logsumexp(sums)
    others = np.array([logsumexp(np.delete(sums, k)) for k in range(len(sums))])
    without = -(others - np.log(len(reduced) - sizes))
    kish = float(1.0 / (weights @ weights))
    effective = kish / inefficiency
    if effective < FEWEST_EFFECTIVE_SAMPLES:
        warnings.warn(_few_samples(len(reduced), kish, inefficiency), QmmlmmWarning, stacklevel=2)
    return Reweighting(
        weights,
        -(total - math.log(len(reduced))) * kt * unit.kilojoule_per_mole,
        float(_jackknife_error(without)) * kt * unit.kilojoule_per_mole,
        effective,
        inefficiency,
        block_length,
    )


def _few_samples(count: int, kish: float, inefficiency: float) -> str:
    """Return a warning about too few effective samples, with advice that depends on the reason."""
    found = (
        f"only {kish / inefficiency:.1f} effective samples of {count} frames: the weights leave {kish:.1f}, and "
        f"{inefficiency:.1f} successive frames count as one. "
    )
    if kish < UNEVEN * count:
        return found + (
            "A few frames dominate the average and its error is underestimated; bring the two Hamiltonians closer "
            "(train the model further, or use intermediate values of a parameter with BAR or MBAR), or sample more"
        )
    return found + "The weights are even, and averages are right within their errors; for smaller errors sample more"


def bennett_acceptance_ratio(
    forward: Vectors, reverse: Vectors, temperature: Scalar
) -> tuple[unit.Quantity, unit.Quantity]:
    """Return the free energy of B less that of A, and its standard error, by Bennett's acceptance ratio.

    Parameters
    ----------
    forward : (n,) Quantity or float array, kJ/mol
        Energy of B less that of A in frames of A, or the work of fast switching from A to B.
    reverse : (m,) Quantity or float array, kJ/mol
        Energy of A less that of B in frames of B, or the work of fast switching from B to A.
    temperature : Quantity or float, K

    Raises
    ------
    ReweightingError
        If a series has fewer than ten energies, or an energy is not a number.

    Warns
    -----
    QmmlmmWarning
        If the two series hardly overlap. The error is infinite if it cannot be estimated.

    Notes
    -----
    Both series are thinned to independent samples. Sources: Bennett, J. Comput. Phys. 22, 245 (1976); for work,
    Crooks, Phys. Rev. E 61, 2361 (2000). Computed by pymbar.
    """
    pymbar = import_pymbar()
    kt = _kt(temperature)
    works = [_independent(_samples(name, values) / kt) for name, values in (("forward", forward), ("reverse", reverse))]
    with warnings.catch_warnings():
        # Without overlap the variance is 0/0.
        warnings.filterwarnings("ignore", "invalid value|divide by zero", RuntimeWarning)
        found = pymbar.other_estimators.bar(*works)
    value, error = float(found["Delta_f"]), float(found["dDelta_f"])
    overlap = work_overlap(works[0], works[1], value)
    if overlap < POOR_OVERLAP:
        warnings.warn(
            f"forward and reverse hardly overlap ({overlap:.2g}, {POOR_OVERLAP:g} or more is needed): the free energy "
            "is not reliable, and its error is underestimated. Switch more slowly, or use intermediate states",
            QmmlmmWarning,
            stacklevel=2,
        )
    return value * kt * unit.kilojoule_per_mole, _known(error) * kt * unit.kilojoule_per_mole


def multistate_free_energies(energies: Sequence[Vectors], temperature: Scalar) -> tuple[unit.Quantity, unit.Quantity]:
    """Return the free energies of several states relative to the first, and their standard errors, by MBAR.

    Parameters
    ----------
    energies : sequence of (n_k, n_states) Quantity or float arrays, kJ/mol
        Energies in all states of the frames of each sampled state.
    temperature : Quantity or float, K

    Returns
    -------
    free_energies, errors : (n_states,) Quantity, kJ/mol

    Raises
    ------
    ReweightingError
        If the shapes do not fit, or an energy is not a number.

    Warns
    -----
    QmmlmmWarning
        If a state is not connected with the first one by overlaps; its error is infinite.

    Notes
    -----
    Source: Shirts and Chodera, J. Chem. Phys. 129, 124105 (2008). Each trajectory is thinned to independent frames, by
    the energy in its own state less that in its neighbour. Computed by pymbar.
    """
    pymbar = import_pymbar()
    kt = _kt(temperature)
    if isinstance(energies, str | bytes | Mapping | unit.Quantity) or not isinstance(energies, Iterable):
        raise ReweightingError(f"energies are a list with a table for each state, got {type(energies).__name__}")
    given = list(energies)
    n_states = len(given)
    if n_states < 2:
        raise ReweightingError(f"energies are of two states or more, got {n_states}")
    tables = []
    for k, values in enumerate(given):
        table = check_array(
            f"energies of state {k} of {n_states}", values, (None, n_states), unit.kilojoule_per_mole, ReweightingError
        )
        if not len(table):
            raise ReweightingError(f"energies of state {k} of {n_states} have no frame")
        tables.append(table / kt)
    thinned = []
    for k, table in enumerate(tables):
        other = k + 1 if k + 1 < n_states else k - 1
        series = table[:, other] - table[:, k]
        thinned.append(table[:: max(1, math.ceil(statistical_inefficiency(series)))])
    with warnings.catch_warnings():
        # pymbar passes one set of options to all of SciPy's solvers.
        warnings.filterwarnings("ignore", "Unknown solver options")
        # Without overlap variances are negative by round-off.
        warnings.filterwarnings("ignore", "invalid value", RuntimeWarning)
        estimator = pymbar.MBAR(np.concatenate(thinned).T, [len(table) for table in thinned])
        found = estimator.compute_free_energy_differences()
        overlaps = np.asarray(estimator.compute_overlap()["matrix"])
    # States between which there is a way of sufficient overlaps.
    _, groups = connected_components(np.minimum(overlaps, overlaps.T) >= POOR_OVERLAP, directed=False)
    apart = groups != groups[0]
    errors = np.where(apart, math.inf, [_known(float(error)) for error in found["dDelta_f"][0]])
    if apart.any():
        warnings.warn(
            f"states {listed(np.flatnonzero(apart).tolist())} hardly overlap with the first one, nor through others "
            f"({POOR_OVERLAP:g} or more is needed), and the errors of their free energies are unknown; put states "
            "between them, or sample more",
            QmmlmmWarning,
            stacklevel=2,
        )
    return np.asarray(found["Delta_f"][0]) * kt * unit.kilojoule_per_mole, errors * kt * unit.kilojoule_per_mole


def _known(error: float) -> float:
    """Return an error, which is infinite if it could not be estimated."""
    return error if math.isfinite(error) else math.inf


def _kt(temperature: Scalar) -> float:
    return GAS_CONSTANT * check_quantity("temperature", temperature, unit.kelvin, above=0.0, error=ReweightingError)


def _samples(name: str, values: Vectors) -> FloatArray:
    numbers = check_array(name, values, default=unit.kilojoule_per_mole, error=ReweightingError)
    if numbers.ndim != 1 or len(numbers) < 10:
        raise ReweightingError(f"{name} is a series of ten energies or more, got an array of shape {numbers.shape}")
    return numbers


def _independent(series: FloatArray) -> FloatArray:
    return series[:: max(1, math.ceil(statistical_inefficiency(series)))]


def length_of_blocks(n: int, inefficiency: float) -> int:
    """Return a block length of several correlation times that leaves enough blocks."""
    shortest = math.ceil(n / MOST_BLOCKS)
    longest = max(1, n // _FEWEST_BLOCKS)
    return min(max(shortest, math.ceil(3.0 * inefficiency)), longest)


def split_into_blocks(n: int, length: int) -> list[slice]:
    """Return slices that cover all frames; the last block includes the remainder."""
    count = max(1, n // length)
    return [slice(k * length, (k + 1) * length if k + 1 < count else n) for k in range(count)]


def _jackknife_error(without: FloatArray) -> Any:
    """Return the standard error from the estimates that leave out one block each, along the first axis."""
    count = len(without)
    return np.sqrt((count - 1) / count * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
