"""The command ``qmmlmm run``: the same numbers as a script, stages, what continues a run and what does not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tomllib

import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, XTBPotential, create_mixed_system
from qmmlmm.commands import staged_run
from qmmlmm.commands.main import INTERRUPTED, main
from qmmlmm.commands.run_input import read_run
from qmmlmm.runs import RunDirectory
from qmmlmm.runs.checkpoint import load_state
from qmmlmm.runs.variable_reporter import VariableReporter
from qmmlmm.sampling import Distance, MultipleTimeStepIntegrator, hold_positions
from tests.commands.toml_text import changed, toml_text
from tests.commands.waters import write_waters
from tests.html_pages import Page

RUN = {
    "system": {"pdb": "waters.pdb", "force_field": ["amber14/tip3p.xml"], "no_box": True},
    "region": {"water": {"select": "resid 0", "charge": 0}},
    "term": [{"method": "gfn2-xtb"}],
    "dynamics": {"length": 12, "step": "0.5 fs", "temperature": 300, "seed": 7},
    "variable": [{"name": "apart", "distance": ["resid 0 and name O", 3]}],
    "output": {"trajectory": 4, "energies": 2, "checkpoint": 3},
    "platform": {"name": "Reference"},
}
STAGES = {
    **RUN,
    "minimise": {"iterations": 20},
    "heat": {"length": 8, "start": 50},
    "equilibrate": {"length": 6, "force_field_only": True},
    "hold": [{"select": "name O", "force_constant": 500, "stages": ["minimise", "heat"]}],
    "restraint": [{"variable": "apart", "centre": "5 A", "force_constant": 200.0, "stages": ["production"]}],
}


@pytest.fixture
def folder(tmp_path):
    write_waters(tmp_path / "waters.pdb")
    return tmp_path


def written(folder, content, name="run.toml") -> str:
    path = folder / name
    path.write_text(toml_text(content))
    return str(path)


def run(folder, content, name="run.toml") -> int:
    return main(["run", written(folder, content, name)])


def table(path) -> list[str]:
    """Return the lines of a table, whose numbers have all digits."""
    return path.read_text().splitlines()


def waters(folder):
    pdb = app.PDBFile(str(folder / "waters.pdb"))
    force_field = app.ForceField("amber14/tip3p.xml")
    system = force_field.createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds)
    return pdb, system


def script(folder, mixed, pdb, integrator, steps, setting=None):
    """Run what a TOML file says, as one would in Python."""
    integrator.setRandomNumberSeed(7)
    simulation = app.Simulation(pdb.topology, mixed.system, integrator, openmm.Platform.getPlatform("Reference"))
    simulation.context.setPositions(pdb.positions)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 7)
    for name, value in (setting or {}).items():
        simulation.context.setParameter(name, value)
    with RunDirectory(folder / "script", mixed, seed=7) as directory:
        directory.attach(
            simulation,
            trajectory_interval=4,
            energy_interval=2,
            checkpoint_interval=3,
            total_steps=steps,
            variables={"apart": Distance(0, 3)},
        )
        directory.run(simulation, steps)


def assert_same_run(first, second):
    for name in ("energies.csv", "variables.csv"):
        assert table(first / name) == table(second / name)
        assert len(table(first / name)) > 3
    assert (first / "trajectory.dcd").read_bytes()[300:] == (second / "trajectory.dcd").read_bytes()[300:]


def test_a_file_and_a_script_give_the_same_numbers_bit_by_bit(folder):
    content = {
        **RUN,
        "hold": [{"select": "resid 1 and name O", "force_constant": 400}],
        "restraint": [{"variable": "apart", "centre": 0.4, "force_constant": 100}],
    }
    assert run(folder, content) == 0
    pdb, system = waters(folder)
    region = Region("water", [0, 1, 2], charge=0)
    term = Term(XTBPotential("gfn2-xtb"), region, embedding="electrostatic")
    mixed = create_mixed_system(pdb.topology, system, Hamiltonian([term]))
    mixed.system.addForce(hold_positions("hold1", [3], pdb.positions))
    mixed.system.addForce(Distance(0, 3).umbrella("restraint1"))
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.0005)
    parameters = {"hold1_k": 400, "restraint1_centre": 0.4, "restraint1_k": 100}
    script(folder, mixed, pdb, integrator, 12, parameters)
    assert_same_run(folder / "run" / "production", folder / "script")


def test_a_correction_in_a_file_is_three_terms_and_multiple_time_steps(folder):
    content = {
        **RUN,
        "term": [{"method": "gfn2-xtb", "correct": {"method": "hf", "basis": "sto-3g"}}],
        "dynamics": {
            **RUN["dynamics"], "length": "8 fs", "integrator": "multiple-time-step", "correct_every": 2,
        },
    }  # fmt: skip
    assert run(folder, content) == 0
    pdb, system = waters(folder)
    region, xtb = Region("water", [0, 1, 2], charge=0), XTBPotential("gfn2-xtb")
    terms = [
        Term(xtb, region, embedding="electrostatic"),
        Term(PySCFPotential("hf", "sto-3g"), region, embedding="electrostatic"),
        Term(xtb, region, embedding="electrostatic", coefficient=-1.0),
    ]
    mixed = create_mixed_system(pdb.topology, system, Hamiltonian(terms))
    integrator = MultipleTimeStepIntegrator(mixed, 300, 1, 0.001, inner_steps=2)
    script(folder, mixed, pdb, integrator, 8)
    assert_same_run(folder / "run" / "production", folder / "script")


def test_the_stages_follow_each_other_with_their_own_levels_and_holds(folder, capsys):
    assert run(folder, STAGES) == 0
    base = folder / "run"
    assert tomllib.loads((base / "input.toml").read_text()) == STAGES
    minimised = np.load(base / "minimise" / "minimised.npz")
    assert minimised["energies_kj_per_mol"][-1] < minimised["energies_kj_per_mol"][0] - 1.0
    # Only stages at the level of the terms have a column of theirs.
    columns = {name: table(base / name / "energies.csv")[0] for name in ("heat", "equilibrate", "production")}
    assert ["water/XTB" in columns[name] for name in columns] == [True, False, True]
    parameters = {name: load_state(base / name).getParameters() for name in columns}
    strength = {name: (found["hold1_k"], found["restraint1_k"]) for name, found in parameters.items()}
    assert strength == {"heat": (500.0, 0.0), "equilibrate": (0.0, 0.0), "production": (0.0, 200.0)}
    assert load_state(base / "production").getParameters()["restraint1_centre"] == pytest.approx(0.5)
    heat = [float(line.split(",")[-1]) for line in table(base / "heat" / "energies.csv")[1:]]
    assert heat[0] < 120.0
    output = capsys.readouterr().out
    assert "production   12 steps of 0.5 fs = 0.006 ps, 300 K, constant volume" in output
    assert "equilibrate  6 steps of 0.5 fs = 0.003 ps, 300 K, constant volume, force field only" in output
    shown = Page((base / "report.html").read_text(encoding="utf-8")).text
    for text in ("minimise 20 of 20 iterations", "heat 8 of 8 steps 0.004 ps", "equilibrate, force field alone 6 of 6"):
        assert text in shown
    assert "Production complete." in shown
    # A second time there is nothing to do.
    assert run(folder, STAGES) == 0
    assert "production: all 12 steps are done" in capsys.readouterr().out


def test_pressure_acts_in_the_stages_that_have_it_and_the_box_goes_on(folder):
    write_waters(folder / "boxed.pdb", box=3.0)
    content = {
        **RUN,
        "system": {"pdb": "boxed.pdb", "force_field": ["amber14/tip3p.xml"]},
        "heat": {"length": 4, "start": 50},
        "equilibrate": {"length": 20, "pressure": "1 atm", "force_field_only": True},
        "dynamics": {**RUN["dynamics"], "barostat_interval": 2, "length": 8},
    }
    assert run(folder, content) == 0
    volumes = {
        stage: [line.rsplit(",", 1)[1] for line in table(folder / "run" / stage / "energies.csv")[1:]]
        for stage in ("heat", "equilibrate", "production")
    }
    assert len(set(volumes["heat"])) == 1
    assert len(set(volumes["equilibrate"])) > 3
    assert set(volumes["production"]) == {volumes["equilibrate"][-1]}


def test_heating_goes_with_multiple_time_steps(folder):
    content = {
        **RUN,
        "term": [{"method": "gfn2-xtb", "correct": {"method": "gfn1-xtb"}}],
        "heat": {"length": 4, "start": 20},
        "dynamics": {**RUN["dynamics"], "length": 4, "integrator": "multiple-time-step", "correct_every": 2},
    }
    assert run(folder, content) == 0
    kinetic = [float(line.split(",")[-2]) for line in table(folder / "run" / "heat" / "energies.csv")[1:]]
    assert 0.0 < kinetic[0] < 10.0


class Stopping:
    """Stops the process, as Ctrl-C does, in a stage: after a number of rows of the variables."""

    def __init__(self, monkeypatch, stage, rows, stop):
        self.left, report = rows, VariableReporter.report

        def stopping(reporter, simulation, state):
            if reporter._path.parent.name == stage:
                self.left -= 1
                if self.left == 0:
                    stop()
            report(reporter, simulation, state)

        monkeypatch.setattr(VariableReporter, "report", stopping)


def interrupt():
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write_waters(folder / "waters.pdb")
    assert run(folder, STAGES) == 0
    return folder / "run"


@pytest.mark.parametrize("stage", ["heat", "equilibrate", "production"])
def test_a_run_that_was_stopped_in_any_stage_takes_the_same_steps(folder, monkeypatch, uninterrupted, stage):
    with monkeypatch.context() as patched:
        Stopping(patched, stage, 2, interrupt)
        assert run(folder, STAGES) == INTERRUPTED
    assert run(folder, STAGES) == 0
    for name in ("heat", "equilibrate", "production"):
        assert table(folder / "run" / name / "energies.csv") == table(uninterrupted / name / "energies.csv")


def test_a_minimisation_that_was_stopped_goes_on_from_its_last_file(folder, monkeypatch, capsys):
    monkeypatch.setattr(staged_run, "ITERATIONS_IN_ONE_GO", 4)
    content = {**RUN, "minimise": {"iterations": 12}}
    # Each part begins like a new minimisation, so that what continues is the same.
    assert run(folder, content) == 0
    whole = folder / "whole"
    (folder / "run").rename(whole)
    save, count = staged_run._save_minimised, [0]

    def saving(*arguments):
        save(*arguments)
        count[0] += 1
        if count[0] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(staged_run, "_save_minimised", saving)
        assert run(folder, content) == INTERRUPTED
    capsys.readouterr()
    assert main(["run", str(folder / "run.toml"), "--check"]) == 0
    assert re.search(r"minimise +12 iterations, force field only, at 8", capsys.readouterr().out)
    assert run(folder, content) == 0
    first, second = (np.load(f / "minimise" / "minimised.npz") for f in (whole, folder / "run"))
    assert all((first[name] == second[name]).all() for name in first.files)
    assert_same_run(whole / "production", folder / "run" / "production")


def test_sigterm_saves_a_checkpoint_and_the_same_command_goes_on(folder, monkeypatch, capsys, uninterrupted):
    with monkeypatch.context() as patched:
        Stopping(patched, "production", 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert run(folder, STAGES) == 1
    assert "stopped by SIGTERM at step" in capsys.readouterr().err
    assert run(folder, STAGES) == 0
    assert_same_run(folder / "run" / "production", uninterrupted / "production")


def test_a_check_shows_what_would_run_and_writes_nothing(folder, capsys):
    before = sorted(folder.iterdir())
    path = written(folder, STAGES)
    assert main(["run", path, "--check"]) == 0
    output = capsys.readouterr().out
    for line in (
        "system       6 particles, no box",
        "region       water: 3 atoms, charge 0, multiplicity 1",
        "term         water/XTB: gfn2-xtb, electrostatic, coefficient 1.0",
        "minimise     20 iterations, force field only",
        "heat         8 steps of 0.5 fs = 0.004 ps, 50 to 300 K, constant volume",
        "hold         2 atoms held with 500 kJ/mol/nm^2: minimise, heat",
        "hold         apart held at 0.5 nm with 200 kJ/mol/nm^2: production",
        "evaluations  water/XTB 20 (without minimisation)",
        f"{path} can run: qmmlmm run {path}",
    ):
        assert line in output
    assert sorted(folder.iterdir()) == sorted([*before, folder / "run.toml"])


def test_a_check_counts_evaluations_of_a_correction(folder, capsys):
    term = {"method": "gfn2-xtb", "correct": {"method": "hf", "basis": "sto-3g", "grid_level": 2}}
    dynamics = {**RUN["dynamics"], "integrator": "multiple-time-step", "correct_every": 4}
    assert main(["run", written(folder, {**RUN, "term": [term], "dynamics": dynamics}), "--check"]) == 0
    output = capsys.readouterr().out
    assert "evaluations  water/XTB 48; water/QM 12 (" in output
    assert "water/QM: hf/sto-3g, grid_level = 2, electrostatic, coefficient 1.0" in output
    assert "production   12 steps of 2 fs (4 x 0.5 fs) = 0.024 ps" in output


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("dynamics", "temperature"), 310, "dynamics.temperature was 300 and is 310"),
        (("dynamics", "seed"), 8, "dynamics.seed was 7 and is 8"),
        (("term",), [{"method": "gfn1-xtb"}], r"term\[0\].method was 'gfn2-xtb' and is 'gfn1-xtb'"),
        (("output", "trajectory"), 6, "output.trajectory was 4 and is 6"),
        (("heat",), {}, "heat was None and is {}"),
        (("dynamics", "length"), 6, "has 12 steps of production already, and .* is 6 steps"),
    ],
)
def test_a_changed_file_does_not_continue_a_run(folder, capsys, place, value, message):
    assert run(folder, RUN) == 0
    assert run(folder, changed(RUN, place, value)) == 1
    assert re.search(message, capsys.readouterr().err)


def test_a_run_can_be_extended_and_is_then_the_same_as_a_long_one(folder):
    assert run(folder, RUN) == 0
    longer = changed(changed(RUN, ("dynamics", "length"), "12 fs"), ("platform", "threads"), 1)
    assert run(folder, longer) == 0
    assert run(folder, {**longer, "directory": "long"}) == 0
    assert len(table(folder / "long" / "production" / "energies.csv")) == 13
    assert_same_run(folder / "run" / "production", folder / "long" / "production")


HILLS = {
    **{name: content for name, content in RUN.items() if name not in ("region", "term")},
    "metadynamics": {
        "height": 1.0,
        "bias_factor": 5.0,
        "interval": 4,
        "along": [{"variable": "apart", "width": 0.02, "low": 0.2, "high": 1.5}],
    },
}


def test_hills_of_production_continue_and_leave_their_free_energy(folder, capsys):
    long = changed(HILLS, ("dynamics", "length"), 26)
    for name, content in (("whole.toml", long), ("part.toml", HILLS), ("part.toml", long)):
        assert run(folder, content, name) == 0
    assert "6 hills; their free energy is in" in capsys.readouterr().out
    profiles = [(folder / name / "production" / "free_energy.csv").read_text() for name in ("whole", "part")]
    assert profiles[0] == profiles[1]
    assert profiles[0].startswith('#"apart","free energy (kJ/mol)"')
    rows = np.loadtxt(profiles[0].splitlines(), delimiter=",")
    assert rows[:, 1].max() > 0.5
    assert np.isnan(rows[:, 2]).all()  # a single run
    assert (folder / "whole" / "production" / "free_energy.png").read_bytes().startswith(b"\x89PNG")


def test_hills_at_constant_pressure_continue_with_their_box(folder):
    """The attempts of the barostat are at the same steps, and too few for it to adapt its moves, which would differ."""
    write_waters(folder / "boxed.pdb", box=3.0)
    boxed = {**HILLS, "system": {"pdb": "boxed.pdb", "force_field": ["amber14/tip3p.xml"]}}
    boxed["dynamics"] = {**RUN["dynamics"], "pressure": 1.0, "barostat_interval": 3}
    long = changed(boxed, ("dynamics", "length"), 26)
    for name, content in (("whole.toml", long), ("part.toml", boxed), ("part.toml", long)):
        assert run(folder, content, name) == 0
    whole, part = (folder / name / "production" for name in ("whole", "part"))
    assert_same_run(whole, part)
    assert (whole / "free_energy.csv").read_text() == (part / "free_energy.csv").read_text()
    volumes = [line.rsplit(",", 1)[1] for line in table(part / "energies.csv")[1:]]
    assert len(set(volumes)) > 4
    assert len(set(volumes[6:])) > 2  # after it was continued


def test_wrong_hills_are_refused(folder, capsys):
    shared = changed(HILLS, ("metadynamics", "shared"), True)
    assert run(folder, shared) == 1
    assert "[metadynamics] shared is for the walkers of a learning loop" in capsys.readouterr().err
    assert run(folder, changed(HILLS, ("metadynamics", "along"), [{"variable": "x", "width": 1.0}])) == 1
    assert "there is no variable 'x'" in capsys.readouterr().err


def test_before_the_first_result_the_file_may_change(folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(RunDirectory, "attach", lambda *_, **__: interrupt())
        assert run(folder, RUN) == INTERRUPTED
    assert run(folder, changed(RUN, ("dynamics", "seed"), 8)) == 0


def test_a_folder_with_other_files_is_left_alone(folder, capsys):
    assert run(folder, {**RUN, "directory": "."}) == 1
    assert re.search("holds run.toml, waters.pdb and no run; name another folder", capsys.readouterr().err)


def test_a_run_without_terms_is_one_of_the_force_field(folder, capsys):
    content = {key: value for key, value in RUN.items() if key not in ("term", "region")}
    assert run(folder, content) == 0
    assert "none: the force field only" in capsys.readouterr().out
    pdb, system = waters(folder)
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.0005)
    integrator.setRandomNumberSeed(7)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))
    context.setPositions(pdb.positions)
    context.setVelocitiesToTemperature(300, 7)
    integrator.step(12)
    energy = context.getState(energy=True).getPotentialEnergy()._value
    assert float(table(folder / "run" / "production" / "energies.csv")[-1].split(",")[2]) == energy


PROCESS = "import sys; from qmmlmm.commands.main import main; sys.exit(main(['run', 'run.toml']))"


@pytest.mark.slow
def test_a_run_that_is_killed_in_every_stage_is_continued_by_the_same_command(folder):
    content = {
        **STAGES,
        "minimise": {"iterations": 1000, "tolerance": 1e-12},
        "heat": {"length": 300},
        "equilibrate": {"length": 300},
        "dynamics": {**RUN["dynamics"], "length": 300},
        "output": {"trajectory": 50, "energies": 10, "checkpoint": 20},
    }
    written(folder, content)
    for stage in ("minimise", "heat", "equilibrate", "production"):
        process = subprocess.Popen([sys.executable, "-c", PROCESS], cwd=folder, stdout=subprocess.PIPE, text=True)
        with process:
            begun = any(line.startswith(f"{stage}: ") for line in process.stdout)
            time.sleep(0.2)
            process.kill()
        assert begun, stage
        assert process.returncode == -signal.SIGKILL, stage
    assert run(folder, content) == 0
    assert run(folder, {**content, "directory": "whole"}) == 0
    for name in ("heat", "equilibrate", "production"):
        assert_same_run(folder / "run" / name, folder / "whole" / name)


def test_what_a_reader_returns_is_ready_to_run(folder):
    given = read_run(folder / written(folder, STAGES))
    assert [stage.name for stage in given.stages] == ["heat", "equilibrate", "production"]
    assert len({stage.seed for stage in given.stages}) == 3
    assert given.production.steps == 12
