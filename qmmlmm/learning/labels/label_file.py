"""A file for one label, written by the process that computes it.

Space for a label is reserved before it is computed, so that no label is lost on a disk that fills up meanwhile. The
process that computes it locks the file and writes into it: if the loop is killed meanwhile, the label is still
finished, and the next loop waits for it instead of computing it again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from pathlib import Path

from qmmlmm.durable_files import is_full
from qmmlmm.errors import LoopStoreError
from qmmlmm.learning.full_disk import full_disk

MAGIC = b"qmmlmm-label-1\n"
_HEAD = len(MAGIC) + 8 + 32
POLL = 0.05
"""Seconds between two attempts to get a lock."""


class LabelFile:
    """The file for the label of one job.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def reserve(self, size: int) -> None:
        """Create the file with space for a number of bytes; an existing file is unchanged.

        Raises
        ------
        LoopStoreError
            If the disk is full. No file is left.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return
        except OSError as error:
            raise full_disk(self.path, error) if is_full(error) else error from None
        try:
            os.posix_fallocate(descriptor, 0, _HEAD + size)
        except OSError as error:
            self.path.unlink(missing_ok=True)
            raise full_disk(self.path, error) if is_full(error) else error from None
        finally:
            os.close(descriptor)

    def acquire(self, patience: float) -> int | None:
        """Wait for the lock, and return the descriptor of the open file; None without a file, as on other machines.

        Parameters
        ----------
        patience : float, s

        Raises
        ------
        TimeoutError
            If another process holds the lock for longer.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            return None
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    os.close(descriptor)
                    raise TimeoutError(f"{self.path} is locked by another process that does not finish") from None
                time.sleep(POLL)
                continue
            except OSError:
                pass  # a file system without locks
            return descriptor

    def read(self) -> tuple[str, float] | None:
        """Return the label and its computing time in seconds, or None if it is not complete.

        Raises
        ------
        LoopStoreError
            If the file cannot be read, or is complete and has something else.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LoopStoreError(f"the file {self.path} of a label cannot be read ({error}); remove it") from error
        if not data.startswith(MAGIC) or len(data) < _HEAD:
            return None
        length = int.from_bytes(data[len(MAGIC) : len(MAGIC) + 8], "little")
        payload = data[_HEAD : _HEAD + length]
        if len(payload) != length or hashlib.sha256(payload).digest() != data[len(MAGIC) + 8 : _HEAD]:
            return None
        try:
            content = json.loads(payload)
            return str(content["label"]), float(content["seconds"])
        except (ValueError, TypeError, LookupError) as error:
            raise LoopStoreError(
                f"the file {self.path} has no label that this version reads ({type(error).__name__}: {error}); remove "
                "it, and the label is computed again"
            ) from error

    @staticmethod
    def write(descriptor: int, label: str, seconds: float) -> None:
        """Write a label into the file of a descriptor from `acquire`."""
        payload = json.dumps({"label": label, "seconds": seconds}).encode()
        head = MAGIC + len(payload).to_bytes(8, "little") + hashlib.sha256(payload).digest()
        data = head + payload
        while data:
            done = os.pwrite(descriptor, data, len(head) + len(payload) - len(data))
            data = data[done:]
        os.fsync(descriptor)

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)
