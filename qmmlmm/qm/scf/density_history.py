"""Guesses for the orbitals and the density of a geometry from those of earlier geometries."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

from qmmlmm.units import FloatArray

Groups = tuple[FloatArray, ...]

LONGEST = 6
"""Largest number of earlier geometries in the extrapolation: order k = 4."""

JUMP = 0.5
"""Displacement of an atom relative to its region, bohr, above which earlier geometries are not used. A hydrogen at 300
K moves 0.2 bohr in 4 fs."""

FAITHFUL = 0.5
"""Largest error of extrapolated positions, as a share of the last displacement, for the extrapolated density to be
better than the last one."""

SAME_GEOMETRY = 1e-8
"""Distance in bohr below which two geometries are the same."""

LEAST_OVERLAP = 0.1
"""Smallest eigenvalue of the overlap of guessed orbitals; below it they are linearly dependent."""


@dataclass(frozen=True)
class _Entry:
    """One converged geometry: positions about their centre, and P S and the orbitals of each group."""

    shape: FloatArray
    projectors: Groups
    orbitals: Groups


class OrbitalHistory:
    """The last converged orbitals of one region, with a time-reversible extrapolation.

    Orbitals are in groups, within which rotations have no effect: the occupied ones of each spin, or core and active
    ones.

    Notes
    -----
    Always stable predictor: Kolafa, J. Comput. Chem. 25, 335 (2004); for density matrices the contra-covariant
    product P S is extrapolated and projects the last orbitals: VandeVondele et al., Comput. Phys. Commun. 167,
    103 (2005), eq. 24. From K = k + 2 earlier geometries,

        C_n = sum_m B_m (P S)_{n-m} C_{n-1},    B_m = (-1)^(m+1) m binom(2K, K-m) / binom(2K-2, K-1),

    made orthonormal. This is valid for steps of equal length, which is checked by the positions: the same extrapolation
    has to be close to the new ones, or fewer geometries are used, down to only the nearest one. A common shift of all
    atoms has no effect.

    If a geometry returns, the later ones are removed: they were trials, such as rejected moves of a barostat.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    def forget(self) -> None:
        """Remove all geometries."""
        self._entries.clear()

    def add(self, positions: FloatArray, overlap: FloatArray, orbitals: Groups) -> None:
        """Keep orbitals, each group (n_ao, n), orthonormal with this overlap of the basis functions."""
        shape = _centred(positions)
        for index, entry in enumerate(self._entries):
            if _distance(entry.shape, shape) < SAME_GEOMETRY:
                del self._entries[index:]
                break
        self._entries.append(_Entry(shape, tuple(c @ (c.T @ overlap) for c in orbitals), orbitals))
        del self._entries[:-LONGEST]

    def guesses(self, positions: FloatArray) -> list[tuple[str, Groups]]:
        """Return names and orbitals to start from, not orthonormal yet, the best first; none after a jump.

        The last guess has the orbitals of the nearest geometry.
        """
        shape = _centred(positions)
        distances = [_distance(entry.shape, shape) for entry in self._entries]
        if not distances or min(distances) > JUMP:
            self.forget()
            return []
        nearest = self._entries[int(np.argmin(distances))]
        found = []
        length = self._length(shape, distances[-1]) if min(distances) >= SAME_GEOMETRY else 1
        if length > 1:
            last, recent = self._entries[-1], self._entries[: -length - 1 : -1]
            weights = coefficients(length)
            moved = tuple(
                np.asarray(sum(b * entry.projectors[group] for b, entry in zip(weights, recent, strict=True)))
                @ orbitals
                for group, orbitals in enumerate(last.orbitals)
            )
            found.append(("extrapolated guess", moved))
        return [*found, ("last density", nearest.orbitals)]

    def _length(self, shape: FloatArray, displacement: float) -> int:
        """Return the number of earlier geometries for the extrapolation."""
        for length in range(len(self._entries), 1, -1):
            recent = self._entries[: -length - 1 : -1]
            predicted = sum(b * entry.shape for b, entry in zip(coefficients(length), recent, strict=True))
            if _distance(np.asarray(predicted), shape) < FAITHFUL * displacement:
                return length
        return 1


class DensityHistory:
    """The last converged densities of one region, extrapolated by `OrbitalHistory`."""

    def __init__(self) -> None:
        self._orbitals = OrbitalHistory()

    def __len__(self) -> int:
        return len(self._orbitals)

    def forget(self) -> None:
        """Remove all geometries."""
        self._orbitals.forget()

    def add(self, positions: FloatArray, overlap: FloatArray, mean_field: Any) -> None:
        """Keep the orbitals of a converged mean-field object."""
        self._orbitals.add(positions, overlap, _occupied(mean_field))

    def guesses(self, positions: FloatArray, overlap: FloatArray) -> list[tuple[str, FloatArray]]:
        """Return names and density matrices to start from, the best first; none after a jump.

        Parameters
        ----------
        positions : (n, 3) float array, bohr
        overlap : (n_ao, n_ao) float array
            Overlap of the basis functions at these positions.

        Returns
        -------
        list of (str, (n_ao, n_ao) or (2, n_ao, n_ao) float array)
            ``"extrapolated guess"`` and ``"last density"``.
        """
        found = [(name, _density(orbitals, overlap)) for name, orbitals in self._orbitals.guesses(positions)]
        return [(name, density) for name, density in found if density is not None]


def coefficients(length: int) -> FloatArray:
    """Return B_1 ... B_K of the predictor from K geometries; they add up to one."""
    front = comb(2 * length - 2, length - 1)
    return np.array([(-1) ** (m + 1) * m * comb(2 * length, length - m) / front for m in range(1, length + 1)])


def _centred(positions: FloatArray) -> FloatArray:
    return np.asarray(positions - positions.mean(axis=0))


def _distance(first: FloatArray, second: FloatArray) -> float:
    return float(np.linalg.norm(first - second, axis=1).max())


def _occupied(mean_field: Any) -> Groups:
    orbitals, occupations = np.asarray(mean_field.mo_coeff), np.asarray(mean_field.mo_occ)
    if occupations.ndim == 1:
        return (np.asarray(orbitals[:, occupations > 0]),)
    return tuple(np.asarray(orbitals[spin][:, occupations[spin] > 0]) for spin in range(2))


def orthonormal(orbitals: FloatArray, overlap: FloatArray) -> FloatArray | None:
    """Return orbitals made orthonormal with the least change, or None if they are linearly dependent."""
    if not orbitals.shape[1]:
        return orbitals
    if not np.all(np.isfinite(orbitals)):
        return None
    values, vectors = np.linalg.eigh(orbitals.T @ overlap @ orbitals)
    if values.min() < LEAST_OVERLAP:
        return None
    return np.asarray(orbitals @ (vectors / np.sqrt(values)) @ vectors.T)


def _density(orbitals: Groups, overlap: FloatArray) -> FloatArray | None:
    """Return the density matrix of orbitals made orthonormal, or None if they are linearly dependent."""
    parts = []
    for group in orbitals:
        found = orthonormal(group, overlap)
        if found is None:
            return None
        parts.append(found @ found.T)
    return 2.0 * parts[0] if len(parts) == 1 else np.array(parts)
