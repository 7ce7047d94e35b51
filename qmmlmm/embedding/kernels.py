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

TERMS = 20
"""Number of terms of the Taylor series of erf(x)/x below x = 1."""


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


def external_derivatives(
    r: Tensor,
    point_charges: Tensor,
    gaussian_charges: Tensor,
    splitting: float | None,
    widths: Tensor | None,
    order: int,
) -> list[Tensor]:
    """Return the potential of each charge of an external field and its radial derivatives of any order.

    Parameters
    ----------
    r : (n, k) tensor, bohr
        Distances between points and charges; zero only at Gaussian charges.
    point_charges, gaussian_charges : (k,) tensors, e
    splitting : float or None, 1/bohr
    widths : (k,) tensor or None, bohr
        As in `qmmlmm.coupling.potential.ExternalField`.
    order : int

    Returns
    -------
    list of (n, k) tensors
        F_0 to F_order: F_0 is the potential and F_(l+1) = F_l'/r, so that the Cartesian derivatives of the potential
        are polynomials in the components of the distance vector with the F_l as coefficients.
    """
    result = [torch.zeros_like(r) for _ in range(order + 1)]
    extended = torch.zeros_like(point_charges, dtype=torch.bool)
    if widths is not None:
        extended = (point_charges != 0.0) & (widths > 0.0)
        _add_columns(result, smeared_ladder(r[:, extended], 1.0 / widths[extended], order), point_charges, extended)
    at_point = (point_charges != 0.0) & ~extended
    if splitting is None:
        _add_columns(result, point_ladder(r[:, at_point], order), point_charges, at_point)
        return result
    # A point with the opposite Gaussian: the difference of the two would lose digits.
    paired = at_point & (gaussian_charges == -point_charges)
    _add_columns(result, screened_ladder(r[:, paired], splitting, order), point_charges, paired)
    alone = at_point & ~paired
    _add_columns(result, point_ladder(r[:, alone], order), point_charges, alone)
    rest = (gaussian_charges != 0.0) & ~paired
    _add_columns(
        result, smeared_ladder(r[:, rest], torch.full_like(r[0, rest], splitting), order), gaussian_charges, rest
    )
    return result


def point_ladder(r: Tensor, order: int) -> list[Tensor]:
    """Return F_0 = 1/r to F_order, with F_(l+1) = F_l'/r."""
    square = r**-2
    result = [1.0 / r]
    for rank in range(order):
        result.append(-(2 * rank + 1) * result[rank] * square)
    return result


def screened_ladder(r: Tensor, splitting: float, order: int) -> list[Tensor]:
    """Return F_0 = erfc(a r)/r to F_order, with F_(l+1) = F_l'/r."""
    square = r**-2
    gaussian = torch.exp(-((splitting * r) ** 2)) / (splitting * math.sqrt(math.pi))
    result = [torch.erfc(splitting * r) / r]
    magnitude = result[0]
    for rank in range(1, order + 1):
        magnitude = ((2 * rank - 1) * magnitude + (2.0 * splitting * splitting) ** rank * gaussian) * square
        result.append(magnitude if rank % 2 == 0 else -magnitude)
    return result


def smeared_ladder(r: Tensor, splitting: Tensor, order: int) -> list[Tensor]:
    """Return F_0 = erf(a r)/r to F_order, with F_(l+1) = F_l'/r, finite at r = 0; one a for each column of r."""
    x2 = (splitting * r) ** 2
    near = x2 < 1.0
    square = torch.where(near, torch.ones_like(x2), x2).reciprocal()
    gaussian = torch.exp(-x2) / math.sqrt(math.pi)
    magnitude = torch.erf(square.rsqrt()) * square.sqrt()
    result = []
    for rank in range(order + 1):
        if rank > 0:
            # At short distances the difference loses digits; there it is replaced by the series.
            magnitude = ((2 * rank - 1) * magnitude - 2.0**rank * gaussian) * square
        sign = 1.0 if rank % 2 == 0 else -1.0
        series = sign * (2.0**rank) * _series(x2, rank)
        result.append(splitting ** (2 * rank + 1) * torch.where(near, series, sign * magnitude))
    return result


def _series(x2: Tensor, rank: int) -> Tensor:
    """Return (-d/dx2)^rank of erf(x)/x below x = 1, from its Taylor series in x2; neglected terms are below 1e-17."""
    value = torch.zeros_like(x2)
    for power in range(TERMS - 1, -1, -1):
        coefficient = 2.0 / (math.sqrt(math.pi) * math.factorial(power) * (2 * (power + rank) + 1))
        value = value * -x2 + coefficient
    return value


def _add_columns(result: list[Tensor], ladder: list[Tensor], charges: Tensor, columns: Tensor) -> None:
    """Add the functions of some charges, times these, to their columns."""
    index = torch.nonzero(columns)[:, 0]
    if not len(index):
        return
    scale = charges[index]
    for whole, part in zip(result, ladder, strict=True):
        whole.index_add_(1, index, scale * part)
