from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system, hold, select
from qmmlmm.errors import SelectionError, SettingError, UnsupportedSystemError
from qmmlmm.sampling import MultipleTimeStepIntegrator
from tests.contexts import make_context
from tests.toy_potentials import fixed_in_openmm
from tests.toy_systems import molecule_among_ions, peptide_in_water

BEYOND = "not within 4 angstrom of protein"


@pytest.fixture
def peptide():
    """Alanine dipeptide in rigid TIP4P-Ew, whose fourth site is virtual."""
    case = peptide_in_water()
    system = copy.deepcopy(case.system)
    system.addForce(openmm.CMMotionRemover())
    return SimpleNamespace(topology=case.topology, system=system, positions=case.positions)


def test_residues_beyond_a_distance_are_held_wholly(peptide):
    before = peptide.system.getNumConstraints()
    held = hold(peptide.system, peptide.topology, BEYOND, positions=peptide.positions)
    near = set(select(peptide.topology, "within 4 angstrom of protein", positions=peptide.positions))
    for residue in peptide.topology.residues():
        atoms = {atom.index for atom in residue.atoms()}
        massive = {k for k in atoms if not peptide.system.isVirtualSite(k)}
        masses = {peptide.system.getParticleMass(k)._value > 0 for k in massive}
        assert masses == {bool(atoms & near)}
        assert massive <= set(held.moving if atoms & near else held.atoms)
    assert held.removed_constraints == len(held.atoms)  # three for each water of three atoms
    assert peptide.system.getNumConstraints() == before - held.removed_constraints
    assert not any(isinstance(force, openmm.CMMotionRemover) for force in peptide.system.getForces())


def test_held_atoms_stay_where_they_are_in_minimisation_and_dynamics(peptide):
    held = hold(peptide.system, peptide.topology, BEYOND, positions=peptide.positions)
    context = make_context(peptide.system, peptide.positions, integrator=openmm.LangevinMiddleIntegrator(300, 1, 0.001))
    start = context.getState(energy=True).getPotentialEnergy()._value
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 20)
    state = context.getState(energy=True, positions=True)
    assert state.getPotentialEnergy()._value < start - 10.0
    context.setVelocitiesToTemperature(300, 1)
    context.getIntegrator().step(5)
    after = context.getState(positions=True).getPositions(asNumpy=True)._value
    assert np.array_equal(after[list(held.atoms)], peptide.positions[list(held.atoms)])
    assert (np.linalg.norm((after - peptide.positions)[list(held.moving)], axis=1) > 0.0).all()
    oxygen = next(k for k in held.atoms if k + 3 < len(after) and peptide.system.isVirtualSite(k + 3))
    assert after[oxygen + 3] == pytest.approx(peptide.positions[oxygen + 3], abs=1e-12)


def test_without_removing_constraints_openmm_would_not_make_a_context(peptide):
    """Why `hold` is more than a mass of zero."""
    water = next(residue for residue in peptide.topology.residues() if residue.name == "HOH")
    peptide.system.setParticleMass(next(water.atoms()).index, 0.0)
    with pytest.raises(openmm.OpenMMException, match="massless"):
        make_context(peptide.system, peptide.positions)


def test_atoms_are_held_in_a_mixed_system_with_multiple_time_steps():
    case = molecule_among_ions()
    term = Term(fixed_in_openmm([0.3, -0.6, 0.3]), Region("mol", [0, 1, 2]), embedding="electrostatic")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    held = hold(mixed, case.topology, range(5, 23))
    assert held.moving == (0, 1, 2, 3, 4)
    integrator = MultipleTimeStepIntegrator(mixed, 300, 1.0, 0.001, 2, slow=["mol/MM"])
    context = make_context(mixed.system, case.positions, integrator=integrator)
    context.setVelocitiesToTemperature(300, 1)
    integrator.step(3)
    moved = context.getState(positions=True).getPositions(asNumpy=True)._value - case.positions
    assert not moved[5:].any()
    assert (np.linalg.norm(moved[:5], axis=1) > 0.0).all()


def test_a_constraint_between_a_held_and_a_moving_atom_is_refused_with_both_names(peptide):
    water = next(residue for residue in peptide.topology.residues() if residue.name == "HOH")
    oxygen = next(water.atoms()).index
    xml = openmm.XmlSerializer.serialize(peptide.system)
    with pytest.raises(SelectionError, match=r"HOH.*:O .*\(held\) and HOH.*:H1 .*hold whole residues, or build"):
        hold(peptide.system, peptide.topology, [oxygen])
    assert openmm.XmlSerializer.serialize(peptide.system) == xml


def test_a_barostat_is_refused(peptide):
    peptide.system.addForce(openmm.MonteCarloBarostat(1.0, 300.0))
    with pytest.raises(UnsupportedSystemError, match="MonteCarloBarostat, which moves all molecules"):
        hold(peptide.system, peptide.topology, "water")


@pytest.mark.parametrize(
    ("atoms", "error", "message"),
    [
        ("name CA", SelectionError, "has 1 atoms and no whole residue"),
        ("all", SelectionError, "no atom is left that moves"),
        (BEYOND, SelectionError, "positions"),
        ([25], SelectionError, "only virtual sites are selected"),
        ([], SelectionError, "atoms has no atom"),
        ([10**6], SelectionError, "atoms has atom indices from 0"),
        (5, SelectionError, "atoms is a list of atom indices"),
    ],
)
def test_atoms_that_cannot_be_held(peptide, atoms, error, message):
    with pytest.raises(error, match=message):
        hold(peptide.system, peptide.topology, atoms)


def test_systems_that_are_none_or_of_another_topology(peptide):
    with pytest.raises(SettingError, match="system is an openmm.System or a MixedSystem"):
        hold(peptide.topology, peptide.topology, [0])
    with pytest.raises(SettingError, match="topology is an openmm.app.Topology"):
        hold(peptide.system, peptide.system, [0])
    with pytest.raises(UnsupportedSystemError, match="the Topology has 0 atoms"):
        hold(peptide.system, app.Topology(), [0])


def test_positions_may_have_a_unit(peptide):
    angstrom = 10.0 * peptide.positions * unit.angstrom
    assert hold(peptide.system, peptide.topology, BEYOND, positions=angstrom).atoms
