"""Corrections whose processes are killed: no trajectory is lost, and none is run twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from qmmlmm.errors import EvaluationError
from qmmlmm.free_energy.trajectory_tasks import switch_work
from tests.free_energy.spring_legs import worked_correction, works_of

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from tests.free_energy.spring_legs import worked_correction

if __name__ == "__main__":
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        worked_correction(sys.argv[1]).run(executor)
"""
ENOUGH = 3
"""Works that are there before processes are killed."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Works of a correction that was not interrupted."""
    return works_of(worked_correction(tmp_path_factory.mktemp("whole")).run())


def complete(folder):
    """Return the files of complete switching trajectories, with the times at which they were written."""
    files = [path for direction in ("forward", "reverse") for path in folder.rglob(f"{direction}-*/0*.npz")]
    return {path: path.stat().st_mtime_ns for path in files if switch_work(path) is not None}


def wait_for_works(folder, ended=lambda: False):
    while len(complete(folder)) < ENOUGH:
        assert not ended(), "the run ended before it could be killed"
        time.sleep(0.02)


def finish(folder, whole):
    """Run the rest, and compare with the run that was not interrupted."""
    before = complete(folder)
    found = works_of(worked_correction(folder).run())
    assert np.array_equal(found, whole)
    assert before.items() <= complete(folder).items()
    return before


def test_a_killed_process_group_loses_nothing(tmp_path, whole):
    script = tmp_path / "correct.py"
    script.write_text(SCRIPT, encoding="utf-8")
    folder = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_works(folder, lambda: process.poll() is not None)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = finish(folder, whole)
    assert ENOUGH <= len(before) < len(whole)


def test_a_dead_worker_is_named_and_the_rest_is_run_later(tmp_path, whole):
    executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def kill_worker():
        wait_for_works(tmp_path)
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_worker)
    killer.start()
    with executor, pytest.raises(EvaluationError, match="A worker process died"):
        worked_correction(tmp_path).run(executor)
    killer.join()
    before = finish(tmp_path, whole)
    assert ENOUGH <= len(before) < len(whole)


def test_dask_runs_it_with_the_same_numbers(tmp_path, whole):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor() as executor,
    ):
        found = works_of(worked_correction(tmp_path).run(executor))
    assert np.array_equal(found, whole)
