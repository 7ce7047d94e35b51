"""Cardinal B-splines: their polynomials, and spreading and gathering of many points on a padded mesh.

The functions of tensors are TorchScript.

Notes
-----
Source: Essmann et al., J. Chem. Phys. 103, 8577 (1995). The moduli at the Nyquist frequency of an odd spline order
follow OpenMM.
"""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

import numpy as np
import torch
from torch import Tensor


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
    """Return the derivatives of the polynomials, padded to the same shape."""
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


def splines_at(polynomials: Tensor, fraction: Tensor, derivatives: int) -> Tensor:
    """Return the splines and their derivatives at the surrounding mesh points, (derivatives + 1, order, 3, n)."""
    order = polynomials.shape[1]
    powers = [torch.ones_like(fraction)]
    for _ in range(order - 1):
        powers.append(powers[-1] * fraction)
    weights = torch.matmul(polynomials[: (derivatives + 1) * order], torch.stack(powers).view(order, -1))
    return weights.view(derivatives + 1, order, 3, fraction.shape[1])


def splines_of(polynomials: Tensor, places: Tensor, derivatives: int) -> Tensor:
    """Return `splines_at` of positions in cells, (3, n); or of splines themselves, (2 or more, order, 3, n)."""
    if places.dim() == 4:
        return places[: derivatives + 1]
    return splines_at(polynomials, places, derivatives)


def spread_chunk(
    polynomials: Tensor,
    mesh: Tensor,
    sizes: list[int],
    start: Tensor,
    places: Tensor,
    charges: Tensor,
    dipoles: Tensor,
) -> None:
    """Add charges and dipoles, in units of cells, to the flat padded mesh; dipoles may have no columns."""
    order = polynomials.shape[1]
    last = order - 1
    n_derivatives = 1 if dipoles.shape[1] > 0 else 0
    splines = splines_of(polynomials, places, n_derivatives)
    slopes = splines[n_derivatives]  # not used without dipoles
    wx, wy, wz = splines[0, :, 0].unbind(0), splines[0, :, 1].unbind(0), splines[0, :, 2].unbind(0)
    sx, sy, sz = slopes[:, 0].unbind(0), slopes[:, 1].unbind(0), slopes[:, 2].unbind(0)
    index = (start + torch.arange(last, -1, -1, device=start.device)[:, None]).view(-1)
    values = torch.empty(order, start.shape[0], dtype=mesh.dtype, device=mesh.device)
    rows = values.unbind(0)
    for a in range(order):
        charged = wx[a] * charges
        for b in range(order):
            if dipoles.shape[1] > 0:
                plane = (charged + sx[a] * dipoles[0]) * wy[b] + wx[a] * dipoles[1] * sy[b]
                tilted = wx[a] * wy[b] * dipoles[2]
                for c in range(order):
                    torch.add(plane * wz[c], tilted * sz[c], out=rows[c])
            else:
                plane = charged * wy[b]
                for c in range(order):
                    torch.mul(plane, wz[c], out=rows[c])
            shift = ((last - a) * sizes[1] + last - b) * sizes[2]
            mesh.narrow(0, shift, mesh.shape[0] - shift).scatter_add_(0, index, values.view(-1))


def gather_chunk(
    polynomials: Tensor, mesh: Tensor, sizes: list[int], start: Tensor, places: Tensor, found: Tensor
) -> None:
    """Add the value on a padded, flat mesh and its derivatives along the axes to `found`, (4, n)."""
    order = polynomials.shape[1]
    last = order - 1
    splines = splines_of(polynomials, places, 1)
    wx, wy = splines[0, :, 0].unbind(0), splines[0, :, 1].unbind(0)
    sx, sy = splines[1, :, 0].unbind(0), splines[1, :, 1].unbind(0)
    along_z = splines[:, :, 2].unbind(1)  # the spline and its derivative, in one operation each
    value, by_x, by_y, by_z = found.unbind(0)
    for a in range(order):
        y_and_z = torch.zeros(2, start.shape[0], dtype=mesh.dtype, device=mesh.device)
        y_by_y = torch.zeros(start.shape[0], dtype=mesh.dtype, device=mesh.device)
        for b in range(order):
            z = torch.zeros(2, start.shape[0], dtype=mesh.dtype, device=mesh.device)
            for c in range(order):
                shift = ((last - a) * sizes[1] + last - b) * sizes[2] + last - c
                at_points = mesh.narrow(0, shift, mesh.shape[0] - shift).index_select(0, start)
                z.addcmul_(at_points, along_z[c])
            y_and_z.addcmul_(z, wy[b])
            y_by_y.addcmul_(z[0], sy[b])
        y, y_by_z = y_and_z.unbind(0)
        value.addcmul_(y, wx[a])
        by_x.addcmul_(y, sx[a])
        by_y.addcmul_(y_by_y, wx[a])
        by_z.addcmul_(y_by_z, wx[a])
