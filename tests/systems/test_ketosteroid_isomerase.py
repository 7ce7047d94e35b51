import numpy as np
import pytest
from openmm import app, unit

from systems import reference
from systems.ketosteroid_isomerase import builder
from systems.structure import Structure

# A relative error of an energy measured with the same OpenMM on another processor.
SAME_ENERGY = 1e-7


@pytest.fixture(scope="module")
def structure() -> Structure:
    return builder.build()


def test_the_enzyme_is_that_of_the_reference(structure: Structure) -> None:
    expected = reference.read_reference(builder.FOLDER, "default")
    measured = reference.measure(structure)
    for name in ("n_atoms", "n_bonds", "n_residues", "n_constraints", "residues"):
        assert measured[name] == expected[name], name
    assert measured["net_charge_e"] == pytest.approx(0.0, abs=1e-5)
    np.testing.assert_allclose(measured["box_vectors_nm"], expected["box_vectors_nm"], rtol=0, atol=1e-8)
    for name, energy in expected["potential_energy_kj_per_mol"].items():
        assert measured["potential_energy_kj_per_mol"][name] == pytest.approx(energy, rel=SAME_ENERGY), name


def test_residues_of_the_active_sites_have_the_charges_that_the_readme_states(structure: Structure) -> None:
    charges = structure.charges()
    residues = list(structure.topology.residues())
    for sites in (builder.SITE_A, builder.SITE_B):
        names = [residues[index].name for index in sites]
        totals = [sum(charges[atom.index] for atom in residues[index].atoms()) for index in sites]
        assert names == ["TYR", "ASP", "EQU"]
        assert totals == pytest.approx([0.0, 0.0, -1.0], abs=1e-4)


def test_the_oxyanion_has_its_two_hydrogen_bonds_in_both_sites(structure: Structure) -> None:
    positions = structure.positions.value_in_unit(unit.nanometer)
    residues = list(structure.topology.residues())
    for tyrosine, aspartic_acid, ligand in (builder.SITE_A, builder.SITE_B):
        donors = (atom_of(residues[tyrosine], "OH"), atom_of(residues[aspartic_acid], "OD2"))
        oxygen = atom_of(residues[ligand], "O1")
        for donor in donors:
            assert 0.24 < np.linalg.norm(positions[donor] - positions[oxygen]) < 0.28


def atom_of(residue: app.topology.Residue, name: str) -> int:
    return next(atom.index for atom in residue.atoms() if atom.name == name)
