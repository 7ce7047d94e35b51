from dataclasses import replace

import numpy as np
import pytest

from qmmlmm.qm import PySCFPotential

STEP = 5e-4  # bohr
EXACT = 1e-6  # hartree/bohr: the central difference itself is in error by 2e-7 for an O-H bond
NO_NET_FORCE = 1e-9  # hartree/bohr: translational invariance holds term by term
TIGHT = 1e-12


def _central(function, positions):
    gradient = np.zeros_like(positions)
    for index in np.ndindex(*positions.shape):
        shifted = positions.copy()
        energies = []
        for sign in (1, -1):
            shifted[index] = positions[index] + sign * STEP
            energies.append(function(shifted))
        gradient[index] = (energies[0] - energies[1]) / (2 * STEP)
    return gradient


def _check_all(case, potential, tolerance):
    evaluator = potential.create_evaluator(case.specification)
    field, broad = case.field, case.field.smooth_potential
    result = evaluator.evaluate(case.positions, field)

    def energy(atoms, **changes):
        return evaluator.evaluate(atoms, replace(field, **changes)).energy

    by_atoms = _central(energy, case.positions)
    np.testing.assert_allclose(result.gradient, by_atoms, atol=tolerance)
    by_charges = _central(lambda r: energy(case.positions, positions=r), field.positions)
    np.testing.assert_allclose(result.charge_gradient, by_charges, atol=EXACT)
    by_broad = _central(lambda r: energy(case.positions, smooth_potential=replace(broad, positions=r)), broad.positions)
    np.testing.assert_allclose(broad.gradient(result), by_broad, atol=EXACT)


@pytest.mark.parametrize("level", [0, 2])
def test_restricted_hartree_fock_gradients_are_exact_on_any_embedding_grid(water, level):
    _check_all(
        water,
        PySCFPotential("hf", "sto-3g", density_fit=False, embedding_grid_level=level, conv_tol=TIGHT),
        EXACT,
    )


def test_unrestricted_hartree_fock_gradients_with_density_fitting_are_exact(radical):
    _check_all(radical, PySCFPotential("hf", "6-31g*", embedding_grid_level=0, conv_tol=TIGHT), EXACT)


@pytest.mark.parametrize("method", ["b3lyp", "scan"])
def test_restricted_functionals_have_the_gradient_of_their_energy(hydroxide, method):
    _check_some(hydroxide, PySCFPotential(method, "6-31g", embedding_grid_level=0, conv_tol=TIGHT))


@pytest.mark.parametrize(("method", "density_fit"), [("b3lyp", True), ("pbe", False)])
def test_unrestricted_functionals_have_the_gradient_of_their_energy(radical, method, density_fit):
    potential = PySCFPotential(method, "6-31g", density_fit=density_fit, embedding_grid_level=0, conv_tol=TIGHT)
    _check_some(radical, potential)


def test_an_effective_core_potential_has_the_gradient_of_its_energy(hydroxide):
    specification = replace(hydroxide.specification, atomic_numbers=np.array([35, 1]), charge=0)
    case = replace(hydroxide, specification=specification, positions=1.5 * hydroxide.positions)
    _check_some(case, PySCFPotential("hf", "lanl2dz", embedding_grid_level=1, conv_tol=TIGHT))


def _check_some(case, potential):
    """All atoms, and the charges and broad charges along one direction each, which are the same code."""
    evaluator = potential.create_evaluator(case.specification)
    field, broad = case.field, case.field.smooth_potential
    result = evaluator.evaluate(case.positions, field)
    by_atoms = _central(lambda r: evaluator.evaluate(r, field).energy, case.positions)
    np.testing.assert_allclose(result.gradient, by_atoms, atol=EXACT)
    random = np.random.default_rng(2)
    for gradient, positions, change in (
        (result.charge_gradient, field.positions, lambda r: replace(field, positions=r)),
        (
            broad.gradient(result),
            broad.positions,
            lambda r: replace(field, smooth_potential=replace(broad, positions=r)),
        ),
    ):
        direction = random.normal(size=positions.shape)
        direction /= np.linalg.norm(direction)
        up, down = (
            evaluator.evaluate(case.positions, change(positions + sign * STEP * direction)).energy for sign in (1, -1)
        )
        assert np.sum(gradient * direction) == pytest.approx((up - down) / (2 * STEP), abs=EXACT)


def test_forces_on_atoms_and_all_charges_sum_to_zero(water):
    potential = PySCFPotential("hf", "6-31g", density_fit=False, embedding_grid_level=0, conv_tol=TIGHT)
    evaluator = potential.create_evaluator(water.specification)
    without_smooth = replace(water.field, smooth_potential=None)
    result = evaluator.evaluate(water.positions, without_smooth)
    net = result.gradient.sum(axis=0) + result.charge_gradient.sum(axis=0)
    np.testing.assert_allclose(net, 0.0, atol=NO_NET_FORCE)
    result = evaluator.evaluate(water.positions, water.field)
    net = result.gradient.sum(axis=0) + result.charge_gradient.sum(axis=0)
    net += water.field.smooth_potential.gradient(result).sum(axis=0)
    np.testing.assert_allclose(net, 0.0, atol=NO_NET_FORCE)


@pytest.mark.parametrize("omega", [0.0, 0.3, -0.3])
def test_the_radial_functions_have_the_slope_that_they_say(omega):
    from qmmlmm.qm.compact import radial

    distances = np.array([0.3, 0.333, 0.34, 1.0, 4.0, 20.0])
    _, slopes = radial(distances, omega)
    up, down = (radial(distances + sign * 1e-5, omega)[0] for sign in (1, -1))
    np.testing.assert_allclose(slopes * distances, (up - down) / 2e-5, atol=1e-8)


def test_a_gaussian_charge_is_finite_and_smooth_at_its_centre():
    from qmmlmm.qm.compact import SERIES_LIMIT, radial

    values, slopes = radial(np.array([0.0]), 0.3)
    assert values[0] == pytest.approx(2 * 0.3 / np.sqrt(np.pi), rel=1e-14)
    assert slopes[0] == pytest.approx(-4 * 0.3**3 / (3 * np.sqrt(np.pi)), rel=1e-14)
    edge = SERIES_LIMIT / 0.3
    below, above = (radial(np.array([edge * (1 + shift)]), 0.3) for shift in (-1e-12, 1e-12))
    assert below[0][0] == pytest.approx(above[0][0], rel=1e-11)
    assert below[1][0] == pytest.approx(above[1][0], rel=1e-10)
