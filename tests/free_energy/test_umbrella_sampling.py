from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from openmm import app, unit

from qmmlmm.errors import (
    EvaluationError,
    MissingDependencyError,
    RunDirectoryError,
    SettingError,
    TerminatedError,
)
from qmmlmm.free_energy import UmbrellaSampling
from qmmlmm.free_energy.umbrella_window import begin_window, simulation_of
from qmmlmm.runs.checkpoint import load_state
from qmmlmm.runs.variable_reporter import read_variable_table
from qmmlmm.units import GAS_CONSTANT
from tests.free_energy.wells import GAP, TEMPERATURE, TILT, create_pair, create_tilted, pair_at, well_energy

KT = GAS_CONSTANT * TEMPERATURE
CENTRES = np.linspace(0.235, 0.365, 10)
SETTINGS = {
    "create": create_pair,
    "variable": GAP,
    "centres": CENTRES,
    "force_constants": 2e4,
    "starts": pair_at(0.24),
    "temperature": TEMPERATURE,
    "steps": 4000,
    "equilibration": 200,
    "interval": 20,
    "frame_interval": 40,
    "checkpoint_interval": 2100,
    "seed": 6,  # of eight seeds 85 to 100 % of the bins are within two standard errors
}


def sampling(directory, **changes):
    return UmbrellaSampling(directory, **{**SETTINGS, **changes})


def exact(edges, tilt=TILT):
    """Return -kT ln of the probability of each bin; the volume of a shell grows with the square of the distance."""
    sums = []
    for low, high in itertools.pairwise(edges):
        r = np.linspace(low, high, 200)
        sums.append((r**2 * np.exp(-well_energy(r, tilt) / KT)).mean())
    return -KT * np.log(np.array(sums) / np.sum(sums))


def normed(profile):
    energy = profile.free_energy._value
    return energy + KT * np.log(np.exp(-energy / KT).sum())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Windows that were run once, pulled from one start."""
    made = sampling(tmp_path_factory.mktemp("wells") / "umbrella")
    return made, made.run()


def test_the_profile_of_a_double_well_is_the_exact_one_within_two_standard_errors(truth, done):
    made, _ = done
    edges = np.linspace(0.235, 0.365, 21)
    profile = made.profile(edges=edges)
    deviations = (normed(profile) - exact(edges)) / profile.error._value
    check = "double well, windows of dynamics: every bin from the exact profile"
    truth.below(check, abs(deviations).max(), 2.0, "standard errors")
    assert (profile.error._value < 1.0).all()
    barrier = profile.barrier()
    reference = exact(edges)
    places = [int(np.argmin(abs(profile.values - x))) for x in (barrier.reactant, barrier.top)]
    assert abs(barrier.height._value - np.subtract(*reference[places[::-1]])) < 2.0 * barrier.error._value


def test_the_directory_has_table_figure_and_a_run_for_each_window(done):
    made, _ = done
    folder = Path(made.directory)
    assert (folder / "profile.png").stat().st_size > 10_000
    assert (folder / "profile.csv").read_text().startswith('#"variable (nm)","Free Energy (kJ/mol)"')
    for window in made.windows:
        assert (window.folder / "run.json").exists()
        assert read_variable_table(window.folder / "variable.csv")[0][-1] == 4200


def test_windows_start_where_they_were_pulled_to(done):
    made, _ = done
    for window in made.windows:
        with np.load(window.start_path) as file:
            found = np.linalg.norm(np.diff(file["positions"], axis=0))
        assert found == pytest.approx(window.centre, abs=6.0 * np.sqrt(KT / 2e4))


def test_distances_of_a_system_without_a_box_do_not_go_to_the_nearest_image(tmp_path):
    """OpenMM's default box is 2 nm: the particles would be 0.5 nm apart."""
    made = sampling(tmp_path, centres=[1.5, 1.51], starts=[pair_at(1.5), pair_at(1.51)], create=create_far)
    made._make_starts()
    window = made.windows[0]
    assert "box" not in np.load(window.start_path).files
    _, simulation = simulation_of(create_far, GAP)
    assert not simulation.system.usesPeriodicBoundaryConditions()
    begin_window(window, simulation)
    energy = simulation.context.getState(energy=True, groups={1}).getPotentialEnergy()
    assert energy._value == pytest.approx(0.0, abs=1e-6)


def create_far(umbrella):
    umbrella.setForceGroup(1)
    return create_pair(umbrella)


def test_a_given_start_that_is_far_from_its_window_is_pulled_there(tmp_path):
    made = sampling(tmp_path, centres=[0.25, 0.33], starts=[pair_at(0.251), pair_at(0.24)], steps=200)
    made._make_starts()
    near, far = (np.load(window.start_path)["positions"] for window in made.windows)
    assert np.array_equal(near, pair_at(0.251))
    assert np.linalg.norm(np.diff(far, axis=0)) == pytest.approx(0.33, abs=6.0 * np.sqrt(KT / 2e4))


def test_running_again_changes_nothing_and_more_steps_continue(done):
    made, first = done
    before = (Path(made.directory) / "003" / "variable.csv").read_bytes()
    again = made.run()
    assert np.array_equal(again.free_energy._value, first.free_energy._value)
    assert (Path(made.directory) / "003" / "variable.csv").read_bytes() == before


@pytest.mark.slow
def test_the_profile_of_another_hamiltonian_by_reweighting(done):
    made, _ = done
    found = made.reweighted("tilted", create_tilted, bins=8)
    edges = np.linspace(0.235, 0.365, 9)
    deviations = (normed(found) - exact(edges, 3.0 * TILT)) / found.error._value
    assert abs(deviations).max() < 2.5  # of eight bins, at a fixed seed
    table = Path(made.directory) / "005" / "energies_tilted.csv"
    whole = table.read_text()
    table.write_text(whole[: len(whole) // 2])  # killed in the middle of a row
    assert made.reweighted("tilted", create_tilted, bins=8).free_energy._value == pytest.approx(
        found.free_energy._value, abs=1e-9
    )
    assert table.read_text() == whole


def test_other_settings_in_the_same_directory_are_refused(done):
    made, _ = done
    with pytest.raises(RunDirectoryError, match="windows with other settings: force_constants"):
        sampling(made.directory, force_constants=3e4).run()


@pytest.mark.slow
def test_spawned_processes_give_what_one_process_gives(tmp_path):
    few = {"centres": CENTRES[:3], "steps": 2000, "starts": [pair_at(r) for r in CENTRES[:3]]}
    sampling(tmp_path / "one", **few).run()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        sampling(tmp_path / "pool", **few).run(executor)
    for k in range(3):
        tables = [(tmp_path / name / f"{k:03d}" / "variable.csv").read_bytes() for name in ("one", "pool")]
        assert tables[0] == tables[1]


SCRIPT = """
from tests.free_energy.test_umbrella_sampling import sampling
sampling({path!r}, centres=[0.25, 0.26, 0.27], steps=12000).run()
"""


@pytest.mark.slow
def test_kill_at_any_moment_loses_nothing_but_the_steps_after_a_checkpoint(tmp_path):
    whole, path = tmp_path / "whole", tmp_path / "killed"
    few = {"centres": [0.25, 0.26, 0.27], "steps": 12000}
    sampling(whole, **few).run()
    for k in range(3):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT.format(path=str(path))])
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline and process.poll() is None:
            table = path / f"{k:03d}" / "variable.csv"
            if table.exists() and table.stat().st_size > 8_000:
                break
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    sampling(path, **few).run()
    for k in range(3):
        tables = [(folder / f"{k:03d}" / "variable.csv").read_bytes() for folder in (whole, path)]
        assert tables[0] == tables[1]


needs_exchange = pytest.mark.skipif(not hasattr(app, "ReplicaExchangeSampler"), reason="OpenMM before 8.6")


@needs_exchange
@pytest.mark.slow
def test_errors_of_windows_that_exchange_are_honest(tmp_path):
    edges = np.linspace(0.235, 0.365, 21)
    inside = []
    for seed in range(5):
        made = sampling(tmp_path / f"{seed}", exchange=True, seed=17 + 1000 * seed)
        made.run()
        profile = made.profile(edges=edges)
        inside.append(np.abs(normed(profile) - exact(edges)) < 2.0 * profile.error._value)
    assert np.mean(inside) >= 0.8


@needs_exchange
def test_replicas_visit_windows_and_the_random_numbers_of_the_process_are_the_callers(tmp_path):
    few = CENTRES[:4]
    made = sampling(tmp_path, exchange=True, centres=few, steps=1000)
    outside = random.getstate()
    made.run()
    assert random.getstate() == outside
    replicas = np.loadtxt(tmp_path / "exchange.csv", delimiter=",")
    assert replicas.shape == (1200 // 20, 1 + len(few))
    assert (np.sort(replicas[:, 1:]) == np.arange(len(few))).all()
    assert all(len(set(np.nonzero(replicas[:, 1:] == k)[1])) == len(few) for k in range(len(few)))
    assert load_state(tmp_path / "000").getPositions(asNumpy=True).shape == (2, 3)
    before = (tmp_path / "exchange.npz").stat().st_mtime_ns
    made.run()
    assert (tmp_path / "exchange.npz").stat().st_mtime_ns == before


EXCHANGE = """
from tests.free_energy.test_umbrella_sampling import sampling
sampling({path!r}, centres=[0.25, 0.26, 0.27], steps=12000, checkpoint_interval=500, exchange=True).run()
"""


@needs_exchange
@pytest.mark.slow
def test_windows_that_exchange_and_are_killed_take_the_same_samples(tmp_path):
    few = {"centres": [0.25, 0.26, 0.27], "steps": 12000, "checkpoint_interval": 500, "exchange": True}
    whole, path = tmp_path / "whole", tmp_path / "killed"
    sampling(whole, **few).run()
    for size in (2_000, 6_000):
        process = subprocess.Popen([sys.executable, "-c", EXCHANGE.format(path=str(path))])
        deadline = time.monotonic() + 60.0
        table = path / "000" / "variable.csv"
        while time.monotonic() < deadline and process.poll() is None:
            if table.exists() and table.stat().st_size > size:
                break
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert len(read_variable_table(table)[0]) < 610
    sampling(path, **few).run()
    for name in ("exchange.csv", "000/variable.csv", "001/variable.csv", "002/variable.csv"):
        assert (whole / name).read_bytes() == (path / name).read_bytes()


@needs_exchange
def test_what_exchange_cannot_do_is_said(tmp_path):
    made = sampling(tmp_path / "run", centres=CENTRES[:2], steps=1000, exchange=True)
    with ThreadPoolExecutor(1) as executor, pytest.raises(SettingError, match="exchange run in one process"):
        made.run(executor)
    with pytest.raises(SettingError, match="leave no trajectories"):
        made.reweighted("tilted", create_tilted)
    made.run()
    with pytest.raises(RunDirectoryError, match="windows with other settings: exchange"):
        sampling(made.directory, centres=CENTRES[:2], steps=1000).run()
    path = tmp_path / "run" / "exchange.npz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RunDirectoryError, match="exchange.npz cannot be read"):
        sampling(made.directory, centres=CENTRES[:2], steps=2000, exchange=True).run()


def test_exchange_needs_a_new_openmm(tmp_path, monkeypatch):
    monkeypatch.delattr(app, "ReplicaExchangeSampler", raising=False)
    with pytest.raises(MissingDependencyError, match="exchange between windows needs OpenMM 8.6 or newer, and this is"):
        sampling(tmp_path / "run", exchange=True)


def test_a_signal_stops_all_windows(tmp_path, monkeypatch):
    begun = []

    def terminated(window, update):
        begun.append(window.folder.name)
        raise TerminatedError("SIGTERM")

    monkeypatch.setattr("qmmlmm.free_energy.umbrella_sampling.run_window", terminated)
    with pytest.raises(TerminatedError, match="SIGTERM"):
        sampling(tmp_path / "run", centres=CENTRES[:2], starts=[pair_at(0.24), pair_at(0.25)]).run()
    assert begun == ["000"]


def create_nothing(umbrella):
    return None


def create_without(umbrella):
    return create_pair(GAP.umbrella("other"))


def test_windows_that_fail_are_named_after_all_others_ran(tmp_path):
    made = sampling(tmp_path / "run", centres=CENTRES[:2], steps=1000, starts=[pair_at(0.24), pair_at(0.25)])
    (tmp_path / "run" / "000").mkdir(parents=True)
    (tmp_path / "run" / "000" / "energies.csv").write_text("of somebody else")
    with pytest.raises(EvaluationError, match="1 of 2 windows failed: 000 .RunDirectoryError"):
        made.run()
    assert read_variable_table(tmp_path / "run" / "001" / "variable.csv")[0][-1] == 1200


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"variable": lambda geometry: 1.0}, SettingError, "variable is a variable, such as Distance"),
        ({"create": 5}, SettingError, "create is a function of the umbrella's Force"),
        ({"create": create_nothing}, SettingError, "create returns .mixed, simulation."),
        ({"create": create_without}, SettingError, "leaves the umbrella out of the System"),
        ({"centres": [0.2]}, SettingError, "centres are two or more different values"),
        ({"centres": [0.2, 0.2]}, SettingError, "centres are two or more different values"),
        ({"centres": [0.2, 0.3] * unit.radian}, SettingError, "centres has a unit like nanometer"),
        ({"force_constants": [1.0, 2.0]}, SettingError, "one or one for each of 10 centres"),
        ({"force_constants": -1.0}, SettingError, "force_constants are above zero"),
        ({"starts": np.zeros((3, 2, 3))}, SettingError, "or .10, n, 3. for 10 centres"),
        ({"temperature": 0.0}, SettingError, "temperature is a number above zero"),
        ({"steps": 5}, SettingError, "steps are ten intervals"),
        ({"frame_interval": 30}, SettingError, "frame_interval is a multiple of interval, 20"),
        ({"equilibration": -1}, SettingError, "equilibration is a whole number of steps"),
        ({"seed": -1}, SettingError, "seed is a whole number"),
        ({"force_constants": 1e-3, "pull_steps": 10, "starts": pair_at(0.9)}, EvaluationError, "pull more slowly"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        sampling(tmp_path / "run", **changes).run()


def test_a_directory_without_samples_has_no_profile(tmp_path):
    with pytest.raises(RunDirectoryError, match="fewer than ten samples"):
        sampling(tmp_path / "run").profile()
    with pytest.raises(RunDirectoryError, match="are not complete; call run"):
        sampling(tmp_path / "run").reweighted("x", create_tilted)
    with pytest.raises(SettingError, match="that of a file, got 'a/b'"):
        sampling(tmp_path / "run").reweighted("a/b", create_tilted)
