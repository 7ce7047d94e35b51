from __future__ import annotations

import gzip
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from qmmlmm.errors import QmmlmmWarning
from qmmlmm.learning import DataSetError, append_frames, read_frames
from qmmlmm.units import ANGSTROM_IN_BOHR, HARTREE_IN_EV

# The file keeps 1e-5 in e and eV/angstrom of the near forces, more of everything else.
FILE_PRECISION = 2e-5
# An energy is kept to 1e-7 eV.
ENERGY_PRECISION = 4e-9


def assert_same(a, b):
    for field in fields(a):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if field.name == "near" and one is not None:
            assert_same(one, other)
        elif isinstance(one, str | int) or one is None:
            assert one == other, field.name
        else:
            precision = ENERGY_PRECISION if "energy" in field.name else FILE_PRECISION
            np.testing.assert_allclose(one, other, rtol=0, atol=precision, err_msg=field.name)


def test_what_is_written_is_read(tmp_path, make_frame):
    path = tmp_path / "set.xyz"
    embedded = make_frame()
    bare = make_frame(near=None, field_gradient=None, charges=None, dipole=None, name="bare", charge=-2, multiplicity=3)
    vacuum = bare.without_surroundings()
    append_frames(path, [embedded, bare])
    append_frames(path, [vacuum])

    frames = read_frames(path)

    assert len(frames) == 3
    for written, read in zip([embedded, bare, vacuum], frames, strict=True):
        assert_same(written, read)


def test_ase_reads_positions_energy_forces_and_our_columns(tmp_path, make_frame):
    ase_io = pytest.importorskip("ase.io")
    path = tmp_path / "set.xyz"
    frames = [make_frame(), make_frame(name="other", near=None)]
    append_frames(path, frames)

    images = ase_io.read(path, index=":", format="extxyz")

    assert len(images) == 2
    for frame, atoms in zip(frames, images, strict=True):
        force_unit = HARTREE_IN_EV * ANGSTROM_IN_BOHR
        assert atoms.get_chemical_formula() == "H2O"
        np.testing.assert_allclose(atoms.positions, frame.positions / ANGSTROM_IN_BOHR, atol=1e-7)
        assert atoms.get_potential_energy() == pytest.approx(frame.energy * HARTREE_IN_EV, abs=1e-6)
        np.testing.assert_allclose(atoms.get_forces(), frame.forces * force_unit, atol=1e-5)
        np.testing.assert_allclose(atoms.arrays["potential"], frame.potential * HARTREE_IN_EV, atol=1e-5)
        np.testing.assert_allclose(atoms.arrays["field"], frame.field * force_unit, atol=1e-5)
        assert atoms.info["method"] == "hf/sto-3g"
        assert atoms.info["units"] == "angstrom eV e"
        assert not atoms.pbc.any()


def test_a_gzipped_set_is_read_and_not_added_to(tmp_path, make_frame):
    path = tmp_path / "set.xyz"
    frame = make_frame()
    append_frames(path, [frame, frame])
    packed = tmp_path / "set.xyz.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))

    assert_same(read_frames(packed)[1], frame)
    with pytest.raises(DataSetError, match=r"ends in \.xyz"):
        append_frames(packed, [frame])


def test_a_file_cut_anywhere_gives_its_complete_frames_and_a_warning(tmp_path, make_frame):
    path = tmp_path / "set.xyz"
    append_frames(path, [make_frame() for _ in range(3)])
    whole = path.read_bytes()
    ends = [0]
    for _ in range(3):  # each frame has 3 + 2 lines
        at = ends[-1]
        for _ in range(5):
            at = whole.index(b"\n", at) + 1
        ends.append(at)
    cuts = sorted({*range(ends[2] + 1, len(whole), 37), ends[2] + 1, ends[2] + 2, len(whole) - 1, len(whole) - 2})
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with pytest.warns(QmmlmmWarning, match="inside frame 2"):
            assert len(read_frames(path)) == 2
    path.write_bytes(whole[: ends[2]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_frames(path)) == 2


def test_appending_to_a_cut_file_keeps_the_good_frames_and_drops_the_torn_one(tmp_path, make_frame):
    path = tmp_path / "set.xyz"
    append_frames(path, [make_frame(name="a"), make_frame(name="b")])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.warns(QmmlmmWarning, match="inside frame 1"):
        append_frames(path, [make_frame(name="c")])
    assert [frame.name for frame in read_frames(path)] == ["a", "c"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "b3lyp/6-31g*"}, "energies of two methods"),
        ({"atomic_numbers": np.array([1, 8, 1])}, "another order"),
        ({"atomic_numbers": np.array([16, 1, 1])}, "another region"),
    ],
)
def test_frames_that_do_not_belong_together_are_refused(tmp_path, make_frame, changes, message):
    path = tmp_path / "set.xyz"
    append_frames(path, [make_frame()])
    with pytest.raises(DataSetError, match=message):
        append_frames(path, [make_frame(**changes)])
    assert len(read_frames(path)) == 1

    other = tmp_path / "other.xyz"
    append_frames(other, [make_frame(**changes)])
    mixed = tmp_path / "mixed.xyz"
    mixed.write_bytes(path.read_bytes() + other.read_bytes())
    with pytest.raises(DataSetError, match=message):
        read_frames(mixed)


@pytest.mark.parametrize("name", ["forces", "positions", "field", "energy", "vacuum_forces"])
def test_a_label_that_is_not_a_number_is_refused(make_frame, name):
    value = getattr(make_frame(), name)
    broken = np.full_like(value, np.nan) if np.ndim(value) else float("nan")
    with pytest.raises(DataSetError, match=f"{name} is not a finite number"):
        make_frame(**{name: broken})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (' units="angstrom eV e"', "", "has no units"),
        ('"angstrom eV e"', '"bohr hartree e"', "convert the numbers"),
        ("qmmlmm_format=1", "qmmlmm_format=9", "format 9"),
        (" method=", " methode=", "lacks method"),
        ("charge=0", "charge=x", "charge is an integer"),
        (":forces:R:3", ":forces:R:4", "forces has 3 columns"),
        (":forces:R:3", ":farces:R:3", "unknown column 'farces'"),
        ("charge=0", "charge=0 colour=red", "not known: colour"),
        ("\nH ", "\nHx ", "no element"),
        ("\nH ", "\nH 1.0 ", "Properties asks for"),
        ("\nO ", "\nO nan", "finite|columns|could not convert"),
        ("3\n", "three\n", "expected a number of atoms"),
    ],
)
def test_a_damaged_file_is_refused_with_its_reason(tmp_path, make_frame, old, new, message):
    path = tmp_path / "set.xyz"
    append_frames(path, [make_frame(), make_frame()])
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataSetError, match=message):
        read_frames(path)


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data set"):
        read_frames(tmp_path / "none.xyz")
    (tmp_path / "empty.xyz").write_text("")
    with pytest.raises(DataSetError, match="no complete frame"):
        read_frames(tmp_path / "empty.xyz")
    with pytest.raises(DataSetError, match="no frames"):
        append_frames(tmp_path / "empty.xyz", [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forces": np.zeros((2, 3))}, "forces has the shape"),
        ({"field": None}, "one of potential and field"),
        ({"method": ""}, "must be named"),
        ({"name": "two words"}, "no blanks"),
        ({"positions": np.zeros((3, 3))}, "have the same position"),
        ({"potential": None, "field": None}, "near charges but no potential"),
    ],
)
def test_a_frame_that_makes_no_sense_is_refused(make_frame, changes, message):
    with pytest.raises(DataSetError, match=message):
        make_frame(**changes)


def test_a_frame_without_vacuum_labels_has_no_vacuum_frame(make_frame):
    with pytest.raises(DataSetError, match="in a vacuum"):
        make_frame(vacuum_energy=None).without_surroundings()


def test_the_labels_of_acetone_in_water_are_whole():
    frames = read_frames(Path(__file__).parents[2] / "benchmarks" / "data" / "acetone_water.xyz.gz")
    assert len(frames) >= 49
    for frame in frames:
        # What pulls a neutral molecule pulls it in the potential: the forces on the atoms add up to little in a
        # vacuum (the grid of the functional is not exact), and the interaction is tens of kJ/mol.
        assert np.abs(frame.vacuum_forces.sum(0)).max() < 1e-3
        assert -0.06 < frame.energy - frame.vacuum_energy < 0.0
        r = np.linalg.norm(frame.positions[:, None] - frame.near.positions[None], axis=-1)
        assert 1.3 * ANGSTROM_IN_BOHR < r.min() < 6.5 * ANGSTROM_IN_BOHR
        assert abs(frame.charges.sum()) < 1e-4
