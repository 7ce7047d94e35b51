from __future__ import annotations

import contextlib
import gzip
import math
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmmlmm.errors import QmmlmmWarning
from qmmlmm.learning import DataSetError, NearCharges, append_frames, read_frames
from qmmlmm.learning.labels.data_set import format_frame
from qmmlmm.units import ANGSTROM_IN_BOHR, HARTREE_IN_EV
from tests.learning.teacher import Teacher

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


HUGE = "9" * 5000


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("charge=0", "charge=0.5", "frame at line 1: charge is an integer, got '0.5'"),
        ("charge=0", f"charge={HUGE}", "frame at line 1: charge is an integer"),
        ("charge=0", "charge=99999", "frame at line 1: frame 'water-1': charge is a whole number from -1000 to 1000"),
        ("charge=0", "charge=1", "frame at line 1: frame 'water-1': 9 electrons .charge 1. have an even multiplicity"),
        ("multiplicity=1", "multiplicity=0", "frame at line 1: frame 'water-1': multiplicity is a whole number from 1"),
        ("electronic_state=0", "electronic_state=-1", "electronic_state is a whole number from 0"),
        ("energy=", "energy=nan", "energy"),
        ("energy=", "enrgy=", "lacks energy"),
        ("energy=", "energy =", "line 2: expected key=value pairs without blanks"),
        (" name=", " charge=0 name=", "line 2 has the key 'charge' twice"),
        ("charges:R:1", "charge:R:1", "unknown column 'charge'"),
        ("charges:R:1", "potential:R:1", "Properties has a column twice"),
        ("O  ", "Qq ", "'QQ' is no element"),
        ("O  0", "O  x", r"line 3: could not convert string to float: 'x"),
        ("\nH  ", "\nH  1.0 ", "line 4 has 25 columns, Properties asks for 24"),
        ("3\n", f"{HUGE}\n", "line 1: expected a number of atoms"),
        ("3\n", "0\n", "line 1: expected a number of atoms, got '0'"),
        ("3\n", "-3\n", "line 1: expected a number of atoms, got '-3'"),
        ("name=water-1", 'name="water 1"', "frame's name is a text and has no blanks"),
    ],
)
def test_an_error_names_file_and_line(tmp_path, make_frame, old, new, message):
    path = tmp_path / "set.xyz"
    append_frames(path, [make_frame(positions=np.array([[0.0, 0, 0], [1.8, 0, 0], [0, 1.8, 0]]))])
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataSetError, match=message) as caught:
        read_frames(path)
    assert str(path) in str(caught.value)


def test_frames_that_do_not_belong_together_are_named_with_their_file(tmp_path, make_frame):
    one, other = tmp_path / "one.xyz", tmp_path / "other.xyz"
    append_frames(one, [make_frame()])
    append_frames(other, [make_frame(method="pbe/def2-svp")])
    one.write_bytes(one.read_bytes() + other.read_bytes())
    with pytest.raises(DataSetError, match=r"one\.xyz': frame 1 .* was labelled with 'pbe/def2-svp'"):
        read_frames(one)


@pytest.mark.parametrize("cut", [5, 15, 200, -1])
def test_a_cut_file_of_gzip_is_refused(tmp_path, make_frame, cut):
    path = tmp_path / "set.xyz"
    append_frames(path, [make_frame()])
    packed = tmp_path / "set.xyz.gz"
    packed.write_bytes(gzip.compress(path.read_bytes())[:cut])
    with pytest.raises(DataSetError, match=r"set\.xyz\.gz' is cut or damaged"):
        read_frames(packed)


def test_what_gzip_did_not_compress_is_refused(tmp_path):
    (tmp_path / "set.xyz.gz").write_bytes(b"3\n")
    with pytest.raises(DataSetError, match="was not compressed with gzip"):
        read_frames(tmp_path / "set.xyz.gz")


def test_a_character_that_is_not_ascii_is_named_with_its_line(tmp_path):
    (tmp_path / "set.xyz").write_bytes(b"3\n\xff\n")
    with pytest.raises(DataSetError, match=r"set\.xyz', line 2: byte 2 of the file is no ASCII character"):
        read_frames(tmp_path / "set.xyz")


@pytest.mark.parametrize("path", [None, 5, b"x.xyz", "", "a\0.xyz"])
def test_what_is_no_path_is_refused(path, make_frame):
    with pytest.raises(DataSetError, match="path is a path"):
        read_frames(path)
    with pytest.raises(DataSetError, match="path is a path"):
        append_frames(path, [make_frame()])


@pytest.mark.parametrize("frames", [None, 5, "x", [5], [None]])
def test_what_is_no_frame_is_not_written(tmp_path, frames):
    with pytest.raises(DataSetError, match="frames"):
        append_frames(tmp_path / "set.xyz", frames)
    assert not (tmp_path / "set.xyz").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({"name": value}, "frame's name is a text") for value in (None, 5, "", "a\nb", "a=b", "ä")),
        *(({"method": value}, "must be named") for value in (None, 5, 'a"b', "a\nb", "ä")),
        *(({"atomic_numbers": np.array(v)}, "atom") for v in ([], [[8]], [8.5, 1, 1], [0, 1, 1], [119, 1, 1])),
        *(({"charge": value}, "charge is a whole number") for value in (None, 0.5, True, "0", math.nan)),
        *(({"multiplicity": value}, "multiplicity is a whole number") for value in (None, 0, -1, 1.5, True)),
        *(({"electronic_state": value}, "electronic_state is a whole") for value in (None, -1, 0.5, True)),
        ({"multiplicity": 2}, "10 electrons .charge 0. have an odd multiplicity up to 11, got 2"),
        ({"charge": 20, "multiplicity": 1}, "charge 20 leaves -10 electrons of 10 protons"),
        *(({"energy": value}, "energy") for value in ("x", None, math.nan, math.inf, [1.0])),
        *(({"forces": value}, "forces") for value in ("x", None, np.zeros((3, 2)), np.full((3, 3), math.nan))),
        *(({"positions": value}, "positions") for value in ("x", None, np.zeros((3, 2)), np.zeros((3, 3), dtype=bool))),
        ({"near": NearCharges("x", [1.0], np.zeros((1, 3)))}, r"near\.positions is no array of numbers"),
        ({"near": NearCharges(np.zeros((1, 3)), [1.0], None)}, r"near\.forces is no array of numbers"),
        *(({"near": value}, "near is a NearCharges") for value in (5, "x", [])),
    ],
)
def test_a_wrong_value_in_a_frame_is_refused(make_frame, changes, message):
    with pytest.raises(DataSetError, match=message):
        make_frame(**changes)


def test_lists_become_arrays(make_frame):
    frame = make_frame(forces=[[0, 0, 1]] * 3, atomic_numbers=[8, 1, 1], energy=np.float64(-1.0), dipole=[0, 0, 1])
    assert frame.forces.dtype == frame.dipole.dtype == float
    assert type(frame.energy) is float
    assert frame.atomic_numbers.tolist() == [8, 1, 1]


PIECES = [b"\n", b" ", b"=", b'"', b"nan", b"1e999", b"\x0c", b"-"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_a_file_is_read_or_refused(tmp_path, data):
    path = tmp_path / "any.xyz"
    text = "".join(map(format_frame, Teacher(np.random.default_rng(3)).frames(2))).encode()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 30))
        new = data.draw(st.binary(max_size=4) | st.sampled_from(PIECES))
        text = text[:at] + new + text[at + cut :]
    path.write_bytes(text)
    with contextlib.suppress(DataSetError), warnings.catch_warnings():
        warnings.simplefilter("ignore", QmmlmmWarning)
        assert read_frames(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=80) | st.text("0123 \n\r=xyz\"'.", max_size=80).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path, data):
    path = tmp_path / "any.xyz"
    path.write_bytes(data)
    with contextlib.suppress(DataSetError), warnings.catch_warnings():
        warnings.simplefilter("ignore", QmmlmmWarning)
        read_frames(path)
