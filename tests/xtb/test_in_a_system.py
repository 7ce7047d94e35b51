"""xTB in Systems: skewed boxes, several regions, parameters, multiple time steps, runs, labels, interactions."""

from __future__ import annotations

import copy
import json
import shutil

import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, XTBPotential, create_mixed_system
from qmmlmm.analysis.interaction import residue_interactions
from qmmlmm.geometry import Geometry
from qmmlmm.learning import Labeller
from qmmlmm.runs.run_directory import RunDirectory
from qmmlmm.sampling import MultipleTimeStepIntegrator
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL
from tests.contexts import make_context, system_energy, system_energy_and_forces, term_differences, term_forces
from tests.toy_systems import molecule_among_ions, peptide_in_vacuum

TIGHT = 1e-4
DIFFERENCE_STEP = 2e-4  # nm
DIFFERENCE_FORCE = 0.05  # kJ/(mol nm), 1e-6 hartree/bohr
WATERS = [(22, 23, 24), (25, 26, 27)]
SAME = 1e-6  # kJ/mol: sums of 1e4 kJ/mol in another order


def xtb(method="gfn2-xtb", **settings):
    return XTBPotential(method, **({"accuracy": TIGHT} | settings))


@pytest.fixture(scope="module")
def case():
    """Return alanine dipeptide and three flexible waters without a box."""
    return peptide_in_vacuum()


def mixed_of(case, *terms, **parameters):
    return create_mixed_system(case.topology, case.system, Hamiltonian(list(terms), parameters=parameters))


def water_term(potential, which=0, coefficient=1.0, **options):
    region = Region(f"water{which}", WATERS[which])
    return Term(potential, region, embedding="electrostatic", coefficient=coefficient, **options)


# --- forces ---


@pytest.mark.parametrize("method", ["gfn2-xtb", "gfn1-xtb"])
def test_forces_in_a_skewed_box_are_derivatives_on_the_region_and_on_the_ions(method):
    case = molecule_among_ions()
    term = Term(xtb(method), Region("molecule", range(3)), embedding="electrostatic")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    forces = term_forces(mixed, "molecule/XTB", case.positions)
    atoms = range(12)
    expected = term_differences(mixed, "molecule/XTB", case.positions, atoms, DIFFERENCE_STEP)
    np.testing.assert_allclose(forces[list(atoms)], expected, rtol=0, atol=DIFFERENCE_FORCE)
    assert abs(forces).max(axis=1).min() > 10 * DIFFERENCE_FORCE


def test_several_regions_of_different_methods_feel_each_other(case):
    mixed = mixed_of(
        case,
        water_term(xtb()),
        water_term(xtb("gfn1-xtb"), 1, smeared_charges=0.05),
        Term(xtb(), Region("methyl", (10, 11, 12, 13)), embedding="electrostatic"),
    )
    for name, atoms in (("water0/XTB", [22, 23, 27]), ("water1/XTB", [22, 25, 26]), ("methyl/XTB", [8, 10, 11, 22])):
        forces = term_forces(mixed, name, case.positions)
        expected = term_differences(mixed, name, case.positions, atoms, DIFFERENCE_STEP)
        np.testing.assert_allclose(forces[atoms], expected, rtol=0, atol=DIFFERENCE_FORCE)
        assert abs(forces.sum(axis=0)).max() < 1e-8 * FORCE_AU_IN_OPENMM


def test_mechanical_embedding_has_the_energy_of_the_molecule_alone(case):
    term = Term(xtb(), Region("water", WATERS[0]), embedding="mechanical")
    mixed = mixed_of(case, term)
    evaluated = mixed.evaluated_term("water/XTB")
    energy, _ = evaluated.energy_and_gradient(Geometry(case.positions).in_bohr())
    alone = Geometry(case.positions[list(WATERS[0])]).in_bohr()
    expected = xtb().create_evaluator(evaluated.layout.specification).evaluate(alone, None)
    assert energy == pytest.approx(expected.energy, abs=1e-12)


def test_a_barostat_changes_the_box_and_the_energy_is_that_of_a_new_context():
    case = molecule_among_ions()
    term = Term(XTBPotential(), Region("molecule", range(3)), embedding="electrostatic")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    system = copy.deepcopy(mixed.system)
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 1)
    barostat.setRandomNumberSeed(1)
    system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0002)
    integrator.setRandomNumberSeed(1)
    context = make_context(system, case.positions, integrator=integrator)
    before = context.getState().getPeriodicBoxVolume()
    integrator.step(20)
    state = context.getState(positions=True, energy=True)
    assert state.getPeriodicBoxVolume() != before
    positions = state.getPositions(asNumpy=True)._value
    expected = system_energy(mixed.system, positions, box=state.getPeriodicBoxVectors())
    assert state.getPotentialEnergy()._value == pytest.approx(expected, abs=SAME)


# --- parameters and time steps ---


def test_a_parameter_moves_the_energy_from_xtb_to_qm(case):
    high = PySCFPotential("hf", "sto-3g", conv_tol=1e-11)
    mixed = mixed_of(case, water_term(xtb(), 0, "1-lambda_qm"), water_term(high, 0, "lambda_qm"), lambda_qm=0.0)
    context = make_context(mixed.system, case.positions)
    derivative = mixed.parameter_derivatives(context)["lambda_qm"].value_in_unit(unit.kilojoule_per_mole)
    energies = []
    for value in (0.0, 0.25, 1.0):
        context.setParameter("lambda_qm", value)
        energies.append(context.getState(energy=True).getPotentialEnergy()._value)
    assert energies[1] - energies[0] == pytest.approx(0.25 * derivative, abs=SAME)
    assert energies[2] - energies[0] == pytest.approx(derivative, abs=SAME)


# kJ/mol: in 60 fs the total energy stays within 0.34 with XTB alone in steps of 0.5 fs, 0.33 with QM - XTB every 1 fs.
FLUCTUATION = 0.6


def test_qm_minus_xtb_is_the_slow_force_of_multiple_time_steps(case):
    low, high = XTBPotential(), PySCFPotential("hf", "sto-3g")
    mixed = mixed_of(case, water_term(low), water_term(high), water_term(low, 0, -1.0))
    integrator = MultipleTimeStepIntegrator(mixed, None, 0.0, 0.001, inner_steps=2)
    context = make_context(mixed.system, case.positions, integrator=integrator)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=20)
    context.setVelocitiesToTemperature(200.0, 1)
    calls = mixed.terms["water0/QM"].runner.evaluations
    energies = []
    for _ in range(60):
        integrator.step(1)
        potential = context.getState(energy=True).getPotentialEnergy()
        energies.append((potential + integrator.kinetic_energy(context)).value_in_unit(unit.kilojoule_per_mole))
    assert mixed.terms["water0/QM"].runner.evaluations - calls == 60
    print(f"total energy within {np.ptp(energies):.2f} kJ/mol")
    assert np.ptp(energies) < FLUCTUATION


# --- runs ---


def new_simulation(case):
    mixed = mixed_of(case, water_term(XTBPotential()))
    integrator = openmm.VerletIntegrator(0.0005)
    platform = openmm.Platform.getPlatform("Reference")
    return mixed, app.Simulation(mixed.topology, mixed.system, integrator, platform)


INTERVALS = {"trajectory_interval": 2, "energy_interval": 1, "checkpoint_interval": 4, "total_steps": 8}


def test_a_run_that_was_stopped_and_resumed_takes_the_steps_of_one_that_was_not(case, tmp_path):
    mixed, simulation = new_simulation(case)
    with RunDirectory(tmp_path / "run", mixed) as run:
        simulation.context.setPositions(case.positions)
        run.attach(simulation, **INTERVALS)
        run.run(simulation, 4)
        shutil.copytree(tmp_path / "run", tmp_path / "copy", ignore=shutil.ignore_patterns("*.lock"))
        run.run(simulation, 4)
    expected = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    mixed, simulation = new_simulation(case)
    with RunDirectory(tmp_path / "copy", mixed, resume=True) as run:
        assert run.resume(simulation) == 4
        run.attach(simulation, **INTERVALS)
        run.run(simulation, 4)
    np.testing.assert_array_equal(
        simulation.context.getState(positions=True).getPositions(asNumpy=True)._value, expected
    )
    sessions = json.loads((tmp_path / "copy" / "run.json").read_text())["sessions"]
    assert sessions[-1]["terms"]["water0/XTB"]["scf_cycles"] > 20


def test_a_serialised_and_a_copied_system_have_the_same_energy_and_forces(case):
    mixed = mixed_of(case, water_term(XTBPotential()))
    energy, forces = system_energy_and_forces(mixed.system, case.positions)
    for system in (openmm.XmlSerializer.clone(mixed.system), copy.deepcopy(mixed.system)):
        again, same = system_energy_and_forces(system, case.positions)
        assert again == energy
        np.testing.assert_array_equal(same, forces)


# --- labels and interactions ---


def test_labels_have_energy_charges_and_forces_on_near_charges(case):
    mixed = mixed_of(case, water_term(xtb()))
    evaluated = mixed.evaluated_term("water0/XTB")
    frame = Labeller(evaluated, "gfn2-xtb").label(Geometry(case.positions), "first")
    energy, gradient = evaluated.energy_and_gradient(Geometry(case.positions).in_bohr())
    assert frame.energy == pytest.approx(energy, abs=1e-12)
    assert frame.vacuum_energy < -5.0
    places = Geometry(case.positions).in_bohr().positions
    # Without a box all forces are through 1/r.
    for place, force in zip(frame.near.positions, frame.near.forces, strict=True):
        (atom,) = np.flatnonzero(np.linalg.norm(places - place, axis=1) < 1e-9)
        np.testing.assert_allclose(force, -gradient[atom], rtol=0, atol=1e-12)
    assert len(frame.near.charges) > 10
    assert frame.charges.sum() == pytest.approx(0.0, abs=1e-10)


def test_the_interactions_of_residues_add_up_to_the_energy_of_the_multipoles_in_the_potential(case):
    mixed = mixed_of(case, water_term(xtb()))
    evaluated = mixed.evaluated_term("water0/XTB")
    bohr = Geometry(case.positions).in_bohr()
    interaction = evaluated.interaction(Geometry(case.positions))
    evaluated.energy_and_gradient(bohr)
    results = evaluated.last.results
    field = evaluated.field_at(bohr).site_potential()
    expected = results["mulliken_charges"] @ field.value.numpy()
    expected += (results["atomic_dipoles"] * field.gradient.numpy()).sum()
    assert interaction.interaction_energy == pytest.approx(expected, abs=1e-10)
    assert interaction.polarisation_energy > 0.0
    table = residue_interactions(mixed, make_context(mixed.system, case.positions))
    rows = table.electrostatic.value_in_unit(unit.kilojoule_per_mole)
    assert sum(rows) == pytest.approx(interaction.interaction_energy * HARTREE_IN_KJ_PER_MOL, abs=SAME)
