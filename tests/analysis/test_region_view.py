from __future__ import annotations

import builtins

import numpy as np
import pytest
from openmm import unit

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.analysis import view
from qmmlmm.analysis.region_view import scene
from qmmlmm.errors import MissingDependencyError, SettingError
from systems.alanine_dipeptide import build as build_alanine
from systems.water import build as build_water

QM = PySCFPotential("hf", "sto-3g")

ROUNDING = 1e-4
"""angstrom: of the coordinates in XYZ."""


@pytest.fixture(scope="module")
def water():
    structure = build_water()
    region = Region("water", range(3))
    hamiltonian = Hamiltonian([Term(QM, region, embedding="electrostatic")])
    return create_mixed_system(structure.topology, structure.system, hamiltonian), structure.positions


def test_a_scene_has_the_region_and_the_charges_around_it(water):
    mixed, positions = water
    found = scene(mixed, positions, within=0.3)
    assert found.region.tolist() == [0, 1, 2]
    assert found.symbols == ("O", "H", "H")
    assert set(found.bonds) == {(0, 1), (0, 2)}
    places = np.array(positions.value_in_unit(unit.angstrom))
    np.testing.assert_allclose(
        np.linalg.norm(found.positions[0] - found.positions[1]), np.linalg.norm(places[0] - places[1])
    )
    assert 0 < len(found.charges) < 40
    apart = np.linalg.norm(found.charge_positions[:, None] - found.positions, axis=2).min(axis=1)
    assert apart.max() <= 3.0
    assert set(np.round(found.charges, 3)) == {-0.834, 0.417}


def test_a_region_across_a_face_of_the_box_is_whole(water):
    mixed, positions = water
    shifted = np.array(positions.value_in_unit(unit.nanometer))
    shifted[1] += mixed.system.getDefaultPeriodicBoxVectors()[2].value_in_unit(unit.nanometer)
    np.testing.assert_allclose(scene(mixed, shifted).positions, scene(mixed, positions).positions, atol=1e-6)


def test_mechanical_embedding_feels_no_charges(water):
    structure = build_water()
    term = Term(QM, Region("water", range(3)), embedding="mechanical")
    mixed = create_mixed_system(structure.topology, structure.system, Hamiltonian([term]))
    assert not len(scene(mixed, structure.positions).charges)


def test_a_link_atom_is_on_its_bond():
    structure = build_alanine()
    atoms = [atom for atom in structure.topology.atoms() if atom.residue.name == "ALA"]
    side = [atom.index for atom in atoms if atom.name in ("CB", "HB1", "HB2", "HB3")]
    (alpha,) = [atom.index for atom in atoms if atom.name == "CA"]
    term = Term(QM, Region("side", side), embedding="electrostatic")
    mixed = create_mixed_system(structure.topology, structure.system, Hamiltonian([term]))
    found = scene(mixed, structure.positions)
    places = np.array(structure.positions.value_in_unit(unit.angstrom))
    (link,), ((row, _),) = found.links, found.link_bonds
    host = found.region[row]
    along = places[alpha] - places[host]
    np.testing.assert_allclose(link - found.positions[row], mixed.regions[0].link_bonds[0].ratio * along, atol=1e-6)
    assert found.xyz().splitlines()[0] == "5"
    last = found.xyz().splitlines()[-1].split()
    assert last[0] == "H"
    np.testing.assert_allclose([float(x) for x in last[1:]], link, atol=ROUNDING)


def test_a_view_draws_atoms_link_atoms_and_charges(water):
    mixed, positions = water
    page = view(mixed, positions, within=0.25)._make_html()
    found = scene(mixed, positions, within=0.25)
    assert "O 0.0000 0.0000 0.0000" in page
    assert page.count(".addSphere(") == len(found.charges)
    assert page.count('"color": "red"') == (found.charges < 0.0).sum()
    assert view(mixed, positions, charges=False)._make_html().count(".addSphere(") == 0


def test_a_view_without_its_package_says_what_to_install(water, monkeypatch):
    original = builtins.__import__

    def missing(name, *arguments):
        if name == "py3Dmol":
            raise ImportError("no py3Dmol here")
        return original(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingDependencyError, match=r'pip install "qmmlmm\[view\]"'):
        view(*water)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": np.zeros((2, 3))}, "positions"),
        ({"within": -1.0}, "within"),
        ({"charges": 1}, "charges"),
        ({"mixed": 3}, "mixed is a MixedSystem"),
        ({"box_vectors": np.eye(2)}, "box_vectors"),
    ],
)
def test_wrong_arguments_are_refused(water, change, message):
    mixed, positions = water
    with pytest.raises(SettingError, match=message):
        view(**({"mixed": mixed, "positions": positions} | change))
