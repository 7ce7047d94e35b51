"""No value of an input file is accepted that is not one: each key against each kind of value."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tomllib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openmm import app, unit

from qmmlmm.commands.input_file import read_toml
from qmmlmm.commands.learn_input import TOP, read_loop
from qmmlmm.commands.main import main
from qmmlmm.commands.spectrum import SpectrumSettings
from qmmlmm.errors import InputFileError, QmmlmmError
from qmmlmm.learning import ResponseSettings, TrainingSettings
from qmmlmm.learning.loop import LoopSettings
from tests.commands.toml_text import changed, toml_text

# A charge that is not that of the force field is a warning first.
pytestmark = pytest.mark.filterwarnings("ignore:region 'water' has charge:qmmlmm.errors.QmmlmmWarning")

LOOP = {
    "directory": "run",
    "embedding": "electrostatic",
    "platform": "Reference",
    "system": {"pdb": "waters.pdb", "force_field": ["amber14/tip3p.xml"], "no_box": True},
    "region": {"name": "water", "select": "resid 0", "charge": 0},
    "qm": {"method": "hf", "basis": "sto-3g"},
    "loop": {"force_error": 20.0, "start_labels": 8, "start_steps": 4, "members": 2},
    "network": {"features": 6, "layers": 1},
    "labels": {"workers": 1, "attempts": 1, "seconds": 60},
    "variable": [{"name": "angle", "torsion": [1, 0, 3, 4]}],
}
UMBRELLA = {**LOOP, "umbrella": {"variable": "angle", "force_constant": 50.0, "centres": [0.5, 1.5]}}
HILLS = {
    **LOOP,
    "metadynamics": {
        "height": 1.5, "bias_factor": 10, "interval": 40, "along": [{"variable": "angle", "width": 0.3}],
    },
}  # fmt: skip
SPECTRUM = {
    "trajectory": "run.xtc",
    "system": LOOP["system"],
    "region": LOOP["region"],
    "qm": LOOP["qm"],
    "states": {"n_states": 3},
    "spectrum": {"frames": 3},
}
NO_TEXT = [5, True, 1.5, [], {}]
NO_NUMBER = ["x", True, [], {}, math.nan, math.inf]
NO_TABLE = [5, "x", True, [], [5]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(2):
        residue = topology.addResidue("HOH", chain)
        atoms = [topology.addAtom(n, app.Element.getBySymbol(n[0]), residue) for n in ("O", "H1", "H2")]
        topology.addBond(atoms[0], atoms[1])
        topology.addBond(atoms[0], atoms[2])
    one = np.array([[0.0, 0.0, 0.0], [0.09572, 0.0, 0.0], [-0.023999, 0.092663, 0.0]])
    with (folder / "waters.pdb").open("w") as file:
        app.PDBFile.writeFile(topology, np.vstack([one, one + 0.3]) * unit.nanometer, file)
    (folder / "nonsense.pdb").write_text("ATOM  nonsense\n")
    (folder / "nonsense.xml").write_text("<nonsense")
    (folder / "nonsense.xtc").write_text("nonsense")
    (folder / "nonsense.xyz").write_text("nonsense\n")
    (folder / "nonsense.pt").write_text("nonsense")
    (folder / "file").write_text("")
    return folder


def write(folder, content) -> str:
    path = folder / "input.toml"
    path.write_text(toml_text(content))
    return str(path)


def test_the_file_without_a_change_is_read(folder):
    for content in (LOOP, UMBRELLA, HILLS):
        assert len(read_loop(write(folder, content)).walkers) in (1, 2)


def loop_cases():
    """Yield base, place, value and a part of the message."""
    for name in ("directory", "embedding", "platform", "method", "model"):
        yield from ((LOOP, (name,), value, f"{name} is a text in quotes") for value in NO_TEXT)
    for name in ("system", "region", "qm", "loop", "network", "training", "labels"):
        yield from ((LOOP, (name,), value, f"{name} is a table") for value in NO_TABLE)
    for name in ("umbrella", "metadynamics"):
        yield from ((LOOP, (name,), value, f"{name} is a table") for value in NO_TABLE)
    for name in ("variable", "walker"):
        yield from ((LOOP, (name,), value, f"{name} is a") for value in (5, "x", True, [5], {}))
    yield from ((LOOP, ("data",), value, "data is a") for value in (5, "x", True, [5], {}))
    yield LOOP, ("embedding",), "electric", "embedding is one of 'mechanical', 'electrostatic'"
    yield LOOP, ("platform",), "cpu", "platform is one of .*, got 'cpu'. Nearest names: CPU"
    yield LOOP, ("method",), 'a"b', "method must be named"
    yield LOOP, ("directory",), "file", "is a file"
    yield LOOP, ("model",), "nonsense.pt", "nonsense.pt"
    yield LOOP, ("data",), ["nonsense.xyz"], "nonsense.xyz"

    for name in ("pdb", "constraints"):
        yield from ((LOOP, ("system", name), value, rf"\[system\] {name} is a text") for value in NO_TEXT)
    yield from ((LOOP, ("system", "no_box"), value, r"\[system\] no_box is True or False") for value in (1, "no", []))
    yield from ((LOOP, ("system", "force_field"), v, r"\[system\] force_field is a") for v in (5, "a", [], [5]))
    yield LOOP, ("system", "force_field"), ["no.xml"], r"OpenMM cannot use force_field no.xml: Could not locate"
    yield LOOP, ("system", "force_field"), ["nonsense.xml"], r"OpenMM cannot use force_field"
    yield LOOP, ("system", "force_field"), ["amber14/protein.ff14SB.xml"], "OpenMM cannot use the pdb: No template"
    yield LOOP, ("system", "constraints"), "hbonds", "constraints is one of .* Nearest names: HBonds"
    yield LOOP, ("system", "pdb"), "no.pdb", "pdb: there is no file .*no.pdb"
    yield LOOP, ("system", "pdb"), "nonsense.pdb", "OpenMM cannot use"
    yield LOOP, ("system", "no_box"), False, r"no box \(CRYST1\): add no_box = true"
    boxed = changed(LOOP, ("system", "no_box"), False)
    yield from ((boxed, ("system", "cutoff"), value, r"\[system\] cutoff is a") for value in (*NO_NUMBER, 0, -1))

    yield from ((LOOP, ("region", "name"), value, r"\[region\] name is a text") for value in NO_TEXT)
    yield from ((LOOP, ("region", "select"), value, r"\[region\] select is a text") for value in NO_TEXT)
    yield LOOP, ("region", "select"), "resname LIG", r"\[region\] the selection 'resname LIG' matches none"
    yield LOOP, ("region", "select"), "resid zero and", r"\[region\]"
    for name in ("charge", "multiplicity"):
        yield from ((LOOP, ("region", name), v, rf"\[region\] {name} is a whole number") for v in (*NO_NUMBER, 0.5))
    yield LOOP, ("region", "multiplicity"), 0, r"\[region\] .*multiplicity"
    yield LOOP, ("region", "multiplicity"), 2, "multiplicity"
    yield LOOP, ("region", "charge"), 1, "multiplicity"
    yield LOOP, ("region", "charge"), -(10**6), "a charge of 3 atoms lies between -12 and 27, got -1000000"

    for kind, name in ((LoopSettings, "loop"), (ResponseSettings, "network"), (TrainingSettings, "training")):
        for field in dataclasses.fields(kind):
            wrong = ([[1]] if field.name == "reacting_bonds" else [], {}, math.nan, -1)  # no bond at all is right
            yield from ((LOOP, (name, field.name), v, rf"\[{name}\] {field.name}\b") for v in wrong)
        yield LOOP, (name, "no_such_key"), 1, rf"\[{name}\] has the unknown key 'no_such_key'; known are"
    yield LOOP, ("loop", "bond_limit"), "off", r"\[loop\] bond_limit"
    yield LOOP, ("loop", "seed"), "x", r"\[loop\] seed"
    yield LOOP, ("loop", "force_error"), True, r"\[loop\] force_error"
    for name in ("steps", "patience", "validations", "batch_size", "learning_rate", "clip"):
        yield LOOP, ("training", name), 0, rf"\[training\] {name}"
    for name in ("workers", "attempts", "threads", "memory", "seconds"):
        yield from ((LOOP, ("labels", name), v, rf"\[labels\] {name} is a") for v in (*NO_NUMBER, 0, -5))
    yield from ((LOOP, ("labels", "dask"), value, r"\[labels\] dask is a text") for value in NO_TEXT)

    for value in (
        5,
        "x",
        ["x"],
        [1.5, 0, 3, 4],
        [-1, 0, 3, 4],
        [1, 0, 3],
        [1, 1, 3, 4],
        [1, 0, 3, 99999],
        [[1, 0, 3, 4]],
    ):
        yield LOOP, ("variable", "torsion"), value, "variable|torsion"
    yield from ((LOOP, ("variable", "name"), value, r"\[variable\] name is a text") for value in NO_TEXT)
    yield LOOP, ("variable",), [LOOP["variable"][0]] * 2, "two variables have the name 'angle'"
    yield LOOP, ("variable",), [{"name": "a"}], "a name and one of"

    yield from ((UMBRELLA, ("umbrella", "force_constant"), v, "force_constant is") for v in (*NO_NUMBER, 0, -1))
    wrong_centres = (5, "x", [], ["x"], [[0.5]], [math.nan], [True])
    yield from ((UMBRELLA, ("umbrella", "centres"), value, "centres") for value in wrong_centres)
    yield from ((UMBRELLA, ("umbrella", "variable"), value, "variable") for value in (*NO_TEXT, "phi"))
    yield UMBRELLA, ("walker",), [{}], "leave \\[\\[walker\\]\\] out"
    for value in (5, "x", [], {"k": "x"}, {"k": math.nan}, {"k": 1.0}):
        yield LOOP, ("walker",), [{"parameters": value}], "parameters|parameter 'k'|walker.parameters"
    yield LOOP, ("walker",), [], "walker"

    for name in ("height", "bias_factor", "interval"):
        yield from ((HILLS, ("metadynamics", name), v, r"\[metadynamics\] .*" + name) for v in (*NO_NUMBER, 0, -1))
    yield HILLS, ("metadynamics", "interval"), 30, "multiple of check_interval"
    yield from ((HILLS, ("metadynamics", "shared"), value, "shared is True or False") for value in (1, "x"))
    yield from ((HILLS, ("metadynamics", "along"), value, "along") for value in (5, "x", [], [5], {}))
    yield from ((HILLS, ("metadynamics", "along", "width"), v, "width") for v in (*NO_NUMBER, 0, -1, 2.0))
    yield from ((HILLS, ("metadynamics", "along", "variable"), v, "variable") for v in (*NO_TEXT, "phi"))
    yield from ((HILLS, ("metadynamics", "along", "low"), v, "low") for v in (*NO_NUMBER, 0.1))


def spectrum_cases():
    for name in ("directory", "embedding", "trajectory"):
        yield from (((name,), value, f"{name} is a text in quotes") for value in NO_TEXT)
    for name in ("system", "region", "qm", "states", "spectrum"):
        yield from (((name,), value, f"{name} is a table") for value in NO_TABLE)
    for field in dataclasses.fields(SpectrumSettings):
        wrong = ["x", 1.5, -1, math.nan, []] if field.name != "full_width" else ["x", 0, -1, math.nan, [], 1e6]
        yield from ((("spectrum", field.name), v, rf"\[spectrum\] {field.name} is") for v in wrong)
    yield ("spectrum", "frame"), 3, "unknown key 'frame'.*Nearest names: frames"
    yield ("states", "kind"), "CIS", "'TDA' or 'TDDFT', got 'CIS'"
    yield from ((("states", "kind"), value, "kind is a text") for value in NO_TEXT)
    yield from ((("states", "n_states"), value, "n_states") for value in (*NO_NUMBER, 0, 1.5))
    yield ("trajectory",), "no.xtc", "no.xtc"
    yield ("trajectory",), "nonsense.xtc", "nonsense.xtc"
    yield ("trajectory",), "file", "file"
    yield ("qm", "excited"), 5, "unknown key 'excited'"
    yield ("directory",), "file", "is a file"


CASES = list(loop_cases())


def case_id(case) -> str:
    return f"{'.'.join(case[-3])}={case[-2]!r:.20}"


@pytest.mark.parametrize(("base", "place", "value", "message"), CASES, ids=[case_id(case) for case in CASES])
def test_a_wrong_value_of_a_loop_is_an_error_that_says_where(folder, base, place, value, message):
    with pytest.raises(QmmlmmError, match=message):
        read_loop(write(folder, changed(base, place, value)))


SPECTRUM_CASES = list(spectrum_cases())


@pytest.mark.parametrize(("place", "value", "message"), SPECTRUM_CASES, ids=[case_id(case) for case in SPECTRUM_CASES])
def test_a_wrong_value_of_a_spectrum_is_an_error_that_says_where(folder, capsys, place, value, message):
    assert main(["spectrum", write(folder, changed(SPECTRUM, place, value)), "--quiet"]) == 1
    assert_message(capsys.readouterr().err, message)


def assert_message(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        raise ValueError(text)
    assert text.startswith("qmmlmm: error: ")
    assert "Traceback" not in text


def test_the_file_is_named_in_its_errors(folder):
    with pytest.raises(InputFileError, match=r"input\.toml: \[loop\] friction is zero or"):
        read_loop(write(folder, changed(LOOP, ("loop", "friction"), -1)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("[loop]\n".encode("utf-16"), "is not text in UTF-8"),
        (b"\xff\xfe", "is not text in UTF-8"),
        (b"directory = 'run", "is not valid TOML"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"directory = " + b"9" * 5000, "is not valid TOML"),
        (b"[loop]\nseed = 0x" + b"f" * 5000, "seed has an integer of more than 64 bits"),
        (b"platform = 'CPU'\nplatform = 'CPU'", "is not valid TOML"),
        (b"plattform = 'CPU'", "unknown key 'plattform'.*Nearest names: platform"),
        (b"", "lacks 'qm'"),
    ],
)
def test_a_file_that_is_no_input_is_refused(tmp_path, data, message):
    path = tmp_path / "loop.toml"
    path.write_bytes(data)
    with pytest.raises(InputFileError, match=message):
        read_loop(path)


@pytest.mark.parametrize("path", [None, 5, b"x", "", "a\0b"])
def test_what_is_no_path_of_a_file_is_refused(path):
    with pytest.raises(InputFileError, match="the input file is a path"):
        read_loop(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputFileError, match=r"there is no file '.*none\.toml'; the working directory is"):
        read_loop(tmp_path / "none.toml")


def test_a_charge_is_given_or_taken_from_the_force_field(folder):
    without = {**LOOP, "region": {"select": "resid 0"}}
    with pytest.raises(
        InputFileError, match=r"lacks 'charge'; the force field gives these 3 atoms the charge 0: write charge = 0"
    ):
        read_loop(write(folder, without))
    with pytest.raises(
        InputFileError, match=r"charge: the force field gives 2 particles .* of HOH 1 .*, the charge -0.417 e"
    ):
        read_loop(write(folder, {**LOOP, "region": {"select": "index 0 1"}}))
    loop = read_loop(write(folder, changed(LOOP, ("region", "charge"), "auto")))
    assert loop.settings.start_labels == 8


def test_the_limit_of_bonds_can_be_off(folder):
    assert read_loop(write(folder, changed(LOOP, ("loop", "bond_limit"), "none"))).settings.bond_limit is None


# Anything at all.

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
).filter(lambda value: "None" not in repr(value))
PLACES = [case[-3] for case in CASES if case[-3][0] != "data"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(sorted(set(PLACES))), value=VALUES)
def test_any_value_at_any_place_is_read_or_refused(folder, place, value):
    base = HILLS if place[0] == "metadynamics" else UMBRELLA if place[0] == "umbrella" else LOOP
    content = toml_text(changed(base, place, value))
    path = folder / "input.toml"
    try:
        data = content.encode()
        tomllib.loads(content)
    except (UnicodeEncodeError, ValueError, RecursionError):
        return
    path.write_bytes(data)
    # A model file that is not there is a FileNotFoundError, as in Python.
    with contextlib.suppress(QmmlmmError, *([FileNotFoundError] if place == ("model",) else [])):
        read_loop(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_read_or_refused(tmp_path, data):
    path = tmp_path / "any.toml"
    path.write_bytes(data)
    with contextlib.suppress(InputFileError):
        read_toml(path, TOP)
