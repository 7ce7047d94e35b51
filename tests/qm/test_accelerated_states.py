"""Excited states with array operations of this package against PySCF's own code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pyscf import gto
from pyscf.grad import rhf

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.geometry import Geometry
from qmmlmm.qm import TDA, TDDFT, PySCFPotential
from qmmlmm.qm.field.compact_charges import sum_by_atom
from qmmlmm.qm.functional.response_integrator import ResponseIntegrator
from qmmlmm.qm.states import repulsion_gradient as repulsion_module
from qmmlmm.qm.states.repulsion_gradient import PairDensities, repulsion_gradient

ENERGY = 1e-8
"""hartree: of first order in what the orbitals of both miss, 3e-9."""
FORCES = 1e-8
"""hartree/bohr: the same."""
NOISE = 1e-9
"""hartree: between guesses, at the default tolerances."""
SCREENED = 1e-8
"""hartree/bohr: sum of the integrals left out, below 1e-11 each."""

NUMBERS = np.array([8, 6, 1, 1])
FORMALDEHYDE = np.array([[0.0, 0.0, 1.27], [0.0, 0.0, -1.0], [1.77, 0.1, -2.1], [-1.77, 0.0, -2.1]])


def specification(multiplicity=1):
    return RegionSpecification("region", NUMBERS, 0, multiplicity)


def evaluated(method, settings, multiplicity, accelerated):
    settings = replace(settings, conv_tol=1e-9)
    potential = PySCFPotential(
        method, "sto-3g", excited=settings, state=1, conv_tol=1e-12, grid_level=1, accelerated=accelerated
    )
    return potential.create_evaluator(specification(multiplicity)).evaluate(Geometry(FORMALDEHYDE), None)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("method", "settings", "multiplicity"),
    [
        ("hf", TDA(3), 1),
        ("b3lyp", TDA(3), 1),
        ("pbe", TDA(3, "triplet"), 1),
        pytest.param("lda,vwn", TDDFT(3), 1, marks=slow),
        pytest.param("b3lyp", TDDFT(3, "triplet"), 1, marks=slow),
        pytest.param("cam-b3lyp", TDDFT(3), 1, marks=slow),
        pytest.param("hse06", TDA(3), 1, marks=slow),
        pytest.param("r2scan", TDA(3), 1, marks=slow),
        ("hf", TDDFT(3), 3),
        pytest.param("b3lyp", TDDFT(3), 3, marks=slow),
    ],
)
def test_energies_and_forces_are_those_of_pyscfs_own_code(method, settings, multiplicity):
    ours, theirs = (evaluated(method, settings, multiplicity, accelerated) for accelerated in (True, False))
    np.testing.assert_allclose(ours.states.state_energies, theirs.states.state_energies, rtol=0.0, atol=ENERGY)
    np.testing.assert_allclose(ours.gradient, theirs.gradient, rtol=0.0, atol=FORCES)
    np.testing.assert_allclose(ours.results["dipole"], theirs.results["dipole"], rtol=0.0, atol=1e-7)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("pbe", TDA(3, "triplet")),
        pytest.param("b3lyp", TDA(3), marks=slow),
        pytest.param("b3lyp", TDDFT(3), marks=slow),
    ],
)
def test_energies_of_states_do_not_depend_on_the_guess(method, settings):
    potential = PySCFPotential(method, "sto-3g", excited=settings, state=1, grid_level=1)
    used, new = (potential.create_evaluator(specification()) for _ in range(2))
    used.evaluate(Geometry(FORMALDEHYDE), None)
    moved = Geometry(FORMALDEHYDE + 0.01 * np.random.default_rng(0).normal(size=(4, 3)))
    energies = [evaluator.evaluate(moved, None).states.state_energies for evaluator in (used, new)]
    np.testing.assert_allclose(*energies, rtol=0.0, atol=NOISE)


def molecule_and_densities():
    molecule = gto.M(atom="O 0 0.1 1.2; C 0 0 0; H 0.95 0.1 -0.6; H -0.9 0 -0.55", basis="6-31g*", verbose=0)
    rng = np.random.default_rng(1)
    matrices = rng.normal(size=(4, molecule.nao, molecule.nao))
    first, second, third = 0.5 * (matrices + matrices.transpose(0, 2, 1))[:3]
    rotation = matrices[3] - matrices[3].T
    return molecule, PairDensities(
        [(matrices[3], first), (first, second)], [(third, matrices[0]), (rotation, rotation)]
    )


def by_pyscf(molecule, densities, omega):
    with molecule.with_range_coulomb(omega or None):
        coulomb, _ = rhf.get_jk(molecule, np.array([right for _, right in densities.coulomb]))
        _, exchange = rhf.get_jk(molecule, np.array([inner for _, inner in densities.exchange]))
    found = sum(np.einsum("xij,ij->ix", j, left) for j, (left, _) in zip(coulomb, densities.coulomb, strict=True))
    found -= sum(np.einsum("xil,il->ix", k, outer) for k, (outer, _) in zip(exchange, densities.exchange, strict=True))
    return sum_by_atom(molecule, found)


@pytest.mark.parametrize("omega", [0.0, 0.3, -0.3])
def test_the_gradient_of_the_repulsion_is_pyscfs(omega):
    molecule, densities = molecule_and_densities()
    expected = by_pyscf(molecule, densities, omega)
    np.testing.assert_allclose(repulsion_gradient(molecule, densities, omega), expected, rtol=0.0, atol=SCREENED)


def test_coulomb_and_exchange_terms_may_be_none():
    molecule, densities = molecule_and_densities()
    parts = [
        repulsion_gradient(molecule, PairDensities(densities.coulomb, [])),
        repulsion_gradient(molecule, PairDensities([], densities.exchange)),
    ]
    np.testing.assert_allclose(sum(parts), repulsion_gradient(molecule, densities), rtol=0.0, atol=SCREENED)
    assert (repulsion_gradient(molecule, PairDensities([], [])) == 0.0).all()


def test_integrals_that_are_small_next_to_both_densities_are_left_out(monkeypatch):
    molecule, densities = molecule_and_densities()
    calls = []
    contract = repulsion_module._vhf.direct_bindm
    monkeypatch.setattr(
        repulsion_module._vhf, "direct_bindm", lambda *a, **s: calls.append(s["shls_slice"]) or contract(*a, **s)
    )
    repulsion_gradient(molecule, densities)
    many = len(calls)
    assert many == molecule.nbas**2
    calls.clear()
    small = PairDensities([(1e-8 * left, 1e-6 * right) for left, right in densities.coulomb], [])
    assert abs(repulsion_gradient(molecule, small)).max() < SCREENED
    assert len(calls) < many


def test_the_switch_leaves_everything_to_pyscf():
    for accelerated in (True, False):
        potential = PySCFPotential("b3lyp", "sto-3g", excited=TDA(2), state=1, accelerated=accelerated)
        field = potential.create_evaluator(specification()).mean_field(Geometry(FORMALDEHYDE), None)
        assert isinstance(field._numint, ResponseIntegrator) == accelerated
