from __future__ import annotations

import math

import pytest
import torch

from qmmlmm.embedding.kernels import smeared_derivatives
from qmmlmm.ml.damped_multipoles import field_at_atoms, own_distance, pair_energy, pair_geometry

DAMPING = 0.35
# A dipole made of two charges 2e-3 bohr apart differs from a point dipole by the square of that.
FINITE_DIPOLE_TOLERANCE = 1e-6


def geometry(places):
    return pair_geometry(places, own_distance(places.shape[-2]))


def test_the_recursion_gives_the_derivatives_of_the_kernel():
    r = torch.linspace(0.8, 12.0, 40, dtype=torch.float64, requires_grad=True)
    kernel = torch.erf(DAMPING * r) / r
    (first,) = torch.autograd.grad(kernel.sum(), r, create_graph=True)
    (second,) = torch.autograd.grad((-first / r).sum(), r)
    b0, b1, b2 = smeared_derivatives(r, DAMPING)
    torch.testing.assert_close(b0, kernel)
    torch.testing.assert_close(b1, -first / r)
    torch.testing.assert_close(b2, -second / r, rtol=1e-9, atol=1e-13)


def test_dipoles_are_the_limit_of_pairs_of_charges():
    generator = torch.Generator().manual_seed(3)
    places = 4.0 * torch.randn(2, 3, generator=generator, dtype=torch.float64)
    charges = torch.tensor([0.4, -0.7], dtype=torch.float64)
    dipoles = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    step = 1e-3
    sites = torch.cat([places, places + step * dipoles, places - step * dipoles])
    half = torch.full((2,), 0.5 / step, dtype=torch.float64)
    strengths = torch.cat([charges, half, -half])
    owner = torch.tensor([0, 1, 0, 1, 0, 1])
    r = (sites[:, None] - sites[None]).norm(dim=-1) + (owner[:, None] == owner[None])
    direct = torch.erf(DAMPING * r) / r * (owner[:, None] != owner[None]) * strengths[:, None] * strengths[None]
    energy = pair_energy(*geometry(places), charges, dipoles, DAMPING)
    assert energy.item() == pytest.approx(0.5 * direct.sum().item(), abs=FINITE_DIPOLE_TOLERANCE)


def test_the_field_is_minus_the_derivative_of_the_energy_by_a_dipole():
    generator = torch.Generator().manual_seed(4)
    places = 3.0 * torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    charges = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    dipoles = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    energy = pair_energy(*geometry(places), charges, dipoles, DAMPING)
    (slope,) = torch.autograd.grad(energy.sum(), dipoles)
    torch.testing.assert_close(field_at_atoms(*geometry(places), charges, dipoles, DAMPING), -slope)


def test_far_apart_it_is_coulombs_law_and_at_contact_it_is_finite():
    charges = torch.tensor([1.0, -1.0], dtype=torch.float64)
    none = torch.zeros(2, 3, dtype=torch.float64)
    far = torch.tensor([[0.0, 0.0, 0.0], [0.0, 30.0, 0.0]], dtype=torch.float64)
    near = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1e-2, 0.0]], dtype=torch.float64)
    assert pair_energy(*geometry(far), charges, none, DAMPING).item() == pytest.approx(-1.0 / 30.0, rel=1e-12)
    limit = 2.0 * DAMPING / math.sqrt(math.pi)
    assert pair_energy(*geometry(near), charges, none, DAMPING).item() == pytest.approx(-limit, rel=1e-5)
