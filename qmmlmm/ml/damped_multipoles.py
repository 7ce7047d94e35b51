"""Electrostatics between the charges and dipoles of one region, damped at short distances.

Atomic units. Leading dimensions are arbitrary and broadcast: members of a committee share the kernels of one geometry.

Notes
-----
All charges are Gaussians of the same width, so that the kernel is erf(b r)/r with its radial derivatives
(`qmmlmm.embedding.kernels`).
"""

from typing import Tuple  # noqa: UP035  (TorchScript reads it)

import torch
from torch import Tensor

from qmmlmm.embedding.kernels import smeared_derivatives


def own_distance(n: int) -> Tensor:
    """Return the square of the distance of each of n atoms to itself that `pair_geometry` adds, (n, n) bohr^2.

    Notes
    -----
    At 1e19 bohr an atom does not contribute to sums over its neighbours, and all derivatives are finite.
    """
    return 1e38 * torch.eye(n, dtype=torch.float64)


def pair_geometry(positions: Tensor, own: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Return first - second, (..., n, n, 3), and the distances, (..., n, n), of all pairs.

    Parameters
    ----------
    positions : (..., n, 3) tensor, bohr
    own : (n, n) tensor, bohr^2
        From `own_distance`.
    """
    delta = positions.unsqueeze(-2) - positions.unsqueeze(-3)
    return delta, torch.sqrt((delta * delta).sum(-1) + own)


def pair_energy(delta: Tensor, distances: Tensor, charges: Tensor, dipoles: Tensor, damping: float) -> Tensor:
    """Return the energy of all pairs of charges and dipoles.

    Parameters
    ----------
    delta, distances : (..., n, n, 3) and (..., n, n) tensors, bohr
        From `pair_geometry`.
    charges : (..., n) tensor, e
    dipoles : (..., n, 3) tensor, e bohr
    damping : float, 1/bohr

    Returns
    -------
    (...) tensor, hartree
    """
    b0, b1, b2 = smeared_derivatives(distances, damping)
    along = (delta * dipoles.unsqueeze(-3)).sum(-1)  # the second atom's dipole along first - second
    first = charges.unsqueeze(-1)
    products = torch.matmul(dipoles, dipoles.transpose(-1, -2))
    energy = first * charges.unsqueeze(-2) * b0 + (products + 2.0 * first * along) * b1
    return 0.5 * (energy + along * along.transpose(-1, -2) * b2).sum(-1).sum(-1)


def field_at_atoms(delta: Tensor, distances: Tensor, charges: Tensor, dipoles: Tensor, damping: float) -> Tensor:
    """Return the field of all other atoms' charges and dipoles at each atom, (..., n, 3) hartree/(e bohr).

    Parameters
    ----------
    delta, distances : (..., n, n, 3) and (..., n, n) tensors, bohr
        From `pair_geometry`.
    charges : (..., n) tensor, e
    dipoles : (..., n, 3) tensor, e bohr
    damping : float, 1/bohr
    """
    _, b1, b2 = smeared_derivatives(distances, damping)
    along = (delta * dipoles.unsqueeze(-3)).sum(-1)
    radial = charges.unsqueeze(-2) * b1 + along * b2
    return (radial.unsqueeze(-1) * delta).sum(-2) - torch.matmul(b1, dipoles)
