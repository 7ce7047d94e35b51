import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from systems import package_data, reference, solution
from systems.acetone_water import ACETONE, builder, parameters
from systems.structure import Structure

CHARGES = builder.FOLDER / "charges.json"
# The same few dozen terms in double precision, in another order.
ROUND_OFF = 1e-12

# A relative error of an energy measured with the same OpenMM on another processor.
SAME_ENERGY = 1e-7


@pytest.mark.parametrize(
    ("variant", "options"),
    [("default", {}), ("flexible", {"constraints": None, "rigid_water": False})],
)
def test_the_system_is_that_of_the_reference(variant: str, options: dict[str, object]) -> None:
    expected = reference.read_reference(builder.FOLDER, variant)
    measured = reference.measure(builder.build(**options))
    for name in ("n_atoms", "n_bonds", "n_residues", "n_constraints", "residues"):
        assert measured[name] == expected[name], name
    assert measured["net_charge_e"] == pytest.approx(0.0, abs=1e-8)
    np.testing.assert_allclose(measured["box_vectors_nm"], expected["box_vectors_nm"], rtol=0, atol=1e-8)
    energies = expected["potential_energy_kj_per_mol"]
    assert measured["potential_energy_kj_per_mol"].keys() == energies.keys()
    for name, energy in energies.items():
        assert measured["potential_energy_kj_per_mol"][name] == pytest.approx(energy, rel=SAME_ENERGY), name


def test_the_charges_are_those_of_the_fit_and_give_the_dipole_of_the_density() -> None:
    document = json.loads((builder.FOLDER / "charges.json").read_text(encoding="utf-8"))
    charges = builder.build().charges()[list(ACETONE)]
    np.testing.assert_allclose(charges, list(document["charges_e"].values()), rtol=0, atol=1e-12)
    assert charges.sum() == pytest.approx(0.0, abs=1e-9)
    # Hydrogens of a methyl group turn into each other, and so do the two groups.
    assert len(set(charges[4:])) == 1
    assert charges[0] == charges[3]
    assert document["dipole_charges_debye"] == pytest.approx(document["dipole_qm_debye"], rel=0.05)


def test_the_committed_force_field_gives_the_energies_of_the_full_gaff2(tmp_path: Path) -> None:
    (path,) = package_data.find(parameters.GAFF2)
    template = ET.parse(builder.FOLDER / "acetone.xml").getroot()
    for section in [element for element in template if element.tag != "Residues"]:
        template.remove(section)
    ET.ElementTree(template).write(tmp_path / "residue.xml")
    full = app.ForceField(str(path), str(tmp_path / "residue.xml"))
    topology = builder.acetone_topology()
    positions = builder.build().positions[list(ACETONE)]
    expected = reference.energies_by_force(Structure(topology, full.createSystem(topology), positions))
    committed = builder.force_field().createSystem(topology)
    measured = reference.energies_by_force(Structure(topology, committed, positions))
    assert measured == pytest.approx(expected, rel=ROUND_OFF)


def test_the_fit_without_restraint_finds_the_charges_that_made_the_potential(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    positions = np.array(list(json.loads(CHARGES.read_text(encoding="utf-8"))["positions_bohr"].values()))
    known = np.array([-0.4, 0.7, -0.54, -0.4, *[0.64 / 6] * 6])
    points = parameters.surface_points(positions)
    potential = (known / np.linalg.norm(points[:, None] - positions[None], axis=-1)).sum(axis=1)
    monkeypatch.setattr(parameters, "_STRENGTH", (0.0, 0.0))
    fitted, error = parameters.fit_charges(positions, points, potential)
    np.testing.assert_allclose(fitted, known, rtol=0, atol=1e-9)
    assert error < 1e-9


def test_acetone_is_one_residue_with_its_bonds() -> None:
    structure = builder.build()
    assert structure.select("ACN") == list(ACETONE)
    bonds = [bond for bond in structure.topology.bonds() if bond[0].index in ACETONE]
    assert len(bonds) == 9


def test_acetone_stays_planar_at_its_carbonyl() -> None:
    structure = builder.build()
    torsions = next(f for f in structure.system.getForces() if isinstance(f, openmm.PeriodicTorsionForce))
    constants = [torsions.getTorsionParameters(i)[6] for i in range(torsions.getNumTorsions())]
    # The improper of GAFF2: 10.5 kcal/mol.
    assert max(constants).value_in_unit(unit.kilocalorie_per_mole) == pytest.approx(10.5)


def test_atoms_keep_a_sane_distance() -> None:
    structure = builder.build()
    positions = structure.positions.value_in_unit(unit.nanometer)
    box = np.array(structure.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer))
    assert np.isfinite(positions).all()
    assert solution.nearest_distances(positions[10::3], positions[:10], box).min() > 0.16
    assert 0.029 < np.linalg.det(box) / 703 < 0.032
