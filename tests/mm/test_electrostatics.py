import copy

import numpy as np
import openmm
import pytest
from openmm import unit

from qmmlmm.errors import UnsupportedSystemError
from qmmlmm.mm.electrostatics import ElectrostaticsSettings, electrostatics_settings, force_field_charges
from tests import toy_systems
from tests.contexts import make_context

CUBE = np.diag([3.0, 3.5, 4.0])
OCTAHEDRON = 4.1 * toy_systems.OCTAHEDRON
TINY = np.diag([1.1, 1.2, 1.3])


def two_ions(method=openmm.NonbondedForce.PME, box=CUBE, cutoff=0.9, tolerance=5e-4):
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*box)
    force = openmm.NonbondedForce()
    for charge in (1.0, -0.5):
        system.addParticle(20.0)
        force.addParticle(charge, 0.3, 0.1)
    force.setNonbondedMethod(method)
    force.setCutoffDistance(cutoff)
    force.setEwaldErrorTolerance(tolerance)
    system.addForce(force)
    return system


def parameters_in_context(system, platform):
    force = system.getForce(0)
    context = make_context(system, [[0.0, 0.0, 0.0], [0.3, 0.1, 0.0]], platform=platform)
    context.getState(energy=True)  # without it the CPU platform has no parameters yet
    return force.getPMEParametersInContext(context)


@pytest.mark.parametrize(
    ("box", "cutoff", "tolerance"),
    [
        (CUBE, 0.9, 5e-4),
        (CUBE, 1.2, 1e-5),
        (OCTAHEDRON, 0.9, 5e-4),
        (OCTAHEDRON, 1.1, 1e-6),
        (TINY, 0.5, 0.1),
    ],
)
@pytest.mark.parametrize("method", [openmm.NonbondedForce.PME, openmm.NonbondedForce.LJPME])
def test_alpha_and_grid_are_those_that_openmm_chooses(method, box, cutoff, tolerance):
    system = two_ions(method, box, cutoff, tolerance)
    settings = electrostatics_settings(system)
    assert [settings.alpha, *settings.grid] == parameters_in_context(system, "Reference")
    alpha, *grid = parameters_in_context(system, "CPU")
    assert alpha == pytest.approx(settings.alpha, rel=1e-12)
    assert all(n <= m <= n + 3 for n, m in zip(settings.grid, grid, strict=True))  # rounded up for its FFT


def test_parameters_that_are_set_by_hand_win():
    system = two_ions()
    system.getForce(0).setPMEParameters(3.3, 33, 34, 35)
    settings = electrostatics_settings(system)
    assert settings == ElectrostaticsSettings("PME", 0.9, 3.3, (33, 34, 35))
    assert parameters_in_context(system, "Reference") == [3.3, 33, 34, 35]


def test_ewald_gets_the_mesh_of_pme():
    ewald = electrostatics_settings(two_ions(openmm.NonbondedForce.Ewald))
    pme = electrostatics_settings(two_ions())
    assert (ewald.method, ewald.alpha, ewald.grid) == ("Ewald", pme.alpha, pme.grid)
    assert ewald.periodic


def test_without_a_cutoff_there_is_no_box():
    settings = electrostatics_settings(two_ions(openmm.NonbondedForce.NoCutoff))
    assert settings == ElectrostaticsSettings("NoCutoff")
    assert not settings.periodic


@pytest.mark.parametrize("name", ["CutoffPeriodic", "CutoffNonPeriodic"])
def test_a_reaction_field_is_refused(name):
    with pytest.raises(UnsupportedSystemError, match=rf"uses {name}, a reaction field.*use PME"):
        electrostatics_settings(two_ions(getattr(openmm.NonbondedForce, name)))


def test_incomplete_pme_parameters_are_refused():
    system = two_ions()
    system.getForce(0).setPMEParameters(3.3, 33, 0, 35)
    with pytest.raises(UnsupportedSystemError, match=r"alpha = 3.3/nm with the grid \(33, 0, 35\)"):
        electrostatics_settings(system)


def test_a_sum_without_its_direct_part_is_refused():
    system = two_ions()
    system.getForce(0).setIncludeDirectSpace(False)
    with pytest.raises(UnsupportedSystemError, match="leaves out its direct space part"):
        electrostatics_settings(system)


def test_charges_are_those_of_the_only_nonbonded_force():
    charges = force_field_charges(two_ions())
    assert charges.dtype == np.float64
    assert charges.tolist() == [1.0, -0.5]


@pytest.mark.parametrize("count", [0, 2])
def test_charges_are_refused_where_there_is_not_one_nonbonded_force(count):
    system = two_ions()
    force = copy.deepcopy(system.getForce(0))
    system.removeForce(0)
    for _ in range(count):
        system.addForce(copy.deepcopy(force))
    for read in (force_field_charges, electrostatics_settings):
        with pytest.raises(UnsupportedSystemError, match=f"this System has {count}; use a System with"):
            read(system)


def test_a_cutoff_given_as_a_quantity_is_read_in_nanometers():
    system = two_ions()
    system.getForce(0).setCutoffDistance(9 * unit.angstrom)
    assert electrostatics_settings(system).cutoff == pytest.approx(0.9, rel=1e-15)
