"""Radial functions of any order against derivatives by automatic differentiation, and at a distance of zero."""

from __future__ import annotations

import math

import pytest
import torch

from qmmlmm.embedding.kernels import (
    external_derivatives,
    external_kernel,
    point_ladder,
    screened_ladder,
    smeared_ladder,
)

ORDER = 4
A = 0.7  # 1/bohr
RELATIVE = 1e-12
# At a r = 1 four differences lose three digits; automatic differentiation itself loses some at short distances.
DISTANCES = torch.tensor([[1.0, 1.2], [1.0 / A - 1e-9, 1.0 / A + 1e-9], [3.0, 9.0]], dtype=torch.float64)


def by_autograd(function, r):
    """Return F_0 to F_ORDER, with F_(l+1) = F_l'/r."""
    r = r.clone().requires_grad_()
    found = [function(r)]
    for _ in range(ORDER):
        (slope,) = torch.autograd.grad(found[-1].sum(), r, create_graph=True)
        found.append(slope / r)
    return [part.detach() for part in found]


@pytest.mark.parametrize(
    ("ladder", "function"),
    [
        (lambda r: point_ladder(r, ORDER), lambda r: 1.0 / r),
        (lambda r: screened_ladder(r, A, ORDER), lambda r: torch.erfc(A * r) / r),
        (lambda r: smeared_ladder(r, torch.full((2,), A, dtype=r.dtype), ORDER), lambda r: torch.erf(A * r) / r),
    ],
    ids=["point", "screened", "smeared"],
)
def test_radial_functions_are_derivatives_of_each_other(ladder, function):
    for found, expected in zip(ladder(DISTANCES), by_autograd(function, DISTANCES), strict=True):
        torch.testing.assert_close(found, expected, rtol=RELATIVE, atol=0.0)


def test_at_a_distance_of_zero_a_smeared_charge_has_the_coefficients_of_its_taylor_series():
    # erf(a r)/r = 2 a/sqrt(pi) sum_k (-a^2 r^2)^k / (k! (2 k + 1)), and F_l is 2^l times its l-th derivative by r^2.
    found = smeared_ladder(torch.zeros((1, 1), dtype=torch.float64), torch.tensor([A], dtype=torch.float64), ORDER)
    for rank, value in enumerate(found):
        expected = 2.0 * A / math.sqrt(math.pi) * (-2.0 * A * A) ** rank / (2 * rank + 1)
        assert value.item() == pytest.approx(expected, rel=RELATIVE)


def test_the_first_three_are_those_of_the_external_kernel():
    r = torch.tensor([[2.0, 3.0, 1.5, 4.0, 0.8], [1.0, 6.0, 2.5, 3.0, 1e-7]], dtype=torch.float64)
    points = torch.tensor([0.4, 0.3, -0.8, 0.5, 0.0], dtype=torch.float64)
    gaussians = torch.tensor([-0.4, 0.0, 0.8, -0.2, 0.6], dtype=torch.float64)
    widths = torch.tensor([0.0, 0.0, 1.3, 0.9, 0.0], dtype=torch.float64)
    for around in (None, widths):
        zeroth, first, second = external_derivatives(r, points, gaussians, A, around, 2)
        value, radial, curved = external_kernel(r, points, gaussians, A, around)
        torch.testing.assert_close(zeroth, value, rtol=RELATIVE, atol=1e-14)
        torch.testing.assert_close(first, radial, rtol=RELATIVE, atol=1e-13)
        torch.testing.assert_close(second * r**2 + first, curved, rtol=RELATIVE, atol=1e-13)
