from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from openmm import app

from qmmlmm.geometry import Geometry
from qmmlmm.runs.report.region_picture import HEIGHT, WIDTH, region_picture
from tests.html_pages import Page


def ethanol() -> tuple[app.Topology, np.ndarray]:
    """Return a chain C-C-O with one hydrogen atom on the oxygen, nm."""
    topology = app.Topology()
    residue = topology.addResidue("EOH", topology.addChain("A"), "7")
    atoms = [topology.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in ("C1", "C2", "O", "H")]
    for first, second in pairwise(atoms):
        topology.addBond(first, second)
    return topology, np.array([[0.0, 0.0, 0.0], [0.15, 0.0, 0.0], [0.2, 0.14, 0.0], [0.3, 0.14, 0.01]])


def picture(positions=None, box=None, region=range(4)) -> Page:
    topology, own = ethanol()
    return Page(region_picture(topology, Geometry(own if positions is None else positions, box), list(region)))


def places(page: Page) -> np.ndarray:
    return np.array([[float(circle["cx"]), float(circle["cy"])] for circle in page.elements("circle")])


def test_atoms_and_bonds_are_in_the_picture():
    page = picture()
    assert len(page.elements("circle")) == 4
    assert len(page.elements("line")) == 3
    assert page.text == "O"
    found = places(page)
    assert (found > 0.0).all()
    assert (found < [WIDTH, HEIGHT]).all()


def test_distances_in_a_plane_are_to_scale():
    topology, positions = ethanol()
    positions[3, 2] = 0.0
    page = Page(region_picture(topology, Geometry(positions), list(range(4))))
    lengths = sorted(
        np.hypot(float(x["x1"]) - float(x["x2"]), float(x["y1"]) - float(x["y2"])) for x in page.elements("line")
    )
    true = sorted(np.linalg.norm(np.diff(positions, axis=0), axis=1))
    np.testing.assert_allclose(np.array(lengths) / lengths[0], np.array(true) / true[0], rtol=2e-3)


def test_a_cut_bond_is_dotted_and_the_atom_outside_is_named():
    page = picture(region=[1, 2, 3])
    assert "EOH 7 C1" in page.text
    assert sum("stroke-dasharray" in line for line in page.elements("line")) == 1


def test_a_region_across_a_face_of_the_box_is_whole():
    topology, positions = ethanol()
    box = 2.0 * np.eye(3)
    moved = positions + np.array([1.9, 0.0, 0.0])
    moved[:, 0] %= 2.0
    np.testing.assert_allclose(places(picture(moved, box)), places(picture(positions, box)), atol=0.11)


def test_a_region_of_particles_without_elements_has_no_picture():
    topology = app.Topology()
    topology.addAtom("EP", None, topology.addResidue("EP", topology.addChain()))
    assert region_picture(topology, Geometry(np.zeros((1, 3))), [0]) == ""


@pytest.mark.parametrize("many", [120, 121])
def test_large_regions_have_no_hydrogen_atoms(many):
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    for k in range(many):
        topology.addAtom("X", app.Element.getBySymbol("H" if k % 2 else "C"), residue)
    page = Page(region_picture(topology, Geometry(np.random.default_rng(1).random((many, 3))), list(range(many))))
    assert len(page.elements("circle")) == (120 if many == 120 else 61)
