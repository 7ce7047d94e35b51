"""Radial functions of Coulomb interactions between points and Gaussian charges, with their derivatives.

Atomic units. TorchScript compiles the functions.

Notes
-----
The potential of a unit charge with the density (a^2/pi)^(3/2) exp(-a^2 r^2) is erf(a r)/r. Its radial derivatives
B_0 = erf(a r)/r and B_(l+1) = -B_l'/r follow the recursion of Smith, CCP5 Newsletter 46, 18 (1998), there for erfc.
"""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

import math

import torch
from torch import Tensor


def screened_kernel(r: Tensor, splitting: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return erfc(a r)/r and its first and second derivatives, for one a or one for each column of r."""
    inverse = 1.0 / r
    value = torch.erfc(splitting * r) * inverse
    gaussian = (2.0 * splitting / math.sqrt(math.pi)) * torch.exp(-((splitting * r) ** 2))
    first = -(value + gaussian) * inverse
    second = -2.0 * first * inverse + 2.0 * splitting * splitting * gaussian
    return value, first, second


def smeared_derivatives(r: Tensor, splitting: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return B_0 = erf(a r)/r, B_1 = -B_0'/r and B_2 = -B_1'/r, for distances well above zero."""
    scaled = splitting * r
    inverse = 1.0 / r
    square = inverse * inverse
    gaussian = (2.0 * splitting / math.sqrt(math.pi)) * torch.exp(-scaled * scaled)
    b0 = torch.erf(scaled) * inverse
    b1 = (b0 - gaussian) * square
    b2 = (3.0 * b1 - (2.0 * splitting * splitting) * gaussian) * square
    return b0, b1, b2


def smeared_kernel(r: Tensor, splitting: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return erf(a r)/r, its first derivative divided by r, and its second derivative, finite at r = 0.

    For one a or one for each column of r.
    """
    x = splitting * r
    # For small x the Taylor series of erf(x)/x; the neglected terms are below 1e-14.
    near = x < 0.1
    b0, b1, b2 = smeared_derivatives(torch.where(near, torch.ones_like(x), x), 1.0)
    x2 = x * x
    c = 2.0 / math.sqrt(math.pi)
    value0 = _polynomial(x2, [c, -c / 3.0, c / 10.0, -c / 42.0, c / 216.0, -c / 1320.0, c / 9360.0])
    radial0 = _polynomial(
        x2, [-2.0 * c / 3.0, 4.0 * c / 10.0, -6.0 * c / 42.0, 8.0 * c / 216.0, -10.0 * c / 1320.0, 12.0 * c / 9360.0]
    )
    second0 = _polynomial(
        x2,
        [-2.0 * c / 3.0, 12.0 * c / 10.0, -30.0 * c / 42.0, 56.0 * c / 216.0, -90.0 * c / 1320.0, 132.0 * c / 9360.0],
    )
    cube = splitting * splitting * splitting
    return (
        splitting * torch.where(near, value0, b0),
        cube * torch.where(near, radial0, -b1),
        cube * torch.where(near, second0, x2 * b2 - b1),
    )


def _polynomial(x: Tensor, coefficients: list[float]) -> Tensor:
    """Return the polynomial with these coefficients, of which there are at least two, by Horner's rule."""
    last = len(coefficients) - 1
    result = x * coefficients[last] + coefficients[last - 1]
    for k in range(last - 2, -1, -1):
        result = result * x + coefficients[k]
    return result


def smeared_radial(r: Tensor, splitting: float) -> Tensor:
    """Return only the first derivative of erf(a r)/r divided by r, for many distances of which few are short."""
    x = splitting * r
    near = x < 0.1
    cube = splitting * splitting * splitting
    radial = -cube * smeared_derivatives(x.masked_fill(near, 1.0), 1.0)[1]
    radial[near] = smeared_kernel(r[near], torch.tensor(splitting, dtype=r.dtype))[1]
    return radial


def external_kernel(
    r: Tensor, point_charges: Tensor, gaussian_charges: Tensor, splitting: float | None, widths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the potential of each charge of an external field and its radial derivatives.

    Parameters
    ----------
    r : (n, k) tensor, bohr
        Distances between points and charges.
    point_charges, gaussian_charges : (k,) tensors, e
    splitting : float or None, 1/bohr
    widths : (k,) tensor or None, bohr
        As in `qmmlmm.coupling.potential.ExternalField`.

    Returns
    -------
    value, radial, second : (n, k) tensors
        Potential, its first derivative divided by r, and its second derivative.
    """
    extended = torch.zeros_like(point_charges, dtype=torch.bool)
    if widths is not None:
        extended = (point_charges != 0.0) & (widths > 0.0)
    at_point = (point_charges != 0.0) & ~extended
    value, radial, second = torch.zeros_like(r), torch.zeros_like(r), torch.zeros_like(r)
    inverse, q = 1.0 / r[:, at_point], point_charges[at_point]
    value[:, at_point] = q * inverse
    radial[:, at_point] = -q * inverse**3
    second[:, at_point] = 2.0 * q * inverse**3
    if widths is not None:
        smeared, q = smeared_kernel(r[:, extended], 1.0 / widths[extended]), point_charges[extended]
        value[:, extended], radial[:, extended], second[:, extended] = q * smeared[0], q * smeared[1], q * smeared[2]
    if splitting is not None:
        smeared = smeared_kernel(r, torch.tensor(splitting, dtype=r.dtype))
        value = value + gaussian_charges * smeared[0]
        radial = radial + gaussian_charges * smeared[1]
        second = second + gaussian_charges * smeared[2]
    return value, radial, second
