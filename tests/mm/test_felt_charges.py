"""What a user changes in the System that create_mixed_system returned."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest
from openmm import app

from qmmlmm import ForceFieldPotential, Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.errors import HamiltonianError, UnsupportedSystemError
from qmmlmm.runs import RunDirectory
from qmmlmm.sampling import MultipleTimeStepIntegrator, switching_work
from tests.contexts import make_context
from tests.toy_potentials import EvaluatedSprings, SettingsOnly
from tests.toy_systems import molecule_among_ions, nonbonded_force

ION = 7
SAME = 1e-12  # relative; one System computes both


def mixed_of(case, embedding="electrostatic", **options):
    term = Term(EvaluatedSprings(np.array([0.3, -0.6, 0.3])), Region("mol", [0, 1, 2]), embedding=embedding, **options)
    return create_mixed_system(case.topology, case.system, Hamiltonian([term]))


def change_charge(system, context=None):
    force = nonbonded_force(system)
    _, sigma, epsilon = force.getParticleParameters(ION)
    force.setParticleParameters(ION, 0.0, sigma, epsilon)
    if context is not None:
        force.updateParametersInContext(context)


def test_a_charge_that_was_changed_is_an_error_that_names_its_particle():
    case = molecule_among_ions()
    mixed = mixed_of(case)
    context = make_context(mixed.system, case.positions)
    mixed.term_energies(context)
    change_charge(mixed.system, context)
    with pytest.raises(UnsupportedSystemError, match=r"on particles 7; the terms .* create_mixed_system again"):
        mixed.term_energies(context)
    with pytest.raises(UnsupportedSystemError, match="on particles 7"):
        mixed.check_unchanged()


def test_a_charge_that_was_changed_in_a_copy_of_the_system_is_an_error_for_its_context():
    case = molecule_among_ions()
    mixed = mixed_of(case)
    changed = copy.deepcopy(mixed.system)
    change_charge(changed)
    mixed.check_unchanged()
    with pytest.raises(UnsupportedSystemError, match="on particles 7"):
        mixed.term_energies(make_context(changed, case.positions))


def add_particle_offset(force):
    force.addGlobalParameter("scale", 0.0)
    force.addParticleParameterOffset("scale", ION, 0.2, 0.0, 0.0)


def add_exception_offset(force):
    force.addGlobalParameter("scale", 0.0)
    force.addExceptionParameterOffset("scale", 0, 0.2, 0.0, 0.0)


def set_reaction_field(force):
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_particle_offset, "other parameter offsets"),
        (add_exception_offset, "other parameter offsets"),
        (set_reaction_field, "another nonbonded method"),
        (lambda force: force.addParticle(0.0, 0.2, 0.1), "24 particles now and had 23"),
    ],
)
def test_other_changes_of_the_electrostatics_are_errors(change, message):
    mixed = mixed_of(molecule_among_ions())
    change(nonbonded_force(mixed.system))
    with pytest.raises(UnsupportedSystemError, match=message):
        mixed.check_unchanged()


def test_lennard_jones_parameters_may_change_and_so_may_charges_that_no_term_feels():
    mixed = mixed_of(molecule_among_ions())
    force = nonbonded_force(mixed.system)
    charge, *_ = force.getParticleParameters(ION)
    force.setParticleParameters(ION, charge, 0.3, 0.0)
    force.addGlobalParameter("scale", 0.0)
    force.addParticleParameterOffset("scale", ION, 0.0, 0.1, 0.1)
    mixed.check_unchanged()
    case = molecule_among_ions()
    term = Term(SettingsOnly("MM"), Region("mol", [0, 1, 2]), embedding="mechanical")
    assert "mechanical" in term.potential.capabilities.embeddings
    alone = mixed_mechanical(case)
    change_charge(alone.system)
    alone.check_unchanged()


def mixed_mechanical(case):
    from qmmlmm import OpenMMPotential

    system = openmm.System()
    for _ in range(3):
        system.addParticle(1.0)
    term = Term(OpenMMPotential(system), Region("mol", [0, 1, 2]), embedding="mechanical")
    return create_mixed_system(case.topology, case.system, Hamiltonian([term]))


def test_one_force_group_for_each_force_keeps_the_energies_of_the_terms():
    case = molecule_among_ions()
    mixed = mixed_of(case)
    before = mixed.term_energies(make_context(mixed.system, case.positions))
    for index, force in enumerate(mixed.system.getForces()):
        force.setForceGroup(index)
    after = mixed.term_energies(make_context(mixed.system, case.positions))
    assert before.keys() == after.keys()
    for name, energy in before.items():
        assert after[name]._value == pytest.approx(energy._value, rel=SAME)


def test_a_force_that_was_removed_before_those_of_terms_changes_no_derivative():
    case = molecule_among_ions()
    case.system.addForce(openmm.CMMotionRemover())
    region = Region("mol", [0, 1, 2])
    terms = [
        Term(ForceFieldPotential(), region, embedding="electrostatic", coefficient="1-l"),
        Term(EvaluatedSprings(np.zeros(3)), region, embedding="electrostatic", coefficient="l"),
    ]
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian(terms, parameters={"l": 0.5}))
    before = mixed.parameter_derivatives(make_context(mixed.system, case.positions))["l"]._value
    names = [type(force).__name__ for force in mixed.system.getForces()]
    mixed.system.removeForce(names.index("CMMotionRemover"))
    context = make_context(mixed.system, case.positions)
    assert mixed.parameter_derivatives(context)["l"]._value == pytest.approx(before, rel=SAME)
    change_charge(mixed.system, context)
    with pytest.raises(UnsupportedSystemError, match="on particles 7"):
        switching_work(mixed, _simulation(mixed, case), "l", 0.0, 1.0, 2)


def _simulation(mixed, case, integrator=None):
    simulation = app.Simulation(
        mixed.topology,
        mixed.system,
        integrator or openmm.VerletIntegrator(0.0005),
        openmm.Platform.getPlatform("Reference"),
    )
    simulation.context.setPositions(case.positions)
    return simulation


def test_a_run_directory_refuses_a_system_with_other_charges(tmp_path):
    case = molecule_among_ions()
    mixed = mixed_of(case)
    change_charge(mixed.system)
    intervals = {"trajectory_interval": 1, "energy_interval": 1, "checkpoint_interval": 1, "total_steps": 1}
    with (
        RunDirectory(tmp_path / "run", mixed) as run,
        pytest.raises(UnsupportedSystemError, match="on particles 7"),
    ):
        run.attach(_simulation(mixed, case), **intervals)


def test_multiple_time_stepping_refuses_other_charges_and_slow_terms_in_other_groups():
    for change, error, message in (
        (lambda mixed: change_charge(mixed.system), UnsupportedSystemError, "on particles 7"),
        (
            lambda mixed: mixed.force("mol/QM").setForceGroup(0),
            HamiltonianError,
            "slow terms are in the force groups 0",
        ),
    ):
        case = molecule_among_ions()
        mixed = mixed_of(case)
        integrator = MultipleTimeStepIntegrator(mixed, None, 0.0, 0.001, 2, slow=["mol/QM"])
        change(mixed)
        with pytest.raises(error, match=message):
            _simulation(mixed, case, integrator).step(1)
