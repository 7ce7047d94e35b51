"""Labels in parallel: whatever goes wrong with one, the others are made, once each, and none is lost."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from qmmlmm import PySCFPotential, Region, Term
from qmmlmm.geometry import Geometry
from qmmlmm.learning import read_frames
from qmmlmm.learning.labels.label_job import FAILED, LABELLED, WAITING, Job
from qmmlmm.learning.labels.label_queue import LabelQueue, covered
from qmmlmm.learning.labels.label_task import LabelTask, make_label
from qmmlmm.learning.loop import JobLimits, LabelSettings, LabelSource, LoopError, LoopStoreError
from qmmlmm.learning.loop.store import LoopStore
from qmmlmm.learning.loop.walker_state import WalkerState
from tests.learning.loop.water_case import Announced, LoggedLabeller, make_source, springs, waters

N = 12


def embedded(potential=None) -> Term:
    return Term(potential or springs(), Region("water", [0, 1, 2]), embedding="electrostatic")


@pytest.fixture
def case(tmp_path):
    """Return a store with jobs, and a maker of sources that log what they finish."""
    topology, system, positions = waters()
    rng = np.random.default_rng(4)
    store = LoopStore(tmp_path, N)
    store.enter(0, "sample", {})
    jobs = [Job(0, "start", 0, k, Geometry(positions + 0.002 * rng.normal(size=positions.shape))) for k in range(8)]
    store.add_walker_result(0, 0, WalkerState(Geometry(positions), 0 * positions), jobs)
    store.choose(0, range(1, 9), "label")
    log = tmp_path / "finished.log"

    def source(**options) -> LoggedLabeller:
        return make_source(topology, system, embedded(), str(log), **options)

    return store, source, log


def finished(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def names(store) -> list[str]:
    return [job.name for job in store.jobs()]


def expected(source, store) -> dict[str, float]:
    return {job.name: source().label(job.geometry).energy for job in store.jobs()}


def assert_complete(store, energies, missing=()):
    found = {job.name: frame.energy for job, frame in store.labels()}
    assert set(found) == set(energies) - set(missing)
    for name, energy in found.items():
        assert energy == pytest.approx(energies[name], abs=1e-8)  # rounding in the text
    assert sorted(frame.name for frame in read_frames(store.mirror.path)) == sorted(found)


def test_threads_make_every_label_once_and_leave_no_files(case):
    store, source, log = case
    energies = expected(source, store)
    log.unlink()
    shown = []
    queue = LabelQueue(store, source(), 20_000, LabelSettings(3, isolated=False), lambda: ThreadPoolExecutor(3))
    busy = queue.run(lambda: shown.append(store.counts()[LABELLED]))
    queue.close()
    assert_complete(store, energies)
    assert Counter(finished(log)) == dict.fromkeys(energies, 1)
    assert busy > 0
    assert shown[-1] == 8
    assert not list((store.directory / "label_files").iterdir())
    assert queue.run() == 0.0  # nothing is left to do
    assert len(finished(log)) == 8


def test_a_label_does_not_depend_on_those_before_it(case, tmp_path):
    """An SCF goes on from the last density unless it is told to forget it."""
    topology, system, positions = waters()
    potential = PySCFPotential("hf", "sto-3g", conv_tol=1e-6)
    source = make_source(topology, system, embedded_qm(potential))
    other = positions + 0.01 * np.random.default_rng(2).normal(size=positions.shape)
    alone = task_of(source, positions)
    label = make_label(alone).label
    make_label(task_of(source, other))
    assert make_label(alone).label == label


def embedded_qm(potential) -> Term:
    return Term(potential, Region("water", [0, 1, 2]), embedding="electrostatic", name="water/MM")


def task_of(source, positions):
    return LabelTask(pickle.dumps(source), "one", Geometry(positions), isolated=False)


def test_an_scf_that_cannot_converge_is_set_aside_with_geometry_and_reason(case, tmp_path):
    store, _, _ = case
    topology, system, _ = waters()
    impossible = PySCFPotential("hf", "sto-3g", max_cycle=1, conv_tol=1e-14, failure_directory=str(tmp_path / "failed"))
    source = make_source(topology, system, embedded_qm(impossible))
    for job in store.jobs(WAITING)[1:]:
        store.give_back(job, "not part of this test", final=True)
    LabelQueue(store, source, 20_000, LabelSettings(isolated=False, attempts=2), lambda: ThreadPoolExecutor(1)).run()
    job = store.jobs(FAILED)[0]
    assert job.attempts == 2
    assert job.reason.startswith("ConvergenceError")
    assert job.geometry.positions.shape == (N, 3)


def test_a_failing_job_is_retried_and_set_aside_and_the_others_are_made(case):
    store, source, log = case
    energies = expected(source, store)
    log.unlink()
    queue = LabelQueue(
        store, source(faults={"start-000003": "raise"}), 20_000, LabelSettings(2, attempts=3, isolated=False),
        lambda: ThreadPoolExecutor(2),
    )  # fmt: skip
    queue.run()
    assert_complete(store, energies, ["start-000003"])
    (job,) = store.jobs(FAILED)
    assert (job.name, job.attempts, job.reason) == ("start-000003", 3, "ArithmeticError: a planted fault")
    assert job.geometry is not None


def test_processes_that_hang_or_take_too_much_are_ended_and_the_rest_goes_on(case):
    """In processes of their own: a job that hangs is killed by the kernel's timer, one without memory fails."""
    store, source, log = case
    energies = expected(source, store)
    log.unlink()
    for job in store.jobs(WAITING)[4:]:
        store.give_back(job, "not part of this test", final=True)
    faults = {"start-000002": "hang", "start-000003": "memory"}
    limits = JobLimits(threads=1, memory=1000.0, seconds=3.0)
    queue = LabelQueue(store, source(faults=faults), 20_000, LabelSettings(1, limits, attempts=1))
    queue.run()
    queue.close()
    reasons = {job.name: job.reason for job in store.jobs(FAILED)}
    assert reasons["start-000002"] == "TimeoutError: the job took longer than 3 s and was killed"
    assert reasons["start-000003"].startswith("MemoryError")
    assert_complete(store, energies, [name for name in energies if name not in ("start-000001", "start-000004")])
    assert finished(log) == ["start-000001", "start-000004"]


def test_labels_that_were_finished_after_the_loop_died_are_taken_up(case):
    """A process goes on when the loop is killed; the next loop finds its label and does not make it again."""
    store, source, log = case
    energies = expected(source, store)
    log.unlink()
    settings = LabelSettings(1, isolated=False)

    class Dying(ThreadPoolExecutor):
        def submit(self, function, task):
            assert not function(task).error  # by a process whose loop is gone then
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LabelQueue(store, source(), 20_000, settings, Dying(1)).run()
    assert len(finished(log)) == 1
    assert store.counts()[LABELLED] == 0
    LabelQueue(store, source(), 20_000, settings, lambda: ThreadPoolExecutor(1)).run()
    assert Counter(finished(log)) == dict.fromkeys(energies, 1)
    assert_complete(store, energies)


def test_an_executor_that_breaks_is_replaced_or_the_error_says_what_to_do(case):
    store, source, _ = case
    made = []

    class Breaking(ThreadPoolExecutor):
        def submit(self, *arguments, **options):
            if len(made) == 1:
                raise BrokenExecutor("a process died")
            return super().submit(*arguments, **options)

    def make():
        made.append(1)
        return Breaking(1)

    LabelQueue(store, source(), 20_000, LabelSettings(isolated=False), make).run()
    assert len(made) == 2
    assert store.counts()[LABELLED] == 8
    made[:] = [1]
    store.add_walker_result(1, 0, store.walker_state(0, 0), [Job(1, "start", 0, 0, store.jobs()[0].geometry)])
    store.enter(1, "sample", {})
    store.choose(1, [9], "label")
    with pytest.raises(LoopError, match="Hand in a function"):
        LabelQueue(store, source(), 20_000, LabelSettings(isolated=False), Breaking(1)).run()


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of a few hundred kilobytes; grow it with the function that comes along."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield place, lambda: subprocess.run(["mount", "-o", "remount,size=4m", str(place)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_stops_with_a_clear_error_and_loses_nothing(small_disk, tmp_path):
    place, grow = small_disk
    topology, system, positions = waters()
    log = tmp_path / "finished.log"
    source = make_source(topology, system, embedded(), str(log))
    store = LoopStore(place, N)
    store.enter(0, "sample", {})
    jobs = [Job(0, "start", 0, k, Geometry(positions + 1e-4 * k)) for k in range(40)]
    store.add_walker_result(0, 0, WalkerState(Geometry(positions), 0 * positions), jobs)
    store.choose(0, range(1, 41), "label")
    settings = LabelSettings(2, isolated=False)
    stopped = 0
    for _ in range(3):  # it fails again as long as nothing changes, and makes no label meanwhile
        with pytest.raises(LoopStoreError, match=r"is full .* make room and start the loop again"):
            LabelQueue(store, source, 8_000, settings, lambda: ThreadPoolExecutor(2)).run()
        stopped = max(stopped, len(finished(log)))
        store.close()
        store = LoopStore(place, N)
    assert 0 < stopped < 40
    assert len(set(finished(log))) == len(finished(log))
    grow()
    LabelQueue(store, source, 8_000, settings, lambda: ThreadPoolExecutor(2)).run()
    assert Counter(finished(log)) == {job.name: 1 for job in store.jobs()}
    assert store.counts()[LABELLED] == 40
    assert len(read_frames(place / "labels.xyz")) == 40


class Filling(LabelSource):
    """Fills the disk while it makes a label."""

    def __init__(self, source, filler) -> None:
        self.source, self.filler = source, filler

    def label(self, geometry, name="frame"):
        with open(self.filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(512))
            except OSError:
                pass
        return self.source.label(geometry, name)


def test_a_disk_that_fills_up_while_a_label_is_made_does_not_cost_the_label(small_disk, tmp_path):
    place, _ = small_disk
    topology, system, positions = waters()
    log, filler = tmp_path / "finished.log", place / "filler"
    store = LoopStore(place, N)
    store.enter(0, "sample", {})
    here = Geometry(positions)
    store.add_walker_result(0, 0, WalkerState(here, 0 * positions), [Job(0, "start", 0, 0, here)])
    store.choose(0, [1], "label")
    source = Filling(make_source(topology, system, embedded(), str(log)), str(filler))
    queue = LabelQueue(store, source, 8_000, LabelSettings(isolated=False), lambda: ThreadPoolExecutor(1))
    with pytest.raises(LoopStoreError, match="is full"):
        queue.run()
    assert finished(log) == ["start-000001"]
    store.close()
    filler.unlink()
    store = LoopStore(place, N)
    assert store.counts()[LABELLED] == 0
    queue = LabelQueue(store, source, 8_000, LabelSettings(isolated=False), lambda: ThreadPoolExecutor(1))
    queue.run()
    assert store.counts()[LABELLED] == 1
    assert finished(log) == ["start-000001"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_worker_of_dask_that_is_killed_while_it_computes_costs_nothing_but_time(case):
    distributed = pytest.importorskip("distributed")
    store, source, log = case
    energies = expected(source, store)
    log.unlink()
    started = log.with_name("started.log")
    with (
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None, scheduler_port=0
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(3, timeout=240)
        queue = LabelQueue(
            store, Announced(source(seconds=2.0), str(started)), 20_000, LabelSettings(3, isolated=False),
            client.get_executor(),
        )  # fmt: skip
        victim: list[int] = []

        def kill_one() -> None:
            if not victim and started.exists() and len(finished(log)) >= 1:
                working = [line.split() for line in started.read_text().splitlines()]
                running = [(name, int(pid)) for name, pid in working if name not in finished(log)]
                if running:
                    victim.append(running[0][1])
                    os.kill(victim[0], signal.SIGKILL)

        queue.run(kill_one)
    assert victim
    assert_complete(store, energies)
    assert Counter(finished(log)) == dict.fromkeys(energies, 1)
    begun = Counter(line.split()[0] for line in started.read_text().splitlines())
    assert max(begun.values()) == 2  # the one that was in the making began again
    assert len({line.split()[1] for line in started.read_text().splitlines()}) >= 3


@pytest.mark.slow
def test_a_process_pool_whose_process_is_killed_is_made_anew(case):
    store, source, log = case
    energies = expected(source, store)
    log.unlink()
    started = log.with_name("started.log")
    context = get_context("spawn")
    queue = LabelQueue(
        store, Announced(source(seconds=0.5), str(started)), 20_000, LabelSettings(2, attempts=3, isolated=False),
        lambda: ProcessPoolExecutor(2, mp_context=context),
    )  # fmt: skip
    victim: list[int] = []

    def kill_one() -> None:
        if not victim and started.exists():
            time.sleep(0.1)
            victim.append(int(started.read_text().split()[1]))
            os.kill(victim[0], signal.SIGKILL)

    queue.run(kill_one)
    queue.close()
    assert victim
    assert_complete(store, energies)
    assert Counter(finished(log)) == dict.fromkeys(energies, 1)


def test_the_time_of_labels_that_overlap_counts_once():
    assert covered([(3.0, 4.0), (0.0, 1.0), (0.5, 2.0), (0.6, 0.7)]) == pytest.approx(3.0)
    assert covered([]) == 0.0


@pytest.mark.parametrize("executor", [5, "x", {}, [], ThreadPoolExecutor])
def test_what_is_no_executor_is_refused(case, executor):
    store, source, _ = case
    with pytest.raises(LoopError, match=r"executor is a concurrent\.futures\.Executor, a function"):
        LabelQueue(store, source(), 1000, executor=executor)


@pytest.mark.parametrize("settings", [None, 5, {}, LabelSettings])
def test_settings_of_another_kind_are_refused(case, settings):
    store, source, _ = case
    with pytest.raises(LoopError, match="settings is an instance of LabelSettings"):
        LabelQueue(store, source(), 1000, settings)


def test_a_function_that_returns_no_executor_is_refused(case):
    store, source, _ = case
    queue = LabelQueue(store, source(), 1000, LabelSettings(isolated=False), executor=lambda: 5)
    with pytest.raises(LoopError, match="the function that was given as executor returns an Executor, got 5"):
        queue.run()
