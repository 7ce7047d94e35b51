"""``qmmlmm umbrella`` and ``profile``: windows of HCN -> HNC from a file, compared with the functions."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import ase.io
import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm.commands.main import main
from qmmlmm.commands.reaction_input import read_reaction
from qmmlmm.commands.reaction_windows import WindowSimulation
from qmmlmm.free_energy import umbrella_profile
from qmmlmm.runs.checkpoint import load_state
from qmmlmm.runs.variable_reporter import read_variable_table
from qmmlmm.sampling import MultipleTimeStepIntegrator
from tests.commands.hydrogen_cyanide import MOLECULE, START
from tests.commands.waters import write_waters
from tests.reactions.molecules import HYDROGEN_CYANIDE, bonded

# The angle between two images of a molecule that becomes linear, in geomeTRIC; windows of a test are short.
pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value encountered in arccos:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:windows have fewer than"),
    pytest.mark.filterwarnings("ignore:.*bins have fewer than 10 effective samples"),
]

CENTRES = np.linspace(-0.03, -0.006, 4)
STIFF = 2e5
FILE = (
    MOLECULE
    + """
[scan]
variable = "xi"
start = "-0.3 A"
stop = -0.006
steps = 3
force_constant = 2e6

[umbrella]
variable = "xi"
force_constant = 2e5
equilibration = 20
sample = 2
frames = 8
checkpoint = 100
pull = 40

[dynamics]
length = "40 fs"
friction = 20.0
seed = 5

[profile]
bins = 6
reweight_every = 1

[single_points]
method = "gfn1-xtb"

[platform]
name = "Reference"
"""
)


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
    """A scan, windows from it, and their profile with two levels. The status says that the windows are short."""
    path = write_case(tmp_path_factory.mktemp("windows"))
    assert [main([command, str(path)]) for command in ("scan", "umbrella", "profile")] == [0, 1, 1]
    folder = path.parent / "results"
    results = {
        name: json.loads((folder / name / "record.json").read_text())["results"] for name in ("umbrella", "profile")
    }
    samples = [read_variable_table(folder / "umbrella" / f"{k:03d}" / "variable.csv") for k in range(len(CENTRES))]
    return SimpleNamespace(path=path, folder=folder, results=results, samples=samples)


def test_windows_have_the_centres_of_the_scan_and_start_at_its_structures(done):
    umbrella = json.loads((done.folder / "umbrella" / "umbrella.json").read_text())
    assert np.allclose(umbrella["centres"], CENTRES)
    assert done.results["umbrella"]["start"] == "the scan"
    for k in range(len(CENTRES)):
        with np.load(done.folder / "umbrella" / f"{k:03d}" / "start.npz") as file:
            positions = file["positions"]
        found = np.linalg.norm(positions[2] - positions[0]) - np.linalg.norm(positions[2] - positions[1])
        assert found == pytest.approx(CENTRES[k], abs=2e-3)


def test_the_profile_is_that_of_the_samples_after_equilibration(done):
    kept = [values[steps > 20] for steps, (values,) in ((s, c.values()) for s, c in done.samples)]
    assert [len(values) for values in kept] == [40] * len(CENTRES)
    wanted = umbrella_profile(kept, CENTRES, np.full(4, STIFF), 300.0, bins=6)
    table = np.loadtxt(done.folder / "profile" / "profile.csv", delimiter=",")
    assert np.allclose(table[:, 1], wanted.free_energy._value, atol=1e-6)
    assert np.allclose(table[:, 2], wanted.error._value, atol=1e-6)
    overlap = np.loadtxt(done.folder / "profile" / "overlap.csv", delimiter=",")
    assert np.allclose(overlap[:, 1:], wanted.overlap, atol=1e-7)
    assert done.results["profile"]["smallest overlap of neighbours"] == pytest.approx(wanted.smallest_overlap)


def test_each_command_leaves_a_record_tables_structures_and_a_figure(done):
    names = {path.name for path in (done.folder / "umbrella").iterdir()}
    assert {
        "record.json",
        "profile.csv",
        "overlap.csv",
        "profile.png",
        "windows.pdb",
        "windows.xyz",
        "000",
        "003",
    } <= names
    names = {path.name for path in (done.folder / "profile").iterdir()}
    assert {"record.json", "profile.csv", "overlap.csv", "profile.png", "reweighted.csv"} <= names
    models = app.PDBFile(str(done.folder / "umbrella" / "windows.pdb"))
    frames = ase.io.read(done.folder / "umbrella" / "windows.xyz", ":")
    assert [frame.info["centre"] for frame in frames] == pytest.approx(CENTRES)
    shown = models.getPositions(asNumpy=True, frame=3).value_in_unit(unit.angstrom)
    assert np.allclose(frames[3].positions, shown, atol=1e-3)
    assert models.getNumFrames() == len(CENTRES)
    last = load_state(done.folder / "umbrella" / "002").getPositions(asNumpy=True)._value
    assert np.allclose(models.getPositions(asNumpy=True, frame=2)._value, last, atol=1e-3)


def test_the_other_level_is_that_of_its_energies_in_the_frames(done):
    (table,) = (done.folder / "umbrella" / "001").glob("energies_gfn1-xtb_*.csv")
    rows = np.loadtxt(table, delimiter=",")
    assert len(rows) == 10  # a frame every 8 steps after the first 20 of 100
    found = np.loadtxt(done.folder / "profile" / "reweighted.csv", delimiter=",")
    plain = np.loadtxt(done.folder / "profile" / "profile.csv", delimiter=",")
    assert not np.allclose(found[:, 1], plain[:, 1], atol=0.1, equal_nan=True)
    assert "fewest effective samples of a bin with gfn1-xtb" in done.results["profile"]


def test_windows_that_are_done_run_no_step_again(done, capsys, monkeypatch):
    def refused(*arguments):
        raise AssertionError("it runs again")

    monkeypatch.setattr("qmmlmm.free_energy.umbrella_sampling.run_window", refused)
    before = (done.folder / "umbrella" / "001" / "variable.csv").read_bytes()
    assert main(["umbrella", str(done.path)]) == 1
    assert (done.folder / "umbrella" / "001" / "variable.csv").read_bytes() == before
    shown = capsys.readouterr().out
    assert "4 windows of 0.04 ps after 0.01 ps, 400 steps of 0.5 fs in all, 300 K, constant volume" in shown
    assert re.search(r"^converged +no$", shown, re.MULTILINE)


def test_windows_of_the_same_folder_have_the_same_settings(done, tmp_path, capsys):
    shutil.copytree(done.path.parent, tmp_path / "copy")
    path = tmp_path / "copy" / "reaction.toml"
    path.write_text(FILE.replace("force_constant = 2e5", "force_constant = [1e5, 1e5, 1e5, 2e5]"))
    assert main(["umbrella", str(path)]) == 1
    assert "windows with other settings: force_constants" in capsys.readouterr().err


SHORT = FILE.replace('length = "40 fs"', "length = 40").replace("reweight_every = 1", "")
PULLED = SHORT.replace('[umbrella]\nvariable = "xi"', '[umbrella]\nvariable = "xi"\ncentres = [-0.006, -0.012]')


def test_without_a_scan_one_structure_is_pulled(file, capsys):
    file.write_text(PULLED)
    assert main(["umbrella", str(file)]) == 1
    assert "start: the coordinates of [system]" in capsys.readouterr().out
    with np.load(file.parent / "results" / "umbrella" / "001" / "start.npz") as start:
        assert not np.allclose(start["positions"], START, atol=1e-3)
    file.write_text(PULLED.replace('variable = "xi"\ncentres', 'variable = "xi"\nstarts = "scan"\ncentres'))
    assert main(["umbrella", str(file)]) == 1
    assert "starts from the scan, and there is none: run qmmlmm scan" in capsys.readouterr().err


def test_held_atoms_do_not_move_in_windows(file):
    file.write_text(PULLED.replace("[scan]", "[moving]\nhold = [1]\n\n[scan]"))
    assert main(["umbrella", str(file)]) == 1
    for k in (0, 1):
        state = load_state(file.parent / "results" / "umbrella" / f"{k:03d}")
        moved = np.abs(state.getPositions(asNumpy=True)._value - START)
        assert moved[1].max() < 1e-9
        assert moved[0].max() > 1e-4


IN_A_BOX = """
[system]
pdb = "waters.pdb"
force_field = ["amber14/tip3p.xml"]

[region.water]
atoms = [0, 1, 2]
charge = 0

[[term]]
method = "gfn2-xtb"
correct = {method = "gfn1-xtb"}

[[variable]]
name = "bond"
distance = [0, 1]

[moving]
relax = false

[umbrella]
variable = "bond"
start = "0.9 A"
stop = "1.0 A"
windows = 2
force_constant = 1e5
equilibration = 5
sample = 1
frames = 5
pull = 4

[dynamics]
length = 10
integrator = "multiple-time-step"
correct_every = 2

[platform]
name = "Reference"
"""


def test_multiple_time_steps_in_a_box_whose_other_molecules_stay(tmp_path):
    write_waters(tmp_path / "waters.pdb", box=2.0)
    path = tmp_path / "water.toml"
    path.write_text(IN_A_BOX)
    given = read_reaction(path)
    made = WindowSimulation(given.mixed, given.umbrella.dynamics, "Reference")
    _, simulation = made(given.umbrella.variable.umbrella("umbrella", True))
    assert isinstance(simulation.integrator, MultipleTimeStepIntegrator)
    assert main(["umbrella", str(path)]) == 1
    record = json.loads((tmp_path / "water_run" / "umbrella" / "000" / "run.json").read_text())
    assert record["first_step"] == 0
    state = load_state(tmp_path / "water_run" / "umbrella" / "001")
    moved = np.abs(state.getPositions(asNumpy=True)._value - given.start.positions)
    assert moved[3:].max() < 1e-9
    assert moved[:3].max() > 1e-4


SCRIPT = "import sys; from qmmlmm.commands.main import main; sys.exit(main(['umbrella', sys.argv[1]]))"
LONG = PULLED.replace("length = 40", "length = 800")


@pytest.mark.slow
def test_windows_that_were_killed_continue(tmp_path):
    tables = []
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        path = write_case(tmp_path / name)
        path.write_text(LONG)
        table = path.parent / "results" / "umbrella" / "000" / "variable.csv"
        if name == "killed":
            process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)])
            deadline = time.monotonic() + 60.0
            while time.monotonic() < deadline and not (table.exists() and table.stat().st_size > 3000):
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        main(["umbrella", str(path)])
        tables.append(np.loadtxt(table, delimiter=","))
    assert len(tables[0]) == 410
    assert np.array_equal(tables[0][:, 0], tables[1][:, 0])
    # Up to the last checkpoint it is the same trajectory; the SCF begins anew there.
    assert np.array_equal(tables[0][:50], tables[1][:50])


@pytest.mark.slow
def test_two_processes_run_the_same_windows(done, tmp_path):
    (tmp_path / "two").mkdir()
    path = write_case(tmp_path / "two")
    shutil.copytree(done.folder / "scan", path.parent / "results" / "scan")
    path.write_text("workers = 2\n" + FILE)
    assert main(["umbrella", str(path)]) == 1
    for k, (_, columns) in enumerate(done.samples):
        found = read_variable_table(path.parent / "results" / "umbrella" / f"{k:03d}" / "variable.csv")[1]
        assert np.allclose(*(next(iter(c.values())) for c in (found, columns)), atol=1e-6)


@pytest.mark.parametrize("command", ["umbrella", "profile"])
def test_a_file_is_checked_and_nothing_is_run(file, capsys, command):
    assert main([command, "--check", str(file)]) == 0
    assert f"can run: qmmlmm {command}" in capsys.readouterr().out
    assert not (file.parent / "results").exists()


def test_a_profile_needs_windows(file, capsys):
    assert main(["profile", str(file)]) == 1
    assert "have fewer than ten samples after equilibration" in capsys.readouterr().err
    file.write_text(FILE.partition("[umbrella]")[0])
    assert main(["umbrella", str(file)]) == 1
    assert "the file lacks [umbrella]: variable = the name of a [[variable]]" in capsys.readouterr().err


def test_another_level_needs_its_table(done, tmp_path, capsys):
    shutil.copytree(done.path.parent, tmp_path / "copy")
    path = tmp_path / "copy" / "reaction.toml"
    path.write_text(FILE.replace('[single_points]\nmethod = "gfn1-xtb"\n', ""))
    assert main(["profile", str(path)]) == 1
    assert "[profile] reweight_every needs [single_points]" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(app, "ReplicaExchangeSampler"), reason="OpenMM before 8.6")
def test_windows_of_a_file_exchange(file, capsys):
    text = FILE.replace("[umbrella]", "[umbrella]\nexchange = true").replace("reweight_every = 1\n", "")
    file.write_text("workers = 2\n" + text)
    assert main(["umbrella", str(file), "--check"]) == 1
    assert "[umbrella] exchange runs all windows in one process, and workers = 2" in capsys.readouterr().err
    file.write_text(text)
    main(["umbrella", str(file)])
    folder = file.parent / "results" / "umbrella"
    assert (folder / "exchange.csv").exists()
    assert (folder / "windows.pdb").exists()
    assert "smallest overlap of neighbours" in capsys.readouterr().out


def test_exchange_of_windows_needs_a_new_openmm(file, capsys, monkeypatch):
    monkeypatch.delattr(app, "ReplicaExchangeSampler", raising=False)
    text = FILE.replace("[umbrella]", "[umbrella]\nexchange = true")
    file.write_text(text.replace("reweight_every = 1\n", ""))
    assert main(["umbrella", str(file), "--check"]) == 1
    assert "exchange between windows needs OpenMM 8.6 or newer" in capsys.readouterr().err


UMBRELLA = '[umbrella]\nvariable = "xi"'
WRONG = [
    (UMBRELLA, '[umbrella]\nvariable = "chi"', "[umbrella] names the variable 'chi'; there are xi."),
    (UMBRELLA, "[umbrella]", "[umbrella] lacks 'variable'"),
    (UMBRELLA, UMBRELLA + "\nsteps = 4", "[umbrella] has the unknown key 'steps'"),
    (UMBRELLA, UMBRELLA + "\nstart = 0.1", "[umbrella] has centres, or start, stop and windows; got start"),
    (UMBRELLA, UMBRELLA + "\nstart = 0\nstop = 1\nwindows = 1", "[umbrella] windows is a whole number from 2 to 1000"),
    (UMBRELLA, UMBRELLA + "\nwindows = 4\ncentres = [0.1]", "[umbrella] has centres and windows; leave one of both"),
    (UMBRELLA, UMBRELLA + "\ncentres = 0.1", "[umbrella] centres is a list of numbers"),
    (UMBRELLA, UMBRELLA + "\ncentres = [0.1, 0.1]", "[umbrella] has two centres or more, all of them different"),
    (UMBRELLA, UMBRELLA + '\ncentres = ["1 K", 0.1]', "[umbrella] each of centres"),
    (UMBRELLA, UMBRELLA + '\nstarts = "path"', "[umbrella] starts is one of 'scan', 'positions'"),
    (UMBRELLA, UMBRELLA + "\nexchange = 1", "[umbrella] exchange is True or False"),
    (
        UMBRELLA,
        UMBRELLA + "\nexchange = true",
        "[umbrella] exchange leaves no trajectories, and [profile]",
    ),
    ("force_constant = 2e5", "", "[umbrella] lacks 'force_constant'"),
    ("force_constant = 2e5", "force_constant = 0", "[umbrella] force_constant is a number above zero"),
    ("force_constant = 2e5", "force_constant = [1e5]", "one number, or one for each of 4 windows, got 1"),
    ("frames = 8", "frames = 9", "[umbrella] frames is a multiple of sample, and they are 9 and 2 steps"),
    ("sample = 2", "sample = 0", "[umbrella] sample is a whole number"),
    ("equilibration = 20", "equilibration = -1", "[umbrella] equilibration is a whole number"),
    ('length = "40 fs"', "length = 15", "[dynamics] length is 15 steps: ten samples or more are needed"),
    ('length = "40 fs"', "length = 400\npressure = 1.0", "[dynamics] pressure needs a box, and the System has none"),
    ("seed = 5", 'integrator = "multiple-time-step"\ncorrect_every = 2', "no correction"),
    ('[dynamics]\nlength = "40 fs"\nfriction = 20.0\nseed = 5', "", "[umbrella] needs [dynamics]"),
    ('[scan]\nvariable = "xi"', '[scan]\nvariable = "yi"', "[scan] names the variable 'yi'"),
    ("bins = 6", "bins = 1", "[profile] bins is a whole number"),
    ("bins = 6", "reactant = 0.1", "[profile] has one of reactant and product; give both or none"),
    ("bins = 6", 'reactant = 0.1\nproduct = "1 deg"', "[profile] product"),
    ("reweight_every = 1", "reweight_every = 0", "[profile] reweight_every is a whole number"),
]


@pytest.mark.parametrize(("old", "new", "text"), WRONG, ids=[f"{k}" for k in range(len(WRONG))])
def test_what_is_wrong_in_a_file_is_named(file, capsys, old, new, text):
    assert old in FILE
    file.write_text(FILE.replace(old, new))
    assert main(["umbrella", str(file), "--check"]) == 1
    assert text in capsys.readouterr().err


def test_centres_of_a_scan_of_another_variable_are_none(file, capsys):
    other = '[[variable]]\nname = "bond"\ndistance = [0, 2]\n\n[scan]'
    file.write_text(FILE.replace("[scan]", other).replace(UMBRELLA, '[umbrella]\nvariable = "bond"'))
    assert main(["umbrella", str(file), "--check"]) == 1
    assert "[umbrella] lacks centres, or start, stop and windows" in capsys.readouterr().err


def write_boxed_case(folder):
    """Write the same molecule in a box, with windows at constant pressure from its coordinates; return its path."""
    path = write_case(folder)
    topology, system = bonded(HYDROGEN_CYANIDE)
    (force,) = (force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.6)
    topology.setPeriodicBoxVectors(2.0 * np.eye(3) * unit.nanometer)
    system.setDefaultPeriodicBoxVectors(*(2.0 * np.eye(3)))
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    with (folder / "molecule.pdb").open("w") as file:
        app.PDBFile.writeFile(topology, START * unit.nanometer, file)
    text = FILE.replace("seed = 5", "seed = 5\npressure = 1.0\nbarostat_interval = 10").replace(
        UMBRELLA, UMBRELLA + '\ncentres = [-0.03, -0.025]\nstarts = "positions"'
    )
    path.write_text(text)
    return path


def test_windows_of_a_file_are_at_its_pressure(tmp_path, capsys):
    path = write_boxed_case(tmp_path)
    assert main(["umbrella", str(path), "--check"]) == 0
    assert "300 K, 1 bar" in capsys.readouterr().out
    assert main(["umbrella", str(path)]) == 1  # its windows are short
    boxes = []
    for k in range(2):
        folder = tmp_path / "results" / "umbrella" / f"{k:03d}"
        boxes.append(load_state(folder).getPeriodicBoxVectors(asNumpy=True)._value[0, 0])
    frames = ase.io.read(tmp_path / "results" / "umbrella" / "windows.xyz", ":")
    assert len({2.0, *np.round(boxes, 6)}) == 3
    assert [frame.cell[0, 0] for frame in frames] == pytest.approx([10.0 * box for box in boxes], abs=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("[scan]", "[moving]\nhold = [0]\n\n[scan]", "[dynamics] pressure moves all molecules when the box changes"),
        ("[scan]", "[moving]\nrelax = false\n\n[scan]", "[dynamics] pressure moves all molecules when the box changes"),
        ("barostat_interval = 10", "barostat_interval = 30", "barostat_interval divides the checkpoint of [umbrella]"),
        (
            "reweight_every = 1\n",
            "",
            "[dynamics] pressure: windows that exchange have a constant volume",
        ),
    ],
)
def test_what_windows_at_constant_pressure_cannot_have_is_named(tmp_path, capsys, monkeypatch, old, new, text):
    monkeypatch.setattr(app, "ReplicaExchangeSampler", object, raising=False)
    path = write_boxed_case(tmp_path)
    content = path.read_text().replace(old, new)
    if old.startswith("reweight"):
        content = content.replace("pull = 40", "pull = 40\nexchange = true")
    path.write_text(content)
    assert main(["umbrella", str(path), "--check"]) == 1
    assert text in capsys.readouterr().err
