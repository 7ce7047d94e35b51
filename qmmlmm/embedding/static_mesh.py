"""The mesh of `qmmlmm.embedding.mesh` by operations whose shapes do not depend on the points, for accelerators."""

from __future__ import annotations

import torch
from torch import Tensor

from qmmlmm.embedding.mesh import EwaldMesh, inverse_of_box
from qmmlmm.embedding.stencil import Stencil

AT_ONCE = 131072
"""Points that are spread or gathered at once, in arrays of 130 MB of all their mesh points."""


class StaticMesh(EwaldMesh):
    """An `EwaldMesh` that never asks the host for a number, for a box that `set_box` gives.

    Points are neither sorted nor put on a part of the mesh: all their mesh points are in one array. On a CPU this is
    several times slower.
    """

    def __init__(
        self, splitting: float, grid: tuple[int, int, int], order: int, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__(splitting, grid, order, dtype)
        half = (self.nx, self.ny, self.nz // 2 + 1)
        self.register_buffer("cached_influence", torch.zeros(half, dtype=dtype), persistent=False)
        # Cells of the points that were located last, and their stencils.
        self._located: Tensor | None = None
        self._stencils: list[Stencil] = []

    def set_box(self, box: Tensor) -> None:
        """Compute what depends only on the box, (3, 3) bohr. Tensors keep their places in memory."""
        inverse, volume = inverse_of_box(box)
        self.cached_inverse.copy_(inverse)
        self.cached_influence.copy_(self.influence_of(inverse, volume))

    def _keep(self, box: Tensor) -> None:
        """Do nothing: the box is that of `set_box`."""

    def locate(self, points: Tensor, box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find the cells of points as `EwaldMesh.locate`, in the order of the points."""
        start, fraction = self._cells(points, box)
        self._located, self._stencils = start, self._stencils_in(start, fraction)
        return start[:0], start, fraction

    def _stencils_in(self, start: Tensor, fraction: Tensor) -> list[Stencil]:
        """Return the stencils of points in these cells, in parts."""
        if start is self._located:
            return self._stencils
        count = len(start)
        parts = [slice(begin, begin + AT_ONCE) for begin in range(0, max(count, 1), AT_ONCE)]
        return [self._stencil_in(start[part], fraction[:, part]) for part in parts]

    def spread(self, points: Tensor, charges: Tensor, dipoles: Tensor | None, box: Tensor) -> Tensor:
        """Put charges and dipoles on the mesh, see `EwaldMesh.spread`."""
        return self.spread_located(*self.locate(points, box), charges, dipoles, box)

    def spread_located(
        self, order: Tensor, start: Tensor, fraction: Tensor, charges: Tensor, dipoles: Tensor | None, box: Tensor
    ) -> Tensor:
        """Put charges and dipoles on the mesh, at points from `locate`."""
        stencils = self._stencils_in(start, fraction)
        begin = 0
        total: Tensor | None = None
        for stencil in stencils:
            some = slice(begin, begin + len(stencil.splines))
            part = self.spread_few(stencil, charges[some], None if dipoles is None else dipoles[some], box)
            total = part if total is None else total + part
            begin = some.stop
        assert total is not None
        return total

    def gather(self, potential: Tensor, points: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        """Interpolate the potential and its gradient, see `EwaldMesh.gather`."""
        return self.gather_located(potential, *self.locate(points, box), box)

    def gather_located(
        self, potential: Tensor, order: Tensor, start: Tensor, fraction: Tensor, box: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Interpolate as `gather`, at points from `locate`."""
        parts = [self._interpolate(potential, stencil, box) for stencil in self._stencils_in(start, fraction)]
        if len(parts) == 1:
            return parts[0]
        return torch.cat([value for value, _ in parts]), torch.cat([gradient for _, gradient in parts])

    def potential_among_few(self, sites: Stencil, charges: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        """Return the potential among a few points by the whole mesh, see `EwaldMesh.potential_among_few`."""
        k = len(charges)
        sources = Stencil(sites.splines[:k], sites.around[:k], sites.start[:k])
        return self._potential_on_whole(sites, sources, charges, box)

    def _interpolate(self, potential: Tensor, stencil: Stencil, box: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and gradient at points with a stencil."""
        n, order = len(stencil.splines), self.order
        cube = potential.reshape(-1)[stencil.around]
        splines = stencil.splines[:, :, :2]
        in_z = torch.matmul(cube.view(n, order * order, order), splines[:, 2].transpose(1, 2))
        in_yz = torch.matmul(splines[:, 1], in_z.view(n, order, order, 2).transpose(1, 2).reshape(n, order, -1))
        every = torch.matmul(splines[:, 0], in_yz.view(n, 2, order, 2).transpose(1, 2).reshape(n, order, -1))
        # Derivative along x, times 2 that along y, times 2 that along z.
        every = every.view(n, 8)
        in_cells = torch.stack([every[:, 4], every[:, 2], every[:, 1]], dim=-1)
        scale = (self.inverse(box) * self.grid_sizes).to(in_cells.dtype)
        return every[:, 0], torch.matmul(in_cells, scale.t())
