from __future__ import annotations

import importlib.metadata
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app

from qmmlmm.errors import NonFiniteError, OutputFileError, QmmlmmWarning, RunDirectoryError
from qmmlmm.runs.run_directory import RunDirectory
from tests.runs.argon import Argon, Failure
from tests.runs.killable_run import ENERGY_INTERVAL, TOTAL_STEPS, TRAJECTORY_INTERVAL

HERE = Path(__file__).parent
INTERVALS = {"trajectory_interval": 6, "energy_interval": 2, "checkpoint_interval": 10, "total_steps": 40}
KILLS = 5


def environment() -> dict[str, str]:
    root = str(HERE.parents[1])
    return {**os.environ, "PYTHONPATH": root, "OPENMM_CPU_THREADS": "1"}


def steps_in(path: Path) -> list[int]:
    return [int(line.split(",")[0]) for line in (path / "energies.csv").read_text().splitlines()[1:]]


def frames_in(path: Path) -> mdtraj.Trajectory:
    (trajectory,) = path.glob("trajectory.*")
    return mdtraj.load(str(trajectory), top=str(path / "topology.pdb"))


def start(argon, path, steps, **options):
    simulation = argon.simulation()
    with RunDirectory(path, argon, seed=5) as run:
        run.attach(simulation, **{**INTERVALS, **options})
        run.run(simulation, steps)
    return simulation


def go_on(argon, path, steps, *, platform="Reference", **options):
    simulation = argon.simulation(platform, ready=False)
    with RunDirectory(path, argon, seed=5, resume=True) as run:
        done = run.resume(simulation)
        run.attach(simulation, **{**INTERVALS, **options})
        run.run(simulation, steps)
    return done


def test_a_run_leaves_files_that_other_programs_read(argon, tmp_path):
    start(argon, tmp_path / "run", 40)
    assert steps_in(tmp_path / "run") == list(range(2, 41, 2))
    trajectory = frames_in(tmp_path / "run")
    assert len(trajectory) == 6
    assert trajectory.n_atoms == argon.topology.getNumAtoms()


def test_the_record_says_how_the_run_was_made(argon, tmp_path):
    start(argon, tmp_path, 2)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["mixed_system"] == argon.describe()
    assert record["integrator"] == {"class": "LangevinMiddleIntegrator", "step size (ps)": 0.004}
    (session,) = record["sessions"]
    assert session["versions"]["openmm"] == importlib.metadata.version("openmm")
    assert set(session["versions"]) >= {"python", "torch", "pyscf", "numpy", "qmmlmm"}
    assert session["platform"]["name"] == "Reference"
    assert session["seeds"] == {"run": 5, "LangevinMiddleIntegrator": 5}
    assert all(len(value) == 64 for value in record["hashes"].values())


def test_the_box_in_the_topology_file_is_that_of_the_simulation(argon, tmp_path):
    simulation = argon.simulation()
    simulation.context.setPeriodicBoxVectors(*(2.5 * np.eye(3)))
    with RunDirectory(tmp_path, argon) as run:
        run.attach(simulation, **INTERVALS)
    np.testing.assert_allclose(mdtraj.load(str(tmp_path / "topology.pdb")).unitcell_lengths, 2.5)


def test_a_large_system_gets_a_pdbx_file(argon, tmp_path, monkeypatch):
    monkeypatch.setattr("qmmlmm.runs.topology_file.MOST_ATOMS_IN_PDB", 5)
    start(argon, tmp_path, 2)
    assert app.PDBxFile(str(tmp_path / "topology.cif")).topology.getNumAtoms() == 27


@pytest.mark.parametrize("trajectory_format", ["dcd", "xtc"])
def test_a_run_in_two_pieces_equals_a_run_in_one(argon, tmp_path, trajectory_format):
    start(argon, tmp_path / "one", 40, trajectory_format=trajectory_format)
    start(argon, tmp_path / "two", 17, trajectory_format=trajectory_format)
    assert go_on(argon, tmp_path / "two", 23, trajectory_format=trajectory_format) == 17
    assert (tmp_path / "one/energies.csv").read_bytes() == (tmp_path / "two/energies.csv").read_bytes()
    np.testing.assert_array_equal(frames_in(tmp_path / "one").xyz, frames_in(tmp_path / "two").xyz)


def test_a_run_that_begins_after_equilibration_counts_from_there(argon, tmp_path):
    simulation = argon.simulation()
    simulation.step(7)
    with RunDirectory(tmp_path, argon) as run:
        run.attach(simulation, **INTERVALS)
        run.run(simulation, 11)
    assert go_on(argon, tmp_path, 12) == 11
    assert steps_in(tmp_path) == list(range(8, 31, 2))
    assert len(frames_in(tmp_path)) == 4  # 12, 18, 24, 30


@pytest.mark.parametrize("trajectory_format", ["dcd", "xtc"])
def test_a_run_killed_at_random_times_resumes_as_though_nothing_had_happened(tmp_path, trajectory_format):
    command = [sys.executable, str(HERE / "killable_run.py")]

    def launch(path):
        return subprocess.Popen(
            [*command, str(path), trajectory_format], env=environment(), stdout=subprocess.PIPE, text=True
        )

    with launch(tmp_path / "whole") as process:
        process.stdout.readline()
        begin = time.perf_counter()
        assert process.wait() == 0
        duration = time.perf_counter() - begin
    generator = random.Random(trajectory_format)
    kills = 0
    for _ in range(KILLS):
        with launch(tmp_path / "killed") as process:
            if process.stdout.readline().strip() != "running":
                break
            time.sleep(generator.uniform(0.02, 1.2 / KILLS) * duration)
            process.kill()
            kills += process.wait() == -signal.SIGKILL
    assert kills >= 2, "the run was over before it could be killed"
    with launch(tmp_path / "killed") as process:
        assert process.wait() == 0
    assert steps_in(tmp_path / "killed") == list(range(2, TOTAL_STEPS + 1, ENERGY_INTERVAL))
    whole, killed = frames_in(tmp_path / "whole"), frames_in(tmp_path / "killed")
    assert len(killed) == TOTAL_STEPS // TRAJECTORY_INTERVAL
    np.testing.assert_array_equal(whole.xyz, killed.xyz)
    assert (tmp_path / "whole/energies.csv").read_bytes() == (tmp_path / "killed/energies.csv").read_bytes()
    record = json.loads((tmp_path / "killed/run.json").read_text())
    assert len(record["sessions"]) >= kills + 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), LookupError("geometry")])
def test_a_failure_in_a_callback_reaches_the_user_with_its_class_and_the_run_resumes(tmp_path, error):
    failure = Failure()
    failure.error = error
    argon = Argon(failure=failure)
    simulation = argon.simulation()
    run = RunDirectory(tmp_path, argon)
    run.attach(simulation, **INTERVALS)
    run.run(simulation, 10)
    failure.fail_at = failure.calls + 20
    with pytest.raises(type(error)) as caught:
        run.run(simulation, 30)
    assert caught.value is error
    assert simulation.reporters == []
    failure.fail_at = failure.original = None
    done = go_on(argon, tmp_path, 10)
    assert done in (10, 20)
    assert steps_in(tmp_path) == list(range(2, done + 11, 2))


def test_ctrl_c_between_two_steps_leaves_a_run_that_resumes(argon, tmp_path):
    class Interrupt:
        def describeNextReport(self, simulation):
            return {"steps": 13 - simulation.currentStep % 13, "include": []}

        def report(self, simulation, state):
            raise KeyboardInterrupt

    simulation = argon.simulation()
    run = RunDirectory(tmp_path, argon)
    run.attach(simulation, **INTERVALS)
    simulation.reporters.append(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        run.run(simulation, 40)
    assert go_on(argon, tmp_path, 30) == 10
    assert steps_in(tmp_path) == list(range(2, 41, 2))
    assert len(frames_in(tmp_path)) == 6


def test_energies_that_are_not_finite_stop_the_run_before_they_reach_a_checkpoint(argon, tmp_path):
    simulation = argon.simulation()
    run = RunDirectory(tmp_path, argon)
    run.attach(simulation, **INTERVALS)
    run.run(simulation, 10)
    simulation.context.setParameter("k", float("nan"))
    with pytest.raises(NonFiniteError, match="cluster, left/ML"):
        run.run(simulation, 30)
    assert go_on(argon, tmp_path, 0) == 10


def test_a_checkpoint_of_another_platform_is_resumed_from_the_state(argon, tmp_path):
    start(argon, tmp_path, 20)
    with pytest.warns(QmmlmmWarning, match="resumed from state.xml at step 20"):
        go_on(argon, tmp_path, 10, platform="CPU")
    assert steps_in(tmp_path) == list(range(2, 31, 2))
    assert go_on(argon, tmp_path, 10, platform="CPU") == 30  # the Reference checkpoint is gone: no warning


def test_what_is_later_than_the_checkpoint_that_was_used_does_not_come_up_again(argon, tmp_path):
    start(argon, tmp_path, 20)
    (tmp_path / "checkpoint.chk").write_bytes(b"damaged")
    simulation = argon.simulation(ready=False)
    with (
        RunDirectory(tmp_path, argon, resume=True) as run,
        pytest.warns(QmmlmmWarning, match=r"resumed from checkpoint.chk.previous at step 10"),
    ):
        assert run.resume(simulation) == 10
    assert 'stepCount="10"' in (tmp_path / "state.xml").read_text()
    assert not list(tmp_path.glob("*.previous"))
    assert go_on(argon, tmp_path, 10) == 10  # and no warning, which would be an error here
    assert steps_in(tmp_path) == list(range(2, 21, 2))


def test_a_directory_that_holds_a_run_is_not_overwritten(argon, tmp_path):
    start(argon, tmp_path, 20)
    with pytest.raises(RunDirectoryError, match=r"holds a run that is at step 20 \(0.080 ps\).*resume=True"):
        RunDirectory(tmp_path, argon)


def test_files_of_another_origin_are_not_overwritten(argon, tmp_path):
    (tmp_path / "energies.csv").write_text("mine")
    with pytest.raises(RunDirectoryError, match=r"holds energies.csv but no run.json"):
        RunDirectory(tmp_path, argon)


def test_there_must_be_a_run_to_resume(argon, tmp_path):
    with pytest.raises(RunDirectoryError, match="holds no run to resume"):
        RunDirectory(tmp_path / "new", argon, resume=True)
    assert not (tmp_path / "new").exists()


def test_a_file_is_not_a_run_directory(argon, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="is a file, not a directory"):
        RunDirectory(tmp_path / "file", argon)


def test_another_potential_is_not_resumed(argon, tmp_path):
    start(argon, tmp_path, 10)
    other = Argon(spring=4.0)
    with (
        RunDirectory(tmp_path, other, resume=True) as run,
        pytest.raises(RunDirectoryError, match=r"hashes.system was .*mixed_system.spring was 3.0 and is 4.0"),
    ):
        run.resume(other.simulation())
    assert steps_in(tmp_path) == [2, 4, 6, 8, 10]


def test_another_step_size_is_not_resumed(argon, tmp_path):
    start(argon, tmp_path, 10)
    simulation = argon.simulation()
    simulation.integrator.setStepSize(0.002)
    with (
        RunDirectory(tmp_path, argon, resume=True) as run,
        pytest.raises(RunDirectoryError, match=r"step size \(ps\) was 0.004 and is 0.002"),
    ):
        run.resume(simulation)


def test_another_random_seed_is_the_same_run(argon, tmp_path):
    argon.system.addForce(openmm.MonteCarloBarostat(1.0, 90.0))
    argon.system.getForce(2).setRandomNumberSeed(3)
    start(argon, tmp_path, 10)
    argon.system.getForce(2).setRandomNumberSeed(4)
    assert go_on(argon, tmp_path, 10) == 10


def test_the_calls_come_in_their_order(argon, tmp_path):
    simulation = argon.simulation()
    with RunDirectory(tmp_path, argon) as run:
        with pytest.raises(RunDirectoryError, match=r"has no files before attach"):
            _ = run.trajectory_path
        with pytest.raises(RunDirectoryError, match="opened for a new run"):
            run.resume(simulation)
        with pytest.raises(RunDirectoryError, match=r"call attach\(simulation"):
            run.run(simulation, 1)
        run.attach(simulation, **INTERVALS)
        with pytest.raises(RunDirectoryError, match="attached to a Simulation already"):
            run.attach(simulation, **INTERVALS)
    with pytest.raises(RunDirectoryError, match="is closed"):
        run.run(simulation, 1)
    with RunDirectory(tmp_path, argon, resume=True) as run:
        with pytest.raises(RunDirectoryError, match=r"call resume\(simulation\) before attach"):
            run.attach(simulation, **INTERVALS)
        run.resume(simulation)
        run.attach(simulation, **INTERVALS)
        with pytest.raises(RunDirectoryError, match="resume comes before attach"):
            run.resume(simulation)


def test_wrong_options_are_refused_before_anything_is_written(argon, tmp_path):
    simulation = argon.simulation()
    with RunDirectory(tmp_path, argon) as run:
        with pytest.raises(ValueError, match="energy_interval is a number of steps"):
            run.attach(simulation, **{**INTERVALS, "energy_interval": 0})
        with pytest.raises(RunDirectoryError, match="one of 'dcd', 'xtc', got 'trr'"):
            run.attach(simulation, **INTERVALS, trajectory_format="trr")
        with pytest.raises(RunDirectoryError, match="set positions before attach"):
            run.attach(argon.simulation(ready=False), **INTERVALS)
    assert not RunDirectory.holds_run(tmp_path)


def test_the_trajectory_keeps_its_interval(argon, tmp_path):
    start(argon, tmp_path, 10)
    with pytest.raises(RunDirectoryError, match=r"every 6 steps and cannot be .* every 7 steps"):
        go_on(argon, tmp_path, 10, trajectory_interval=7)


def test_the_energies_may_change_their_interval(argon, tmp_path):
    start(argon, tmp_path, 10)
    go_on(argon, tmp_path, 10, energy_interval=5)
    assert steps_in(tmp_path) == [2, 4, 6, 8, 10, 15, 20]


def test_a_trajectory_that_lost_frames_is_not_continued(argon, tmp_path):
    start(argon, tmp_path, 30)
    os.truncate(tmp_path / "trajectory.dcd", 1000)
    with pytest.raises(OutputFileError, match="has 1 whole frames, the checkpoint needs 5"):
        go_on(argon, tmp_path, 10)


@pytest.mark.parametrize(("content", "message"), [("{", "is damaged"), ('{"format": 99}', "has format 99")])
def test_a_record_that_cannot_be_read_is_refused(argon, tmp_path, content, message):
    start(argon, tmp_path, 10)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunDirectoryError, match=message):
        RunDirectory(tmp_path, argon, resume=True)


def test_a_description_that_json_cannot_hold_is_refused(argon, tmp_path, monkeypatch):
    monkeypatch.setattr(argon, "describe", lambda: {"atoms": {1, 2}})
    with (
        RunDirectory(tmp_path, argon) as run,
        pytest.raises(RunDirectoryError, match=r"describe\(\) has values that JSON cannot represent"),
    ):
        run.attach(argon.simulation(), **INTERVALS)


def test_one_process_opens_a_directory_once(argon, tmp_path):
    first = RunDirectory(tmp_path, argon)
    with pytest.raises(RunDirectoryError, match=r"already open in this process; call close\(\)"):
        RunDirectory(tmp_path, argon)
    first.close()
    RunDirectory(tmp_path, argon).close()


def test_a_forgotten_run_directory_lets_go(argon, tmp_path):
    run = RunDirectory(tmp_path, argon)
    del run
    RunDirectory(tmp_path, argon).close()


def test_a_second_process_is_refused_until_the_first_is_dead(argon, tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from qmmlmm.runs.directory_lock import DirectoryLock\n"
        "lock = DirectoryLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunDirectoryError, match=rf"in use by another process \(process {process.pid}\)"):
            RunDirectory(tmp_path, argon)
        process.kill()
        process.wait()
    RunDirectory(tmp_path, argon).close()


@pytest.mark.parametrize(("limit", "trajectory_format"), [(3000, "dcd"), (4500, "dcd"), (6000, "dcd"), (4500, "xtc")])
def test_a_full_disk_stops_the_run_with_an_error_and_the_run_resumes(argon, tmp_path, trajectory_format, limit):
    # A limit on the size of files stands in for the full disk: energies, trajectory and checkpoint hit it.
    code = (
        "import resource, sys\n"
        "from tests.runs.argon import Argon; from qmmlmm.runs.run_directory import RunDirectory\n"
        "argon = Argon(); simulation = argon.simulation()\n"
        "run = RunDirectory(sys.argv[1], argon)\n"
        "run.attach(simulation, trajectory_interval=6, energy_interval=2, checkpoint_interval=10,"
        " total_steps=400, trajectory_format=sys.argv[3])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "run.run(simulation, 400)"
    )
    arguments = [str(tmp_path), str(limit), trajectory_format]
    # The report may meet the full disk first, which is a warning.
    filters = ["-W", "error", "-W", "ignore:the report "]
    result = subprocess.run(
        [sys.executable, *filters, "-c", code, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert re.match(r"qmmlmm.errors.FullDiskError: .*/[a-z.]+ cannot be written: .*make room on its disk", last)
    assert "Exception ignored" not in result.stderr
    done = go_on(argon, tmp_path, 20, trajectory_format=trajectory_format)
    assert steps_in(tmp_path) == list(range(2, done + 21, 2))
    assert len(frames_in(tmp_path)) == (done + 20) // 6


def test_a_directory_that_cannot_be_written_to_is_an_os_error(argon, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        RunDirectory(tmp_path / "file" / "run", argon)


# Outputs that are changed behind the back of the run.


def lost_rows(path, how):
    """Damage the energy table of a run in one of four ways."""
    lines = path.read_bytes().splitlines(keepends=True)
    if how == "missing":
        path.unlink()
    else:
        kept = {"empty": [], "header": lines[:1], "cut": lines[:5], "hole": lines[:4] + lines[6:]}[how]
        path.write_bytes(b"".join(kept))


@pytest.mark.parametrize("how", ["missing", "empty", "header", "cut", "hole"])
def test_lost_rows_of_energies_are_not_passed_over(argon, tmp_path, how):
    start(argon, tmp_path, 20)
    lost_rows(tmp_path / "energies.csv", how)
    message = r"energies.csv has \d rows up to step 20, but had 10 when .* remove energy_rows.json to continue"
    with pytest.raises(OutputFileError, match=message):
        go_on(argon, tmp_path, 20)
    (tmp_path / "energy_rows.json").unlink()
    assert go_on(argon, tmp_path, 20) == 20
    assert steps_in(tmp_path)[-1] == 40


def test_the_rows_of_the_checkpoint_before_are_known_too(argon, tmp_path):
    start(argon, tmp_path, 20)
    (tmp_path / "checkpoint.chk").write_bytes(b"cut short")
    with pytest.warns(QmmlmmWarning, match="resumed from checkpoint.chk.previous at step 10"):
        assert go_on(argon, tmp_path, 30) == 10
    assert steps_in(tmp_path) == list(range(2, 41, 2))


def test_a_damaged_count_of_rows_is_named(argon, tmp_path):
    start(argon, tmp_path, 20)
    (tmp_path / "energy_rows.json").write_text("[20")
    with pytest.raises(RunDirectoryError, match=r"energy_rows.json is damaged .*; remove it to continue"):
        go_on(argon, tmp_path, 20)


@pytest.mark.parametrize("trajectory_format", ["dcd", "xtc"])
@pytest.mark.parametrize("what", ["energies", "trajectory"])
@pytest.mark.parametrize("how", ["deleted", "replaced", "cut"])
def test_outputs_that_somebody_changes_end_the_run_at_the_next_checkpoint(
    argon, tmp_path, trajectory_format, what, how
):
    simulation = argon.simulation()
    with RunDirectory(tmp_path, argon) as run:
        run.attach(simulation, **INTERVALS, trajectory_format=trajectory_format)
        run.run(simulation, 10)
        path = run.energies_path if what == "energies" else run.trajectory_path
        saved = path.read_bytes()
        if how == "deleted":
            path.unlink()
        elif how == "replaced":
            path.with_suffix(".copy").write_bytes(saved)
            path.with_suffix(".copy").replace(path)
        else:
            os.truncate(path, len(saved) // 2)
        expected = "was deleted" if how == "deleted" and (what, trajectory_format) != ("trajectory", "xtc") else "was "
        with pytest.raises(RunDirectoryError, match=rf"{path.name} {expected}.* by somebody else .* that of step 10"):
            run.run(simulation, 10)
    path.write_bytes(saved)
    assert go_on(argon, tmp_path, 20, trajectory_format=trajectory_format) == 10
    assert steps_in(tmp_path) == list(range(2, 31, 2))
    assert len(frames_in(tmp_path)) == 5


@pytest.mark.parametrize("trajectory_format", ["dcd", "xtc"])
def test_a_trajectory_that_is_deleted_before_the_first_checkpoint_is_noticed(argon, tmp_path, trajectory_format):
    simulation = argon.simulation()
    with RunDirectory(tmp_path, argon) as run:
        run.attach(simulation, **{**INTERVALS, "trajectory_interval": 8}, trajectory_format=trajectory_format)
        simulation.step(9)
        run.trajectory_path.unlink()
        with pytest.raises(RunDirectoryError, match=r"trajectory.* was deleted by somebody else"):
            run.run(simulation, 10)


@pytest.mark.parametrize("name", ["run.json", "state.xml"])
def test_a_changed_number_in_a_file_of_the_run_is_seen(argon, tmp_path, name):
    start(argon, tmp_path, 20)
    text = (tmp_path / name).read_text()
    place = re.search(r"\d\.\d*(\d)\d" if name == "state.xml" else r'"step": (\d)', text).start(1)
    other = str((int(text[place]) + 1) % 10)
    (tmp_path / name).write_text(text[:place] + other + text[place + 1 :])
    if name == "state.xml":
        (tmp_path / "checkpoint.chk").unlink()
        (tmp_path / "checkpoint.chk.previous").unlink()
        with pytest.warns(QmmlmmWarning, match=r"resumed from state.xml.previous .*because state.xml: the file is dam"):
            go_on(argon, tmp_path, 20)
    else:
        with pytest.raises(RunDirectoryError, match="is damaged or was edited: its content has another checksum"):
            go_on(argon, tmp_path, 20)


def test_openmm_reads_the_state_with_its_checksum(argon, tmp_path):
    simulation = start(argon, tmp_path, 20)
    again = argon.simulation(ready=False)
    again.loadState(str(tmp_path / "state.xml"))
    old, new = (s.context.getState(positions=True).getPositions(asNumpy=True)._value for s in (simulation, again))
    np.testing.assert_array_equal(old, new)


def test_a_simulation_of_another_system_is_refused(argon, tmp_path):
    other = Argon(spring=7.0)
    with RunDirectory(tmp_path / "new", argon) as run:
        with pytest.raises(RunDirectoryError, match="the Simulation has another System than .*make it with mixed.sys"):
            run.attach(other.simulation(), **INTERVALS)
        run.attach(Argon().simulation(), **INTERVALS)  # a System that is equal
    start(argon, tmp_path / "old", 10)
    with (
        RunDirectory(tmp_path / "old", argon, resume=True) as run,
        pytest.raises(RunDirectoryError, match="the Simulation has another System"),
    ):
        run.resume(other.simulation())


@pytest.mark.parametrize("value", [None, "simulation", app.Simulation])
def test_what_is_no_simulation_is_refused(argon, tmp_path, value):
    with (
        RunDirectory(tmp_path, argon) as run,
        pytest.raises(RunDirectoryError, match="simulation is an app.Simulation, got"),
    ):
        run.attach(value, **INTERVALS)


@pytest.mark.parametrize("steps", [-1, 1.5, np.nan, "10", None, True])
def test_what_is_no_number_of_steps_is_refused(argon, tmp_path, steps):
    simulation = argon.simulation()
    with RunDirectory(tmp_path, argon) as run:
        run.attach(simulation, **INTERVALS)
        with pytest.raises(RunDirectoryError, match="steps is a number of steps of 0 or more, got"):
            run.run(simulation, steps)
        run.run(simulation, np.int64(2))
        assert simulation.currentStep == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": None}, "path is a path, got None"),
        ({"path": "a\0b"}, "path is a path, got"),
        ({"mixed": openmm.System()}, "mixed is a MixedSystem, .* got <openmm.*System"),
        ({"mixed": None}, "mixed is a MixedSystem, .* got None"),
        ({"seed": 1.5}, "seed is a whole number of 0 or more, got 1.5"),
        ({"seed": True}, "seed is a whole number of 0 or more, got True"),
        ({"resume": "no"}, "resume is True or False, got 'no'"),
    ],
)
def test_wrong_arguments_of_a_directory_are_refused(argon, tmp_path, arguments, message):
    with pytest.raises(RunDirectoryError, match=message):
        RunDirectory(**{"path": tmp_path / "run", "mixed": argon, **arguments})


def test_a_seed_of_numpy_is_recorded(argon, tmp_path):
    simulation = argon.simulation()
    with RunDirectory(tmp_path, argon, seed=np.int64(3)) as run:
        run.attach(simulation, **INTERVALS)
    assert json.loads((tmp_path / "run.json").read_text())["sessions"][0]["seeds"]["run"] == 3


# SIGTERM.


def steps_of_checkpoint(path):
    return json.loads((path / "progress.json").read_text())["step"]


def test_sigterm_saves_a_checkpoint_and_the_run_goes_on_from_there(argon, tmp_path):
    arguments = [sys.executable, "-W", "error", "-m", "tests.runs.killable_run"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([*arguments, str(whole), "dcd"], env=environment(), check=True, capture_output=True)
    process = subprocess.Popen(
        [*arguments, str(cut), "dcd"], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "running\n"
    while not steps_of_checkpoint(cut):  # the first checkpoint within the run
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = errors.splitlines()  # the message and no traceback
    found = re.fullmatch(r"stopped by SIGTERM at step (\d+), which the checkpoint has; start the same script .*", line)
    assert found
    assert steps_of_checkpoint(cut) == int(found[1]) < TOTAL_STEPS
    subprocess.run([*arguments, str(cut), "dcd"], env=environment(), check=True, capture_output=True)
    assert steps_in(cut) == steps_in(whole)
    np.testing.assert_array_equal(frames_in(cut).xyz, frames_in(whole).xyz)


def test_after_a_run_sigterm_is_what_it_was_before(argon, tmp_path):
    simulation = argon.simulation()
    with RunDirectory(tmp_path, argon) as run:
        run.attach(simulation, **INTERVALS)
        run.run(simulation, 4)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_the_users_own_is_called(argon, tmp_path):
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        simulation = argon.simulation()
        with RunDirectory(tmp_path, argon) as run:
            run.attach(simulation, **INTERVALS)
            os.kill(os.getpid(), signal.SIGTERM)
            run.run(simulation, 10)
        assert received == [signal.SIGTERM]
        assert simulation.currentStep == 10
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_run_in_another_thread_needs_no_signals(argon, tmp_path):
    errors = []

    def work():
        try:
            start(argon, tmp_path, 10)
        except BaseException as error:  # noqa: BLE001 - the thread's error is shown by the test
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
