"""Selection of geometries to label: uncertain, far from the data, and different from each other."""

from __future__ import annotations

import numpy as np

from qmmlmm.units import FloatArray, IntArray

POTENTIAL_WEIGHT = 0.5
"""Weight of the potential of the surroundings relative to the distances in the region."""


def describe_region(atomic_numbers: IntArray, positions: FloatArray, potential: FloatArray | None) -> FloatArray:
    """Return a descriptor of a region in its surroundings.

    Parameters
    ----------
    atomic_numbers : (n,) int array
    positions : (n, 3) float array, bohr
    potential : (n,) float array, hartree/e, or None
        Potential of the surroundings.

    Returns
    -------
    (n (n - 1) / 2 + n,) float array
        Inverse distances, sorted within each pair of elements, and potentials less their mean, sorted within each
        element: the same after a rotation, a reflection, or an exchange of like atoms.
    """
    n = len(atomic_numbers)
    first, second = np.triu_indices(n, k=1)
    inverse = 1.0 / np.linalg.norm(positions[first] - positions[second], axis=1)
    low = np.minimum(atomic_numbers[first], atomic_numbers[second])
    high = np.maximum(atomic_numbers[first], atomic_numbers[second])
    field = np.zeros(n) if potential is None else potential - potential.mean()
    return np.concatenate(
        [inverse[np.lexsort((inverse, high, low))], field[np.lexsort((field, np.asarray(atomic_numbers)))]]
    )


def choose_diverse(
    candidates: FloatArray, uncertainties: FloatArray, known: FloatArray, count: int, n_distances: int
) -> list[int]:
    """Return the indices of candidates, each the furthest from all geometries that are known or chosen before.

    Parameters
    ----------
    candidates : (k, d) float array
        Descriptors of the candidates.
    uncertainties : (k,) float array
        Uncertainties; distances are multiplied by the square root of the uncertainty over its mean.
    known : (m, d) float array
        Descriptors of geometries with a label or chosen already; may be empty.
    count : int
        Largest number of candidates. Candidates at the same point as a known geometry are not chosen.
    n_distances : int
        Number of inverse distances at the start of a descriptor.

    Returns
    -------
    list of int
        Indices of the chosen candidates; the first of equal candidates.
    """
    if not len(candidates) or count < 1:
        return []
    everything = np.vstack([known, candidates]) if len(known) else candidates
    scale = np.ones(everything.shape[1])
    for part, weight in ((slice(0, n_distances), 1.0), (slice(n_distances, None), POTENTIAL_WEIGHT)):
        spread = np.sqrt(everything[:, part].var(axis=0).sum())
        scale[part] = weight / spread if spread > 0 else 0.0
    points = candidates * scale
    weights = np.sqrt(np.asarray(uncertainties) / np.mean(uncertainties))
    nearest = _distances(points, known * scale).min(axis=1) if len(known) else np.full(len(points), np.inf)
    chosen: list[int] = []
    while len(chosen) < min(count, len(points)):
        score = np.where(np.isinf(nearest), np.inf, nearest * weights)
        # Without known geometries the most uncertain candidate is the first.
        if np.isinf(score).all():
            score = np.asarray(uncertainties, dtype=float)
        best = int(np.argmax(score))
        if nearest[best] <= 0.0:
            break
        chosen.append(best)
        nearest = np.minimum(nearest, _distances(points, points[best : best + 1])[:, 0])
    return chosen


def _distances(points: FloatArray, others: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(((points[:, None] - others[None]) ** 2).sum(axis=-1)))
