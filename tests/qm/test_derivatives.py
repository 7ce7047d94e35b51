from dataclasses import replace

import numpy as np
import pytest

from qmmlmm.qm import PySCFPotential
from qmmlmm.qm.field.compact_charges import radial
from tests.finite_differences import central_difference
from tests.qm.gradients import TIGHT, check_every_component, check_gradients

NO_NET_FORCE = 1e-9  # hartree/bohr: translational invariance holds term by term


@pytest.mark.parametrize("level", [0, 2])
def test_restricted_hartree_fock_gradients_are_exact_on_any_embedding_grid(water, level):
    potential = PySCFPotential("hf", "sto-3g", density_fit=False, embedding_grid_level=level, conv_tol=TIGHT)
    check_every_component(water, potential)


def test_unrestricted_hartree_fock_gradients_with_density_fitting_are_exact(radical):
    check_every_component(radical, PySCFPotential("hf", "6-31g*", embedding_grid_level=0, conv_tol=TIGHT))


@pytest.mark.parametrize("method", ["b3lyp", "scan"])
def test_restricted_functionals_have_the_gradient_of_their_energy(hydroxide, method):
    check_gradients(hydroxide, PySCFPotential(method, "6-31g", embedding_grid_level=0, conv_tol=TIGHT))


@pytest.mark.parametrize(("method", "density_fit"), [("b3lyp", True), ("pbe", False)])
def test_unrestricted_functionals_have_the_gradient_of_their_energy(radical, method, density_fit):
    potential = PySCFPotential(method, "6-31g", density_fit=density_fit, embedding_grid_level=0, conv_tol=TIGHT)
    check_gradients(radical, potential)


def test_an_effective_core_potential_has_the_gradient_of_its_energy(hydroxide):
    specification = replace(hydroxide.specification, atomic_numbers=np.array([35, 1]), charge=0)
    case = replace(hydroxide, specification=specification, positions=1.5 * hydroxide.positions)
    check_gradients(case, PySCFPotential("hf", "lanl2dz", embedding_grid_level=1, conv_tol=TIGHT))


def test_forces_on_atoms_and_all_charges_sum_to_zero(water):
    potential = PySCFPotential("hf", "6-31g", density_fit=False, embedding_grid_level=0, conv_tol=TIGHT)
    evaluator = potential.create_evaluator(water.specification)
    without_smooth = replace(water.field, smooth_potential=None)
    result = evaluator.evaluate(water.geometry, without_smooth)
    net = result.gradient.sum(axis=0) + result.charge_gradient.sum(axis=0)
    np.testing.assert_allclose(net, 0.0, atol=NO_NET_FORCE)
    result = evaluator.evaluate(water.geometry, water.field)
    net = result.gradient.sum(axis=0) + result.charge_gradient.sum(axis=0)
    net += water.field.smooth_potential.gradient(result).sum(axis=0)
    np.testing.assert_allclose(net, 0.0, atol=NO_NET_FORCE)


@pytest.mark.parametrize("omega", [0.0, 0.3, -0.3])
def test_the_radial_functions_have_the_slope_that_they_say(omega):
    distances = np.array([0.3, 0.333, 0.34, 1.0, 4.0, 20.0])
    _, slopes = radial(distances, omega)
    expected = central_difference(lambda r: radial(r, omega)[0], distances, np.ones(6), 1e-5)
    np.testing.assert_allclose(slopes * distances, expected, atol=1e-8)


def test_a_gaussian_charge_is_finite_and_smooth_at_its_centre():
    values, slopes = radial(np.array([0.0]), 0.3)
    assert values[0] == pytest.approx(2 * 0.3 / np.sqrt(np.pi), rel=1e-14)
    assert slopes[0] == pytest.approx(-4 * 0.3**3 / (3 * np.sqrt(np.pi)), rel=1e-14)
    edge = 0.1 / 0.3  # where the series ends
    below, above = (radial(np.array([edge * (1 + shift)]), 0.3) for shift in (-1e-12, 1e-12))
    assert below[0][0] == pytest.approx(above[0][0], rel=1e-11)
    assert below[1][0] == pytest.approx(above[1][0], rel=1e-10)
