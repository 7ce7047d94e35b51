"""A lock against two processes that compute the same task."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from qmmlmm.runs.directory_lock import NO_LOCKS


@contextlib.contextmanager
def task_lock(path: Path) -> Iterator[None]:
    """Hold a lock in the body, after waiting for the process that has it.

    A worker that outlives the process that started it may still compute a task when that is started again.

    Parameters
    ----------
    path : Path
        Lock file, which is removed if the body succeeds: the task is complete then.

    Notes
    -----
    The kernel releases the lock when a process dies. File systems without locks have no protection.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
