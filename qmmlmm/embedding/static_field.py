"""The field of `qmmlmm.embedding.surroundings_field` by operations of fixed shapes, for accelerators.

Notes
-----
A device that computes on its own is fast only as long as nobody waits for it. Each shape that depends on data, and each
branch on a number, makes the host wait for all operations before it. Here what is found is put into arrays of a fixed
capacity, filled up with charges so far away that they act on nothing, and the numbers that were found are left on
the device. The host reads them together with the forces, and enlarges an array that was too small.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from qmmlmm.coupling.layout import TermLayout
from qmmlmm.embedding.kernels import screened_kernel
from qmmlmm.embedding.mesh import SPLINE_ORDER
from qmmlmm.embedding.region_geometry import RegionGeometry, shortest_lattice_vector
from qmmlmm.embedding.static_mesh import StaticMesh
from qmmlmm.embedding.surroundings_field import PreparedField, SurroundingsField

FAR = 1e5
"""Distance from the region of what fills up an array, bohr: every kernel is zero there."""

STEP = 256
"""Step of capacities: they rarely change."""

SPARE = 1.05
"""Capacity over the number found, so that the next geometry has room too."""


@dataclass(frozen=True)
class Capacity:
    """Sizes of the arrays of a static step.

    Parameters
    ----------
    sources : int
        Images of sources near the region.
    charges : int
        Those of them near enough for the short-range term of a network.
    shells : (int, int, int)
        Boxes on either side, along the three box vectors, whose images are looked at.
    """

    sources: int = STEP
    charges: int = STEP
    shells: tuple[int, int, int] = (0, 0, 0)

    def for_numbers(self, sources: int, charges: int, shells: tuple[int, int, int]) -> Capacity:
        """Return a capacity for at least these numbers, which is this one if it is large enough."""
        return Capacity(
            _enough(self.sources, sources),
            _enough(self.charges, charges),
            (
                max(self.shells[0], shells[0]),
                max(self.shells[1], shells[1]),
                max(self.shells[2], shells[2]),
            ),
        )


def _enough(present: int, needed: int) -> int:
    return present if needed <= present else STEP * -(-int(SPARE * needed) // STEP)


def places_of(keep: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """Return the places of true entries in an array of fixed size.

    Parameters
    ----------
    keep : (n,) bool tensor
    capacity : int

    Returns
    -------
    places : (capacity,) int64 tensor
        Places of the first true entries in order; n fills it up.
    number : () int64 tensor
        Number of true entries, which may be larger than the capacity.
    """
    n = keep.shape[0]
    rank = torch.cumsum(keep, 0)
    target = torch.where(keep & (rank <= capacity), rank - 1, capacity)
    places = torch.full((capacity + 1,), n, dtype=torch.int64, device=keep.device)
    places.scatter_(0, target, torch.arange(n, device=keep.device))
    return places[:capacity], rank[-1]


class StaticGeometry(RegionGeometry):
    """A `RegionGeometry` that leaves its judgement of the region's width on the device.

    Attributes
    ----------
    width : () tensor
        Largest distance of two sites over half the distance of a particle to its nearest image, of the last sites; one
        or more is an error.
    """

    half_image: Tensor
    width: Tensor

    def __init__(self, layout: TermLayout) -> None:
        super().__init__(layout)
        self.register_buffer("half_image", torch.ones((), dtype=torch.float64), persistent=False)
        self.register_buffer("width", torch.zeros((), dtype=torch.float64), persistent=False)

    def set_box(self, box: Tensor) -> None:
        """Compute what depends only on the box, (3, 3) bohr."""
        self.half_image.copy_(0.5 * shortest_lattice_vector(box, self.around))

    def _check_width(self, sites: Tensor, box: Tensor) -> None:
        delta = sites[:, None, :] - sites[None, :, :]
        self.width = torch.sqrt((delta * delta).sum(-1).max()) / self.half_image


class StaticField(SurroundingsField):
    """A `SurroundingsField` with fixed shapes, for a box that `set_box` gives.

    Parameters
    ----------
    layout : TermLayout
    capacity : Capacity
    mesh_dtype : torch.dtype
    order : int
        As in `SurroundingsField`.

    Attributes
    ----------
    found : () int64 tensor
        Number of near sources of the last geometry, which may be larger than the capacity.
    found_shells : (3,) tensor
        Number of boxes on either side that the last geometry needs.
    """

    outside: Tensor
    thickness: Tensor
    steps: Tensor
    filler: Tensor
    found: Tensor
    found_shells: Tensor
    geometry: StaticGeometry
    mesh: StaticMesh

    def __init__(
        self,
        layout: TermLayout,
        capacity: Capacity,
        mesh_dtype: torch.dtype = torch.float64,
        order: int = SPLINE_ORDER,
    ) -> None:
        super().__init__(layout, mesh_dtype, order)
        self.capacity = capacity
        self.geometry = StaticGeometry(layout)
        grid = (self.mesh.nx, self.mesh.ny, self.mesh.nz)
        self.mesh = StaticMesh(self.mesh.splitting, grid, order, mesh_dtype)
        ranges = [range(-shells, shells + 1) for shells in capacity.shells]
        self.register_buffer("steps", torch.tensor(list(itertools.product(*ranges)), dtype=torch.float64))
        self.register_buffer("outside", self.active[self.own[self.active] < 0])
        self.register_buffer("thickness", torch.ones(3, dtype=torch.float64), persistent=False)
        self.register_buffer("filler", torch.tensor([[FAR, 0.0, 0.0]], dtype=torch.float64))
        self.register_buffer("found", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("found_shells", torch.zeros(3, dtype=torch.float64), persistent=False)

    def set_box(self, box: Tensor) -> None:
        """Compute what depends only on the box, (3, 3) bohr."""
        self.geometry.set_box(box)
        self.mesh.set_box(box)
        inverse = self.mesh.inverse(box)
        self.thickness.copy_(1.0 / torch.sqrt((inverse * inverse).sum(dim=0)))

    def _find_near(self, sites: Tensor, sources: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the positions of the near images and their sources, filled up with the first source far away."""
        if not self.periodic:
            return sources[self.outside], self.outside
        assert box is not None
        center = sites.mean(dim=0)
        radius = torch.sqrt(((sites - center) ** 2).sum(-1).max())
        reach = self.cutoff + radius
        self.found_shells = torch.floor(reach / self.thickness + 0.5)
        fractional = torch.matmul(sources[self.active] - center, self.mesh.inverse(box))
        displacements = torch.matmul(fractional - torch.round(fractional), box)
        if len(self.steps) > 1:
            displacements = (displacements[None] + torch.matmul(self.steps, box)[:, None]).reshape(-1, 3)
        positions = center + displacements
        index = self.active.repeat(len(self.steps))
        local = self.own[index]
        away = positions - sites[torch.clamp(local, min=0)]
        itself = (local >= 0) & ((away * away).sum(-1) < self.same_position)
        keep = ((displacements * displacements).sum(-1) < reach * reach) & ~itself
        places, self.found = places_of(keep, self.capacity.sources)
        positions = torch.cat([positions, center + self.filler])
        return positions[places], torch.cat([index, index[:1]])[places]

    def _compact(self, r: Tensor, widths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = screened_kernel(r, self.alpha)
        if not self.smeared:
            return found
        near = (widths > 0) & (r.min(dim=0).values < self.smearing_reach * widths)
        less = screened_kernel(r, 1.0 / torch.where(near, widths, 1.0))
        value, first, second = (one - torch.where(near, other, 0.0) for one, other in zip(found, less, strict=True))
        return value, first, second

    def _near_reference(self, prepared: PreparedField) -> tuple[Tensor, Tensor, Tensor]:
        return prepared.near_positions, prepared.near_index, prepared.near_widths
