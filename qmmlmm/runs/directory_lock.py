"""A lock against two processes that write to one run directory."""

from __future__ import annotations

import errno
import fcntl
import os
import warnings
from pathlib import Path

from qmmlmm.errors import QmmlmmWarning, RunDirectoryError

LOCK_NAME = ".lock"
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

_open_in_process: set[tuple[int, int]] = set()


class DirectoryLock:
    """Holds a directory until its release or the end of the process.

    Parameters
    ----------
    folder : Path
        Existing directory.

    Raises
    ------
    RunDirectoryError
        If this or another process holds it.

    Notes
    -----
    POSIX record locks: the kernel releases them at the end of the process, so that no stale lock is left, and children
    of a process do not inherit them. They do not exclude each other within one process, hence the set.
    """

    def __init__(self, folder: Path) -> None:
        status = folder.stat()
        self._key = (status.st_dev, status.st_ino)
        self._file: int | None = None
        if self._key in _open_in_process:
            raise RunDirectoryError(
                f"{folder} is already open in this process; call close() on the RunDirectory that holds it"
            )
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 100).decode("ascii", errors="replace").strip()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(descriptor)
                raise RunDirectoryError(
                    f"{folder} is in use by another process ({holder or 'unknown'}); wait for it to end, or "
                    "choose another directory"
                ) from None
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            warnings.warn(
                f"the file system of {folder} has no locks: make sure that no other process uses it",
                QmmlmmWarning,
                stacklevel=3,
            )
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}\n".encode("ascii"), 0)
        except OSError:
            os.close(descriptor)
            raise
        self._file = descriptor
        self._owner = os.getpid()
        _open_in_process.add(self._key)

    def release(self) -> None:
        """Release the directory. A second call has no effect, nor has a call in a forked child."""
        if self._file is None:
            return
        descriptor, self._file = self._file, None
        os.close(descriptor)
        if os.getpid() == self._owner:
            _open_in_process.discard(self._key)
