"""A step of fixed shapes asks the host for nothing, seen without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

PROGRAM = Path(__file__).with_name("static_step_on_no_device.py")
ROOT = PROGRAM.parents[2]
MOST_OPERATIONS = 1600  # 2,583 with free shapes; the network has 850 of them
NO_DEVICE = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices written in Python; 2.13 has",
)


def run(*words):
    """What the program found."""
    finished = subprocess.run(
        [sys.executable, str(PROGRAM), *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.mark.parametrize("device", ["cpu", pytest.param("npy", marks=NO_DEVICE)])
def test_a_step_asks_the_host_for_nothing(device):
    found = run(device)
    assert found["faults"] == {}
    assert found["shapes"] == [[], [300, 3], [6]]
    assert found["operations"] <= MOST_OPERATIONS


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("npy", marks=NO_DEVICE)])
def test_a_mechanical_step_asks_the_host_for_nothing(device):
    found = run(device, "mechanical")
    assert found["faults"] == {}
    assert found["shapes"] == [[], [300, 3], [6]]


@pytest.mark.parametrize("device", ["cpu", pytest.param("npy", marks=NO_DEVICE)])
def test_a_question_is_seen(device):
    found = run(device, "plant")
    assert any(fault.startswith("asks the host") for fault in found["faults"])
