"""A second, finer mesh around a region, for evaluators to which compact charges are expensive.

Notes
-----
With a larger splitting parameter b the short-range part of Ewald's sum reaches less far:

    erfc(a r)/r = erfc(b r)/r + [erf(b r) - erf(a r)]/r,     b > a.

The second part is smooth and has the reach of erfc(a r). It is computed in its own cubic cell, wide enough that no
image of a source reaches the region: the cost does not depend on the size of the box.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qmmlmm.embedding.bsplines import spline_coefficients
from qmmlmm.embedding.mesh import EwaldMesh
from qmmlmm.embedding.mesh_kernel import unavailable_because

SPACING = 0.22
"""Mesh spacing times b. For a protein in water the rms error of the potential is 3e-8 hartree/e, less than a hundredth
of that of a force field's mesh; it grows with the sixth power of the spacing."""

ORDER = 6
"""Order of the B-splines: nuclei and electrons of a region feel the error of the mesh separately."""

WORTHWHILE = 1.3
"""Least ratio b/a at which this mesh costs less than it saves."""

NARROW_REACH = 4.6
"""b times the distance at which erfc(b r) counts as zero: 8e-11, a step of approximately 1e-11 hartree when a charge
crosses."""

CELL_STEP = 8.0
"""Step of the cell's edge, bohr: vibrations of the region do not change it."""

TAIL = 5.0
"""Distance from the nuclei, bohr, within which images must not act on the region's density."""

FACTORS = (2, 3, 5)
"""Prime factors of the mesh sizes, for a fast Fourier transform."""


@dataclass(frozen=True)
class _Cell:
    """The cubic cell of a finer mesh."""

    mesh: EwaldMesh
    vectors: Tensor
    influence: Tensor

    def convolve(self, mesh: Tensor) -> Tensor:
        """Return the potential on the mesh of the charges on the mesh, hartree/e."""
        transformed = torch.fft.rfftn(mesh) * self.influence
        return torch.fft.irfftn(transformed, s=mesh.shape, norm="forward")


@dataclass(frozen=True)
class NearPotential:
    """The potential of near charges through [erf(b r) - erf(a r)]/r at one geometry, and its adjoint."""

    cell: _Cell
    mesh_potential: Tensor

    def potential(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the potential, (g,) hartree/e, and its gradient, (g, 3), at points, (g, 3) bohr."""
        return self.cell.mesh.gather(self.mesh_potential, points, self.cell.vectors)

    def adjoint(self, points: Tensor, charges: Tensor, sources: Tensor) -> Tensor:
        """Return the gradient at the sources of the potential of charges at points, (k, 3) hartree/(e bohr).

        Times the charge of a source, this is the derivative of sum_g charges[g] * potential(points[g]) with respect to
        the source's position.
        """
        return self.potential_at(sources, points, charges)[1]

    def potential_at(self, sources: Tensor, points: Tensor, charges: Tensor) -> tuple[Tensor, Tensor]:
        """Return the potential at the sources of charges at points, (k,) hartree/e, and its gradient, (k, 3)."""
        mesh = self.cell.convolve(self.cell.mesh.spread(points, charges, None, self.cell.vectors))
        return self.cell.mesh.gather(mesh, sources, self.cell.vectors)


class NearMesh:
    """A mesh for the potential of near charges through [erf(b r) - erf(a r)]/r.

    Parameters
    ----------
    broad, narrow : float, 1/bohr
        The splitting parameters a and b.
    reach : float, bohr
        Distance at which erfc(a r) counts as zero.

    Attributes
    ----------
    narrow : float, 1/bohr
    """

    def __init__(self, broad: float, narrow: float, reach: float) -> None:
        self.narrow = narrow
        self._broad, self._reach = broad, reach
        # The cell of the last geometry: its size changes rarely.
        self._edge = 0.0
        self._cell: _Cell | None = None

    def fill(self, sites: Tensor, sources: Tensor, charges: Tensor) -> NearPotential:
        """Return the potential of charges near a region.

        Parameters
        ----------
        sites : (n, 3) tensor, bohr
            Sites of the region.
        sources : (k, 3) tensor, bohr
            Sources within reach of it.
        charges : (k,) tensor, e
        """
        extent = float((sites.max(dim=0).values - sites.min(dim=0).values).max())
        edge = CELL_STEP * float(np.ceil((extent + 2.0 * (self._reach + TAIL)) / CELL_STEP))
        cell = self._cell
        if cell is None or edge != self._edge:
            cell = self._cell = self._create_cell(edge)
            self._edge = edge
        return NearPotential(cell, cell.convolve(cell.mesh.spread(sources, charges, None, cell.vectors)))

    def _create_cell(self, edge: float) -> _Cell:
        size = fast_size(int(np.ceil(edge * self.narrow / SPACING)))
        grid = (size, size, size)
        vectors = edge * torch.eye(3, dtype=torch.float64)
        mesh = EwaldMesh(self.narrow, grid, ORDER, compiled=not unavailable_because())
        difference = mesh.influence(vectors) - EwaldMesh(self._broad, grid, ORDER).influence(vectors)
        along = torch.tensor(best_factors(size, ORDER))
        factors = along[:, None, None] * along[None, :, None] * along[None, None, : size // 2 + 1]
        return _Cell(mesh, vectors, difference * mesh.moduli * factors)


def best_factors(size: int, order: int) -> np.ndarray:
    """Return the factors of a smooth kernel in k-space, along one direction, for optimal interpolation.

    Notes
    -----
    Source: Hockney and Eastwood, Computer Simulation Using Particles (1988), eq. 8-22, for a kernel without
    aliases and interpolation with the gradient of the spline: U^2(k) / (sum of U^2 over the aliases of k)^2, with
    U(k) = sinc^n(k/2). The sum is the transform of the spline of order 2n at the integers. The error is
    half of that with Essmann's moduli.
    """
    k = 2.0 * np.pi * np.fft.fftfreq(size)
    at_integers = spline_coefficients(2 * order)[0]
    aliases = np.cos(np.outer(k, np.arange(2 * order) - order)) @ at_integers
    return np.asarray(np.sinc(k / (2.0 * np.pi)) ** (2 * order) / aliases**2)


def fast_size(least: int) -> int:
    """Return the smallest size of at least `least` with no other prime factors than 2, 3 and 5."""
    size = least
    while True:
        rest = size
        for factor in FACTORS:
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 1
