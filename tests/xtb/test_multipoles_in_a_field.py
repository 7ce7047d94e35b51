"""Multipoles in the compact and in the smooth part of a field, against clusters of charges and against differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qmmlmm.coupling.potential import ExternalField
from qmmlmm.embedding.fixed_charges import charges_in_field
from qmmlmm.xtb.compact_charges import CompactCharges
from qmmlmm.xtb.multipoles import AtomicMultipoles
from qmmlmm.xtb.smooth_potential import ICOSAHEDRON, RADIUS, SmoothPotential
from tests.finite_differences import central_differences

RANKS = (0, 1, 2)
ROUND_OFF = 1e-13  # hartree
CHARGE_SUM = 1e-12  # e: the charges at the corners are quadrupoles over RADIUS^2, some 1e3 e
# Clusters of charges at distances of 0.01 bohr: the next multipole is smaller by its square, 1e-4, over 4 to 25.
SPREAD = 0.01  # bohr
CLUSTER = 2e-5  # hartree, relative to energies of 0.01 to 1
DIFFERENCES = 1e-9  # hartree/bohr: steps of 1e-3 bohr at four points, round-off of 1e-16 over 1e-3
STEP = 1e-3  # bohr


@pytest.fixture
def atoms():
    return np.array([[0.0, 0.1, 0.0], [1.8, 0.0, 0.3]])


@pytest.fixture
def multipoles():
    random = np.random.default_rng(2)
    matrices = random.normal(size=(2, 3, 3))
    matrices = matrices + matrices.transpose(0, 2, 1)
    trace = np.trace(matrices, axis1=1, axis2=2)[:, None, None]
    return AtomicMultipoles(random.normal(size=2), random.normal(size=(2, 3)), matrices - trace * np.eye(3) / 3.0)


@pytest.fixture
def field(atoms):
    """Pairs of point and Gaussian, a lone point, a lone Gaussian, smeared points, Gaussians on the atoms."""
    places = np.array([[4.0, 1.0, 0.5], [-3.0, 2.0, 1.0], [0.5, -4.0, 2.0], [1.0, 3.5, -2.0], [2.0, 2.0, 1.5]])
    return ExternalField(
        np.concatenate([places, atoms]),
        np.array([0.6, -0.4, 0.5, 0.0, -0.7, 0.0, 0.0]),
        np.array([-0.6, 0.0, 0.2, 0.8, 0.7, 0.3, -0.2]),
        0.4,
        widths=np.array([0.0, 0.0, 0.9, 0.0, 1.2, 0.0, 0.0]),
    )


def cluster(atoms, multipoles):
    """Return charges near the atoms, (n, 3) and (n,), with these multipoles up to small higher ones."""
    points, charges = [*atoms], [*multipoles.charges]
    for centre, dipole, quadrupole in zip(atoms, multipoles.dipoles, multipoles.quadrupoles, strict=True):
        for axis in np.eye(3):
            for sign in (1.0, -1.0):
                points.append(centre + sign * SPREAD * axis)
                charges.append(sign * (dipole @ axis) / (2.0 * SPREAD))
        # sum q x x' = 2/3 Theta for a traceless second moment.
        values, axes = np.linalg.eigh(2.0 / 3.0 * quadrupole)
        for value, axis in zip(values, axes.T, strict=True):
            for sign in (1.0, -1.0):
                points.append(centre + sign * SPREAD * axis)
                charges.append(value / (2.0 * SPREAD**2))
    return np.array(points), np.array(charges)


@pytest.mark.parametrize("rank", RANKS)
def test_the_energy_with_each_charge_is_that_of_a_cluster_of_charges(atoms, multipoles, field, rank):
    several = multipoles.up_to(rank)
    compact = CompactCharges(atoms, field, rank)
    found = compact.energies(several)
    expected = charges_in_field(*cluster(atoms, several), field).charge_energies()
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLUSTER)
    assert abs(found).max() > 1e3 * CLUSTER
    assert several.energy(compact.potential()) == pytest.approx(found.sum(), abs=ROUND_OFF)


@pytest.mark.parametrize("rank", RANKS)
def test_gradients_on_atoms_and_charges_are_derivatives(atoms, multipoles, field, rank):
    several = multipoles.up_to(rank)

    def energy_of_atoms(positions):
        return CompactCharges(positions, field, rank).energies(several).sum()

    def energy_of_charges(places):
        return CompactCharges(atoms, replace(field, positions=places), rank).energies(several).sum()

    on_atoms, on_charges = CompactCharges(atoms, field, rank).gradients(several)
    expected = central_differences(energy_of_atoms, atoms, range(2), STEP, points=4)
    np.testing.assert_allclose(on_atoms, expected, rtol=0, atol=DIFFERENCES)
    expected = central_differences(energy_of_charges, field.positions, range(7), STEP, points=4)
    np.testing.assert_allclose(on_charges, expected, rtol=0, atol=DIFFERENCES)


# --- the smooth part ---

POLYNOMIAL = np.random.default_rng(5).normal(size=(3, 3)) * 0.1


def smooth(points):
    """A potential with derivatives of all orders, and its gradient."""
    waves = points @ POLYNOMIAL.T
    return np.sin(waves).sum(axis=1), np.cos(waves) @ POLYNOMIAL


def exact(points):
    waves = points @ POLYNOMIAL.T
    return -np.einsum("ns,si,sj->nij", np.sin(waves), POLYNOMIAL, POLYNOMIAL)


# Of the derivatives: the next ones times RADIUS^2, 4e-4, over 10, times waves of 0.1 to the third and fourth power.
STENCIL = 1e-6


@pytest.mark.parametrize("rank", RANKS)
def test_derivatives_of_the_smooth_part_are_those_of_the_function(atoms, multipoles, rank):
    potential = SmoothPotential(atoms, smooth, rank).potential()
    value, gradient = smooth(atoms)
    np.testing.assert_array_equal(potential.value, value)
    np.testing.assert_allclose(potential.gradient, gradient if rank > 0 else 0.0, atol=STENCIL)
    traceless = multipoles.up_to(rank)
    expected = traceless.charges @ value + (traceless.dipoles * gradient).sum()
    expected += (traceless.quadrupoles * exact(atoms)).sum() / 3.0
    assert traceless.energy(potential) == pytest.approx(expected, abs=STENCIL)


@pytest.mark.parametrize("rank", RANKS)
def test_the_charges_that_stand_for_multipoles_have_exactly_their_energy_and_gradient(atoms, multipoles, rank):
    several = multipoles.up_to(rank)
    part = SmoothPotential(atoms, smooth, rank)
    gradient, points, charges = part.gradient_and_charges(several)
    assert len(points) == (2 if rank == 0 else 26)
    assert charges @ smooth(points)[0] == pytest.approx(several.energy(part.potential()), abs=ROUND_OFF)
    assert charges.sum() == pytest.approx(several.charges.sum(), abs=CHARGE_SUM)

    def energy(positions):
        return several.energy(SmoothPotential(positions, smooth, rank).potential())

    # The curvature has the round-off of the values over RADIUS^2.
    expected = central_differences(energy, atoms, range(2), 0.02, points=4)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=DIFFERENCES)


def test_sums_over_the_icosahedron_are_averages_over_the_sphere():
    np.testing.assert_allclose(np.linalg.norm(ICOSAHEDRON, axis=1), 1.0, atol=ROUND_OFF)
    eye = np.eye(3)
    isotropic = np.einsum("ij,kl->ijkl", eye, eye)
    isotropic = (isotropic + isotropic.transpose(0, 2, 1, 3) + isotropic.transpose(0, 3, 2, 1)) / 15.0
    moments = ["si->i", "si,sj->ij", "si,sj,sk->ijk", "si,sj,sk,sl->ijkl", "si,sj,sk,sl,sm->ijklm"]
    averages = [np.zeros(3), eye / 3.0, np.zeros((3, 3, 3)), isotropic, np.zeros((3,) * 5)]
    for order, (indices, average) in enumerate(zip(moments, averages, strict=True), start=1):
        found = np.einsum(indices, *[ICOSAHEDRON] * order) / 12.0
        np.testing.assert_allclose(found, average, atol=ROUND_OFF)
    assert RADIUS < 0.1
