"""Amber files that OpenMM refuses, or that do not fit: messages with the way out."""

from __future__ import annotations

import re

import pytest
from openmm import app, unit

from qmmlmm.commands.amber_files import read_amber
from qmmlmm.errors import InputFileError
from systems.alanine_dipeptide.builder import EXPLICIT_INPCRD, EXPLICIT_PRMTOP
from systems.package_data import find

PME = {"nonbondedMethod": app.PME, "nonbondedCutoff": 0.8 * unit.nanometer}
IFBOX, IFCAP, IFPERT = 27, 29, 20  # places among the POINTERS of a prmtop
# OpenMM leaves the files that it reads to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


def with_pointer(text, place, value):
    """Return a prmtop with another number among its POINTERS."""
    start = text.index("%FLAG POINTERS")
    start = text.index("\n", text.index("%FORMAT", start)) + 1
    end = text.index("%FLAG", start)
    numbers = text[start:end].split()
    numbers[place] = str(value)
    rows = ["".join(f"{int(n):8d}" for n in numbers[k : k + 10]) for k in range(0, len(numbers), 10)]
    return text[:start] + "\n".join(rows) + "\n" + text[end:]


@pytest.fixture
def files(tmp_path):
    prmtop, coordinates = tmp_path / "complex.prmtop", tmp_path / "complex.rst7"
    prmtop.write_text(find(EXPLICIT_PRMTOP)[0].read_text())
    coordinates.write_text(find(EXPLICIT_INPCRD)[0].read_text())
    return prmtop, coordinates


def without_box(path):
    """Take the last line, the box, from a coordinate file."""
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


def test_the_box_is_that_of_the_coordinates(files):
    prmtop, coordinates = files
    lines = coordinates.read_text().splitlines()
    lines[-1] = "".join(f"{value:12.7f}" for value in (33.0, 34.0, 35.0, 90.0, 90.0, 90.0))
    coordinates.write_text("\n".join(lines) + "\n")
    topology, system, positions = read_amber(prmtop, coordinates, PME)
    edges = [vector[k]._value for k, vector in enumerate(system.getDefaultPeriodicBoxVectors())]
    assert edges == pytest.approx([3.3, 3.4, 3.5])
    assert len(positions) == topology.getNumAtoms()


@pytest.mark.parametrize(
    ("place", "message"),
    [(IFCAP, "it has a water cap .IFCAP., .*solvate in a box"), (IFPERT, "it has perturbed atoms .IFPERT.")],
)
def test_what_openmm_refuses_gets_advice(files, place, message):
    prmtop, coordinates = files
    prmtop.write_text(with_pointer(prmtop.read_text(), place, 1))
    with pytest.raises(InputFileError, match=f"complex.prmtop: {message}"):
        read_amber(prmtop, coordinates, PME)


def test_a_prmtop_without_a_box_beside_coordinates_without_one_gets_advice(files):
    prmtop, coordinates = files
    prmtop.write_text(with_pointer(prmtop.read_text(), IFBOX, 0))
    without_box(coordinates)
    with pytest.raises(
        InputFileError, match="neither .* has a box, which PME needs; take coordinates with a box.*no_box"
    ):
        read_amber(prmtop, coordinates, PME)
    topology, _, _ = read_amber(prmtop, coordinates, {"nonbondedMethod": app.NoCutoff})
    assert topology.getPeriodicBoxVectors() is None


def test_other_files_and_missing_ones_are_named(files, tmp_path):
    prmtop, coordinates = files
    with pytest.raises(InputFileError, match=r"there is no file '.*none.rst7'"):
        read_amber(prmtop, tmp_path / "none.rst7", PME)
    (tmp_path / "text.rst7").write_text("nothing of this kind\nat all\n")
    with pytest.raises(InputFileError, match="text.rst7 is no Amber coordinate file that OpenMM reads"):
        read_amber(prmtop, tmp_path / "text.rst7", PME)
    (tmp_path / "text.prmtop").write_text("%VERSION\n%FLAG TITLE\n%FORMAT(20a4)\nx\n")
    with pytest.raises(InputFileError, match="text.prmtop: OpenMM refuses it"):
        read_amber(tmp_path / "text.prmtop", coordinates, PME)
    few = tmp_path / "few.rst7"
    few.write_text("one atom\n    1\n   0.0000000   0.0000000   0.0000000\n")
    with pytest.raises(InputFileError, match=re.escape("few.rst7 has 1 atoms and")):
        read_amber(prmtop, few, PME)
