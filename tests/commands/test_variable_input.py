"""Variables of structures in input files: RMSD and path variables, from files of one structure or several."""

from __future__ import annotations

import numpy as np
import pytest
from openmm import app, unit

from qmmlmm.commands.input_file import Table
from qmmlmm.commands.variable_input import read_variables
from qmmlmm.errors import InputFileError
from qmmlmm.sampling import RMSD, PathDistance, PathProgress
from tests.commands.waters import WATER, write_waters

ATOMS = [0, 1, 2]


@pytest.fixture
def folder(tmp_path):
    """Two waters; the first of them bent in three steps, as models of one file and alone."""
    write_waters(tmp_path / "waters.pdb")
    pdb = app.PDBFile(str(tmp_path / "waters.pdb"))
    alone = app.Modeller(pdb.topology, pdb.positions)
    alone.delete(list(alone.topology.residues())[1:])
    for name, topology, rest in (("path.pdb", pdb.topology, WATER + 0.3), ("alone.pdb", alone.topology, WATER[:0])):
        with (tmp_path / name).open("w") as file:
            for k, image in enumerate(images()):
                positions = np.vstack([image, rest]) * unit.nanometer
                app.PDBFile.writeModel(topology, positions, file, k + 1)
    return tmp_path


def images():
    stretch = np.array([[0.0, 0.0, 0.0], [0.01, 0.0, 0.0], [0.0, 0.0, 0.0]])
    return np.array([WATER + k * stretch for k in range(3)])


def read(folder, **kind):
    topology = app.PDBFile(str(folder / "waters.pdb")).topology
    return read_variables(Table("", {"variable": [{"name": "v", **kind}]}), topology, folder)["v"]


@pytest.mark.parametrize("file", ["path.pdb", "alone.pdb"])
def test_path_variables_take_their_images_from_the_models_of_a_file(folder, file):
    for key, kind in (("path_progress", PathProgress), ("path_distance", PathDistance)):
        found = read(folder, **{key: {"atoms": ATOMS, "images": file}})
        wanted = kind(ATOMS, images())
        assert type(found) is kind
        assert np.allclose(found.images, wanted.images, atol=1e-4)  # a PDB file has three digits
        assert found.sharpness == pytest.approx(wanted.sharpness, rel=0.05)


def test_images_may_be_several_files_and_the_sharpness_be_given(folder):
    given = {"atoms": "resid 0", "images": ["waters.pdb", "path.pdb"], "sharpness": 500.0}
    with pytest.raises(InputFileError, match="images 0 and 1 of a path are the same structure"):
        read(folder, path_progress=given)
    found = read(folder, path_progress={"atoms": "resid 0", "images": "path.pdb", "sharpness": 500.0})
    assert (found.atoms, found.sharpness) == ((0, 1, 2), 500.0)


def test_a_deviation_has_its_reference_from_a_file(folder):
    found = read(folder, rmsd={"atoms": "resid 1", "reference": "waters.pdb"})
    assert type(found) is RMSD
    assert found.atoms == (3, 4, 5)
    assert np.allclose(found.reference, WATER + 0.3, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"rmsd": {"atoms": ATOMS, "reference": "none.pdb"}}, "variable 'v': reference: there is no file"),
        ({"rmsd": {"atoms": ATOMS}}, r"\[variable.rmsd\] lacks 'reference'"),
        ({"rmsd": {"atoms": [0, 1], "reference": "waters.pdb"}}, r"\[variable\] a structure has 3 atoms or more"),
        (
            {"rmsd": {"atoms": "resname XX", "reference": "waters.pdb"}},
            "variable 'v': atoms: .*matches no atom|variable",
        ),
        ({"rmsd": {"atoms": [0, 1, 2, 3], "reference": "alone.pdb"}}, "alone.pdb has 3 atoms; give those of the whole"),
        ({"rmsd": {"atoms": ATOMS, "refrence": "x"}}, "unknown key 'refrence'.*Nearest names: reference"),
        ({"path_progress": {"atoms": ATOMS, "images": []}}, "variable 'v': images names no file"),
        ({"path_progress": {"atoms": ATOMS, "images": "waters.pdb"}}, "a path has two images or more, got 1"),
        ({"path_distance": {"atoms": ATOMS, "images": 5}}, "images is a list, got 5"),
        ({"path_distance": {"atoms": ATOMS, "images": "path.pdb", "sharpness": -1.0}}, "sharpness is a number above"),
        ({"path_distance": {"atoms": [0, 1, 9], "images": "path.pdb"}}, "the System has the particles 0 to 5, got 9"),
    ],
)
def test_what_is_wrong_is_named(folder, kind, message):
    with pytest.raises(InputFileError, match=message):
        read(folder, **kind)
