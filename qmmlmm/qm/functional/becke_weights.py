"""Derivatives of the weights of Becke's partition, as array operations."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf.dft import radi

from qmmlmm.units import FloatArray

NEGLIGIBLE_SHARE = 1e-14
"""Largest share of an atom in a block of points below which its own cell is left out."""


class BeckeWeights:
    """Shares of atoms in space, and the derivatives of the weights with respect to the atoms.

    Parameters
    ----------
    molecule : pyscf.gto.Mole
    grids : pyscf.dft.gen_grid.Grids
        Grid whose partition it is, with Becke's original scheme.

    Notes
    -----
    Becke, J. Chem. Phys. 88, 2547 (1988): a point of atom A has the share w = p_A/sum_i p_i,
    p_i = prod_j s(nu_ij), s = (1 - f(f(f(nu))))/2, f(x) = (3 x - x^3)/2, nu_ij = mu_ij + a_ij (1 - mu_ij^2),
    mu_ij = (d_i - d_j)/R_ij with the distances d to the atoms. With w_i = p_i/sum p

        dw/w = sum_ij (delta_iA - w_i) s'(nu_ij)/s(nu_ij) dnu_ij.
    """

    def __init__(self, molecule: Any, grids: Any) -> None:
        self._nuclei: FloatArray = molecule.atom_coords()
        vectors = self._nuclei[:, None] - self._nuclei[None]
        distances = np.linalg.norm(vectors, axis=2)
        np.fill_diagonal(distances, 1.0)
        self._inverse = 1.0 / distances
        self._directions = vectors * self._inverse[:, :, None]
        self._sizes = _sizes(molecule, grids)

    def gradient(self, points: FloatArray, owner: int, factors: FloatArray) -> FloatArray:
        """Return the derivative of sum_g factors[g] w[g] for points of one atom.

        Parameters
        ----------
        points : (g, 3) float array, bohr
        owner : int
            Atom with which the points move.
        factors : (g,) float array

        Returns
        -------
        (n, 3) float array, 1/bohr times the unit of the factors
        """
        count = len(self._nuclei)
        gradient = np.zeros((count, 3))
        if count == 1:
            return gradient
        vectors = points[None] - self._nuclei[:, None]
        distances = np.linalg.norm(vectors, axis=2)
        shares, slopes = self._shares(distances)
        active = np.flatnonzero(shares.max(axis=1) > NEGLIGIBLE_SHARE)
        if owner not in active:
            return gradient
        # h[i, j] = factor w (delta_iA - w_i) s'/s dnu/dmu / R_ij for the cells i that are not empty here.
        change = -shares[active]
        change[np.searchsorted(active, owner)] += 1.0
        change *= factors * shares[owner]
        h = slopes(active)
        h *= change[:, None]
        # The owner's own distance to itself moves with nothing: its unit vector drops out of d(r - R_A).
        by_cell = -h.sum(axis=0)
        by_cell[active] += h.sum(axis=1)
        mu = (distances[active][:, None] - distances[None]) * self._inverse[active][:, :, None]
        moments = np.einsum("ijg,ijg->ij", h, mu)
        pulls = moments[:, :, None] * self._directions[active]
        gradient[active] -= pulls.sum(axis=1)
        gradient += pulls.sum(axis=0)
        units = vectors / np.maximum(distances, 1e-200)[:, :, None]
        pushes = np.einsum("ig,igx->ix", by_cell, units)
        gradient -= pushes
        gradient[owner] += pushes.sum(axis=0)
        return gradient

    def _shares(self, distances: FloatArray) -> tuple[FloatArray, Any]:
        """Return the shares of all atoms, (n, g), and a function for s'/s dnu/dmu / R of some of them, (k, n, g)."""
        count, n_points = distances.shape
        cells = np.ones((count, n_points))
        # Of each pair one is stored: nu and the adjustment are antisymmetric, so that s(nu_ji) = 1 - s(nu_ij).
        smooth: list[FloatArray] = []
        opposite: list[FloatArray] = []
        slope: list[FloatArray] = []
        for i in range(count):
            inverse, sizes = self._inverse[i, :i, None], self._sizes[i, :i, None]
            mu = distances[i] - distances[:i]
            mu *= inverse
            factor = inverse - (2.0 * sizes * inverse) * mu
            x = mu + sizes * (1.0 - mu * mu)
            for _ in range(3):
                square = x * x
                factor *= 1.5 - 1.5 * square
                x *= 1.5 - 0.5 * square
            x *= 0.5
            smooth.append(0.5 - x)
            opposite.append(0.5 + x)
            slope.append(factor)
            cells[i] *= smooth[i].prod(axis=0)
            cells[:i] *= opposite[i]
        shares = cells / cells.sum(axis=0)

        def slopes(chosen: Any) -> FloatArray:
            found = np.zeros((len(chosen), count, n_points))
            for place, i in enumerate(chosen):
                # Where s vanishes its cell is empty, and the product of both with it.
                found[place, :i] = slope[i] / np.maximum(smooth[i], 1e-200)
                for j in range(i + 1, count):
                    found[place, j] = slope[j][i] / np.maximum(opposite[j][i], 1e-200)
            found *= -0.5
            return found

        return shares, slopes


def _sizes(molecule: Any, grids: Any) -> FloatArray:
    """Return a_ij of the adjustment for the sizes of the atoms, (n, n)."""
    radii = np.asarray(grids.atomic_radii)[molecule.atom_charges()]
    if grids.radii_adjust == radi.treutler_atomic_radii_adjust:
        radii = np.sqrt(radii)
    elif grids.radii_adjust != radi.becke_atomic_radii_adjust:
        return np.zeros((molecule.natm, molecule.natm))
    ratio = radii[:, None] / radii[None]
    return np.asarray(np.clip(0.25 * (ratio.T - ratio), -0.5, 0.5))
