"""The mesh points around a few points: their shares in charges and dipoles, and interpolation, in one array each.

All functions are TorchScript. Derivatives and dipoles are along the axes of the mesh, in units of its cells.
"""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

from typing import NamedTuple

import torch
from torch import Tensor

from qmmlmm.embedding.bsplines import splines_of


class Stencil(NamedTuple):
    """The mesh points around a few points, and the splines there.

    Parameters
    ----------
    splines : (n, 3, 3, order) tensor
        Of each point along each axis: the spline and its first and second derivative at the mesh points.
    around : (n, order, order, order) int64 tensor
        Indices of the mesh points in the periodic mesh.
    start : (n,) int64 tensor
        Indices of the points' cells in the padded mesh.
    """

    splines: Tensor
    around: Tensor
    start: Tensor


def charge_shares(stencil: Stencil, charges: Tensor) -> Tensor:
    """Return the shares of the mesh points around each point in its charge, (n, order, order, order)."""
    splines = stencil.splines
    along = splines[:, 0, 0] * charges.to(splines.dtype)[:, None]
    return along[:, :, None, None] * (splines[:, 1, 0][:, :, None] * splines[:, 2, 0][:, None, :])[:, None]


def add_dipole_shares(shares: Tensor, stencil: Stencil, dipoles: Tensor) -> Tensor:
    """Return shares, (n, order, order, order), with those in dipoles, (n, 3)."""
    splines = stencil.splines
    x, y, z = splines[:, 0, 0], splines[:, 1, 0], splines[:, 2, 0]
    tilted = splines[:, 1, 1][:, :, None] * (z * dipoles[:, 1:2])[:, None, :]
    tilted = tilted + y[:, :, None] * (splines[:, 2, 1] * dipoles[:, 2:])[:, None, :]
    along = splines[:, 0, 1] * dipoles[:, :1]
    shares = shares + along[:, :, None, None] * (y[:, :, None] * z[:, None, :])[:, None]
    return shares + x[:, :, None, None] * tilted[:, None]


def interpolated(potential: Tensor, stencil: Stencil, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return value, gradient and second derivatives of a potential on the mesh at points with a stencil.

    Parameters
    ----------
    potential : (nx, ny, nz) tensor, hartree/e
    stencil : Stencil
    scale : (3, 3) tensor, 1/bohr
        Mesh points for each bohr: from derivatives along the axes of the mesh, in columns, to those in space.

    Returns
    -------
    value : (n,) tensor, hartree/e
    gradient : (n, 3) tensor, hartree/(e bohr)
    curvature : (n, 3, 3) tensor, hartree/(e bohr^2)
    """
    splines = stencil.splines
    cube = potential.reshape(-1)[stencil.around]
    in_z = torch.matmul(cube, splines[:, 2].transpose(1, 2)[:, None])  # point, x, y, derivative of z
    in_yz = torch.matmul(splines[:, 1][:, None], in_z)
    every = torch.matmul(splines[:, 0], in_yz.flatten(2)).view(-1, 3, 3, 3)  # derivatives of x, y, z
    gradients = torch.stack([every[:, 1, 0, 0], every[:, 0, 1, 0], every[:, 0, 0, 1]], dim=-1)
    xx, yy, zz = every[:, 2, 0, 0], every[:, 0, 2, 0], every[:, 0, 0, 2]
    xy, xz, yz = every[:, 1, 1, 0], every[:, 1, 0, 1], every[:, 0, 1, 1]
    in_cells = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], dim=-1).view(-1, 3, 3)
    curvature = torch.matmul(torch.matmul(scale, in_cells), scale.t())
    return every[:, 0, 0, 0], torch.matmul(gradients, scale.t()), curvature


def spread_to_all(polynomials: Tensor, places: Tensor, charges: Tensor, dipoles: Tensor) -> Tensor:
    """Return the shares of all mesh points of located points in charges and dipoles, (n, order, order, order).

    Parameters
    ----------
    polynomials : (3 order, order) tensor
        Splines and their derivatives, of the mesh.
    places : tensor
        Of `EwaldMesh.locate`.
    charges : (n,) tensor, e
    dipoles : (3, n) or (3, 0) tensor
    """
    # derivative, axis, point, mesh point
    splines = splines_of(polynomials, places, 1).permute(0, 2, 3, 1)
    w, s = splines[0], splines[1]
    along = w[0] * charges[:, None]
    if dipoles.shape[1] > 0:
        along = along + s[0] * dipoles[0, :, None]
    values = along[:, :, None, None] * w[1][:, None, :, None] * w[2][:, None, None, :]
    if dipoles.shape[1] > 0:
        tilted = s[1][:, :, None] * (w[2] * dipoles[1, :, None])[:, None, :]
        tilted = tilted + w[1][:, :, None] * (s[2] * dipoles[2, :, None])[:, None, :]
        values = values + w[0][:, :, None, None] * tilted[:, None]
    return values


def gather_from_all(polynomials: Tensor, places: Tensor, cube: Tensor, found: Tensor) -> None:
    """Set `found`, (4, n), to values and derivatives at located points.

    Parameters
    ----------
    polynomials : (3 order, order) tensor
        Splines and their derivatives, of the mesh.
    places : tensor
        Of `EwaldMesh.locate`.
    cube : (n, order, order, order) tensor
        Potential at all mesh points of each point.
    found : (4, n) tensor
    """
    # derivative, axis, point, mesh point
    splines = splines_of(polynomials, places, 1).permute(0, 2, 3, 1)
    w, s = splines[0], splines[1]
    plane = (cube * w[0][:, :, None, None]).sum(1)
    line = (plane * w[1][:, :, None]).sum(1)
    by_x = ((cube * s[0][:, :, None, None]).sum(1) * w[1][:, :, None]).sum(1)
    by_y = (plane * s[1][:, :, None]).sum(1)
    found[0] = (line * w[2]).sum(1)
    found[1] = (by_x * w[2]).sum(1)
    found[2] = (by_y * w[2]).sum(1)
    found[3] = (line * s[2]).sum(1)
