"""Minimum-energy crossing points: two paraboloids, whose crossing is known, models, and the two lowest spins of CH2."""

import itertools
import sys

import numpy as np
import openmm
import pytest
from openmm import app

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.errors import ConvergenceError, SelectionError
from qmmlmm.nonadiabatic.crossing_point import crossing_point
from qmmlmm.nonadiabatic.seam_steps import displaced, expected_curvature, seam_step, turned
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, NM_IN_BOHR
from systems.solute_in_water import METHYLENE, build, relaxed
from tests.contexts import make_context

EXACT = 2e-5  # nm
ROUND_OFF = 1e-12
FLAT = 1e-3
"""hartree/bohr: the projected gradient that is asked for; the optimiser stops at 3e-4."""


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
    return make_context(system, np.array([[0.02, 0.03, -0.02], [0.5, 0.0, 0.0]]))


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


def caged(angle, offset, charge, disturbance=None):
    """A triatomic molecule of stiff bonds that a soft spring holds in a uniform electric field.

    A disturbance is an energy for each evaluation, kJ/mol, as a function of how many there were.
    """
    system = openmm.System()
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    cage = openmm.CustomExternalForce(f"{0.5 * CAGE}*hold*(x^2+y^2+z^2)-{FIELD}*q*z+{offset / 3}")
    cage.addPerParticleParameter("hold")
    cage.addPerParticleParameter("q")
    for particle, (hold, q) in enumerate([(1.0, -2.0 * charge), (0.0, charge), (0.0, charge)]):
        system.addParticle(1.0)
        cage.addParticle(particle, [hold, q])
    for hydrogen in (1, 2):
        bonds.addBond(0, hydrogen, 0.111, 0.35 * FORCE_AU_IN_OPENMM * NM_IN_BOHR)
    angles.addAngle(1, 0, 2, np.radians(angle), 0.12 * HARTREE_IN_KJ_PER_MOL)
    for force in (bonds, angles, cage):
        system.addForce(force)
    if disturbance is not None:
        count = itertools.count(1)
        system.addForce(openmm.PythonForce(lambda state: (disturbance(next(count)), np.zeros((3, 3)))))
    # Nearly against the field.
    turn = np.array([[1.0, 0.0, 0.0], [0.0, np.cos(2.6), -np.sin(2.6)], [0.0, np.sin(2.6), np.cos(2.6)]])
    return make_context(system, np.array([[0.0, 0.0, 0.0], [0.0, 0.0866, 0.0700], [0.0, -0.0866, 0.0700]]) @ turn.T)


CAGE = 0.01 * FORCE_AU_IN_OPENMM * NM_IN_BOHR
FIELD = 0.02 * FORCE_AU_IN_OPENMM  # as next to a water molecule, kJ/(mol nm e)


def test_a_molecule_that_has_to_turn_around_in_its_cage_gets_to_the_crossing():
    contexts = caged(102.0, 0.0, 0.28), caged(130.0, -30.0, 0.10)
    found = crossing_point(*contexts, range(3), projection=1e-5, gap=1e-7)
    assert found.projection < 1e-5
    assert abs(found.gap) < 1e-7 * HARTREE_IN_KJ_PER_MOL
    arms = found.positions[1:] - found.positions[0]
    middle = arms.sum(axis=0)
    assert middle[2] / np.linalg.norm(middle) == pytest.approx(1.0, abs=1e-4)  # along the field
    # 56; with one stiffness for all directions 68, without turns 86, with neither 108.
    assert found.evaluations <= 60


def test_the_search_begins_anew_where_no_step_helps(monkeypatch):
    def disturbance(evaluation):
        # As of a self-consistent field that ends in another solution for a while.
        return HARTREE_IN_KJ_PER_MOL if 3 <= evaluation <= 11 else 0.0

    def contexts():
        return caged(102.0, 0.0, 0.28, disturbance), caged(130.0, -30.0, 0.10, disturbance)

    found = crossing_point(*contexts(), range(3))
    assert found.evaluations > 2 * 11
    assert found.projection < FLAT
    # The package has the function under the name of its module.
    monkeypatch.setattr(sys.modules["qmmlmm.nonadiabatic.crossing_point"], "RESTARTS", 0)
    with pytest.raises(ConvergenceError, match="no crossing point"):
        crossing_point(*contexts(), range(3))


def test_turns_strain_no_bond_and_small_steps_are_taken_as_they_are():
    random = np.random.default_rng(7)
    places = random.normal(size=(5, 3)) * 3.0
    axis = np.array([0.3, -0.5, 0.2])
    step = np.cross(axis, places - places.mean(axis=0)) + np.array([0.1, 0.0, -0.2])
    moved, turn = displaced(places, step)
    lengths = np.linalg.norm(places[:, None] - places[None], axis=-1)
    assert np.linalg.norm(moved[:, None] - moved[None], axis=-1) == pytest.approx(lengths, abs=ROUND_OFF)
    assert moved.mean(axis=0) - places.mean(axis=0) == pytest.approx([0.1, 0.0, -0.2], abs=ROUND_OFF)
    assert turned(places.ravel(), turn).reshape(5, 3) - places @ turn.T == pytest.approx(
        np.zeros((5, 3)), abs=ROUND_OFF
    )
    small = 1e-5 * random.normal(size=(5, 3))
    assert displaced(places, small)[0] - places == pytest.approx(small, abs=1e-9)  # of second order
    # A single atom and a line have no turn, or none about themselves.
    assert displaced(places[:1], step[:1])[0] == pytest.approx(places[:1] + step[:1], abs=ROUND_OFF)
    line = np.outer([0.0, 1.0, 2.0], [0.0, 0.0, 1.0])
    assert displaced(line, 0.01 * line)[0] == pytest.approx(1.01 * line, abs=ROUND_OFF)


def test_a_step_closes_the_gap_and_stays_in_its_radius():
    random = np.random.default_rng(3)
    curvature = expected_curvature(random.normal(size=(4, 3)) * 3.0)
    opening, downhill = random.normal(size=(2, 12)) * 0.05
    downhill -= opening * (downhill @ opening) / (opening @ opening)
    free = seam_step(1e-3, opening, downhill, curvature, 100.0)
    assert 1e-3 + opening @ free == pytest.approx(0.0, abs=ROUND_OFF)
    # The Lagrangian's slope in the seam is gone.
    left = downhill + curvature @ free
    left -= opening * (left @ opening) / (opening @ opening)
    assert left == pytest.approx(np.zeros(12), abs=1e-10)
    for gap in (0.0, 1e-3, 0.5):
        short = seam_step(gap, opening, downhill, curvature, 0.1)
        assert np.linalg.norm(short) == pytest.approx(0.1, abs=1e-9)
        assert opening @ short == pytest.approx(max(-gap, -0.08 * np.linalg.norm(opening)), abs=ROUND_OFF)


def test_atoms_that_follow_others_are_refused():
    contexts = []
    for _ in range(2):
        system = openmm.System()
        for _ in range(3):
            system.addParticle(1.0)
        system.addConstraint(1, 2, 0.1)
        contexts.append(make_context(system, np.eye(3)))
    with pytest.raises(SelectionError, match=r"particles 1, 2 have constraints"):
        crossing_point(*contexts, range(3))


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
    return make_context(mixed.system, np.array([[0.0, 0.0, 0.0], [0.0, 0.085, 0.07], [0.0, -0.085, 0.07]]))


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
    assert found.evaluations < 30  # SLSQP's line search took hundreds with other basis sets


def test_singlet_and_triplet_of_methylene_cross_in_water_too():
    structure = build(METHYLENE, edge=1.5, n_water=100)
    positions = relaxed(structure, 3, picoseconds=0.2)
    contexts = []
    for multiplicity in (1, 3):
        region = Region("methylene", range(3), charge=0, multiplicity=multiplicity)
        term = Term(PySCFPotential("hf", "sto-3g", embedding_grid_level=1), region, embedding="electrostatic")
        mixed = create_mixed_system(structure.topology, structure.system, Hamiltonian([term]))
        contexts.append(make_context(mixed.system, positions, platform="CPU"))
    found = crossing_point(*contexts, range(3))
    assert abs(found.gap) < 1e-4 * HARTREE_IN_KJ_PER_MOL
    assert found.projection < FLAT
    assert found.positions[3:] == pytest.approx(positions[3:], abs=0.0)
    assert abs(found.positions[:3] - positions[:3]).max() > 0.005
    # With one stiffness for all directions it took a hundred.
    assert found.evaluations < 80
