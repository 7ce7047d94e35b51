"""Long-range part of the Ewald potential on a mesh: smooth particle-mesh Ewald.

All lengths in bohr, charges in e, potentials in hartree/e. Modules and functions are TorchScript.

Notes
-----
Source: Essmann et al., J. Chem. Phys. 103, 8577 (1995). The moduli at the Nyquist frequency of an odd spline
order follow OpenMM, so that the same splitting and grid give OpenMM's reciprocal energy to round-off.
"""

# Annotations stay objects here (no `from __future__ import annotations`): TorchScript cannot read strings.

import math

import numpy as np
import torch
from torch import Tensor

SPLINE_ORDER = 5
"""OpenMM's order of B-splines."""

CHUNK = 32768
"""Points that are spread or gathered at once; bounds the memory to about 100 MB at any number of atoms."""


def spline_coefficients(order: int) -> np.ndarray:
    """Return the cardinal B-spline of this order as polynomials.

    Returns
    -------
    (order, order) float array
        Row k, column j: coefficient of w^k in M(w + j) for 0 <= w < 1.

    Notes
    -----
    Source: Essmann et al. (1995), eq. 4.1: M_n(x) = x/(n-1) M_{n-1}(x) + (n-x)/(n-1) M_{n-1}(x-1).
    """
    pieces = np.ones((1, 1))
    for n in range(2, order + 1):
        longer = np.zeros((n, n))
        for j in range(n):
            if j < n - 1:  # (w + j) M_{n-1}(w + j)
                longer[1:, j] += pieces[:, j]
                longer[:-1, j] += j * pieces[:, j]
            if j > 0:  # (n - w - j) M_{n-1}(w + j - 1)
                longer[1:, j] -= pieces[:, j - 1]
                longer[:-1, j] += (n - j) * pieces[:, j - 1]
        pieces = longer / (n - 1)
    return pieces


def derivative_coefficients(coefficients: np.ndarray) -> np.ndarray:
    """Return the polynomials' derivatives, padded to the same shape."""
    result = np.zeros_like(coefficients)
    result[:-1] = coefficients[1:] * np.arange(1, len(coefficients))[:, None]
    return result


def spline_moduli(size: int, order: int) -> np.ndarray:
    """Return |sum_k M(k+1) exp(2 pi i m k / size)|^2 for m = 0 ... size - 1.

    Notes
    -----
    Source: Essmann et al. (1995), eq. 4.4; a modulus that vanishes is the mean of its neighbours, as in OpenMM.
    """
    at_integers = spline_coefficients(order)[0]
    phases = np.exp(2j * np.pi * np.outer(np.arange(size), np.arange(order)) / size)
    moduli = np.abs(phases @ at_integers) ** 2
    for m in np.flatnonzero(moduli < 1e-7):
        moduli[m] = 0.5 * (moduli[m - 1] + moduli[(m + 1) % size])
    return moduli


class EwaldMesh(torch.nn.Module):
    """Reciprocal-space potential of charges in a periodic box, anywhere, with derivatives and adjoint.

    Parameters
    ----------
    splitting : float, 1/bohr
        Ewald splitting parameter alpha.
    grid : (int, int, int)
        Mesh points along the three box vectors.
    order : int
        Of the B-splines.

    Notes
    -----
    The potential at r of charges q_j is B(r) . (G * S) with S = sum_j q_j B(r_j), B the B-spline weights on the
    mesh and G the influence function. It is linear in the charges and symmetric in the two sets of points, so
    the derivative of any energy sum_i w_i phi(r_i) with respect to r_j is q_j times the gradient at r_j of the
    potential of the charges w_i: one more pass of the same mesh. The uniform background that neutralises the
    charges is in the potential: -pi / (V alpha^2) times the total charge.
    """

    value_polynomials: Tensor
    slope_polynomials: Tensor
    curvature_polynomials: Tensor
    moduli: Tensor
    mx: Tensor
    my: Tensor
    mz: Tensor
    offsets: Tensor
    grid_sizes: Tensor
    cached_box: Tensor
    cached_influence: Tensor

    def __init__(self, splitting: float, grid: tuple[int, int, int], order: int = SPLINE_ORDER) -> None:
        super().__init__()
        self.splitting = float(splitting)
        self.nx, self.ny, self.nz = int(grid[0]), int(grid[1]), int(grid[2])
        self.order = int(order)
        self.chunk = CHUNK
        first = spline_coefficients(self.order)
        second = derivative_coefficients(first)
        third = derivative_coefficients(second)
        self.register_buffer("value_polynomials", torch.tensor(first))
        self.register_buffer("slope_polynomials", torch.tensor(second))
        self.register_buffer("curvature_polynomials", torch.tensor(third))
        moduli = [spline_moduli(size, self.order) for size in (self.nx, self.ny, self.nz)]
        product = moduli[0][:, None, None] * moduli[1][None, :, None] * moduli[2][None, None, : self.nz // 2 + 1]
        self.register_buffer("moduli", torch.tensor(product))
        self.register_buffer("mx", torch.tensor(np.fft.fftfreq(self.nx, 1.0 / self.nx)))
        self.register_buffer("my", torch.tensor(np.fft.fftfreq(self.ny, 1.0 / self.ny)))
        self.register_buffer("mz", torch.tensor(np.arange(self.nz // 2 + 1, dtype=float)))
        self.register_buffer("offsets", torch.arange(self.order))
        self.register_buffer("grid_sizes", torch.tensor([self.nx, self.ny, self.nz]))
        # The influence function is kept until the box changes.
        self.register_buffer("cached_box", torch.zeros(3, 3, dtype=torch.float64), persistent=False)
        self.register_buffer("cached_influence", torch.zeros(1, 1, 1, dtype=torch.float64), persistent=False)

    @torch.jit.export
    def influence(self, box: Tensor) -> Tensor:
        """Return G on the half mesh of a real transform, hartree bohr^0 / e^2.

        Notes
        -----
        Source: Essmann et al. (1995), eq. 4.7; the zero frequency holds the neutralising background.
        """
        if not torch.equal(box, self.cached_box):
            reciprocal = torch.linalg.inv(box).t()
            m = (
                self.mx[:, None, None, None] * reciprocal[0]
                + self.my[None, :, None, None] * reciprocal[1]
                + self.mz[None, None, :, None] * reciprocal[2]
            )
            squared = (m * m).sum(-1)
            squared[0, 0, 0] = 1.0
            volume = torch.abs(torch.linalg.det(box))
            result = torch.exp(-((math.pi / self.splitting) ** 2) * squared) / (
                math.pi * volume * squared * self.moduli
            )
            result[0, 0, 0] = -math.pi / (volume * self.splitting * self.splitting)
            self.cached_influence = result
            self.cached_box = box.clone()
        return self.cached_influence

    def _locate(self, points: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        """Return flat mesh indices, (n, order^3), and the fractional offsets within a cell, (n, 3)."""
        scaled = torch.matmul(points, torch.linalg.inv(box))
        scaled = (scaled - torch.floor(scaled)) * self.grid_sizes
        lower = torch.floor(scaled)
        fraction = scaled - lower
        start = lower.to(torch.int64)
        index = start[:, :, None] - self.offsets
        index = torch.remainder(index, self.grid_sizes[:, None])
        n = points.shape[0]
        flat = (index[:, 0, :, None, None] * self.ny + index[:, 1, None, :, None]) * self.nz + index[
            :, 2, None, None, :
        ]
        return flat.view(n, self.order * self.order * self.order), fraction

    def _weights(self, fraction: Tensor, polynomials: Tensor) -> Tensor:
        """Return the spline or its derivative at the mesh points around, (n, 3, order)."""
        powers = [torch.ones_like(fraction)]
        for _ in range(self.order - 1):
            powers.append(powers[-1] * fraction)
        return torch.matmul(torch.stack(powers, dim=-1), polynomials)

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
        mesh = torch.zeros(self.nx * self.ny * self.nz, dtype=points.dtype, device=points.device)
        scale = torch.linalg.inv(box) * self.grid_sizes
        for begin in range(0, points.shape[0], self.chunk):
            end = min(begin + self.chunk, points.shape[0])
            flat, fraction = self._locate(points[begin:end], box)
            w = self._weights(fraction, self.value_polynomials)
            charged = w[:, 0] * charges[begin:end, None]
            plane = w[:, 1, :, None] * w[:, 2, None, :]
            values = charged[:, :, None, None] * plane[:, None, :, :]
            if dipoles is not None:
                d = torch.matmul(dipoles[begin:end], scale)
                slope = self._weights(fraction, self.slope_polynomials)
                tilted = (
                    slope[:, 1, :, None] * w[:, 2, None, :] * d[:, 1, None, None]
                    + w[:, 1, :, None] * slope[:, 2, None, :] * d[:, 2, None, None]
                )
                values = (
                    values
                    + (slope[:, 0] * d[:, 0, None])[:, :, None, None] * plane[:, None, :, :]
                    + w[:, 0, :, None, None] * tilted[:, None, :, :]
                )
            mesh.index_add_(0, flat.reshape(-1), values.reshape(-1))
        return mesh.view(self.nx, self.ny, self.nz)

    @torch.jit.export
    def convolve(self, mesh: Tensor, box: Tensor) -> Tensor:
        """Return the potential on the mesh of the charges on the mesh, hartree/e."""
        transformed = torch.fft.rfftn(mesh)
        transformed = transformed * self.influence(box)
        return torch.fft.irfftn(transformed, s=[self.nx, self.ny, self.nz], norm="forward")

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
        flat_potential = potential.reshape(-1)
        scale = (torch.linalg.inv(box) * self.grid_sizes).t()
        values: list[Tensor] = []
        gradients: list[Tensor] = []
        for begin in range(0, points.shape[0], self.chunk):
            end = min(begin + self.chunk, points.shape[0])
            flat, fraction = self._locate(points[begin:end], box)
            w = self._weights(fraction, self.value_polynomials)
            s = self._weights(fraction, self.slope_polynomials)
            cube = flat_potential[flat].view(-1, self.order, self.order, self.order)
            along_z = (cube * w[:, 2, None, None, :]).sum(-1)
            slope_z = (cube * s[:, 2, None, None, :]).sum(-1)
            zy = (along_z * w[:, 1, None, :]).sum(-1)
            zy_slope_y = (along_z * s[:, 1, None, :]).sum(-1)
            zy_slope_z = (slope_z * w[:, 1, None, :]).sum(-1)
            values.append((zy * w[:, 0]).sum(-1))
            du = torch.stack(
                [(zy * s[:, 0]).sum(-1), (zy_slope_y * w[:, 0]).sum(-1), (zy_slope_z * w[:, 0]).sum(-1)],
                dim=-1,
            )
            gradients.append(torch.matmul(du, scale))
        if len(values) == 0:
            return points.new_zeros(0), points.new_zeros(0, 3)
        return torch.cat(values), torch.cat(gradients)

    @torch.jit.export
    def gather_curvature(self, potential: Tensor, points: Tensor, box: Tensor) -> Tensor:
        """Interpolate the second derivatives of the potential, (n, 3, 3) hartree/(e bohr^2). For few points."""
        scale = (torch.linalg.inv(box) * self.grid_sizes).t()
        flat, fraction = self._locate(points, box)
        splines = [
            self._weights(fraction, self.value_polynomials),
            self._weights(fraction, self.slope_polynomials),
            self._weights(fraction, self.curvature_polynomials),
        ]
        cube = potential.reshape(-1)[flat].view(-1, self.order, self.order, self.order)
        rows: list[Tensor] = []
        for a in range(3):
            row: list[Tensor] = []
            for b in range(3):
                kx = int(a == 0) + int(b == 0)
                ky = int(a == 1) + int(b == 1)
                kz = int(a == 2) + int(b == 2)
                part = (cube * splines[kz][:, 2, None, None, :]).sum(-1)
                part = (part * splines[ky][:, 1, None, :]).sum(-1)
                row.append((part * splines[kx][:, 0]).sum(-1))
            rows.append(torch.stack(row, dim=-1))
        in_cells = torch.stack(rows, dim=-2)
        return torch.matmul(torch.matmul(scale.t()[None], in_cells), scale[None])
