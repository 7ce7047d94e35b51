"""A loop that is killed at random moments, with -9 or by SIGTERM, takes the course of one that is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENMM_CPU_THREADS"), "1")


def run(directory, *arguments) -> dict:
    result = subprocess.run(
        [sys.executable, HERE / "killed_course.py", directory, *map(str, arguments)],
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=1500,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def assert_same_course(found, kills):
    assert found["kills"] == kills
    assert not found["failures"]
    assert set(map(tuple, found["different"].values())) == {()}
    for folder, names in found["finished"].items():
        twice = [name for name, count in Counter(names).items() if count > 1]
        assert not twice, f"labels made twice in {folder}"
        # A kill between the label on disk and the note about it leaves no note.
        assert set(names) <= set(found["names"])
        assert len(set(found["names"]) - set(names)) <= kills


@pytest.mark.slow
def test_three_kills(tmp_path):
    assert_same_course(run(tmp_path, 3, 14, 0.4, 1, 1), 3)


@pytest.mark.slow
@pytest.mark.timeout(1600)
@pytest.mark.parametrize(("walkers", "at_once"), [(1, 1), (2, 2)])
def test_six_times_sigterm(tmp_path, walkers, at_once):
    assert_same_course(run(tmp_path, 6, 15, 0.5, 1, walkers, at_once, "TERM"), 6)


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_kills_while_walkers_run_side_by_side(tmp_path):
    assert_same_course(run(tmp_path, 10, 13, 0.5, 1, 2, 2), 10)


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_thirty_kills(tmp_path):
    assert_same_course(run(tmp_path, 30, 12, 0.4, 1, 2), 30)
