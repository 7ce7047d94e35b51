"""Structure files as they stand, and what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest

from qmmlmm.errors import PreparationError
from qmmlmm.preparation.structure_file import ResidueKey, choose_alternates, read_structure
from systems.raw_structures import raw_structure

ATOM = "ATOM      1  N   ALA A   1      11.104   6.134  -6.504  1.00  0.00           N  "


def written(tmp_path, *lines, name="x.pdb"):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    return path


def test_an_atom_has_all_its_columns(tmp_path):
    (residue,) = read_structure(written(tmp_path, ATOM)).residues
    (atom,) = residue.atoms
    assert (atom.name, atom.residue_name, atom.key, atom.element) == ("N", "ALA", ResidueKey("A", 1), "N")
    assert atom.position == (11.104, 6.134, -6.504)
    assert residue.label == "ALA A:1"


def test_an_insertion_code_is_part_of_the_key():
    residues = read_structure(raw_structure("1K1I.pdb")).residues
    assert [r.key.label for r in residues if r.key.insertion] == ["A:184A", "A:188A", "A:221A"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (ATOM[:50], r"line 1: the record of an atom ends before its coordinates \(50 characters, 54"),
        (ATOM.replace("6.134", "x.134"), r"line 1: a coordinate is a finite number, angstrom, got 'x\.134'"),
        (ATOM.replace("  6.134", "    nan"), r"line 1: a coordinate is a finite number, angstrom, got 'nan'"),
        (ATOM.replace("A   1 ", "A   z "), r"line 1: the number of a residue is a whole number, got 'z'; large"),
        (ATOM.replace("           N  ", "          Qq  "), r"the atom 'N' of ALA has no known element, got 'Qq'"),
        (ATOM.replace("  N   ALA", "      ALA"), "line 1: an atom without a name"),
        ("REMARK", "has no atoms: no record ATOM or HETATM"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, line, message):
    with pytest.raises(PreparationError, match=message):
        read_structure(written(tmp_path, line))


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path):
    with pytest.raises(PreparationError, match="cannot be read: No such file"):
        read_structure(tmp_path / "no.pdb")
    (tmp_path / "zip.pdb").write_bytes(b"\x1f\x8b\0\0")
    with pytest.raises(PreparationError, match="has bytes of zero: it is no text"):
        read_structure(tmp_path / "zip.pdb")
    with pytest.raises(PreparationError, match="is no valid mmCIF file|has no table _atom_site"):
        read_structure(written(tmp_path, "data_x", "loop_", "_a.b", name="x.cif"))


def test_one_of_several_models_has_to_be_chosen():
    path = raw_structure("1A1P.pdb")
    with pytest.raises(PreparationError, match=r"has 21 models .* choose one, --model 1 or model=1"):
        read_structure(path)
    second = read_structure(path, model=2)
    assert len(second.models) == 21
    assert len(second.residues) == 14
    with pytest.raises(PreparationError, match="has no model 22; it has 1, 2, 3, 4, 5"):
        read_structure(path, model=22)


def test_the_alternate_location_with_the_largest_occupancy_is_taken():
    # OpenMM takes the first.
    residues, chosen = choose_alternates(read_structure(raw_structure("4W51.pdb")).residues)
    assert ("MET A:106", "B") in [(label, letter) for label, letter, _ in chosen]
    (methionine,) = (r for r in residues if r.key.label == "A:106")
    assert {atom.alternate for atom in methionine.atoms} == {"", "B"}
    assert all(len({a.name for a in r.atoms}) == len(r.atoms) for r in residues)


def test_mmcif_and_pdb_give_the_same_residues():
    residues = read_structure(raw_structure("1FKI.cif")).residues
    assert [r.label for r in residues if r.name == "SB1"] == ["SB1 A:109", "SB1 B:108"]
    first = residues[0]
    assert (first.name, first.key.chain, first.atoms[0].name) == ("GLY", "A", "N")
    assert np.linalg.norm(first.position("CA") - first.position("N")) == pytest.approx(1.47, abs=0.05)


def test_a_residue_name_may_have_four_letters_in_mmcif():
    assert "LIG1" in {r.name for r in read_structure(raw_structure("boltz2_olanzapine.cif")).residues}
