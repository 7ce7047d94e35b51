"""Files that survive a crash: written as a whole or not at all, with checksums, and errors that name a full disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from qmmlmm.errors import FullDiskError


def replace_file(path: Path, data: bytes) -> None:
    """Write a file that at any moment is the old or the new one as a whole."""
    os.replace(write_beside(path, data), path)


def write_beside(path: Path, data: bytes) -> Path:
    """Write a temporary file in the folder of `path`, sync it to the disk and return its path.

    Raises
    ------
    FullDiskError
        If the disk is full; no temporary file is left.
    OSError
        If it cannot be written otherwise; no temporary file is left.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        with naming_full_disk(path), open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


@contextlib.contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Raise FullDiskError, which names the file, instead of the error of a full disk in the body."""
    try:
        yield
    except OSError as error:
        if not is_full(error) or isinstance(error, FullDiskError):
            raise
        raise full_disk_error(path, error) from error


def full_disk_error(path: Path, error: OSError) -> FullDiskError:
    """Return the error for a file whose disk is full."""
    found = FullDiskError(
        f"{path} cannot be written: {error.strerror or error}; make room on its disk and continue from the last "
        "checkpoint: what was written before is safe"
    )
    found.errno = error.errno
    return found


def sync_file(path: Path) -> None:
    """Sync a file to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming_full_disk(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


SEAL = b"qmmlmm-sha256:"


def sealed(data: bytes) -> bytes:
    """Return data with their SHA-256 at the end, for `unsealed`. Most readers of binary formats ignore it."""
    return data + SEAL + hashlib.sha256(data).digest()


def unsealed(content: bytes) -> bytes:
    """Return the data that were `sealed`.

    Raises
    ------
    ValueError
        If they have another checksum.
    """
    length = len(SEAL) + hashlib.sha256().digest_size
    data, seal = content[:-length], content[-length:]
    if seal != SEAL + hashlib.sha256(data).digest():
        raise ValueError("the file is damaged or was cut short")
    return data


def checksum(data: bytes | str) -> str:
    """Return the SHA-256 of bytes or of a text."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def is_full(error: BaseException) -> bool:
    """Return whether an error is caused by a full disk or quota."""
    if isinstance(error, sqlite3.OperationalError):
        # Only errors that SQLite itself raises have a code.
        return "full" in str(error) or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
