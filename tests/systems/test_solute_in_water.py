"""Small solutes in water: what is in the box, and that water is relaxed around a solute that stays."""

import numpy as np
import openmm
import pytest
from openmm import unit

from systems.solute_in_water import FORMALDEHYDE, METHANIMINIUM, METHYLENE, build, relaxed, surrounded


@pytest.mark.parametrize("solute", [METHYLENE, FORMALDEHYDE, METHANIMINIUM], ids=lambda solute: solute.name)
def test_the_solute_comes_first_and_the_box_is_neutral(solute):
    structure = build(solute, edge=1.4, n_water=72)
    assert structure.charges()[: len(solute)] == pytest.approx(solute.charges)
    assert structure.charges().sum() == pytest.approx(0.0, abs=1e-6)
    names = [residue.name for residue in structure.topology.residues()]
    assert names.count("HOH") == 72
    assert names.count("CL") == solute.charge
    positions = structure.positions.value_in_unit(unit.angstrom)
    placed = positions[: len(solute)] - positions[0]
    assert placed == pytest.approx(solute.positions - solute.positions[0])
    bonds = {tuple(sorted((a.index, b.index))) for a, b in structure.topology.bonds() if a.index < len(solute)}
    assert len(bonds) == len(solute) - 1
    (force,) = [f for f in structure.system.getForces() if isinstance(f, openmm.NonbondedForce)]
    assert force.getUseSwitchingFunction()
    assert not build(solute, n_water=0).system.usesPeriodicBoundaryConditions()


def test_the_splitting_of_pme_is_the_one_asked_for():
    for splitting, expected in ((5.2, [5.2, 35, 35, 35]), (None, [0.0, 0, 0, 0])):
        structure = build(METHYLENE, edge=1.4, n_water=72, splitting=splitting)
        (force,) = [f for f in structure.system.getForces() if isinstance(f, openmm.NonbondedForce)]
        alpha, *mesh = force.getPMEParameters()
        assert [alpha._value if unit.is_quantity(alpha) else alpha, *mesh] == expected


def test_water_is_relaxed_around_a_solute_that_stays():
    structure = build(METHYLENE, edge=1.4, n_water=72)
    start = np.array(structure.positions.value_in_unit(unit.nanometer))
    positions = relaxed(structure, 3, picoseconds=0.02, minimise=False)
    assert positions[:3] == pytest.approx(start[:3], abs=1e-6)
    assert np.linalg.norm(positions[3:] - start[3:], axis=1).max() > 0.005
    oxygens = positions[3::3]
    hydrogens = positions[4::3]
    assert np.linalg.norm(oxygens - hydrogens, axis=1) == pytest.approx(0.09572, abs=1e-4)  # TIP3P, rigid


def test_a_sampled_solute_keeps_its_geometry_and_motion_among_water_at_its_temperature():
    structure = build(METHYLENE, edge=1.4, n_water=72)
    middle = structure.positions.value_in_unit(unit.nanometer)[:3].mean(axis=0)
    random = np.random.default_rng(2)
    geometry, motion = 0.1 * METHYLENE.positions + 0.005 * random.normal(size=(3, 3)), random.normal(size=(3, 3))
    positions, velocities = surrounded(structure, geometry, motion, picoseconds=0.02)
    assert positions[:3] - positions[:3].mean(axis=0) == pytest.approx(geometry - geometry.mean(axis=0), abs=1e-6)
    assert positions[:3].mean(axis=0) == pytest.approx(middle, abs=1e-6)
    assert (velocities[:3] == motion).all()
    masses = np.array([15.999, 1.008, 1.008] * 72)
    kinetic = 0.5 * (masses[:, None] * velocities[3:] ** 2).sum()
    # Three translations and three rotations of each rigid water; kT is 2.494 kJ/mol.
    assert kinetic == pytest.approx(0.5 * 6 * 72 * 2.494, rel=4 * np.sqrt(2 / (6 * 72)))
