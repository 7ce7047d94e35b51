"""Long-range part of the Ewald potential on a mesh: smooth particle-mesh Ewald.

Lengths are in bohr, charges in e, potentials in hartree/e. Modules and functions are TorchScript.

Notes
-----
Source: Essmann et al., J. Chem. Phys. 103, 8577 (1995). The moduli at the Nyquist frequency of an odd spline
order follow OpenMM, so that the same splitting and grid give OpenMM's reciprocal energy to round-off.
"""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

import math
from typing import Final

import numpy as np
import torch
from torch import Tensor

from qmmlmm.embedding.bsplines import (
    derivative_coefficients,
    gather_chunk,
    spline_coefficients,
    spline_moduli,
    splines_at,
    splines_of,
    spread_chunk,
)
from qmmlmm.embedding.mesh_kernel import ORDERS, unavailable_because
from qmmlmm.embedding.mesh_transform import MeshTransform
from qmmlmm.embedding.stencil import (
    Stencil,
    add_dipole_shares,
    charge_shares,
    gather_from_all,
    interpolated,
    spread_to_all,
)
from qmmlmm.errors import PotentialError

SPLINE_ORDER = 5
"""OpenMM's order of B-splines."""

CHUNK = 32768
"""Points that are spread or gathered at once: 20 MB of arrays, and few enough that torch runs each operation on one
thread (its grain size), which is faster than starting and joining threads some hundred times."""

FEW = 512
"""Up to this number, points are spread and gathered in arrays of all their mesh points; more points too, if all these
are fewer than those of the mesh. The cost of a padded mesh depends on its size and not on the number of points."""

FEW_AT_ONCE = 512
"""Points in one such array: 1 MB for each array of mesh points."""

PATCH_STEP = 4
"""Step of the size of the part of the mesh around a region: rotations of the region do not change it."""

PATCH_SHARE = 4
"""A convolution on a part of the mesh is worthwhile below this fraction of the mesh."""


def inverse_of_box(box: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inverse of three box vectors and the volume of the box.

    Parameters
    ----------
    box : (3, 3) tensor, bohr
        Box vectors in rows.

    Returns
    -------
    inverse : (3, 3) tensor, 1/bohr
        Reciprocal vectors in columns.
    volume : () tensor, bohr^3
        Negative for left-handed vectors.

    Notes
    -----
    By cross products: a general inverse asks a GPU whether the matrix is singular and waits for the answer.
    """
    first, second, third = box[0], box[1], box[2]
    normals = torch.stack(
        [
            torch.linalg.cross(second, third),
            torch.linalg.cross(third, first),
            torch.linalg.cross(first, second),
        ],
        dim=1,
    )
    volume = torch.dot(first, normals[:, 0])
    return normals / volume, volume


class EwaldMesh(torch.nn.Module):
    """Reciprocal-space potential of charges in a periodic box, with derivatives and adjoint.

    Parameters
    ----------
    splitting : float, 1/bohr
        Ewald splitting parameter alpha.
    grid : (int, int, int)
        Mesh points along the three box vectors.
    order : int
        Order of the B-splines.
    dtype : torch.dtype
        Type of the mesh, the splines and the results. Positions and box are always float64.
    compiled : bool
        Whether many points are spread and gathered by the compiled loops of `qmmlmm.embedding.mesh_kernel`, on the CPU
        and in this process alone.

    Raises
    ------
    PotentialError
        If there are no compiled loops, or they are for another order.

    Notes
    -----
    The potential at r of charges q_j is B(r) . (G * S) with S = sum_j q_j B(r_j), B the B-spline weights on the
    mesh and G the influence function. It is linear in the charges and symmetric in the two sets of points, so
    the derivative of any energy sum_i w_i phi(r_i) with respect to r_j is q_j times the gradient at r_j of the
    potential of the charges w_i: one more pass of the same mesh. The potential includes the uniform background that
    neutralises the charges: -pi / (V alpha^2) times the total charge.

    Many points are sorted by their cell, once for spreading and gathering (`locate`). The mesh is padded by the reach
    of the splines, so that each surrounding mesh point has the same distance in memory from the cell for all points: no
    index is computed, and all arithmetic runs along the points. For points that are close together, as on the
    quadrature grid of a molecule, only the part of the mesh around them is used.
    """

    polynomials: Tensor
    moduli: Tensor
    mx: Tensor
    my: Tensor
    mz: Tensor
    behind: Tensor
    grid_sizes: Tensor
    last_cells: Tensor
    padding_x: Tensor
    padding_y: Tensor
    padding_z: Tensor
    cached_box: Tensor
    cached_inverse: Tensor
    cached_influence: Tensor
    patch_kernel: Tensor
    # TorchScript leaves out the branch that is not taken, which other processes could not read.
    compiled: Final[bool]

    def __init__(
        self,
        splitting: float,
        grid: tuple[int, int, int],
        order: int = SPLINE_ORDER,
        dtype: torch.dtype = torch.float64,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        if compiled and (order not in ORDERS or unavailable_because()):
            raise PotentialError(f"the mesh is not compiled for order {order}; {unavailable_because()}")
        self.compiled = compiled
        self.splitting = float(splitting)
        self.nx, self.ny, self.nz = int(grid[0]), int(grid[1]), int(grid[2])
        self.order = int(order)
        self.chunk = CHUNK
        self.few = FEW
        self.few_at_once = FEW_AT_ONCE
        self.patch_step = PATCH_STEP
        self.patch_share = PATCH_SHARE
        first = spline_coefficients(self.order)
        second = derivative_coefficients(first)
        third = derivative_coefficients(second)
        # Rows: value, first and second derivative at each of the `order` mesh points.
        self.register_buffer("polynomials", torch.tensor(np.concatenate([first, second, third], axis=1).T, dtype=dtype))
        moduli = [spline_moduli(size, self.order) for size in (self.nx, self.ny, self.nz)]
        product = moduli[0][:, None, None] * moduli[1][None, :, None] * moduli[2][None, None, : self.nz // 2 + 1]
        self.register_buffer("moduli", torch.tensor(product))
        self.register_buffer("mx", torch.tensor(np.fft.fftfreq(self.nx, 1.0 / self.nx)))
        self.register_buffer("my", torch.tensor(np.fft.fftfreq(self.ny, 1.0 / self.ny)))
        self.register_buffer("mz", torch.tensor(np.arange(self.nz // 2 + 1, dtype=float)))
        self.register_buffer("behind", torch.arange(self.order))
        self.register_buffer("grid_sizes", torch.tensor([self.nx, self.ny, self.nz], dtype=torch.float64))
        self.register_buffer("last_cells", torch.tensor([self.nx - 1, self.ny - 1, self.nz - 1]))
        reach = self.order - 1
        self.px, self.py, self.pz = self.nx + reach, self.ny + reach, self.nz + reach
        self.register_buffer("padding_x", (torch.arange(self.px) - reach) % self.nx)
        self.register_buffer("padding_y", (torch.arange(self.py) - reach) % self.ny)
        self.register_buffer("padding_z", (torch.arange(self.pz) - reach) % self.nz)
        self.transform = MeshTransform((self.nx, self.ny, self.nz), dtype)
        # The inverse of the box and the influence function are kept until the box changes.
        self.register_buffer("cached_box", torch.zeros(3, 3, dtype=torch.float64), persistent=False)
        self.register_buffer("cached_inverse", torch.zeros(3, 3, dtype=torch.float64), persistent=False)
        self.register_buffer("cached_influence", torch.zeros(1, 1, 1, dtype=dtype), persistent=False)
        # The transform of the potential of a unit charge around it, for a part of the mesh of these sizes.
        self.patch_sizes = [0, 0, 0]
        self.register_buffer("patch_kernel", torch.zeros(0, dtype=dtype).to(torch.complex64), persistent=False)

    @torch.jit.export
    def inverse(self, box: Tensor) -> Tensor:
        """Return the inverse of the box, (3, 3) 1/bohr, with the reciprocal vectors in columns."""
        self._keep(box)
        return self.cached_inverse

    @torch.jit.export
    def influence(self, box: Tensor) -> Tensor:
        """Return G on the half mesh of a real transform, hartree bohr^0 / e^2."""
        self._keep(box)
        return self.cached_influence

    def _keep(self, box: Tensor) -> None:
        """Compute what depends only on the box, if it is not the last one."""
        if torch.equal(box, self.cached_box):
            return
        inverse, volume = inverse_of_box(box)
        self.cached_influence = self.influence_of(inverse, volume)
        self.cached_inverse = inverse
        self.cached_box = box.clone()
        self.patch_sizes = [0, 0, 0]

    @torch.jit.export
    def influence_of(self, inverse: Tensor, volume: Tensor) -> Tensor:
        """Return `influence` from the inverse of a box and its volume, see `inverse_of_box`.

        Notes
        -----
        Source: Essmann et al. (1995), eq. 4.7; the zero frequency has the neutralising background.
        """
        reciprocal = inverse.t()
        m = (
            self.mx[:, None, None, None] * reciprocal[0]
            + self.my[None, :, None, None] * reciprocal[1]
            + self.mz[None, None, :, None] * reciprocal[2]
        )
        squared = (m * m).sum(-1)
        squared[0, 0, 0] = 1.0
        volume = torch.abs(volume)
        result = torch.exp(-((math.pi / self.splitting) ** 2) * squared) / (math.pi * volume * squared * self.moduli)
        result[0, 0, 0] = -math.pi / (volume * self.splitting * self.splitting)
        return result.to(self.polynomials.dtype)

    def _cells(self, points: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices of the points' cells in the padded mesh, (n,), and the positions in the cells, (3, n)."""
        scaled = torch.matmul(self.inverse(box).t(), points.t())
        scaled = (scaled - torch.floor(scaled)) * self.grid_sizes[:, None]
        # Round-off can put a point on the far face; NaN needs some valid cell.
        cell = torch.minimum(scaled.to(torch.int64), self.last_cells[:, None]).clamp_(min=0)
        fraction = (scaled - cell).to(self.polynomials.dtype)
        return (cell[0] * self.py + cell[1]) * self.pz + cell[2], fraction

    @torch.jit.export
    def locate(self, points: Tensor, box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Find the cells of many points, for `spread_located` and `gather_located`.

        Parameters
        ----------
        points : (n, 3) float64 tensor, bohr
        box : (3, 3) float64 tensor, bohr

        Returns
        -------
        order : (n,) tensor
            Order of the points by cell.
        start : (n,) tensor
            Indices of these cells in the padded mesh.
        places : (2, order, 3, n) or (3, n) tensor
            Splines of the points and their derivatives; of very many points, to save memory, the positions in the
            cells.
        """
        start, fraction = self._cells(points, box)
        start, order = torch.sort(start)
        places = fraction.index_select(1, order)
        if order.shape[0] <= self.chunk:
            places = splines_at(self.polynomials, places, 1)
        return order, start, places

    @torch.jit.export
    def spread(self, points: Tensor, charges: Tensor, dipoles: Tensor | None, box: Tensor) -> Tensor:
        """Put charges, and dipoles if given, on the mesh.

        Parameters
        ----------
        points : (n, 3) tensor, bohr
        charges : (n,) tensor, e
        dipoles : (n, 3) tensor or None, e bohr
        box : (3, 3) tensor, bohr

        Returns
        -------
        (nx, ny, nz) tensor, e
        """
        order, start, places = self.locate(points, box)
        q, d = self._loads(order, charges, dipoles, box)
        if self._are_few(start):
            return self._spread_few(start, places, q, d)
        start, rows_x, rows_y, rows_z = self._patch(start)
        return self._spread_many(start, places, q, d, rows_x, rows_y, rows_z)

    @torch.jit.export
    def spread_located(
        self, order: Tensor, start: Tensor, places: Tensor, charges: Tensor, dipoles: Tensor | None, box: Tensor
    ) -> Tensor:
        """Put charges on the mesh as `spread`, at points of the whole box from `locate`."""
        q, d = self._loads(order, charges, dipoles, box)
        if self._are_few(start):
            return self._spread_few(start, places, q, d)
        return self._spread_many(start, places, q, d, self.padding_x, self.padding_y, self.padding_z)

    def _are_few(self, start: Tensor) -> bool:
        """Return whether arrays of all mesh points of the points are faster than a padded mesh."""
        count = start.shape[0]
        return count <= self.few or (self.few > 0 and count * self.order**3 < self.nx * self.ny * self.nz)

    def _loads(self, order: Tensor, charges: Tensor, dipoles: Tensor | None, box: Tensor) -> tuple[Tensor, Tensor]:
        """Return charges, (n,), and dipoles in units of cells, (3, n) or (3, 0), in the order of cells."""
        dtype = self.polynomials.dtype
        q = charges.to(dtype)[order]
        d = torch.zeros(3, 0, dtype=dtype, device=q.device)
        if dipoles is not None:
            d = torch.matmul(dipoles, self.inverse(box) * self.grid_sizes).to(dtype)[order].t().contiguous()
        return q, d

    def _patch(self, start: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the indices of cells in the smallest padded mesh for them, and its rows in the periodic mesh."""
        local, lows, spans = self._extent(start)
        rows: list[Tensor] = []
        sizes = [self.nx, self.ny, self.nz]
        reach = self.order - 1
        for axis in range(3):
            row = torch.arange(spans[axis] + reach, device=start.device) + (lows[axis] - reach)
            rows.append(torch.remainder(row, sizes[axis]))
        start = (local[0] * rows[1].shape[0] + local[1]) * rows[2].shape[0] + local[2]
        return start, rows[0], rows[1], rows[2]

    def _extent(self, start: Tensor) -> tuple[list[Tensor], list[int], list[int]]:
        """Return the cells of points along each axis from the first of them on, that first cell, and their number."""
        cells = self._axes(start)
        local: list[Tensor] = []
        lows: list[int] = []
        spans: list[int] = []
        sizes = [self.nx, self.ny, self.nz]
        for axis in range(3):
            # Relative to the first point, which has the others on both sides.
            first = int(cells[axis][0]) - sizes[axis] // 2
            away = torch.remainder(cells[axis] - first, sizes[axis])
            low = int(away.min())
            local.append(away - low)
            lows.append(first + low)
            spans.append(int(away.max()) - low + 1)
        return local, lows, spans

    def _axes(self, start: Tensor) -> list[Tensor]:
        """Return the cells of points along the three axes."""
        plane = torch.div(start, self.pz, rounding_mode="floor")
        return [torch.div(plane, self.py, rounding_mode="floor"), plane % self.py, start % self.pz]

    def _around(self, start: Tensor) -> Tensor:
        """Return the indices of the mesh points of each point in the periodic mesh, (n, order, order, order)."""
        x, y, z = self._axes(start)
        x = torch.remainder(x[:, None] - self.behind, self.nx)
        y = torch.remainder(y[:, None] - self.behind, self.ny)
        z = torch.remainder(z[:, None] - self.behind, self.nz)
        plane = x[:, :, None] * self.ny + y[:, None, :]
        return plane[:, :, :, None] * self.nz + z[:, None, None, :]

    def _spread_many(
        self, start: Tensor, places: Tensor, q: Tensor, d: Tensor, rows_x: Tensor, rows_y: Tensor, rows_z: Tensor
    ) -> Tensor:
        """Put charges and dipoles on a padded mesh, and add it to the periodic one."""
        sizes = [rows_x.shape[0], rows_y.shape[0], rows_z.shape[0]]
        mesh = torch.zeros(sizes[0] * sizes[1] * sizes[2], dtype=q.dtype, device=q.device)
        for begin in range(0, start.shape[0], self.chunk):
            end = min(begin + self.chunk, start.shape[0])
            some, at = start[begin:end], places[..., begin:end]
            if self.compiled and d.shape[1] == 0:
                splines = splines_of(self.polynomials, at, 1)
                torch.ops.qmmlmm.spread(mesh, some, splines, q[begin:end], sizes[1], sizes[2])
            else:
                dipole = d[:, begin:end] if d.shape[1] > 0 else d
                spread_chunk(self.polynomials, mesh, sizes, some, at, q[begin:end], dipole)
        return self._fold(mesh.view(sizes), rows_x, rows_y, rows_z)

    def _spread_few(self, start: Tensor, places: Tensor, q: Tensor, d: Tensor) -> Tensor:
        """Put few charges and dipoles on the mesh, with all their mesh points in one array."""
        mesh = torch.zeros(self.nx * self.ny * self.nz, dtype=q.dtype, device=q.device)
        for begin in range(0, start.shape[0], self.few_at_once):
            end = min(begin + self.few_at_once, start.shape[0])
            dipole = d[:, begin:end] if d.shape[1] > 0 else d
            values = spread_to_all(self.polynomials, places[..., begin:end], q[begin:end], dipole)
            mesh.scatter_add_(0, self._around(start[begin:end]).view(-1), values.reshape(-1))
        return mesh.view(self.nx, self.ny, self.nz)

    def _fold(self, padded: Tensor, rows_x: Tensor, rows_y: Tensor, rows_z: Tensor) -> Tensor:
        """Add a padded mesh to the periodic one."""
        z = torch.zeros(rows_x.shape[0], rows_y.shape[0], self.nz, dtype=padded.dtype, device=padded.device)
        z.index_add_(2, rows_z, padded)
        y = torch.zeros(rows_x.shape[0], self.ny, self.nz, dtype=padded.dtype, device=padded.device)
        y.index_add_(1, rows_y, z)
        x = torch.zeros(self.nx, self.ny, self.nz, dtype=padded.dtype, device=padded.device)
        return x.index_add_(0, rows_x, y)

    @torch.jit.export
    def convolve(self, mesh: Tensor, box: Tensor) -> Tensor:
        """Return the potential on the mesh of charges on the mesh, hartree/e."""
        transformed = self.transform(mesh)
        return self.transform.back(transformed * self.influence(box))

    @torch.jit.export
    def gather(self, potential: Tensor, points: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        """Interpolate the potential and its gradient.

        Parameters
        ----------
        potential : (nx, ny, nz) tensor, hartree/e
        points : (n, 3) tensor, bohr
        box : (3, 3) tensor, bohr

        Returns
        -------
        value : (n,) tensor, hartree/e
        gradient : (n, 3) tensor, hartree/(e bohr)
        """
        order, start, places = self.locate(points, box)
        if self._are_few(start):
            return self._in_original_order(self._gather_few(potential, start, places), order, box)
        start, rows_x, rows_y, rows_z = self._patch(start)
        return self._in_original_order(self._gather_many(potential, start, places, rows_x, rows_y, rows_z), order, box)

    @torch.jit.export
    def gather_located(
        self, potential: Tensor, order: Tensor, start: Tensor, places: Tensor, box: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Interpolate as `gather`, at points of the whole box from `locate`."""
        if self._are_few(start):
            return self._in_original_order(self._gather_few(potential, start, places), order, box)
        found = self._gather_many(potential, start, places, self.padding_x, self.padding_y, self.padding_z)
        return self._in_original_order(found, order, box)

    def _in_original_order(self, found: Tensor, order: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and gradients from values and derivatives along the axes, (4, n) in the order of cells."""
        back = torch.empty_like(order)
        back[order] = torch.arange(order.shape[0], device=order.device)
        result = found.index_select(1, back)
        gradient = torch.matmul(self.inverse(box) * self.grid_sizes, result[1:].to(torch.float64)).t()
        return result[0], gradient.to(found.dtype)

    def _gather_many(
        self, potential: Tensor, start: Tensor, places: Tensor, rows_x: Tensor, rows_y: Tensor, rows_z: Tensor
    ) -> Tensor:
        """Interpolate in a padded mesh with these rows of the periodic one."""
        sizes = [rows_x.shape[0], rows_y.shape[0], rows_z.shape[0]]
        # For all rows, a whole axis first is fastest; for few, the axis that is farthest in memory.
        if sizes[0] < self.nx:
            padded = potential.index_select(0, rows_x).index_select(1, rows_y).index_select(2, rows_z)
        else:
            padded = potential.index_select(2, rows_z).index_select(1, rows_y).index_select(0, rows_x)
        flat = padded.view(-1)
        found = torch.zeros(4, start.shape[0], dtype=flat.dtype, device=flat.device)
        for begin in range(0, start.shape[0], self.chunk):
            end = min(begin + self.chunk, start.shape[0])
            some, at = start[begin:end], places[..., begin:end]
            if self.compiled:
                splines = splines_of(self.polynomials, at, 1)
                found[:, begin:end] = torch.ops.qmmlmm.gather(flat, some, splines, sizes[1], sizes[2])
            else:
                gather_chunk(self.polynomials, flat, sizes, some, at, found[:, begin:end])
        return found

    def _gather_few(self, potential: Tensor, start: Tensor, places: Tensor) -> Tensor:
        """Interpolate at few points, with all their mesh points in one array."""
        flat = potential.reshape(-1)
        found = torch.zeros(4, start.shape[0], dtype=flat.dtype, device=flat.device)
        for begin in range(0, start.shape[0], self.few_at_once):
            end = min(begin + self.few_at_once, start.shape[0])
            cube = flat[self._around(start[begin:end])]
            gather_from_all(self.polynomials, places[..., begin:end], cube, found[:, begin:end])
        return found

    @torch.jit.export
    def stencil(self, points: Tensor, box: Tensor) -> Stencil:
        """Return the mesh points around few points, for `spread_few` and `gather_few`.

        Parameters
        ----------
        points : (n, 3) tensor, bohr
        box : (3, 3) tensor, bohr
        """
        start, fraction = self._cells(points, box)
        return self._stencil_in(start, fraction)

    def _stencil_in(self, start: Tensor, fraction: Tensor) -> Stencil:
        """Return the stencil of points in these cells."""
        return Stencil(splines_at(self.polynomials, fraction, 2).permute(3, 2, 0, 1), self._around(start), start)

    @torch.jit.export
    def spread_few(self, stencil: Stencil, charges: Tensor, dipoles: Tensor | None, box: Tensor) -> Tensor:
        """Put charges and dipoles on the mesh as `spread`, at points with a stencil."""
        values = charge_shares(stencil, charges)
        if dipoles is not None:
            d = torch.matmul(dipoles, self.inverse(box) * self.grid_sizes).to(values.dtype)
            values = add_dipole_shares(values, stencil, d)
        mesh = torch.zeros(self.nx * self.ny * self.nz, dtype=values.dtype, device=values.device)
        mesh.scatter_add_(0, stencil.around.reshape(-1), values.reshape(-1))
        return mesh.view(self.nx, self.ny, self.nz)

    @torch.jit.export
    def potential_among_few(self, sites: Stencil, charges: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        """Return the potential at a few points of charges at the first of them, and its gradient.

        Parameters
        ----------
        sites : Stencil
            Stencil of n points.
        charges : (k,) tensor, e
            Charges at the first k points.
        box : (3, 3) tensor, bohr

        Returns
        -------
        value : (n,) tensor, hartree/e
        gradient : (n, 3) tensor, hartree/(e bohr)

        Notes
        -----
        On a CPU the convolution is done only on the part of the mesh with the points, with the periodic potential of a
        unit charge on the mesh. The result is the same.
        """
        k = charges.shape[0]
        sources = Stencil(sites.splines[:k], sites.around[:k], sites.start[:k])
        # Elsewhere the host would wait for the sizes.
        if sites.start.is_cpu:
            local, lows, spans = self._extent(sites.start)
            reach, step = self.order - 1, self.patch_step
            # Twice the size, so that no point acts on another through the periodicity of the transform.
            sizes = [2 * step * ((span + reach + step - 1) // step) for span in spans]
            if sizes[0] * sizes[1] * sizes[2] * self.patch_share < self.nx * self.ny * self.nz:
                self._keep_patch(box, sizes)
                behind = reach - self.behind
                x, y, z = local[0][:, None] + behind, local[1][:, None] + behind, local[2][:, None] + behind
                plane = x[:, :, None] * sizes[1] + y[:, None, :]
                around = plane[:, :, :, None] * sizes[2] + z[:, None, None, :]
                charged = torch.zeros(sizes[0] * sizes[1] * sizes[2], dtype=sites.splines.dtype, device=charges.device)
                shares = charge_shares(sources, charges)
                charged.scatter_add_(0, around[:k].reshape(-1), shares.reshape(-1))
                mesh = torch.fft.irfftn(torch.fft.rfftn(charged.view(sizes)) * self.patch_kernel, s=sizes)
                value, gradient, _ = self.gather_few(mesh, Stencil(sites.splines, around, sites.start), box)
                return value, gradient
        return self._potential_on_whole(sites, sources, charges, box)

    def _potential_on_whole(
        self, sites: Stencil, sources: Stencil, charges: Tensor, box: Tensor
    ) -> tuple[Tensor, Tensor]:
        mesh = self.convolve(self.spread_few(sources, charges, None, box), box)
        value, gradient, _ = self.gather_few(mesh, sites, box)
        return value, gradient

    def _keep_patch(self, box: Tensor, sizes: list[int]) -> None:
        """Transform the potential of a unit charge on the mesh around it, if box and sizes are not the last ones."""
        self._keep(box)
        if sizes == self.patch_sizes:
            return
        influence = self.cached_influence
        unit = self.transform.back(torch.complex(influence, torch.zeros_like(influence)))
        whole = [self.nx, self.ny, self.nz]
        for axis in range(3):
            size = sizes[axis]
            steps = torch.arange(size, device=unit.device)
            steps = torch.where(steps < size // 2, steps, steps - size)
            unit = unit.index_select(axis, torch.remainder(steps, whole[axis]))
        self.patch_kernel = torch.fft.rfftn(unit)
        self.patch_sizes = sizes

    @torch.jit.export
    def gather_few(self, potential: Tensor, stencil: Stencil, box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Interpolate value, gradient and second derivatives, (n, 3, 3) hartree/(e bohr^2), at points with a stencil.

        The first two results are those of `gather`.
        """
        scale = (self.inverse(box) * self.grid_sizes).to(potential.dtype)
        return interpolated(potential, stencil, scale)
