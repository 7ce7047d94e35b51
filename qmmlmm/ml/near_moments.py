"""Moments of the charges close to an atom: their directions, by radial functions."""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

from typing import Tuple  # noqa: UP035  (TorchScript reads it)

import torch
from torch import Tensor

from qmmlmm.units import ANGSTROM_IN_BOHR

N_MOMENTS = 13
"""Number of moments: 1, u_x to u_z, u_x u_x to u_z u_z."""


class NearMoments(torch.nn.Module):
    """Moments sum_j Q_j R_p(r_ij) (1, u_ij, u_ij u_ij) of the charges Q_j around an atom i, u_ij of unit length.

    Parameters
    ----------
    cutoff : float, angstrom
        Distance at which the radial functions R_p are zero with their first and second derivatives.
    functions : int
        Number of radial functions.
    dtype : torch.dtype
    """

    centers: Tensor

    def __init__(self, cutoff: float, functions: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.angstrom = 1.0 / ANGSTROM_IN_BOHR
        self.width = (cutoff - 1.5) / functions
        self.register_buffer("centers", torch.linspace(1.0, cutoff - 0.5, functions, dtype=dtype))

    def forward(self, positions: Tensor, near_positions: Tensor, near_charges: Tensor) -> Tensor:
        """Return the moments, (..., n, 13, p).

        Parameters
        ----------
        positions : (..., n, 3) tensor, bohr
        near_positions : (..., k, 3) tensor, bohr
        near_charges : (..., k) tensor, e
            Zero for padding.
        """
        _, _, angular, gaussians, pull, _ = self._parts(positions, near_positions, near_charges)
        return torch.matmul(angular.transpose(-1, -2), gaussians * pull.unsqueeze(-1))

    def gradient(
        self,
        positions: Tensor,
        near_positions: Tensor,
        near_charges: Tensor,
        moment_gradient: Tensor,
    ) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Return the derivatives of a function of the moments with respect to the positions of atoms and charges.

        Parameters
        ----------
        positions, near_positions, near_charges : tensors
            As for `forward`.
        moment_gradient : (..., n, 13, p) tensor
            Derivative with respect to the moments.
        """
        distances, x, angular, gaussians, pull, z = self._parts(positions, near_positions, near_charges)
        by_radial = torch.matmul(angular, moment_gradient)
        by_angular = torch.matmul(gaussians * pull.unsqueeze(-1), moment_gradient.transpose(-1, -2))
        unit = angular[..., 1:4]
        by_distance = (by_radial * self._radial_derivatives(x, gaussians, pull, z, near_charges)).sum(-1)
        second = by_angular[..., 4:].unflatten(-1, [3, 3])
        by_unit = by_angular[..., 1:4] + ((second + second.transpose(-1, -2)) * unit.unsqueeze(-2)).sum(-1)
        along = by_distance - (unit * by_unit).sum(-1) / distances
        by_delta = (along.unsqueeze(-1) * unit + by_unit / distances.unsqueeze(-1)) * self.angstrom
        by_delta = by_delta.to(positions.dtype)
        return -by_delta.sum(-2), by_delta.sum(-3)

    def atom_gradient(
        self,
        positions: Tensor,
        near_positions: Tensor,
        near_charges: Tensor,
        moment_gradient: Tensor,
    ) -> Tensor:
        """Return the part of `gradient` for the atoms, for several functions of the moments at once.

        Parameters
        ----------
        positions, near_positions : (n, 3) and (k, 3) tensors, bohr
        near_charges : (k,) tensor, e
        moment_gradient : (c, n, 13, p) tensor
            Derivatives with respect to the moments, such as those of c members of a committee.

        Returns
        -------
        (c, n, 3) tensor, per bohr

        Notes
        -----
        The derivative of an atom's moments with respect to its position is the same for all functions. With h = Q R_p,
        its derivative h' and g = h/r it is, summed over the charges and with the opposite sign,
        h' u_c for the zeroth, (h' - g) u_a u_c + g d_ac for the first, and
        (h' - 2 g) u_a u_b u_c + g (d_ac u_b + d_bc u_a) for the second moments.
        """
        distances, x, angular, gaussians, pull, z = self._parts(positions, near_positions, near_charges)
        count = gaussians.shape[-1]
        along = self._radial_derivatives(x, gaussians, pull, z, near_charges)
        across = gaussians * (pull / distances).unsqueeze(-1)
        powers = angular.transpose(-1, -2)
        unit = powers[:, 1:4]
        cubes = (powers[:, 4:].unsqueeze(-2) * unit.unsqueeze(-3)).flatten(-3, -2)
        change = torch.cat(
            [
                torch.matmul(unit, along),
                torch.matmul(powers[:, 4:], along - across),
                torch.matmul(cubes, along - 2.0 * across),
            ],
            dim=-2,
        )
        # Rows: moment and radial function. Columns: direction.
        rows = angular.shape[-1]
        change = change.reshape(-1, rows, 3, count).transpose(-1, -2).reshape(-1, rows * count, 3)
        by_atom = torch.matmul(moment_gradient.flatten(-2).transpose(0, 1), change).transpose(0, 1)
        turned = torch.matmul(powers[:, :4], across)
        second = moment_gradient[..., 4:, :].unflatten(-2, [3, 3])
        second = ((second + second.transpose(-2, -3)) * turned[:, 1:].unsqueeze(-3)).sum(-2)
        by_atom = by_atom + (moment_gradient[..., 1:4, :] * turned[:, :1] + second).sum(-1)
        return (-self.angstrom * by_atom).to(positions.dtype)

    def charge_gradient(self, positions: Tensor, near_positions: Tensor, moment_gradient: Tensor) -> Tensor:
        """Return the derivatives of functions of the moments with respect to the charges.

        Parameters
        ----------
        positions, near_positions : (n, 3) and (k, 3) tensors, bohr
        moment_gradient : (c, n, 13, p) tensor
            Derivatives with respect to the moments, such as those of c members of a committee.

        Returns
        -------
        (c, k) tensor, per e
        """
        ones = torch.ones_like(near_positions[..., 0])
        _, _, angular, gaussians, pull, _ = self._parts(positions, near_positions, ones)
        by_radial = torch.matmul(angular, moment_gradient)
        return (by_radial * (gaussians * pull.unsqueeze(-1))).sum(-1).sum(-2).to(positions.dtype)

    def _parts(
        self,
        positions: Tensor,
        near_positions: Tensor,
        near_charges: Tensor,
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # noqa: UP006
        """Return distances, distances over the cutoff, angular part, Gaussians, their factors and roots of
        exponents."""
        delta = near_positions.unsqueeze(-3) - positions.unsqueeze(-2)
        delta = (delta * self.angstrom).to(self.centers.dtype)
        distances = torch.sqrt((delta * delta).sum(-1) + 1e-12)
        r = torch.clamp(distances, max=self.cutoff)
        x = r / self.cutoff
        pull = (1.0 - x * x) ** 3 * near_charges.unsqueeze(-2).to(x.dtype)
        z = r.unsqueeze(-1) / self.width - self.centers / self.width
        unit = delta / distances.unsqueeze(-1)
        second = (unit.unsqueeze(-1) * unit.unsqueeze(-2)).flatten(-2)
        angular = torch.cat([torch.ones_like(x).unsqueeze(-1), unit, second], dim=-1)
        return distances, x, angular, torch.exp(-0.5 * (z * z)), pull, z

    def _radial_derivatives(
        self, x: Tensor, gaussians: Tensor, pull: Tensor, z: Tensor, near_charges: Tensor
    ) -> Tensor:
        """Return the derivatives of Q R_p with respect to the distance, (..., n, k, p) per angstrom, from `_parts`."""
        fall = (-6.0 / self.cutoff) * x * (1.0 - x * x) ** 2 * near_charges.unsqueeze(-2).to(x.dtype)
        return gaussians * (fall.unsqueeze(-1) - z * (pull / self.width).unsqueeze(-1))

    def select(self, positions: Tensor, near_positions: Tensor) -> Tensor:
        """Return the indices of the charges within the cutoff of an atom, int64; others do not contribute.

        Parameters
        ----------
        positions : (n, 3) tensor, bohr
        near_positions : (k, 3) tensor, bohr
        """
        with torch.no_grad():
            nearest = torch.cdist(positions, near_positions).amin(0)
            return torch.nonzero(nearest * self.angstrom < self.cutoff).flatten()
