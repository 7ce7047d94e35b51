"""Atom-centred quadrature grids with derivatives of the weights."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import gto
from pyscf.dft.gen_grid import gen_atomic_grids

from qmmlmm.units import FloatArray, IntArray

HYDROGEN_SHARE = 0.3
"""Hydrogen's share of space relative to other elements; it halves the error of the overlap matrix."""

BLOCK_POINTS = 2048
"""Number of points in one block of the derivative of the weights."""


class AtomGrid:
    """A quadrature grid, the union of one grid of shells around each atom.

    Parameters
    ----------
    molecule : pyscf.gto.Mole
    level : int
        PySCF's grid level, for radial and angular sizes and for pruning.

    Attributes
    ----------
    points : (g, 3) float array, bohr
        Points, ordered by owner.
    weights : (g,) float array, bohr^3
    owners : (g,) int array
        Atom with which a point moves.

    Notes
    -----
    A point r of atom A has the share p_A/sum_B p_B with p_B = s_B exp(-2 d_B)/d_B^3, d_B = abs(r - R_B) in
    bohr: the partition of te Velde and Baerends, J. Comput. Phys. 99, 84 (1992). In contrast to Becke's partition,
    its cost and that of its derivative are linear in the number of atoms, and at equal level the overlap matrix is as
    good or better.
    """

    def __init__(self, molecule: Any, level: int) -> None:
        shells = gen_atomic_grids(molecule, level=level)
        self._nuclei: FloatArray = molecule.atom_coords()
        symbols = [molecule.atom_pure_symbol(atom) for atom in range(molecule.natm)]
        self._log_shares = np.log([HYDROGEN_SHARE if gto.charge(symbol) == 1 else 1.0 for symbol in symbols])
        points, weights, owners = [], [], []
        for atom in range(molecule.natm):
            offsets, volumes = shells[molecule.atom_symbol(atom)]
            positions = offsets + self._nuclei[atom]
            points.append(positions)
            weights.append(volumes * self._shares(positions)[0][:, atom])
            owners.append(np.full(len(volumes), atom))
        self.points: FloatArray = np.concatenate(points)
        self.weights: FloatArray = np.concatenate(weights)
        self.owners: IntArray = np.concatenate(owners)

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Remove the points at which the mask is False."""
        self.points, self.weights, self.owners = self.points[mask], self.weights[mask], self.owners[mask]

    def sum_by_owner(self, values: FloatArray) -> FloatArray:
        """Return the sums over the points of each atom, (n, k), of values at points, (k, g)."""
        ends = np.searchsorted(self.owners, np.arange(len(self._nuclei) + 1))
        sums = [values[:, start:end].sum(axis=1) for start, end in pairwise(ends)]
        return np.array(sums).reshape(len(self._nuclei), len(values))

    def weight_gradient(self, factors: FloatArray) -> FloatArray:
        """Return the derivative of sum_g factors[g] * weights[g] through the partition of space.

        Parameters
        ----------
        factors : (g,) float array
            One factor for each point.

        Returns
        -------
        (n, 3) float array, 1/bohr times the unit of the sum

        Notes
        -----
        For a point of atom A and another atom B, d ln w/dR_B = (p_B/P) (-2 - 3/d_B) (r - R_B)/d_B; the
        derivative with respect to R_A is minus the sum of these, because a common shift has no effect.
        """
        gradient = np.zeros_like(self._nuclei)
        of_points = np.zeros((3, len(self.points)))
        for start in range(0, len(self.points), BLOCK_POINTS):
            block = slice(start, start + BLOCK_POINTS)
            points, owners = self.points[block], self.owners[block]
            shares, distances = self._shares(points)
            radial = shares * (-2.0 - 3.0 / distances) / distances
            radial *= (factors[block] * self.weights[block])[:, None]
            radial[np.arange(len(points)), owners] = 0.0
            gradient += radial.T @ points - radial.sum(axis=0)[:, None] * self._nuclei
            of_points[:, block] = (radial.sum(axis=1)[:, None] * points - radial @ self._nuclei).T
        return np.asarray(gradient - self.sum_by_owner(of_points))

    def _shares(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return p_B/sum p, (g, n), and the distances to the nuclei, (g, n) bohr."""
        squares = (points**2).sum(axis=1)[:, None] + (self._nuclei**2).sum(axis=1)
        squares -= 2.0 * points @ self._nuclei.T
        distances = np.sqrt(np.maximum(squares, 1e-20))
        logarithms = self._log_shares - 2.0 * distances - 3.0 * np.log(distances)
        shares = np.exp(logarithms - logarithms.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True), distances
