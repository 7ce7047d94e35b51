"""What an atom sees of the charges close to it: moments of their directions, by radial functions."""

# Annotations stay objects here (no `from __future__ import annotations`): TorchScript cannot read strings.

from typing import Tuple  # noqa: UP035  (TorchScript reads it)

import torch
from torch import Tensor

from qmmlmm.units import ANGSTROM_IN_BOHR

N_MOMENTS = 13
"""One, u_x to u_z, u_x u_x to u_z u_z."""


class NearMoments(torch.nn.Module):
    """Moments sum_j Q_j R_p(r_ij) (1, u_ij, u_ij u_ij) of the charges Q_j around an atom i, u_ij of unit length.

    Parameters
    ----------
    cutoff : float, angstrom
        The radial functions R_p are zero there, with their first and second derivative.
    functions : int
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
            Zero for places that hold no charge.
        """
        _, _, angular, gaussians, pull, _ = self._parts(positions, near_positions, near_charges)
        return torch.matmul(angular.transpose(-1, -2), gaussians * pull.unsqueeze(-1))

    def gradient(
        self,
        positions: Tensor,
        near_positions: Tensor,
        near_charges: Tensor,
        slope: Tensor,
    ) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """Return what `forward` makes of a derivative by the moments: those by the positions of atoms and charges.

        Parameters
        ----------
        positions, near_positions, near_charges : tensors
            As for `forward`.
        slope : (..., n, 13, p) tensor
        """
        distances, x, angular, gaussians, pull, z = self._parts(positions, near_positions, near_charges)
        by_radial = torch.matmul(angular, slope)
        by_angular = torch.matmul(gaussians * pull.unsqueeze(-1), slope.transpose(-1, -2))
        unit = angular[..., 1:4]
        by_distance = (by_radial * self._radial_slopes(x, gaussians, pull, z, near_charges)).sum(-1)
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
        slope: Tensor,
    ) -> Tensor:
        """Return what `gradient` gives for the atoms, without the charges around and for several slopes at once.

        Parameters
        ----------
        positions, near_positions : (n, 3) and (k, 3) tensors, bohr
        near_charges : (k,) tensor, e
        slope : (c, n, 13, p) tensor
            Derivatives by the moments, such as those of c members of a committee.

        Returns
        -------
        (c, n, 3) tensor, per bohr

        Notes
        -----
        The derivative of an atom's moments by its own place is the same for all slopes. With h = Q R_p, its derivative
        h' and g = h/r it is, summed over the charges and with the opposite sign,
        h' u_c for the zeroth, (h' - g) u_a u_c + g d_ac for the first, and
        (h' - 2 g) u_a u_b u_c + g (d_ac u_b + d_bc u_a) for the second moments.
        """
        distances, x, angular, gaussians, pull, z = self._parts(positions, near_positions, near_charges)
        count = gaussians.shape[-1]
        along = self._radial_slopes(x, gaussians, pull, z, near_charges)
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
        by_atom = torch.matmul(slope.flatten(-2).transpose(0, 1), change).transpose(0, 1)
        turned = torch.matmul(powers[:, :4], across)
        second = slope[..., 4:, :].unflatten(-2, [3, 3])
        second = ((second + second.transpose(-2, -3)) * turned[:, 1:].unsqueeze(-3)).sum(-2)
        by_atom = by_atom + (slope[..., 1:4, :] * turned[:, :1] + second).sum(-1)
        return (-self.angstrom * by_atom).to(positions.dtype)

    def _parts(
        self,
        positions: Tensor,
        near_positions: Tensor,
        near_charges: Tensor,
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # noqa: UP006
        """Return distances, the same in cutoffs, angular part, Gaussians, their factors and roots of exponents."""
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

    def _radial_slopes(self, x: Tensor, gaussians: Tensor, pull: Tensor, z: Tensor, near_charges: Tensor) -> Tensor:
        """Return the derivatives of Q R_p by the distance, (..., n, k, p) per angstrom, from what `_parts` returns."""
        fall = (-6.0 / self.cutoff) * x * (1.0 - x * x) ** 2 * near_charges.unsqueeze(-2).to(x.dtype)
        return gaussians * (fall.unsqueeze(-1) - z * (pull / self.width).unsqueeze(-1))

    def select(self, positions: Tensor, near_positions: Tensor) -> Tensor:
        """Return which near charges are within the cutoff of an atom, (k,) int64; others have no part.

        Parameters
        ----------
        positions : (n, 3) tensor, bohr
        near_positions : (k, 3) tensor, bohr
        """
        with torch.no_grad():
            nearest = torch.cdist(positions, near_positions).amin(0)
            return torch.nonzero(nearest * self.angstrom < self.cutoff).flatten()
