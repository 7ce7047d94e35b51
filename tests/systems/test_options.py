import inspect

import openmm
import pytest
from openmm import app, unit

from qmmlmm.errors import SettingError
from systems import acetone_water, alanine_dipeptide, solution, water
from systems.options import SystemOptions, with_option_keywords
from systems.structure import Structure


def nonbonded(system: openmm.System) -> openmm.NonbondedForce:
    (force,) = (force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    return force


def xml(structure: Structure) -> str:
    return openmm.XmlSerializer.serialize(structure.system)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nonbonded_method": "PME"}, "nonbonded_method is one of NoCutoff.*got 'PME'"),
        ({"constraints": "HBonds"}, "constraints is one of None, HBonds.*got 'HBonds'"),
        ({"nonbonded_cutoff": 0.0}, "nonbonded_cutoff is a .*number above zero, in nanometer"),
        ({"switch_distance": -0.1}, "switch_distance is a .*number above zero"),
        ({"switch_distance": 9 * unit.angstrom}, "switch_distance lies below nonbonded_cutoff, 0.9 nm, got 0.9"),
        ({"hydrogen_mass": float("nan")}, "hydrogen_mass is a .*number above zero, in dalton"),
        ({"ewald_error_tolerance": 1.0}, "ewald_error_tolerance lies between 0 and 1"),
        ({"rigid_water": 1}, "rigid_water is True or False, got 1"),
        ({"remove_cm_motion": None}, "remove_cm_motion is True or False, got None"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        SystemOptions(**given)


def test_quantities_and_bare_numbers_in_openmm_units_are_the_same() -> None:
    quantities = SystemOptions(nonbonded_cutoff=8 * unit.angstrom, hydrogen_mass=3 * unit.dalton)
    assert quantities == SystemOptions(nonbonded_cutoff=0.8, hydrogen_mass=3.0)
    assert hash(quantities) == hash(SystemOptions(nonbonded_cutoff=0.8, hydrogen_mass=3.0))


def test_a_keyword_changes_one_field_of_the_options() -> None:
    options = SystemOptions(rigid_water=False)
    record = acetone_water.build(options=SystemOptions(rigid_water=False, constraints=None))
    assert xml(record) == xml(acetone_water.build(rigid_water=False, constraints=None))
    assert xml(record) == xml(acetone_water.build(options=options, constraints=None))
    assert xml(record) != xml(acetone_water.build(options=options))


def test_a_misspelt_keyword_is_refused() -> None:
    with pytest.raises(TypeError, match="constraint"):
        acetone_water.build(constraint=None)


@pytest.mark.parametrize("function", [acetone_water.build, alanine_dipeptide.build, water.build])
def test_the_signature_of_a_builder_shows_all_options(function: object) -> None:
    names = inspect.signature(function).parameters
    assert {"options", *inspect.signature(SystemOptions).parameters} <= names.keys()
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in names.values())


def test_a_keyword_changes_the_default_of_the_function() -> None:
    default = SystemOptions(constraints=None)

    @with_option_keywords
    def built(first: int, *, options: SystemOptions = default) -> tuple[int, SystemOptions]:
        return first, options

    assert built(1) == (1, default)
    assert built(first=1, rigid_water=False) == (1, SystemOptions(constraints=None, rigid_water=False))


@pytest.mark.parametrize("vacuum", [False, True])
def test_the_nonbonded_method_follows_the_box_unless_it_is_given(vacuum: bool) -> None:
    default = nonbonded(alanine_dipeptide.build(vacuum=vacuum).system)
    expected = openmm.NonbondedForce.NoCutoff if vacuum else openmm.NonbondedForce.PME
    assert default.getNonbondedMethod() == expected
    given = alanine_dipeptide.build(vacuum=vacuum, nonbonded_method=app.CutoffNonPeriodic)
    assert nonbonded(given.system).getNonbondedMethod() == openmm.NonbondedForce.CutoffNonPeriodic


@pytest.mark.parametrize("build", [acetone_water.build, alanine_dipeptide.build])
def test_a_switching_function_reaches_the_force(build: object) -> None:
    assert not nonbonded(build().system).getUseSwitchingFunction()
    force = nonbonded(build(switch_distance=0.8 * unit.nanometer).system)
    assert force.getUseSwitchingFunction()
    assert force.getSwitchingDistance() == 0.8 * unit.nanometer


def test_the_solute_of_a_solution_is_made_without_cutoff_and_without_removal_of_motion() -> None:
    part = SystemOptions(switch_distance=0.7, hydrogen_mass=2.0, nonbonded_method=app.LJPME).part()
    assert part == SystemOptions(nonbonded_method=app.NoCutoff, hydrogen_mass=2.0, remove_cm_motion=False)
    system = openmm.System()
    for force in (openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.NonbondedForce()):
        system.addForce(force)
    box = [openmm.Vec3(2, 0, 0), openmm.Vec3(0, 2, 0), openmm.Vec3(0, 0, 2)] * unit.nanometer
    solution.solution_system(system, solution.Solvent(n_water=3), box, remove_cm_motion=False, rigid_water=False)
    assert system.getNumParticles() == 9
    assert not [force for force in system.getForces() if isinstance(force, openmm.CMMotionRemover)]
