"""Worker processes of a command, with one thread each."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENMM_CPU_THREADS")


@contextlib.contextmanager
def worker_pool(workers: int) -> Iterator[Executor | None]:
    """Give an executor with spawned processes to the body, or None for one worker: this process.

    Parameters
    ----------
    workers : int
        Number of processes. After an error or Ctrl-C, tasks that have not started are not run.
    """
    if workers == 1:
        yield None
        return
    before = {name: os.environ.get(name) for name in THREADS}
    # The processes inherit the environment.
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        with ProcessPoolExecutor(workers, get_context("spawn"), _ignore_interrupts) as executor:
            try:
                yield executor
            except BaseException:
                executor.shutdown(cancel_futures=True)
                raise
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _ignore_interrupts() -> None:
    """Let Ctrl-C end the main process, which then ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
