"""Wrong values in every table of a file of ``qmmlmm run``, and files of every kind of System."""

from __future__ import annotations

import contextlib
import math
import re
import tomllib

import numpy as np
import openmm
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openmm import app, unit

from qmmlmm import MLPotential
from qmmlmm.commands.hamiltonian_input import read_hamiltonian
from qmmlmm.commands.input_file import Table
from qmmlmm.commands.main import main
from qmmlmm.commands.measures import check_duration, check_measure
from qmmlmm.commands.run_input import read_run
from qmmlmm.commands.system_input import read_system
from qmmlmm.errors import InputFileError, QmmlmmError, SettingError
from systems import package_data
from systems.alanine_dipeptide.builder import EXPLICIT_INPCRD, EXPLICIT_PRMTOP
from systems.package_data import PackageFile
from tests.commands.toml_text import changed, toml_text
from tests.commands.waters import write_waters
from tests.contexts import system_energy_and_forces

RUN = {
    "system": {"pdb": "waters.pdb", "force_field": ["amber14/tip3p.xml"], "no_box": True},
    "region": {"water": {"select": "resid 0", "charge": 0}},
    "term": [{"method": "gfn2-xtb"}],
    "minimise": {"iterations": 5},
    "heat": {"length": 4},
    "equilibrate": {"length": 4},
    "dynamics": {"length": 2000},
    "hold": [{"select": "name O"}],
    "variable": [{"name": "apart", "distance": [0, 3]}],
    "restraint": [{"variable": "apart", "centre": 0.3, "force_constant": 100.0}],
    "output": {},
    "platform": {"name": "Reference"},
}
BOXED = {**RUN, "system": {"pdb": "boxed.pdb", "force_field": ["amber14/tip3p.xml"]}}
NO_TEXT = [5, True, [], {}]
NO_NUMBER = ["x", True, [], {}, math.nan, math.inf]
# OpenMM leaves the files that it reads to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::ResourceWarning",
    # A charge that is not that of the force field is a warning first.
    "ignore:region 'water' has charge:qmmlmm.errors.QmmlmmWarning",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_waters(folder / "waters.pdb")
    write_waters(folder / "boxed.pdb", box=2.0)
    (folder / "site.toml").write_text(
        "[regions.water]\natoms = [0, 1, 2]\ncharge = 0\nmultiplicity = 1\n"
        "[regions.iron]\natoms = [0, 1, 2]\ncharge = 0\n"
        "[regions.wrong]\natoms = [0, 0]\ncharge = 0\n"
    )
    (folder / "nonsense.toml").write_text("a = [")
    (folder / "nonsense.xml").write_text("<nonsense")
    (folder / "file").write_text("")
    return folder


def read(folder, content):
    path = folder / "run.toml"
    path.write_text(toml_text(content))
    return read_run(path)


def cases():
    """Yield base, place, value and a part of the message."""
    yield from ((RUN, ("directory",), value, "directory is a text in quotes") for value in NO_TEXT)
    yield RUN, ("directory",), "file", "is a file; name a folder"
    yield RUN, ("dynamcs",), {}, r"unknown key 'dynamcs'.* Nearest names: dynamics"
    for name in ("system", "region", "minimise", "heat", "equilibrate", "dynamics", "output", "platform"):
        yield from ((RUN, (name,), value, f"{name} is a table") for value in (5, "x", []))
    for name in ("hold", "variable", "restraint", "term"):
        yield from ((RUN, (name,), value, f"{name} is a") for value in (5, "x", {}, [5]))

    yield RUN, ("system",), {}, r"\[system\] has one of prepared, prmtop, psf, top, xml, pdb, got none"
    yield RUN, ("system", "prmtop"), "a.prmtop", r"\[system\] has one of .*, got prmtop, pdb"
    yield RUN, ("system", "cutof"), 1, r"\[system\] has the unknown key 'cutof'.* Nearest names: cutoff"
    yield RUN, ("system", "coordinates"), "x.pdb", r"\[system\] has coordinates, which 'pdb' does not need"
    yield RUN, ("system",), {"prmtop": "a.prmtop"}, r"\[system\] lacks 'coordinates', which 'prmtop' needs"
    yield RUN, ("system",), {"psf": "a.psf"}, r"\[system\] lacks 'parameters'"
    yield RUN, ("system",), {"prepared": "none"}, r"\[system\] prepared: .* has no topology.cif"
    yield RUN, ("system",), {"prepared": "none", "cutoff": 1.0}, r"\[system\] has cutoff, and the System of 'prepared'"
    serialised = {"xml": "nonsense.xml", "topology": "waters.pdb", "coordinates": "waters.pdb"}
    yield RUN, ("system",), serialised, r"\[system\] OpenMM cannot use xml"
    yield RUN, ("system",), {**serialised, "xml": "none.xml"}, r"\[system\] xml: there is no file .*none.xml"
    top = {"top": "none.top", "coordinates": "waters.pdb"}
    yield RUN, ("system",), top, r"\[system\] top: there is no file"
    yield from ((BOXED, ("system", "cutoff"), v, r"\[system\] cutoff is") for v in (*NO_NUMBER, 0, -1, 90))
    yield BOXED, ("system", "cutoff"), "9 K", r"\[system\] cutoff has a unit like nanometer"
    yield from ((RUN, ("system", "hydrogen_mass"), v, r"\[system\] hydrogen_mass is") for v in (*NO_NUMBER, 0, 12))
    yield RUN, ("system", "rigid_water"), 1, r"\[system\] rigid_water is True or False"
    yield RUN, ("system", "flexible_constraints"), 1, r"\[system\] flexible_constraints is True or False"
    yield RUN, ("system",), {"top": "a", "coordinates": "b", "flexible_constraints": True}, "not offer it for GROMACS"
    yield from ((RUN, ("system", "box"), v, r"\[system\] box") for v in (5, "x", [1, 2], [0, 1, 1]))

    water = ("region", "water")
    yield RUN, ("region",), {}, r"\[\[term\]\] needs a region"
    yield from ((RUN, (*water, "select"), value, r"\[region.water\] select is a text") for value in NO_TEXT)
    yield RUN, (*water, "select"), "resname LIG", r"\[region.water\] the selection 'resname LIG' matches none"
    yield RUN, (*water, "selct"), "all", r"\[region.water\] has the unknown key 'selct'.*Nearest names: select"
    yield RUN, water, {"charge": 0}, r"\[region.water\] lacks 'select', or 'site' or 'atoms'"
    yield RUN, (*water, "atoms"), [0], r"\[region.water\] has select and atoms, of which one is enough"
    yield RUN, water, {"atoms": [99], "charge": 0}, r"\[region.water\] atoms has atom indices from 0 to 5"
    yield RUN, water, {"select": "resid 0"}, r"\[region.water\] lacks 'charge'; the force field gives .* charge = 0 if"
    yield from ((RUN, (*water, "charge"), v, r"\[region.water\] charge is a whole") for v in (*NO_NUMBER, 0.5))
    yield RUN, (*water, "charge"), 1, "multiplicity"
    yield RUN, (*water, "link_rule"), "ration", r"\[region.water\] link_rule is one of .* Nearest names: ratio"
    yield RUN, water, {"site": "none.toml"}, r"\[region.water\] site: there is no file"
    yield RUN, water, {"site": "nonsense.toml"}, r"\[region.water\] site: .* is not valid TOML"
    yield RUN, water, {"site": "site.toml", "charge": 0}, r"\[region.water\] charge is in the site already"
    yield RUN, ("region",), {"watr": {"site": "site.toml"}}, r"has no region 'watr'; .*Nearest names: water"
    yield RUN, ("region",), {"iron": {"site": "site.toml"}}, "multiplicity of 'iron' cannot be known"
    yield RUN, ("region",), {"wrong": {"site": "site.toml"}}, r"\[regions.wrong\] atoms has an atom twice"
    more = {**RUN["region"], "other": {"select": "resid 1", "charge": 0}}
    yield RUN, ("region",), more, r"\[term\] lacks 'region'; there are water, other"
    named = {**RUN, "term": [{"region": "water", "method": "gfn2-xtb"}]}
    yield named, ("region",), more, r"\[region.other\] is in no \[\[term\]\]"

    yield RUN, ("term",), [{"region": "watr", "method": "gfn2-xtb"}], r"\[term\] has the region 'watr'.*Nearest.*water"
    yield RUN, ("term",), [{}], r"\[term\] has one of method, model, pretrained, got none"
    yield RUN, ("term",), [{"method": "hf", "model": "x.pt"}], r"\[term\] has one of .*, got method, model"
    yield RUN, ("term",), [{"method": "gfn2xtb"}], r"\[term\] lacks 'basis'.* Nearest names: gfn2-xtb"
    yield RUN, ("term",), [{"method": "gfn2-xtb", "acuracy": 1}], r"\[term\] has the unknown key 'acuracy'.* accuracy"
    yield RUN, ("term",), [{"method": "gfn2-xtb", "basis": "x"}], r"\[term\] has the unknown key 'basis'"
    yield RUN, ("term",), [{"method": "hf", "basis": "no-such"}], r"\[term\] .*no-such"
    yield RUN, ("term",), [{"model": "none.pt"}], r"\[term\] names the file .*none.pt"
    yield RUN, ("term",), [{"model": "file"}], r"\[term\] .*file"
    yield RUN, ("term",), [{"method": "force field", "basis": "x"}], r"\[term\] has the unknown key 'basis'"
    yield RUN, ("term",), [{"method": "hf", "basis": "sto-3g", "excited": {"kind": "CIS"}}], "kind is one of TDA"
    for coefficient, message in ((2, "add up to 2"), ("1-", r"\[term\]"), (True, "coefficient is a finite number")):
        yield RUN, ("term",), [{"method": "gfn2-xtb", "coefficient": coefficient}], message
    yield RUN, ("term",), [{"method": "gfn2-xtb", "coefficient": "a"}], "no value for a"
    yield RUN, ("term",), [{"method": "gfn2-xtb", "embedding": "electric"}], "embedding is one of .*Nearest"
    yield RUN, ("term",), [{"method": "gfn2-xtb", "smeared_charges": "0.5 K"}], r"\[term\] smeared_charges has a unit"
    yield RUN, ("term",), [{"method": "gfn2-xtb", "correct": 5}], r"\[term\] correct maps names"
    yield RUN, ("term",), [{"method": "gfn2-xtb", "correct": {}}], r"\[term.correct\] has one of method"
    two = [{"method": "gfn2-xtb"}, {"method": "gfn1-xtb", "nmae": "x"}]
    yield RUN, ("term",), two, r"\[term 2\] has the unknown key 'nmae'.*Nearest names: name"
    yield RUN, ("term",), two[:1] * 2, "add up to 2; they must add up to 1"
    yield RUN, ("term",), [], r"\[region\] and no \[\[term\]\]"

    yield from ((RUN, ("minimise", "iterations"), v, r"\[minimise\] iterations is") for v in (*NO_NUMBER, 0, 1.5))
    yield from ((RUN, ("minimise", "tolerance"), v, r"\[minimise\] tolerance is") for v in (*NO_NUMBER, 0))
    for stage in ("heat", "equilibrate"):
        yield from ((RUN, (stage, "force_field_only"), v, rf"\[{stage}\] force_field_only is") for v in (1, "x"))
    for place in (("heat", "length"), ("equilibrate", "length"), ("dynamics", "length"), ("output", "trajectory"),
                  ("output", "energies"), ("output", "variables"), ("output", "checkpoint")):  # fmt: skip
        label = rf"\[{place[0]}\] {place[1]}"
        wrong = (0, -1, 1.5, True, [], math.nan, "x", "10", "0 ps", "-1 ps", "10 K", "10 pss", "nan ps", 2**40)
        yield from ((RUN, place, value, label) for value in wrong)
    yield RUN, ("dynamics", "length"), "0.1 fs", r"\[dynamics\] length = '0.1 fs' is 0 steps of 0.5 fs"
    yield RUN, ("dynamics", "length"), 10, r"\[output\] trajectory has a frame every 1,000 steps, and production has 10"
    yield RUN, ("dynamics",), {}, r"\[dynamics\] lacks 'length'"
    yield from ((RUN, ("heat", "start"), v, r"\[heat\] start is") for v in (*NO_NUMBER, 0, -5))
    for name in ("temperature", "step"):
        yield from ((RUN, ("dynamics", name), v, rf"\[dynamics\] {name} is") for v in (*NO_NUMBER, 0, -1))
    yield RUN, ("dynamics", "step"), 0.5, r"\[dynamics\] step is at most 0.01 picosecond"
    yield RUN, ("dynamics", "step"), "0.5 K", r"\[dynamics\] step has a unit like picosecond"
    yield RUN, ("dynamics", "step"), "0.5 fss", r"\[dynamics\] step has the unknown unit 'fss'.* Nearest names: fs"
    yield from ((RUN, ("dynamics", "friction"), v, r"\[dynamics\] friction is") for v in (*NO_NUMBER, -1))
    yield from ((RUN, ("dynamics", "seed"), v, r"\[dynamics\] seed is") for v in (*NO_NUMBER, 0, -1, 1.5, 2**31))
    yield from ((BOXED, ("dynamics", "pressure"), v, r"\[dynamics\] pressure is") for v in (*NO_NUMBER, -1))
    yield RUN, ("dynamics", "pressure"), 1, r"\[dynamics\] pressure needs a box"
    yield RUN, ("equilibrate", "pressure"), 1, r"\[equilibrate\] pressure needs a box"
    yield RUN, ("dynamics", "barostat_interval"), 0, r"\[dynamics\] barostat_interval is"
    yield RUN, ("dynamics", "integrator"), "verlet", r"\[dynamics\] integrator is one of"
    yield RUN, ("dynamics", "correct_every"), 4, r"\[dynamics\] correct_every goes with integrator"
    yield RUN, ("dynamics", "isokinetic"), True, r"\[dynamics\] isokinetic goes with integrator"
    multiple = changed(RUN, ("dynamics", "integrator"), "multiple-time-step")
    yield multiple, ("dynamics", "seed"), 1, r"\[dynamics\] lacks 'correct_every'"
    yield from ((multiple, ("dynamics", "correct_every"), v, r"correct_every is") for v in (*NO_NUMBER, 0, 1, 10**6))
    yield multiple, ("dynamics", "correct_every"), 4, "no correction that could be slow"

    yield RUN, ("hold",), [{}], r"\[hold\] has one of 'select' and 'atoms'"
    yield RUN, ("hold",), [{"select": "resname X"}], r"\[hold\] the selection 'resname X' matches none"
    yield RUN, ("hold",), [{"atoms": [9]}], r"\[hold\] atoms has atom indices from 0 to 5"
    yield from ((RUN, ("hold", "force_constant"), v, r"\[hold\] force_constant") for v in (*NO_NUMBER, 0, "1 K"))
    yield from ((RUN, ("hold", "stages"), v, r"\[hold\] .*stages") for v in (5, "heat", [], ["x"], ["heat", "heat"]))
    yield RUN, ("variable",), [{"name": "a", "distance": [0, 99]}], "variable 'a': the System has the particles 0 to 5"
    yield RUN, ("variable",), [{"name": "a", "distance": [0, "name O"]}], "variable 'a': .* matches 2 atoms"
    yield RUN, ("variable",), [{"name": "a", "distance": ["nmae O", 1]}], "variable 'a': the selection"
    yield RUN, ("restraint", "variable"), "aprt", r"\[restraint\] names the variable 'aprt'.*Nearest names: apart"
    yield from ((RUN, ("restraint", "centre"), v, r"\[restraint\] centre is") for v in NO_NUMBER)
    yield RUN, ("restraint", "centre"), "60 deg", r"\[restraint\] centre has a unit like nanometer"
    yield from ((RUN, ("restraint", "force_constant"), v, r"\[restraint\] force_constant") for v in (*NO_NUMBER, 0))
    yield RUN, ("restraint",), [{"variable": "apart"}], r"\[restraint\] lacks 'centre'"

    yield RUN, ("output", "format"), "pdb", r"\[output\] format is one of 'dcd', 'xtc'"
    yield RUN, ("platform", "name"), "cpu", r"\[platform\] name is one of .*Nearest names: CPU"
    yield (
        RUN,
        ("platform", "precision"),
        "mixed",
        r"\[platform\] precision is for GPUs, and the platform is 'Reference'",
    )
    yield RUN, ("platform", "precision"), "half", r"\[platform\] precision is one of"
    yield RUN, ("platform",), {"device": 0}, r"\[platform\] lacks 'name', which device need"
    yield RUN, ("platform", "properties"), {"Threds": "1"}, r"\[platform\] properties: .* has no property 'Threds'"
    yield from ((RUN, ("platform", "threads"), v, r"\[platform\] threads is") for v in (*NO_NUMBER, 0))


CASES = list(cases())


@pytest.mark.parametrize(
    ("base", "place", "value", "message"), CASES, ids=[f"{'.'.join(c[1])}={c[2]!r:.30}" for c in CASES]
)
def test_a_wrong_value_is_an_error_that_says_where(folder, base, place, value, message):
    with pytest.raises(InputFileError, match=message) as caught:
        read(folder, changed(base, place, value))
    assert "run.toml: " in str(caught.value)
    assert not (folder / "run").exists()


VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(sorted({case[1] for case in CASES})), value=VALUES)
def test_any_value_at_any_place_is_read_or_refused(folder, place, value):
    content = toml_text(changed(RUN, place, value))
    try:
        data = content.encode()
        tomllib.loads(content)
    except (UnicodeEncodeError, ValueError, RecursionError):
        return
    (folder / "any.toml").write_bytes(data)
    with contextlib.suppress(QmmlmmError):
        read_run(folder / "any.toml")


def test_the_bases_of_the_table_are_right(folder):
    for base in (RUN, BOXED, changed(BOXED, ("dynamics", "pressure"), 1)):
        assert read(folder, base).production.steps == 2000


def test_an_error_of_the_command_is_one_line(folder, capsys):
    path = folder / "wrong.toml"
    path.write_text(toml_text(changed(RUN, ("dynamics", "seed"), 0)))
    assert main(["run", str(path)]) == 1
    assert re.fullmatch(r"qmmlmm: error: \S*wrong.toml: \[dynamics\] seed is .*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0.5 fs", 0.0005), (0.002, 0.002), ("1e-3ps", 0.001), (".5 ps", 0.5), (" 2 ns ", 2000.0)],
)
def test_a_number_with_a_unit_is_converted(value, expected):
    assert check_measure("step", value, unit.picosecond) == pytest.approx(expected, rel=1e-12)


def test_compound_units_are_those_of_openmm():
    stiff = unit.kilojoule_per_mole / unit.nanometer**2
    assert check_measure("k", "1 kcal/mol/A^2", stiff) == pytest.approx(418.4, rel=1e-12)
    assert check_measure("x", "180 deg", unit.radian) == pytest.approx(math.pi, rel=1e-12)


@pytest.mark.parametrize(("value", "steps"), [(7, 7), ("10 ps", 20000), ("0.3 fs", 1), ("1 us", 2 * 10**9)])
def test_a_length_is_a_number_of_steps_or_a_time(value, steps):
    assert check_duration("length", value).in_steps(0.0005) == steps


def test_more_steps_than_openmm_counts_are_refused():
    with pytest.raises(SettingError, match="is 20,000,000,000 steps of 0.5 fs; OpenMM takes from 1 to 2,147,483,647"):
        check_duration("length", "10 us").in_steps(0.0005)


# Files of every kind.


def energy(system, positions):
    return system_energy_and_forces(system, positions)[0]


def test_amber_files_are_read(tmp_path):
    (prmtop,), (coordinates,) = package_data.find(EXPLICIT_PRMTOP), package_data.find(EXPLICIT_INPCRD)
    table = Table("system", {"prmtop": str(prmtop), "coordinates": str(coordinates), "cutoff": "8 A"})
    start = read_system(table, tmp_path)
    inpcrd = app.AmberInpcrdFile(str(coordinates))
    system = app.AmberPrmtopFile(str(prmtop), periodicBoxVectors=inpcrd.boxVectors).createSystem(
        app.PME, 0.8 * unit.nanometer, app.HBonds
    )
    assert energy(start.system, start.positions) == energy(
        system, inpcrd.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    )
    assert start.periodic


def test_a_serialised_system_is_read_with_the_box_of_its_state(folder, tmp_path):
    read_start = read(folder, BOXED).start
    context = openmm.Context(
        read_start.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference")
    )
    context.setPeriodicBoxVectors(*(2.2 * np.eye(3)))
    context.setPositions(read_start.positions + 0.001)
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(read_start.system))
    (tmp_path / "state.xml").write_text(openmm.XmlSerializer.serialize(context.getState(positions=True)))
    settings = {"xml": "system.xml", "topology": str(folder / "boxed.pdb"), "coordinates": "state.xml"}
    start = read_system(Table("system", settings), tmp_path)
    assert start.system.getDefaultPeriodicBoxVectors()[0][0]._value == 2.2
    np.testing.assert_allclose(start.positions, read_start.positions + 0.001, atol=1e-15)


@pytest.mark.slow
def test_charmm_files_are_read(tmp_path):
    names = (
        ("ala2_charmmgui.psf", "db95ff71f8ac2963f3c28f293db2d851dc110504d361ceeca7742c24b5ffd29e"),
        ("ala2_charmmgui.crd", "b8015e188b23cc4dbc9a09858dfad8dce7adf76941addfa2096ff8d90f8ff6c8"),
        ("toppar/par_all36_prot.prm", "b11af33ff8f052bbbd70e94b5b49c7e9b2588cea4dc37ef8fa12da9f258b39b6"),
        ("toppar/toppar_water_ions.str", "dc00380cd8696aa89d98821dee31887bbf1d1af5d3ed06834f56ecbe239baa1e"),
    )
    files = [PackageFile("parmed", "4.3.1", f"examples/charmm/{name}", checksum) for name, checksum in names]
    psf, crd, *parameters = map(str, package_data.find(*files))
    settings = {"psf": psf, "coordinates": crd, "parameters": parameters, "box": [3.0, 3.0, 3.0]}
    start = read_system(Table("system", settings), tmp_path)
    assert start.periodic
    assert len(start.positions) == start.topology.getNumAtoms() > 1900
    with pytest.raises(InputFileError, match="neither psf nor coordinates have a box: give box"):
        read_system(Table("system", {key: value for key, value in settings.items() if key != "box"}), tmp_path)


GROMACS = """\
[ defaults ]
1 2 yes 0.5 0.8333
[ atomtypes ]
OW 8 15.999 0.0 A 0.315 0.636
HW 1 1.008 0.0 A 1.0 0.0
[ moleculetype ]
SOL 2
[ atoms ]
1 OW 1 SOL OW 1 -0.834 15.999
2 HW 1 SOL HW1 1 0.417 1.008
3 HW 1 SOL HW2 1 0.417 1.008
[ settles ]
1 1 0.09572 0.15139
[ exclusions ]
1 2 3
2 1 3
3 1 2
[ system ]
waters
[ molecules ]
SOL 2
"""


def test_gromacs_files_are_read(folder, tmp_path):
    (tmp_path / "waters.top").write_text(GROMACS)
    settings = {"top": "waters.top", "coordinates": str(folder / "boxed.pdb"), "cutoff": 0.8}
    start = read_system(Table("system", settings), tmp_path)
    assert start.periodic
    assert [residue.name for residue in start.topology.residues()] == ["HOH", "HOH"]
    with pytest.raises(InputFileError, match="the coordinates have no box"):
        read_system(Table("system", {**settings, "coordinates": str(folder / "waters.pdb")}), tmp_path)


def test_files_of_different_systems_are_refused(folder, tmp_path):
    (tmp_path / "waters.top").write_text(GROMACS.removesuffix("SOL 2\n") + "SOL 3\n")
    settings = {"top": "waters.top", "coordinates": str(folder / "boxed.pdb"), "cutoff": 0.8}
    with pytest.raises(InputFileError, match="the topology has 9 atoms, the System 9 particles and the coordinates 6"):
        read_system(Table("system", settings), tmp_path)


# Levels and regions.


def hamiltonian(folder, **tables):
    content = {**{key: RUN[key] for key in ("system", "region", "term")}, **tables}
    start = read_system(Table("system", content["system"]), folder)
    mixed = read_hamiltonian(Table("", content), start, folder)
    return mixed.hamiltonian


def test_terms_are_those_of_the_hamiltonian(folder):
    terms = [
        {"method": "force field", "coefficient": "1-lambda_qm"},
        {"method": "hf", "basis": "sto-3g", "coefficient": "lambda_qm", "name": "qm", "grid_level": 2},
    ]
    system = {**RUN["system"], "flexible_constraints": True}
    found = hamiltonian(folder, system=system, term=terms, parameters={"lambda_qm": 0.25})
    assert found.parameters == {"lambda_qm": 0.25}
    assert found.term_names() == ("water/FF", "qm")
    assert found.terms[1].potential.grid_level == 2


def test_a_correction_shares_the_potential_and_may_be_on_a_region_inside(folder):
    regions = {"both": {"select": "all", "charge": 0}, "water": {"site": "site.toml"}}
    correct = {"method": "hf", "basis": "sto-3g", "region": "water"}
    found = hamiltonian(folder, region=regions, term=[{"region": "both", "method": "gfn2-xtb", "correct": correct}])
    assert found.term_names() == ("both/XTB", "water/QM", "water/-XTB")
    assert found.terms[0].potential is found.terms[2].potential
    assert [len(term.region) for term in found.terms] == [6, 3, 3]


def test_a_model_file_is_a_level(folder):
    import torch

    class Zero(torch.nn.Module):
        def forward(self, positions):
            return (positions**2).sum() * 0.0

    path = folder / "model.pt"
    MLPotential(Zero(), elements=["H", "O"]).save(path)
    term = {"model": "model.pt", "trust_code": True, "embedding": "mechanical"}
    assert hamiltonian(folder, term=[term]).term_names() == ("water/ML",)


def test_excited_states_are_a_table(folder):
    level = {"method": "hf", "basis": "sto-3g", "excited": {"kind": "TDA", "n_states": 2}, "state": 1}
    (term,) = hamiltonian(folder, term=[level]).terms
    assert term.potential.excited.n_states == 2


def test_one_region_may_stand_in_a_table_with_its_name(folder):
    region = {"name": "first", "select": "resid 0", "charge": "auto"}
    assert hamiltonian(folder, region=region).term_names() == ("first/XTB",)


def test_the_multiplicity_of_a_site_can_be_given(folder):
    region = {"iron": {"site": "site.toml", "multiplicity": 3}}
    (term,) = hamiltonian(folder, region=region).terms
    assert term.region.multiplicity == 3
