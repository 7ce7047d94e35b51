"""A soft core between a region and its surroundings, made before mixing, survives it."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest
from openmm import unit

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.errors import UnsupportedSystemError
from tests.contexts import make_context
from tests.toy_potentials import fixed_in_openmm
from tests.toy_systems import molecule_among_ions, nonbonded_force, without_lennard_jones

LIGAND = [0, 1, 2]
SAME_ENERGY = 1e-8
"""kJ/mol, of the same sums in double precision."""

FACTORY = 1e-3
"""kJ/mol: the factory switches Lennard-Jones interactions off near the cutoff in another way."""

SOFT_CORE = (
    "lambda_sterics*4*epsilon*x*(x-1); x=1/(0.5*(1-lambda_sterics)+(r/sigma)^6);"
    "sigma=0.5*(sigma1+sigma2); epsilon=sqrt(epsilon1*epsilon2)"
)


def soft_core_system(case):
    """Return the System in which Lennard-Jones interactions of the molecule vanish with a parameter."""
    system = without_lennard_jones(copy.deepcopy(case.system), LIGAND)
    original, nonbonded = nonbonded_force(case.system), nonbonded_force(system)
    force = openmm.CustomNonbondedForce(SOFT_CORE)
    force.addGlobalParameter("lambda_sterics", 1.0)
    for name in ("sigma", "epsilon"):
        force.addPerParticleParameter(name)
    for particle in range(system.getNumParticles()):
        _, sigma, epsilon = original.getParticleParameters(particle)
        force.addParticle([sigma, epsilon])
    for index in range(nonbonded.getNumExceptions()):
        force.addExclusion(*nonbonded.getExceptionParameters(index)[:2])
    force.addInteractionGroup(LIGAND, [k for k in range(system.getNumParticles()) if k not in LIGAND])
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(nonbonded.getCutoffDistance())
    system.addForce(force)
    # It acts between all pairs of a kind, and a soft core has no such correction.
    nonbonded.setUseDispersionCorrection(False)
    return system


def mixed_of(case, system, embedding="electrostatic"):
    term = Term(fixed_in_openmm([0.3, -0.6, 0.3]), Region("mol", LIGAND), embedding=embedding)
    return create_mixed_system(case.topology, system, Hamiltonian([term]))


def energy(context):
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def test_a_soft_core_made_by_hand_passes_through_mixing():
    case = molecule_among_ions(periodic=True)
    plain = copy.deepcopy(case.system)
    nonbonded_force(plain).setUseDispersionCorrection(False)
    ends = [
        energy(make_context(mixed_of(case, system).system, case.positions))
        for system in (without_lennard_jones(copy.deepcopy(plain), LIGAND), plain)
    ]
    mixed = mixed_of(case, soft_core_system(case))
    context = make_context(mixed.system, case.positions)
    assert abs(ends[1] - ends[0]) > 1e-3
    for value, expected in zip((0.0, 1.0), ends, strict=True):
        context.setParameter("lambda_sterics", value)
        assert energy(context) == pytest.approx(expected, abs=SAME_ENERGY)
    # An atom on top of an ion: the core is soft.
    positions = case.positions.copy()
    positions[:3] += positions[7] - positions[1] + np.array([0.05, 0.0, 0.0])
    context.setPositions(positions)
    differences = []
    for value in (0.1, 1.0):
        context.setParameter("lambda_sterics", 0.0)
        without = energy(context)
        context.setParameter("lambda_sterics", value)
        differences.append(energy(context) - without)
    assert differences[1] > 1e4
    assert abs(differences[0]) < 10.0


def test_the_system_of_the_factory_of_openmmtools_passes_through_mixing():
    alchemy = pytest.importorskip("openmmtools.alchemy", exc_type=ImportError)
    case = molecule_among_ions(periodic=True)
    nonbonded_force(case.system).setUseDispersionCorrection(False)
    factory = alchemy.AbsoluteAlchemicalFactory(
        alchemical_pme_treatment="exact", disable_alchemical_dispersion_correction=True
    )
    region = alchemy.AlchemicalRegion(alchemical_atoms=LIGAND, annihilate_electrostatics=True, annihilate_sterics=False)
    soft = factory.create_alchemical_system(case.system, region)
    mixed = mixed_of(case, soft, "mechanical")
    context = make_context(mixed.system, case.positions)
    expected = energy(make_context(mixed_of(case, case.system, "mechanical").system, case.positions))
    assert energy(context) == pytest.approx(expected, abs=FACTORY)
    context.setParameter("lambda_sterics", 0.0)
    assert abs(energy(context) - expected) > 1e-2
    # An embedded region has charges of its own, which the factory's parameter would not reach.
    with pytest.raises(UnsupportedSystemError, match="global parameters lambda_electrostatics"):
        mixed_of(case, soft, "electrostatic")
