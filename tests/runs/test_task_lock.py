"""Two processes that compute the same task: the second waits, and a dead one holds nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from qmmlmm.runs.task_lock import task_lock

HOLDER = """
import fcntl, os, sys, time
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_task_waits_for_the_process_that_has_it_until_that_is_dead(tmp_path):
    path = tmp_path / "task.lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            entered = []

            def compute():
                with task_lock(path):
                    entered.append(time.monotonic())

            waiting = threading.Thread(target=compute)
            waiting.start()
            time.sleep(0.2)
            assert not entered
        finally:
            holder.send_signal(signal.SIGKILL)
    waiting.join(timeout=10)
    assert entered
    assert not path.exists()


def test_the_lock_file_is_left_if_the_task_fails_and_can_be_taken_again(tmp_path):
    path = tmp_path / "task.lock"
    with pytest.raises(ValueError, match="failed"), task_lock(path):
        raise ValueError("failed")
    assert path.exists()
    with task_lock(path):
        pass
    assert not path.exists()
