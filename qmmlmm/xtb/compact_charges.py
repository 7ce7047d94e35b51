"""The compact external charges, points and Gaussians, acting on atomic multipoles."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from qmmlmm.coupling.potential import ExternalField
from qmmlmm.embedding.kernels import external_derivatives
from qmmlmm.units import FloatArray
from qmmlmm.xtb.multipoles import DIPOLES, QUADRUPOLES, AtomicMultipoles, AtomicPotential


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
        # Components first: each is a contiguous array of pairs.
        self._vectors = (atoms.T[:, :, None] - sources.T[:, None, :]).contiguous()
        widths = external_field.widths
        self._radial = external_derivatives(
            torch.linalg.vector_norm(self._vectors, dim=0),
            _tensor(external_field.point_charges),
            _tensor(external_field.gaussian_charges),
            external_field.splitting,
            None if widths is None else _tensor(widths),
            rank + 1,
        )

    def potential(self) -> AtomicPotential:
        """Return the potential at the atoms, with the derivatives that the multipoles feel."""
        radial, vectors = self._radial, self._vectors
        n = vectors.shape[1]
        gradient, curvature = torch.zeros((n, 3), dtype=vectors.dtype), torch.zeros((n, 3, 3), dtype=vectors.dtype)
        if self._rank >= DIPOLES:
            gradient = torch.einsum("nk,cnk->nc", radial[1], vectors)
        if self._rank >= QUADRUPOLES:
            curvature = torch.einsum("nk,ink,jnk->nij", radial[2], vectors, vectors)
            curvature += radial[1].sum(dim=1)[:, None, None] * torch.eye(3, dtype=vectors.dtype)
        return AtomicPotential(radial[0].sum(dim=1).numpy(), gradient.numpy(), curvature.numpy())

    def gradients(self, multipoles: AtomicMultipoles) -> tuple[FloatArray, FloatArray]:
        """Return the derivatives of the energy of multipoles with respect to atoms, (n, 3), and charges, (k, 3)."""
        radial, vectors = self._radial, self._vectors
        along = _tensor(multipoles.charges)[:, None] * radial[1]
        across = torch.zeros_like(vectors)
        if self._rank >= DIPOLES:
            dipoles = _tensor(multipoles.dipoles)
            along += radial[2] * torch.einsum("nc,cnk->nk", dipoles, vectors)
            across += radial[1] * dipoles.T[:, :, None]
        if self._rank >= QUADRUPOLES:
            turned = torch.einsum("nij,jnk->ink", _tensor(multipoles.quadrupoles), vectors)
            along += radial[3] * (turned * vectors).sum(dim=0) / 3.0
            across += (2.0 / 3.0) * radial[2] * turned
        pairs = along * vectors + across
        return pairs.sum(dim=2).T.numpy(), -pairs.sum(dim=1).T.numpy()

    def energies(self, multipoles: AtomicMultipoles) -> FloatArray:
        """Return the energy of multipoles with each charge, (k,) hartree."""
        radial, vectors = self._radial, self._vectors
        energies = _tensor(multipoles.charges) @ radial[0]
        if self._rank >= DIPOLES:
            energies += (radial[1] * torch.einsum("nc,cnk->nk", _tensor(multipoles.dipoles), vectors)).sum(dim=0)
        if self._rank >= QUADRUPOLES:
            turned = torch.einsum("nij,jnk->ink", _tensor(multipoles.quadrupoles), vectors)
            energies += (radial[2] * (turned * vectors).sum(dim=0)).sum(dim=0) / 3.0
        return np.asarray(energies.numpy())


def _tensor(array: FloatArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=float))
