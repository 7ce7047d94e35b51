"""A part of a System against the whole one: forces on what moves, where nothing reaches beyond the cutoff."""

from __future__ import annotations

import functools

import numpy as np
import openmm
import pytest
from openmm import app

from qmmlmm.mm.partial_system import partial_system
from qmmlmm.mm.selection import near_particles

ROUNDING = 1e-8
"""Relative to the largest force: both are sums of the same numbers on the Reference platform."""

CUTOFF = 0.6


@functools.cache
def box(water):
    """Return Topology, System with a cutoff, positions, nm, and box of some water without constraints."""
    force_field = app.ForceField(f"amber14/{water}.xml")
    modeller = app.Modeller(app.Topology(), [])
    modeller.addSolvent(force_field, model="tip4pew" if water == "tip4pew" else "tip3p", numAdded=600)
    system = force_field.createSystem(
        modeller.topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=CUTOFF, rigidWater=False,
        removeCMMotion=True,
    )  # fmt: skip
    positions = np.array(modeller.positions._value)
    vectors = np.array([vector._value for vector in system.getDefaultPeriodicBoxVectors()])
    return modeller.topology, system, positions, vectors


def forces(system, positions):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(positions)
    context.computeVirtualSites()
    return context.getState(forces=True).getForces(asNumpy=True)._value


@pytest.mark.parametrize("water", ["tip3pfb", "tip4pew"])
def test_what_moves_feels_the_forces_of_the_whole_system(water):
    topology, system, positions, vectors = box(water)
    residues = list(topology.residues())
    moving = {atom.index for residue in residues[:5] for atom in residue.atoms()}
    chosen = np.isin(np.arange(len(positions)), list(moving))
    near = near_particles(positions, vectors, chosen, CUTOFF + 0.05)
    inside = [atom.index for residue in residues for atom in residue.atoms()
              if any(near[other.index] for other in residue.atoms())]  # fmt: skip
    particles = np.array(sorted(inside))
    assert len(particles) < len(positions)
    part = partial_system(system, particles, moving, without="nothing")
    expected, found = forces(system, positions), forces(part, positions[particles])
    places = np.searchsorted(particles, sorted(moving))
    assert np.abs(found[places] - expected[sorted(moving)]).max() < ROUNDING * np.abs(expected).max()
    bonds = next(force for force in part.getForces() if isinstance(force, openmm.HarmonicBondForce))
    assert bonds.getNumBonds() == 2 * 5  # those of what moves


def test_constraints_of_what_moves_are_kept():
    force_field = app.ForceField("amber14/tip3pfb.xml")
    topology, _, _, _ = box("tip3pfb")
    system = force_field.createSystem(topology, nonbondedMethod=app.PME, nonbondedCutoff=CUTOFF, rigidWater=True)
    part = partial_system(system, np.arange(3, 30), {6, 7, 8}, without="nothing")
    assert sorted(tuple(part.getConstraintParameters(k)[:2]) for k in range(3)) == [(3, 4), (3, 5), (4, 5)]
    assert part.getNumConstraints() == 3
    (nonbonded,) = (force for force in part.getForces() if isinstance(force, openmm.NonbondedForce))
    assert nonbonded.getNonbondedMethod() == openmm.NonbondedForce.CutoffPeriodic
    assert nonbonded.getNumExceptions() == 27


def test_forces_by_name_are_left_out_and_other_classes_have_no_part():
    _, whole, _, _ = box("tip3pfb")
    system = openmm.XmlSerializer.clone(whole)
    bias = openmm.CustomExternalForce("x")
    bias.setName("bias")
    bias.addParticle(0, [])
    system.addForce(bias)
    particles = np.arange(30)
    assert partial_system(system, particles, {0}, without="nothing") is None
    part = partial_system(system, particles, {0}, without="bias")
    assert not [force for force in part.getForces() if isinstance(force, openmm.CustomExternalForce)]


def test_charges_that_a_parameter_changes_have_no_part():
    _, whole, _, _ = box("tip3pfb")
    system = openmm.XmlSerializer.clone(whole)
    nonbonded = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    nonbonded.addGlobalParameter("scale", 1.0)
    nonbonded.addParticleParameterOffset("scale", 0, 1.0, 0.0, 0.0)
    assert partial_system(system, np.arange(30), {0}, without="nothing") is None
