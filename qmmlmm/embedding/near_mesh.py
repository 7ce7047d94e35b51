"""A second, finer mesh around a region, for evaluators to which compact charges are dear.

Notes
-----
With a larger splitting parameter b the short-range part of Ewald's sum reaches less far:

    erfc(a r)/r = erfc(b r)/r + [erf(b r) - erf(a r)]/r,     b > a.

The second part is smooth and ends where erfc(a r) does, so that a cubic cell of its own, wide enough that no image
of a source reaches the region, holds it: the cost does not depend on the size of the box.
"""

import numpy as np
import torch
from torch import Tensor

from qmmlmm.embedding.bsplines import spline_coefficients
from qmmlmm.embedding.mesh import EwaldMesh

SPACING = 0.22
"""Mesh spacing times b. The potential in a protein in water is in error by 3e-8 hartree/e rms, less than a
hundredth of what the mesh of a force field leaves; the error goes with the sixth power."""

ORDER = 6
"""Of the B-splines: the nuclei and the electrons of a region feel the error of the mesh one by one."""

WORTHWHILE = 1.3
"""Least ratio b/a at which this mesh costs less than it saves."""

NARROW_REACH = 4.6
"""b times the distance at which erfc(b r) counts as zero: 8e-11, a step of some 1e-11 hartree when a charge crosses."""

CELL_STEP = 8.0
"""The edge of the cell is a multiple of this, in bohr: it stays the same while the region vibrates."""

TAIL = 5.0
"""Distance in bohr beyond the nuclei to which the region's density has to be free of images."""

FACTORS = (2, 3, 5)
"""Prime factors of the mesh sizes, for a fast Fourier transform."""


class NearMesh:
    """The potential of near charges through [erf(b r) - erf(a r)]/r, and its adjoint.

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
        self._mesh: EwaldMesh | None = None
        self._edge = 0.0
        self._influence = torch.zeros(0)
        self._cell = torch.eye(3, dtype=torch.float64)
        self._potential = torch.zeros(0)

    def fill(self, sites: Tensor, sources: Tensor, charges: Tensor) -> None:
        """Take the region's sites, (n, 3), and the charges, (k,), at sources, (k, 3) bohr, within reach of them."""
        extent = float((sites.max(dim=0).values - sites.min(dim=0).values).max())
        edge = CELL_STEP * float(np.ceil((extent + 2.0 * (self._reach + TAIL)) / CELL_STEP))
        if edge != self._edge:
            self._make(edge)
        assert self._mesh is not None
        self._potential = self._convolve(self._mesh.spread(sources, charges, None, self._cell))

    def potential(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the potential, (g,) hartree/e, and its gradient, (g, 3), at points, (g, 3) bohr."""
        assert self._mesh is not None
        return self._mesh.gather(self._potential, points, self._cell)

    def adjoint(self, points: Tensor, charges: Tensor, sources: Tensor) -> Tensor:
        """Return the gradient at the sources of the potential of charges at points, (k, 3) hartree/(e bohr).

        Times the charge of a source it is the derivative of sum_g charges[g] * potential(points[g]) with respect
        to the source's position.
        """
        return self.potential_at(sources, points, charges)[1]

    def potential_at(self, sources: Tensor, points: Tensor, charges: Tensor) -> tuple[Tensor, Tensor]:
        """Return the potential at the sources of charges at points, (k,) hartree/e, and its gradient, (k, 3)."""
        assert self._mesh is not None
        mesh = self._convolve(self._mesh.spread(points, charges, None, self._cell))
        return self._mesh.gather(mesh, sources, self._cell)

    def _make(self, edge: float) -> None:
        size = fast_size(int(np.ceil(edge * self.narrow / SPACING)))
        grid = (size, size, size)
        self._edge = edge
        self._cell = edge * torch.eye(3, dtype=torch.float64)
        self._mesh = EwaldMesh(self.narrow, grid, ORDER)
        difference = self._mesh.influence(self._cell) - EwaldMesh(self._broad, grid, ORDER).influence(self._cell)
        along = torch.tensor(best_factors(size, ORDER))
        factors = along[:, None, None] * along[None, :, None] * along[None, None, : size // 2 + 1]
        self._influence = difference * self._mesh.moduli * factors

    def _convolve(self, mesh: Tensor) -> Tensor:
        transformed = torch.fft.rfftn(mesh) * self._influence
        return torch.fft.irfftn(transformed, s=mesh.shape, norm="forward")


def best_factors(size: int, order: int) -> np.ndarray:
    """Return by what a smooth kernel is multiplied in k-space, along one direction, to interpolate it best.

    Notes
    -----
    Source: Hockney and Eastwood, Computer Simulation Using Particles (1988), eq. 8-22, for a kernel without
    aliases and interpolation with the gradient of the spline: U^2(k) / (sum of U^2 over the aliases of k)^2, with
    U(k) = sinc^n(k/2). The sum is the transform of the spline of order 2n at the integers. Against Essmann's
    moduli it halves the error.
    """
    k = 2.0 * np.pi * np.fft.fftfreq(size)
    at_integers = spline_coefficients(2 * order)[0]
    aliases = np.cos(np.outer(k, np.arange(2 * order) - order)) @ at_integers
    return np.asarray(np.sinc(k / (2.0 * np.pi)) ** (2 * order) / aliases**2)


def fast_size(least: int) -> int:
    """Return the smallest size from `least` on without other prime factors than 2, 3 and 5."""
    size = least
    while True:
        rest = size
        for factor in FACTORS:
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 1
