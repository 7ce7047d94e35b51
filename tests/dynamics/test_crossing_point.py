"""Minimum-energy crossing points: two paraboloids, whose crossing is known, and the two lowest spins of CH2."""

import numpy as np
import openmm
import pytest
from openmm import app

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.dynamics.crossing_point import crossing_point
from qmmlmm.errors import ConvergenceError, SelectionError
from qmmlmm.units import HARTREE_IN_KJ_PER_MOL

PLATFORM = "Reference"
EXACT = 2e-5  # nm


def paraboloid(centre, height, stiffness=2000.0):
    system = openmm.System()
    force = openmm.CustomExternalForce(
        f"0.5*{stiffness}*((x-{centre[0]})^2+2*(y-{centre[1]})^2+(z-{centre[2]})^2)+{height}"
    )
    for particle in range(2):
        system.addParticle(1.0)
        if particle == 0:
            force.addParticle(particle)
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform(PLATFORM))
    context.setPositions(np.array([[0.02, 0.03, -0.02], [0.5, 0.0, 0.0]]))
    return context


def test_two_paraboloids_cross_where_the_formula_says():
    first, second = paraboloid((0.0, 0.0, 0.0), 0.0), paraboloid((0.1, 0.0, 0.0), 4.0)
    found = crossing_point(first, second, [0], projection=1e-7, gap=1e-8)
    # Equal stiffness: they cross in a plane, x = 0.05 + 4 / (2000 * 0.1); the lowest point of it lies on the axis.
    assert found.positions[0] == pytest.approx([0.07, 0.0, 0.0], abs=EXACT)
    assert found.positions[1] == pytest.approx([0.5, 0.0, 0.0], abs=0.0)
    assert found.energies == pytest.approx((4.9, 4.9), abs=0.01)
    for context in (first, second):  # they are there
        left = context.getState(positions=True).getPositions(asNumpy=True)._value
        assert left == pytest.approx(found.positions, abs=1e-12)
    assert abs(found.gap) < 1e-4 * HARTREE_IN_KJ_PER_MOL
    assert found.projection < 1e-3


def test_surfaces_that_never_cross_are_an_error():
    with pytest.raises(ConvergenceError, match="no crossing point"):
        crossing_point(paraboloid((0.0, 0.0, 0.0), 0.0), paraboloid((0.0, 0.0, 0.0), 400.0), [0], max_iterations=5)
    with pytest.raises(SelectionError, match="0 to 1"):
        crossing_point(paraboloid((0.0, 0.0, 0.0), 0.0), paraboloid((0.1, 0.0, 0.0), 0.0), [2])


def methylene(multiplicity):
    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("CH2", topology.addChain())
    force = openmm.NonbondedForce()
    for symbol in "CHH":
        element = app.Element.getBySymbol(symbol)
        topology.addAtom(symbol, element, residue)
        system.addParticle(element.mass)
        force.addParticle(0.0, 0.3, 0.0)
    system.addForce(force)
    region = Region("methylene", range(3), charge=0, multiplicity=multiplicity)
    term = Term(PySCFPotential("hf", "6-31g"), region, embedding="mechanical")
    mixed = create_mixed_system(topology, system, Hamiltonian([term]))
    context = openmm.Context(mixed.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform(PLATFORM))
    context.setPositions(np.array([[0.0, 0.0, 0.0], [0.0, 0.085, 0.07], [0.0, -0.085, 0.07]]))
    return context


def test_singlet_and_triplet_of_methylene_cross_below_the_angle_of_the_singlet():
    contexts = methylene(1), methylene(3)
    found = crossing_point(*contexts, range(3))
    arms = found.positions[1:] - found.positions[0]
    lengths = np.linalg.norm(arms, axis=1)
    angle = np.degrees(np.arccos(arms[0] @ arms[1] / lengths.prod()))
    assert abs(found.gap) < 1e-4 * HARTREE_IN_KJ_PER_MOL
    assert found.projection < 1e-3
    # Hartree-Fock puts the triplet 30 kcal/mol too low, so that both cross at a small angle. The numbers are those of
    # SciPy's SLSQP.
    assert angle == pytest.approx(70.8, abs=0.3)
    assert 10 * lengths == pytest.approx([1.210, 1.210], abs=0.003)
    assert found.evaluations < 50  # SLSQP's line search took hundreds with other basis sets
