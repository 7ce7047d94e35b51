"""The charges of a region as Gaussians at its own atoms, which the mesh has and the region does not feel.

All functions are TorchScript, in atomic units.
"""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

from typing import NamedTuple

import torch
from torch import Tensor

from qmmlmm.embedding.kernels import smeared_kernel


class OwnKernel(NamedTuple):
    """The potential erf(alpha r)/r of Gaussian charges at the region's atoms, at its sites.

    Parameters
    ----------
    delta : (n_sites, n_atoms, 3) tensor, bohr
        Vectors from the atoms to the sites.
    value, radial, along : (n_sites, n_atoms) tensors
        Potential of a unit charge, its first derivative divided by the distance, and the additional second derivative
        along the distance, divided by its square.
    """

    delta: Tensor
    value: Tensor
    radial: Tensor
    along: Tensor


def own_kernel(sites: Tensor, n_atoms: int, alpha: Tensor) -> OwnKernel:
    """Return the kernel of the region's atoms, the first of its sites.

    Parameters
    ----------
    sites : (n_sites, 3) tensor, bohr
    n_atoms : int
    alpha : () tensor, 1/bohr
        Ewald splitting parameter.
    """
    delta = sites[:, None, :] - sites[None, :n_atoms, :]
    squared = (delta * delta).sum(-1)
    value, radial, second = smeared_kernel(torch.sqrt(squared), alpha)
    return OwnKernel(delta, value, radial, (second - radial) / torch.clamp(squared, min=1e-24))


def own_potential(own: OwnKernel, charges: Tensor) -> tuple[Tensor, Tensor]:
    """Return the potential and its gradient at the sites of charges, (n_atoms,), as Gaussians at the atoms."""
    gradient = ((own.radial * charges)[:, :, None] * own.delta).sum(1)
    return torch.matmul(own.value, charges), gradient


def own_curvature(own: OwnKernel, charges: Tensor) -> Tensor:
    """Return the second derivatives of `own_potential`."""
    along = own.along * charges
    curvature = torch.matmul((along[:, :, None] * own.delta).transpose(1, 2), own.delta)
    identity = torch.eye(3, dtype=along.dtype, device=along.device)
    return curvature + torch.matmul(own.radial, charges)[:, None, None] * identity


def own_from_charges(own: OwnKernel, charges: Tensor) -> Tensor:
    """Return the derivatives, from site charges, for unit Gaussian charges at the region's atoms, (n_atoms, 3)."""
    return ((charges[:, None] * own.radial)[:, :, None] * own.delta).sum(0)


def own_from_dipoles(own: OwnKernel, dipoles: Tensor) -> Tensor:
    """Return the derivatives, from site dipoles, for unit Gaussian charges at the region's atoms, (n_atoms, 3)."""
    along = own.along * (own.delta * dipoles[:, None, :]).sum(-1)
    return (along[:, :, None] * own.delta).sum(0) + torch.matmul(own.radial.t(), dipoles)
