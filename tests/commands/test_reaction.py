"""The commands of a reaction: HCN -> HNC from a file, compared with the functions, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm.commands import reaction
from qmmlmm.commands.main import main
from qmmlmm.commands.reaction_input import read_reaction
from qmmlmm.commands.reaction_results import ResultFolder
from qmmlmm.errors import QmmlmmWarning
from qmmlmm.reactions import ReactionPath, Structure, eyring_rate, frequencies, optimise, saddle_point, scan
from qmmlmm.sampling import Combination, Distance
from tests.commands.hydrogen_cyanide import MOLECULE, START
from tests.commands.waters import write_waters
from tests.reactions.molecules import HYDROGEN_CYANIDE, bonded

# The angle between two images of a molecule that becomes linear, in geomeTRIC.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in arccos:RuntimeWarning")

STIFF = 2e6
FILE = (
    MOLECULE
    + """
[moving]
max_steps = 100

[scan]
variable = "xi"
start = "-0.3 A"
stop = -0.006
steps = 4
force_constant = 2e6
both_ways = true

[frequencies]
temperature = 310.0

[single_points]
method = "gfn1-xtb"
"""
)
XI = Combination([(1.0, Distance(0, 2)), (-1.0, Distance(1, 2))])
NUMERICAL = 1e-6
"""kJ/mol: the same calculation once more."""


def write_case(folder):
    """Write the file and what it names; return its path."""
    topology, system = bonded(HYDROGEN_CYANIDE)
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    with (folder / "molecule.pdb").open("w") as file:
        app.PDBFile.writeFile(topology, START * unit.nanometer, file)
    (folder / "reaction.toml").write_text(FILE)
    return folder / "reaction.toml"


@pytest.fixture
def file(tmp_path):
    """A file of which nothing has run."""
    return write_case(tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """All commands one after another on one file, their records, and the results of the functions."""
    path = write_case(tmp_path_factory.mktemp("reaction"))
    commands = ("scan", "saddle", "optimise", "frequencies")
    assert [main([command, str(path)]) for command in commands] == [0, 0, 0, 0]
    folder = path.parent / "results"
    records = {command: json.loads((folder / command / "record.json").read_text()) for command in commands}
    mixed = read_reaction(path).mixed
    # The function refuses a folder of another scan, and computes nothing that is there.
    centres = np.linspace(-0.03, -0.006, 5)
    way = scan(mixed, XI, START, centres=centres, force_constant=STIFF, both_ways=True, directory=folder / "scan")
    return SimpleNamespace(
        path=path,
        folder=folder,
        results={command: record["results"] for command, record in records.items()},
        records=records,
        way=way,
        saddle=saddle_point(mixed, way.highest),
        minimum=optimise(mixed, START),
        mixed=mixed,
    )


def test_the_scan_is_that_of_the_function(done):
    found = done.results["scan"]
    assert abs(found["barrier (kJ/mol)"] - done.way.barrier._value) < NUMERICAL
    assert abs(found["hysteresis (kJ/mol)"] - done.way.hysteresis._value) < NUMERICAL
    assert found["evaluations"] == done.way.evaluations
    assert "note" not in found
    names = {"scan.csv", "scan.pdb", "scan.xyz", "scan.png", "highest.pdb", "single_points.csv", "single_points.png"}
    assert names <= {path.name for path in (done.folder / "scan").iterdir()}


def test_the_saddle_starts_at_the_top_of_the_scan_and_is_that_of_the_function(done):
    found = done.results["saddle"]
    assert abs(found["energy (kJ/mol)"] - done.saddle.energy._value) < NUMERICAL
    assert (found["negative modes"], found["evaluations"]) == (1, done.saddle.evaluations)
    assert found["start"] == "the top of the scan"
    assert np.allclose(found["lowest modes (1/cm)"], done.saddle.wave_numbers[:3], atol=1e-3)
    names = {"saddle.pdb", "saddle.xyz", "saddle.csv", "mode.pdb", "frequencies.csv"}
    assert names <= {path.name for path in (done.folder / "saddle").iterdir()}


def test_frequencies_are_those_of_minimum_and_saddle_point_with_the_rate_between_them(done):
    found = done.results["frequencies"]
    first = frequencies(done.mixed, done.minimum).thermochemistry(310.0)
    last = done.saddle.frequencies.thermochemistry(310.0)
    free = done.saddle.energy - done.minimum.energy + last.free_energy - first.free_energy
    assert abs(found["minimum: zero-point energy (kJ/mol)"] - first.zero_point_energy._value) < 1e-4
    assert (found["minimum: negative modes"], found["saddle: negative modes"]) == (0, 1)
    assert abs(found["free energy of activation, harmonic (kJ/mol)"] - free._value) < 1e-4
    rate = eyring_rate(free, 310.0, negative_wave_number=done.saddle.wave_numbers[0])
    assert found["rate with tunnelling (1/s)"] == pytest.approx(rate._value, rel=1e-4)
    assert len((done.folder / "frequencies" / "minimum.csv").read_text().splitlines()) == 1 + 4


def test_a_record_has_the_file_and_the_versions(done):
    record = done.records["optimise"]
    assert record["input"]["scan"]["variable"] == "xi"
    assert "openmm" in json.dumps(record["versions"]).lower()
    assert abs(record["results"]["energy (kJ/mol)"] - done.minimum.energy._value) < NUMERICAL


def test_a_command_that_has_ended_computes_nothing_again(done, capsys, monkeypatch):
    def refused(*arguments, **others):
        raise AssertionError("it is computed again")

    for name in ("optimise", "saddle_point"):
        monkeypatch.setattr(f"qmmlmm.commands.reaction.{name}", refused)
    assert main(["optimise", str(done.path)]) == 0
    assert main(["saddle", str(done.path)]) == 0
    shown = capsys.readouterr().out
    assert "energy (kJ/mol)" in shown
    assert "negative modes" in shown


def test_a_scan_keeps_its_start_when_a_minimum_is_found_later(done, capsys):
    assert main(["scan", str(done.path)]) == 0
    assert "start: the coordinates of [system]" in capsys.readouterr().out


def test_an_atom_that_is_held_stays_and_does_not_vibrate(file):
    file.write_text(FILE.replace("max_steps = 100", "hold = [0]"))
    assert [main([command, str(file)]) for command in ("optimise", "frequencies")] == [0, 0]
    folder = file.parent / "results"
    found = app.PDBFile(str(folder / "optimise" / "optimum.pdb")).positions.value_in_unit(unit.nanometer)
    assert np.allclose(found[0], START[0], atol=1e-4)
    assert not np.allclose(found[2], START[2], atol=1e-2)
    assert len((folder / "frequencies" / "minimum.csv").read_text().splitlines()) == 1 + 6


IN_A_BOX = """
[system]
pdb = "waters.pdb"
force_field = ["amber14/tip3p.xml"]
constraints = "none"
rigid_water = false

[region]
atoms = [0, 1, 2]
charge = 0

[[term]]
method = "force field"

[platform]
name = "Reference"
"""


def test_surroundings_are_relaxed_and_a_box_is_kept_between_commands(tmp_path, capsys):
    write_waters(tmp_path / "waters.pdb", box=2.0)
    path = tmp_path / "water.toml"
    path.write_text(IN_A_BOX)
    assert [main([command, str(path)]) for command in ("optimise", "frequencies")] == [0, 0]
    assert "6 particles: 3 move in internal coordinates, 0 are held, 3 are relaxed" in capsys.readouterr().out
    given = read_reaction(path)
    assert given.mixed.system.getNumConstraints() == 0
    minimum = optimise(given.mixed, given.start.positions, platform="Reference")
    kept = ResultFolder(given, "optimise").structure()
    assert np.array_equal(kept.box_vectors._value, minimum.box_vectors._value)
    assert np.allclose(kept.positions._value, minimum.positions._value, atol=1e-9)
    assert (kept.atoms, kept.hold) == (minimum.atoms, minimum.hold)
    path.write_text(IN_A_BOX.replace("rigid_water", "cutoff = 0.8\nrigid_water"))
    assert main(["frequencies", str(path)]) == 1
    assert "was computed with another [system] than" in capsys.readouterr().err
    # In surroundings all modes are there.
    assert len((tmp_path / "water_run" / "frequencies" / "minimum.csv").read_text().splitlines()) == 1 + 9


def test_a_result_that_is_not_converged_is_the_exit_status(file, capsys):
    file.write_text(FILE.replace("max_steps = 100", "max_steps = 1"))
    with pytest.warns(QmmlmmWarning, match="no minimum after"):
        assert main(["optimise", str(file)]) == 1
    assert re.search(r"^converged +no$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(("energies", "noted"), [([0, 3, 1], False), ([0, 3, 4], True), ([4, 3, 0], True)])
def test_a_path_that_is_highest_at_its_end_has_a_note(energies, noted):
    structures = tuple(Structure(None, None, None, energy * unit.kilojoule_per_mole) for energy in energies)
    found = reaction._of_path(ReactionPath(None, structures, np.arange(3.0), "Place"), "the scan")
    assert found["barrier (kJ/mol)"] == energies[1] - energies[0]
    assert ("note" in found) is noted


def test_results_of_another_level_are_no_start(done, tmp_path, capsys):
    shutil.copytree(done.path.parent, tmp_path / "copy")
    path = tmp_path / "copy" / "reaction.toml"
    path.write_text(FILE.replace('"gfn2-xtb"', '"gfn1-xtb"'))
    assert main(["frequencies", str(path)]) == 1
    assert "was computed with another [term] than" in capsys.readouterr().err
    path.write_text(FILE.replace("max_steps = 100", "hold = [0]"))
    assert main(["frequencies", str(path)]) == 1
    assert "was computed with another [moving] than" in capsys.readouterr().err


def test_a_damaged_result_is_named(done, tmp_path, capsys):
    shutil.copytree(done.path.parent, tmp_path / "copy")
    path = tmp_path / "copy" / "reaction.toml"
    arrays = path.parent / "results" / "saddle" / "structure.npz"
    arrays.write_bytes(arrays.read_bytes()[:-9])
    assert main(["frequencies", str(path)]) == 1
    assert "structure.npz is missing or damaged; delete" in capsys.readouterr().err
    (arrays.parent / "record.json").write_text("{")
    assert main(["frequencies", str(path)]) == 1
    assert "record.json is damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_compute_the_same_frequencies(done, tmp_path):
    shutil.copytree(done.path.parent, tmp_path / "copy")
    path = tmp_path / "copy" / "reaction.toml"
    folder = path.parent / "results" / "frequencies"
    shutil.rmtree(folder)
    path.write_text("workers = 2\n" + FILE)
    assert main(["frequencies", str(path)]) == 0
    found = json.loads((folder / "record.json").read_text())["results"]
    name = "minimum: zero-point energy (kJ/mol)"
    assert abs(found[name] - done.results["frequencies"][name]) < 1e-4


@pytest.mark.slow
def test_a_path_starts_from_the_scan_and_the_saddle_from_the_path(done, tmp_path, capsys):
    shutil.copytree(done.path.parent, tmp_path / "copy")
    path = tmp_path / "copy" / "reaction.toml"
    shutil.rmtree(path.parent / "results" / "saddle")
    path.write_text(FILE.replace("[frequencies]", "[path]\nimages = 5\nlargest_force = 0.1\n[frequencies]"))
    assert main(["path", str(path)]) == 0
    found = json.loads((path.parent / "results" / "path" / "record.json").read_text())["results"]
    assert abs(found["barrier (kJ/mol)"] - done.way.barrier._value) < 5.0
    assert "force across" in capsys.readouterr().out
    assert main(["saddle", str(path)]) == 0
    assert "start: the top of the path" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the band is not converged")
def test_a_path_between_two_structures_optimises_them_once(file, capsys):
    topology, _ = bonded(HYDROGEN_CYANIDE)
    for name, angstrom in (("reactant", [-0.9, 0.5, 0.0]), ("product", [1.9, 0.6, 0.0])):
        positions = np.array([[0.0, 0.0, 0.0], [1.17, 0.0, 0.0], angstrom])
        with (file.parent / f"{name}.pdb").open("w") as target:
            app.PDBFile.writeFile(topology, positions * unit.angstrom, target)
    ends = '[path]\nreactant = "reactant.pdb"\nproduct = "product.pdb"\nimages = 5\nmax_cycles = 3\n[frequencies]'
    file.write_text(FILE.replace("[frequencies]", ends))
    for _ in range(2):
        main(["path", str(file)])
    shown = capsys.readouterr().out
    assert shown.count("optimisation of the product") == 1
    found = json.loads((file.parent / "results" / "path" / "record.json").read_text())["results"]
    assert found["barrier (kJ/mol)"] > 0.0
    assert (file.parent / "results" / "product" / "product.pdb").exists()


GRID = """
[[variable]]
name = "near"
distance = [0, 2]

[[variable]]
name = "far"
distance = [1, 2]

[scan]
variable = "near"
centres = [0.108, 0.118, 0.13]
force_constant = 2e6

[scan.second]
variable = "far"
start = 0.16
stop = "1.4 A"
steps = 1
force_constant = 2e6

[umbrella]
variable = "far"
force_constant = 5e4

[dynamics]
length = "1 ps"

[frequencies]
"""


def test_a_second_variable_makes_a_grid_with_its_map(file, capsys):
    head, tail = FILE.split("[scan]")
    file.write_text(head + GRID + tail.split("[frequencies]")[1])
    assert main(["scan", str(file), "--check"]) == 0
    assert "3 x 2 points" in capsys.readouterr().out
    assert main(["scan", str(file)]) == 0
    folder = file.parent / "results" / "scan"
    given = read_reaction(file)
    centres = tuple(axis.centres for axis in given.scan.axes)
    assert centres[0] == (0.108, 0.118, 0.13)
    assert centres[1] == pytest.approx((0.16, 0.14))
    known = scan(
        given.mixed, (Distance(0, 2), Distance(1, 2)), START, centres=centres, force_constant=(STIFF, STIFF),
        max_steps=100, directory=folder,
    )  # fmt: skip
    found = json.loads((folder / "record.json").read_text())["results"]
    energies = known.energies._value
    first, last = known.minima()
    if first == last:
        first, last = (0, 0), (2, 1)
    assert abs(found["reaction energy (kJ/mol)"] - (energies[last] - energies[first])) < NUMERICAL
    assert {"scan.csv", "scan.png", "highest.pdb", "single_points.csv"} <= {path.name for path in folder.iterdir()}
    assert len((folder / "scan.csv").read_text().splitlines()) == 7
    # Windows may take the centres of either variable.
    assert given.umbrella.centres == pytest.approx((0.16, 0.14))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('variable = "far"\nstart', 'variable = "near"\nstart', "[scan.second] has the variable of [scan], 'near'"),
        ("steps = 1", "steps = 0", "[scan.second] steps is a whole number"),
        ("steps = 1", "steps = 9999", "[scan] has 10,000 points at most, got 30,000"),
        ("centres = [0.108, 0.118, 0.13]", "centres = [0.118]", "[scan.second] have two centres or more each"),
        ("steps = 1", "step = 1", "[scan.second] has the unknown key 'step'"),
        ("steps = 1", "steps = 1\nboth_ways = true", "[scan.second] has the unknown key 'both_ways'"),
        ('variable = "far"\nstart', 'variable = "fat"\nstart', "[scan.second] names the variable 'fat'"),
    ],
)
def test_what_is_wrong_with_the_second_variable_is_named(file, capsys, old, new, text):
    head, tail = FILE.split("[scan]")
    assert old in GRID
    file.write_text(head + GRID.replace(old, new) + tail.split("[frequencies]")[1])
    assert main(["scan", str(file), "--check"]) == 1
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("command", ["optimise", "scan", "path", "saddle", "frequencies"])
def test_a_file_is_checked_and_nothing_is_run(file, capsys, command):
    assert main([command, "--check", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "3 particles: 3 move in internal coordinates, 0 are held, 0 are relaxed" in shown
    assert f"can run: qmmlmm {command}" in shown
    assert not (file.parent / "results").exists()


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("path", "a path starts from a scan or two structures: run qmmlmm scan"),
        ("frequencies", "run qmmlmm optimise"),
    ],
)
def test_a_command_whose_start_is_missing_says_what_runs_first(file, capsys, command, text):
    assert main([command, str(file)]) == 1
    assert text in capsys.readouterr().err


def test_a_scan_needs_its_table(file, capsys):
    start, _, rest = FILE.partition("[scan]")
    file.write_text(start + "[frequencies]" + rest.partition("[frequencies]")[2])
    assert main(["scan", str(file)]) == 1
    assert "the file lacks [scan]: variable = the name of a [[variable]]" in capsys.readouterr().err


def test_ends_of_a_path_are_of_the_same_system(file, capsys):
    write_waters(file.parent / "waters.pdb")
    (file.parent / "text.pdb").write_text("ATOM      1\n")
    for name, text in (
        ("waters.pdb", "[path] product: waters.pdb has 6 atoms and the System 3"),
        ("text.pdb", "[path] product: OpenMM cannot use coordinates"),
    ):
        ends = f'[path]\nreactant = "molecule.pdb"\nproduct = "{name}"\n[frequencies]'
        file.write_text(FILE.replace("[frequencies]", ends))
        assert main(["path", str(file), "--check"]) == 1
        assert text in capsys.readouterr().err


WRONG = [
    ("[moving]", "[movin]", "unknown key 'movin'; known are"),
    ("[moving]", "[movin]", "Nearest names: moving."),
    ("max_steps = 100", "max_step = 100", "[moving] has the unknown key 'max_step'"),
    ("max_steps = 100", "max_steps = 0", "[moving] max_steps is a whole number"),
    ("max_steps = 100", 'coordinates = "polar"', "[moving] coordinates are one of tric"),
    ("max_steps = 100", "tolerance = 0", "[moving] tolerance is a number above"),
    ("max_steps = 100", 'atoms = ""', "[moving] atoms is a text"),
    ("max_steps = 100", "atoms = []", "[moving] atoms has no atom"),
    ("max_steps = 100", "atoms = [0]", "[moving] two or more atoms move on a surface, got 1"),
    ("max_steps = 100", "hold = [0, 1, 2]", "[moving] hold names all the atoms that move"),
    ("max_steps = 100", "hold = [0, 9]", "[moving] hold has atom indices from 0 to 2, got 9"),
    ("max_steps = 100", "relax = 1", "[moving] relax is True or False"),
    ("max_steps = 100", "thresholds = {energy = -1}", "[moving.thresholds] energy is a number above zero"),
    ("max_steps = 100", "thresholds = {gradient = 1}", "[moving.thresholds] has the unknown key 'gradient'"),
    ("max_steps = 100", "atoms = [0, 1]\nrelax = false", "[scan] a restrained variable depends on the atoms 2"),
    ('variable = "xi"', 'variable = "chi"', "[scan] names the variable 'chi'; there are xi."),
    ('variable = "xi"', "", "[scan] lacks 'variable'"),
    ("steps = 4", "steps = 0", "[scan] steps is a whole number"),
    ("steps = 4", "", "[scan] has centres, or start, stop and steps; got start, stop"),
    ("steps = 4", "steps = 4\ncentres = [0.1]", "[scan] has centres and start, stop, steps; leave one of both out"),
    ("stop = -0.006", "stop = -0.03", "[scan] has one centre or more, all of them different"),
    ("stop = -0.006", 'stop = "1 deg"', "[scan] stop"),
    ("force_constant = 2e6", "force_constant = -1", "[scan] force_constant is a number above"),
    ("both_ways = true", "both_ways = 1", "[scan] both_ways is True or False"),
    ("[frequencies]", "[path]\nimages = 4\n[frequencies]", "[path] images is a whole number from 5 to 99"),
    ("[frequencies]", '[path]\nreactant = "a.pdb"\n[frequencies]', "[path] has one of reactant and product"),
    (
        "[frequencies]",
        '[path]\nreactant = "a.pdb"\nproduct = "b.pdb"\n[frequencies]',
        "[path] reactant: there is no file",
    ),
    ("[frequencies]", "[path]\nlargest_force = 0\n[frequencies]", "[path] largest_force is a number above"),
    ("temperature = 310.0", "temperature = 0", "[frequencies] temperature is a number above"),
    ("temperature = 310.0", "[platform]\nname = 'Abacus'", "[platform] name is one of"),
    ('method = "gfn1-xtb"', 'method = "gfn3-xtb"', "Nearest names: gfn2-xtb"),
    ('method = "gfn1-xtb"', 'method = "gfn1-xtb"\nterm = "other"', "[single_points] there is no term 'other'"),
    ('directory = "results"', 'directory = "molecule.pdb"', "is a file; name a folder"),
    ('directory = "results"', "workers = 0", "workers is a whole number of 1 or more"),
    ('[[term]]\nmethod = "gfn2-xtb"\nembedding = "mechanical"', "", "[region] and no [[term]]"),
]


@pytest.mark.parametrize(("old", "new", "text"), WRONG, ids=[f"{k}" for k in range(len(WRONG))])
def test_what_is_wrong_in_a_file_is_named(file, capsys, old, new, text):
    content = file.read_text()
    assert old in content
    file.write_text(content.replace(old, new))
    assert main(["optimise", str(file), "--check"]) == 1
    assert text in capsys.readouterr().err
