"""Electrostatics between the charges and dipoles of one region, damped where their clouds overlap.

Atomic units; leading dimensions are free, n atoms each.

Notes
-----
All charges are Gaussians of the same width, so that the kernel is erf(b r)/r. Its radial derivatives follow from
the recursion of Smith, CCP5 Newsletter 46, 18 (1998), here for erf instead of erfc.
"""

import math
from typing import Tuple  # noqa: UP035  (TorchScript reads it)

import torch
from torch import Tensor


def smeared_derivatives(r: Tensor, damping: float) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
    """Return B0 = erf(b r)/r, B1 = -B0'/r and B2 = -B1'/r, for distances well above zero."""
    inverse = 1.0 / (r * r)
    gaussian = torch.exp(-((damping * r) ** 2)) / (damping * math.sqrt(math.pi))
    square = 2.0 * damping * damping
    b0 = torch.erf(damping * r) / r
    b1 = (b0 - square * gaussian) * inverse
    b2 = (3.0 * b1 - square * square * gaussian) * inverse
    return b0, b1, b2


def pair_energy(positions: Tensor, charges: Tensor, dipoles: Tensor, damping: float) -> Tensor:
    """Return the energy of all pairs of charges and dipoles.

    Parameters
    ----------
    positions : (..., n, 3) tensor, bohr
    charges : (..., n) tensor, e
    dipoles : (..., n, 3) tensor, e bohr
    damping : float, 1/bohr

    Returns
    -------
    (...) tensor, hartree
    """
    delta, r, others = _pairs(positions)
    b0, b1, b2 = smeared_derivatives(r, damping)
    along_first = (delta * dipoles.unsqueeze(-2)).sum(-1)  # the first atom's dipole along first - second
    along_second = (delta * dipoles.unsqueeze(-3)).sum(-1)
    q_first, q_second = charges.unsqueeze(-1), charges.unsqueeze(-2)
    products = (dipoles.unsqueeze(-2) * dipoles.unsqueeze(-3)).sum(-1)
    energy = (
        q_first * q_second * b0
        + (q_first * along_second - q_second * along_first) * b1
        + products * b1
        - along_first * along_second * b2
    )
    return 0.5 * (energy * others).sum(-1).sum(-1)


def field_at_atoms(positions: Tensor, charges: Tensor, dipoles: Tensor, damping: float) -> Tensor:
    """Return the field at each atom of all others' charges and dipoles, (..., n, 3) hartree/(e bohr).

    Parameters
    ----------
    positions : (..., n, 3) tensor, bohr
    charges : (..., n) tensor, e
    dipoles : (..., n, 3) tensor, e bohr
    damping : float, 1/bohr
    """
    delta, r, others = _pairs(positions)
    _, b1, b2 = smeared_derivatives(r, damping)
    along = (delta * dipoles.unsqueeze(-3)).sum(-1)
    radial = (charges.unsqueeze(-2) * b1 + along * b2) * others
    return (radial.unsqueeze(-1) * delta).sum(-2) - torch.matmul(b1 * others, dipoles)


def _pairs(positions: Tensor) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
    """Return first - second, their distances (one for an atom with itself), and a mask of true pairs."""
    n = positions.shape[-2]
    same = torch.eye(n, dtype=positions.dtype, device=positions.device)
    delta = positions.unsqueeze(-2) - positions.unsqueeze(-3)
    r = torch.sqrt((delta * delta).sum(-1) + same)
    return delta, r, 1.0 - same
