import numpy as np
import openmm
import pytest
from openmm import app, unit

from systems import package_data, reference, solution
from systems.alanine_dipeptide import PEPTIDE, builder
from systems.structure import Structure

# A relative error of an energy measured with the same OpenMM on another processor.
SAME_ENERGY = 1e-7
# LEaP and OpenMM write TIP3P with seven digits.
SAME_PARAMETERS = 1e-6

VARIANTS = [(force_field, vacuum) for force_field in builder.SOLVENTS for vacuum in (False, True)]


@pytest.mark.parametrize(("force_field", "vacuum"), VARIANTS)
def test_every_variant_is_that_of_the_reference(force_field: str, vacuum: bool) -> None:
    expected = reference.read_reference(builder.FOLDER, f"{force_field}_vacuum" if vacuum else force_field)
    measured = reference.measure(builder.build(force_field=force_field, vacuum=vacuum))
    for name in ("n_atoms", "n_bonds", "n_residues", "n_constraints", "residues"):
        assert measured[name] == expected[name], name
    assert measured["net_charge_e"] == pytest.approx(0.0, abs=1e-6)
    if vacuum:
        assert measured["box_vectors_nm"] is None
    else:
        np.testing.assert_allclose(measured["box_vectors_nm"], expected["box_vectors_nm"], rtol=0, atol=1e-8)
    energies = expected["potential_energy_kj_per_mol"]
    assert measured["potential_energy_kj_per_mol"].keys() == energies.keys()
    for name, energy in energies.items():
        assert measured["potential_energy_kj_per_mol"][name] == pytest.approx(energy, rel=SAME_ENERGY, abs=1e-6), name


def test_the_water_of_openmm_gives_the_energy_of_the_explicit_prmtop() -> None:
    (path,) = package_data.find(builder.EXPLICIT_PRMTOP)
    structure = builder.build(constraints=None, rigid_water=True)
    box = structure.topology.getPeriodicBoxVectors()
    prmtop = app.AmberPrmtopFile(str(path), periodicBoxVectors=box)
    system = prmtop.createSystem(
        nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer, constraints=None, rigidWater=True
    )
    system.setDefaultPeriodicBoxVectors(*box)
    expected = reference.energies_by_force(Structure(structure.topology, system, structure.positions))
    measured = reference.energies_by_force(structure)
    assert measured.keys() == expected.keys()
    for name, energy in expected.items():
        assert measured[name] == pytest.approx(energy, rel=SAME_PARAMETERS), name


@pytest.mark.parametrize("force_field", builder.SOLVENTS)
def test_the_side_chain_can_be_cut_at_ca_cb(force_field: str) -> None:
    topology = builder.build(force_field=force_field).topology
    bonds = {frozenset((bond[0].name, bond[1].name)) for bond in topology.bonds() if bond[0].index in PEPTIDE}
    assert frozenset(("CA", "CB")) in bonds
    assert [residue.name for residue in topology.residues()][:3] == ["ACE", "ALA", "NME"]
    assert topology.getNumBonds() == 21 + 2 * builder.SOLVENTS[force_field].n_water


def test_charmm36_brings_cmap_and_custom_lennard_jones() -> None:
    forces = {type(force) for force in builder.build(force_field="charmm36").system.getForces()}
    assert {openmm.CMAPTorsionForce, openmm.CustomNonbondedForce, openmm.CustomTorsionForce} <= forces


def test_amber14_brings_virtual_sites() -> None:
    system = builder.build(force_field="amber14").system
    assert sum(system.isVirtualSite(i) for i in range(system.getNumParticles())) == 600


@pytest.mark.parametrize("force_field", builder.SOLVENTS)
def test_atoms_keep_a_sane_distance(force_field: str) -> None:
    structure = builder.build(force_field=force_field)
    positions = structure.positions.value_in_unit(unit.nanometer)
    box = np.array(structure.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer))
    solvent = builder.SOLVENTS[force_field]
    oxygens = positions[len(PEPTIDE) :: solution.WATER_SITES[solvent.water_model]]
    assert np.isfinite(positions).all()
    assert len(oxygens) == solvent.n_water
    assert solution.nearest_distances(oxygens, positions[: len(PEPTIDE)], box).min() > 0.15


def test_an_unknown_force_field_is_refused() -> None:
    with pytest.raises(ValueError, match="amber96, amber14, charmm36"):
        builder.build(force_field="opls")
