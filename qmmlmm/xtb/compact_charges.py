"""The compact external charges, points and Gaussians, acting on atomic multipoles."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from qmmlmm.coupling.potential import ExternalField
from qmmlmm.embedding.kernels import external_derivatives
from qmmlmm.units import FloatArray
from qmmlmm.xtb.multipoles import DIPOLES, QUADRUPOLES, AtomicMultipoles, AtomicPotential

REACH = 5.5
"""Splitting times the distance up to which a point with the opposite Gaussian charge acts: erfc is 7e-15 there, a
hundred-thousandth of what the cutoff of the sources leaves."""


class CompactCharges:
    """The potential of compact charges at atoms, and the derivatives of the energy of multipoles in it.

    Parameters
    ----------
    positions : (n, 3) float array, bohr
        Atoms.
    external_field : ExternalField
    rank : int
        Highest rank of the multipoles.

    Notes
    -----
    With x = r_A - r_k and F_0(r) the potential of a charge, F_(l+1) = F_l'/r, the Cartesian derivatives are

        grad F_0 = F_1 x,    grad grad F_0 = F_2 x x' + F_1 I,    and so on,

    and the energy of the multipoles of an atom with a charge is, because quadrupoles have no trace,

        q F_0 + F_1 d.x + 1/3 F_2 x.Theta.x

    with the gradient (q F_1 + F_2 d.x + 1/3 F_3 x.Theta.x) x + F_1 d + 2/3 F_2 Theta x.
    """

    def __init__(self, positions: FloatArray, external_field: ExternalField, rank: int) -> None:
        self._rank = rank
        atoms, sources = _tensor(positions), _tensor(external_field.positions)
        points, gaussians = _tensor(external_field.point_charges), _tensor(external_field.gaussian_charges)
        splitting, widths = external_field.splitting, external_field.widths
        near = torch.ones((len(atoms), len(sources)), dtype=torch.bool)
        if splitting is not None:
            screened = (points == -gaussians) if widths is None else (points == -gaussians) & (_tensor(widths) == 0.0)
            near = (torch.cdist(atoms, sources) < REACH / splitting) | ~screened
        self._atoms, self._sources = torch.nonzero(near, as_tuple=True)
        self._shape = near.shape
        # Components first: each is a contiguous array of pairs.
        self._vectors = atoms.T.index_select(1, self._atoms) - sources.T.index_select(1, self._sources)
        radial = external_derivatives(
            _dot(self._vectors, self._vectors).sqrt()[None],
            points[self._sources],
            gaussians[self._sources],
            splitting,
            None if widths is None else _tensor(widths)[self._sources],
            rank + 1,
        )
        self._radial = [part[0] for part in radial]

    def potential(self) -> AtomicPotential:
        """Return the potential at the atoms, with the derivatives that the multipoles feel."""
        radial, vectors, n = self._radial, self._vectors, self._shape[0]
        gradient, curvature = np.zeros((n, 3)), np.zeros((n, 3, 3))
        if self._rank >= DIPOLES:
            gradient = self._over_charges(radial[1] * vectors).T
        if self._rank >= QUADRUPOLES:
            products = radial[2] * vectors[:, None] * vectors[None]
            curvature = self._over_charges(products.view(9, -1)).T.reshape(n, 3, 3)
            curvature = curvature + self._over_charges(radial[1][None])[0][:, None, None] * np.eye(3)
        return AtomicPotential(self._over_charges(radial[0][None])[0], gradient, curvature)

    def gradients(self, multipoles: AtomicMultipoles) -> tuple[FloatArray, FloatArray]:
        """Return the derivatives of the energy of multipoles with respect to atoms, (n, 3), and charges, (k, 3)."""
        radial, vectors = self._radial, self._vectors
        along = self._of_pairs(multipoles.charges[None])[0] * radial[1]
        across = torch.zeros_like(vectors)
        if self._rank >= DIPOLES:
            dipoles = self._of_pairs(multipoles.dipoles.T)
            along.addcmul_(radial[2], _dot(dipoles, vectors))
            across.addcmul_(radial[1], dipoles)
        if self._rank >= QUADRUPOLES:
            turned = self._turned(multipoles)
            along.addcmul_(radial[3], _dot(turned, vectors), value=1.0 / 3.0)
            across.addcmul_(radial[2], turned, value=2.0 / 3.0)
        pairs = across.addcmul_(along, vectors)
        return self._over_charges(pairs).T, -self._over_atoms(pairs).T

    def energies(self, multipoles: AtomicMultipoles) -> FloatArray:
        """Return the energy of multipoles with each charge, (k,) hartree."""
        radial, vectors = self._radial, self._vectors
        energies = self._of_pairs(multipoles.charges[None])[0] * radial[0]
        if self._rank >= DIPOLES:
            energies += radial[1] * _dot(self._of_pairs(multipoles.dipoles.T), vectors)
        if self._rank >= QUADRUPOLES:
            energies += radial[2] * _dot(self._turned(multipoles), vectors) / 3.0
        return self._over_atoms(energies[None])[0]

    def _turned(self, multipoles: AtomicMultipoles) -> Tensor:
        """Return Theta x of each pair, (3, m)."""
        x, y, z = self._vectors
        quadrupoles = self._of_pairs(multipoles.quadrupoles.transpose(1, 2, 0).reshape(9, -1)).view(3, 3, -1)
        return (quadrupoles[:, 0] * x).addcmul_(quadrupoles[:, 1], y).addcmul_(quadrupoles[:, 2], z)

    def _of_pairs(self, values: FloatArray) -> Tensor:
        """Return the values of the atom of each pair, (c, m), from those of atoms, (c, n)."""
        return _tensor(values).index_select(1, self._atoms)

    def _over_charges(self, pairs: Tensor) -> FloatArray:
        """Return the sums over the charges of each atom, (c, n), of components of pairs, (c, m)."""
        return self._sum(pairs, self._atoms, self._shape[0])

    def _over_atoms(self, pairs: Tensor) -> FloatArray:
        """Return the sums over the atoms of each charge, (c, k), of components of pairs, (c, m)."""
        return self._sum(pairs, self._sources, self._shape[1])

    @staticmethod
    def _sum(pairs: Tensor, index: Tensor, count: int) -> FloatArray:
        result = torch.zeros((len(pairs), count), dtype=pairs.dtype)
        return np.asarray(result.index_add_(1, index, pairs).numpy())


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Return the products of vectors, (m,), whose components are rows, (3, m)."""
    return (one[0] * other[0]).addcmul_(one[1], other[1]).addcmul_(one[2], other[2])


def _tensor(array: FloatArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=float))
