import copy

import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm import select, suggest_charge
from qmmlmm.errors import RegionError, UnsupportedSystemError
from qmmlmm.mm.electrostatics import ElectrostaticsSettings, electrostatics_settings, force_field_charges
from systems.t4_lysozyme import builder
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


CAVITY = "78 84 87 88 91 102 103 111 114 118 121 133 153"
"""Residues around the ligand of T4 lysozyme L99A."""


@pytest.fixture(scope="module")
def lysozyme():
    """Topology and System of T4 lysozyme L99A in ff14SB, without the ligand."""
    prmtop, positions = builder.load_solute()
    modeller = app.Modeller(prmtop.topology, positions)
    modeller.delete([residue for residue in modeller.topology.residues() if residue.name == "TMP"])
    return modeller.topology, app.ForceField("amber14-all.xml").createSystem(modeller.topology)


def side_chains(topology, residues):
    return [atom for atom in select(topology, residues) if atom in set(select(topology, "sidechain"))]


def test_the_side_chains_of_a_hydrophobic_cavity_are_neutral(lysozyme):
    topology, system = lysozyme
    atoms = side_chains(topology, f"resSeq {CAVITY}")
    # Rounded once, the sum would be +1.
    assert force_field_charges(system)[atoms].sum() == pytest.approx(0.8885, abs=1e-4)
    assert suggest_charge(system, atoms) == 0
    assert suggest_charge(system, atoms, topology) == 0


def test_each_acidic_side_chain_counts(lysozyme):
    topology, system = lysozyme
    atoms = side_chains(topology, "resname ASP and resSeq 10 20 47 61 70 72")
    assert force_field_charges(system)[atoms].sum() == pytest.approx(-5.1486, abs=1e-3)
    assert suggest_charge(system, atoms) == -6
    assert suggest_charge(system, atoms, topology) == -6


def test_an_ion_between_acidic_side_chains_has_a_charge(lysozyme):
    topology, system = lysozyme
    atoms = side_chains(topology, "resname ASP and resSeq 10 20 or resname GLU and resSeq 5 11")
    calcium = copy.deepcopy(system)
    calcium.addParticle(40.0)
    (force,) = (f for f in calcium.getForces() if isinstance(f, openmm.NonbondedForce))
    force.addParticle(2.0, 0.3, 0.1)
    ion = system.getNumParticles()
    # -0.858 twice and -0.882 twice: rounded once, the sum of -1.48 would be -1, or refused.
    assert suggest_charge(calcium, [*atoms, ion]) == -2
    with pytest.raises(RegionError, match=r"the Topology has 2603 atoms and the System 2604 particles; give the"):
        suggest_charge(calcium, [*atoms, ion], topology)


def test_a_part_with_a_fractional_charge_is_named(lysozyme):
    topology, system = lysozyme
    atoms = select(topology, "resname ASP and resSeq 10 and name N")
    with pytest.raises(RegionError, match=r"those of ASP 10 in chain .*, the charge -0\.516 e, which is no integer"):
        suggest_charge(system, atoms, topology)
    with pytest.raises(RegionError, match=rf"which starts with particle {atoms[0]}, the charge -0\.516 e"):
        suggest_charge(system, atoms)


def test_virtual_sites_belong_to_their_molecule(tip4p_cube):
    topology, system = tip4p_cube.topology, tip4p_cube.system
    water = next(residue for residue in topology.residues() if residue.name == "HOH")
    oxygen_and_hydrogens = [atom.index for atom in water.atoms() if atom.element is not None]
    assert suggest_charge(system, oxygen_and_hydrogens) == 0
    assert suggest_charge(system, oxygen_and_hydrogens, topology) == 0
