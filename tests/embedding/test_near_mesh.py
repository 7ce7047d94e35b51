from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import erf

from qmmlmm.embedding.near_mesh import NearMesh, fast_size
from tests.finite_differences import central_difference

BROAD, NARROW = 0.15, 0.35  # 1/bohr
REACH = 4.5 / BROAD
MESH = 1e-7  # hartree/e, for charges of 0.6 e
STEP = 1e-4  # bohr
DERIVATIVE = 1e-9  # hartree/bohr: third derivatives times STEP^2 / 6


def scattered_charges():
    rng = np.random.default_rng(5)
    sites = rng.uniform(-6.0, 6.0, (7, 3)) + 31.0
    sources = rng.uniform(-40.0, 40.0, (600, 3)) + 31.0
    nearest = np.linalg.norm(sources[:, None] - sites, axis=2).min(axis=1)
    sources = sources[(nearest < REACH) & (nearest > 3.0)]
    charges = 0.6 * rng.choice([-1.0, 1.0], len(sources))
    points = sites[rng.integers(0, 7, 60)] + rng.normal(size=(60, 3))
    return sites, sources, charges, points


def filled(sites, sources, charges):
    return NearMesh(BROAD, NARROW, REACH).fill(torch.tensor(sites), torch.tensor(sources), torch.tensor(charges))


def test_the_potential_is_the_direct_sum_over_the_charges_without_images():
    sites, sources, charges, points = scattered_charges()
    value, _ = filled(sites, sources, charges).potential(torch.tensor(points))
    r = np.linalg.norm(points[:, None] - sources, axis=2)
    expected = ((erf(NARROW * r) - erf(BROAD * r)) / r) @ charges
    np.testing.assert_allclose(value.numpy(), expected, rtol=0, atol=MESH)
    assert np.ptp(expected) > 0.1


def test_the_gradient_and_the_adjoint_are_derivatives_of_the_potential():
    sites, sources, charges, points = scattered_charges()
    weights = np.linspace(-1.0, 1.0, len(points))
    near = filled(sites, sources, charges)
    _, gradient = near.potential(torch.tensor(points))
    pull = near.adjoint(torch.tensor(points), torch.tensor(weights), torch.tensor(sources)).numpy()
    rng = np.random.default_rng(6)
    along_points, along_sources = rng.normal(size=points.shape), rng.normal(size=sources.shape)

    def energy(points, sources):
        return weights @ filled(sites, sources, charges).potential(torch.tensor(points))[0].numpy()

    by_points = np.sum(weights[:, None] * gradient.numpy() * along_points)
    expected = central_difference(lambda x: energy(x, sources), points, along_points, STEP)
    assert by_points == pytest.approx(expected, abs=DERIVATIVE)
    by_sources = np.sum(charges[:, None] * pull * along_sources)
    expected = central_difference(lambda x: energy(points, x), sources, along_sources, STEP)
    assert by_sources == pytest.approx(expected, abs=DERIVATIVE)


def test_a_filled_mesh_stays_as_it_is_when_the_mesh_is_filled_again():
    sites, sources, charges, points = scattered_charges()
    mesh = NearMesh(BROAD, NARROW, REACH)
    first = mesh.fill(torch.tensor(sites), torch.tensor(sources), torch.tensor(charges))
    before = first.potential(torch.tensor(points))[0]
    mesh.fill(torch.tensor(sites), torch.tensor(sources), torch.tensor(-charges))
    assert torch.equal(first.potential(torch.tensor(points))[0], before)


@pytest.mark.parametrize(("least", "size"), [(1, 1), (7, 8), (129, 135), (151, 160)])
def test_mesh_sizes_have_small_prime_factors(least, size):
    assert fast_size(least) == size
