"""Exceptions of the learning loop."""

from __future__ import annotations

import errno
import sqlite3

from qmmlmm.errors import QmmlmmError


class LoopError(QmmlmmError, RuntimeError):
    """A learning loop that cannot start or go on."""


class LoopStoreError(LoopError, OSError):
    """The directory of a loop cannot be read or written. What was written before is safe."""


def is_full(error: BaseException) -> bool:
    """Return whether an error says that a disk or quota is full."""
    if isinstance(error, sqlite3.OperationalError):
        return "full" in str(error) or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def full_disk(place: object, error: BaseException) -> LoopStoreError:
    """Return the error that tells the user about a full disk."""
    return LoopStoreError(
        f"the disk of {place} is full ({error}); nothing that was written is lost: make room and start the loop "
        "again, it goes on from here"
    )
