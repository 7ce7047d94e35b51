"""Output files that somebody deletes, replaces or cuts while a run writes to them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from qmmlmm.errors import RunDirectoryError

TAIL_BYTES = 64
"""Bytes before the end of a file that are compared: a file that was cut and written to again has others there."""


@dataclass(frozen=True)
class _Seen:
    device: int
    inode: int
    size: int
    tail: bytes


class OutputWatch:
    """Compares an output file with what it was at the last look.

    Parameters
    ----------
    path : Path
        File that grows at its end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: _Seen | None = None

    def look(self, expected: bool, last_step: int) -> None:
        """Compare the file with the last look, and remember it.

        Parameters
        ----------
        expected : bool
            Whether the file has to exist.
        last_step : int
            Step of the last checkpoint, for the message.

        Raises
        ------
        RunDirectoryError
            If it was deleted, replaced or cut.
        """
        before = self._seen
        try:
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                if before is not None:
                    same_file = (status.st_dev, status.st_ino) == (before.device, before.inode)
                    if (
                        not same_file
                        or status.st_size < before.size
                        or _tail(file.fileno(), before.size) != before.tail
                    ):
                        raise self._error("was replaced or cut", last_step)
                tail = _tail(file.fileno(), status.st_size)
                self._seen = _Seen(status.st_dev, status.st_ino, status.st_size, tail)
        except FileNotFoundError:
            if before is not None or expected:
                raise self._error("was deleted", last_step) from None

    def _error(self, what: str, last_step: int) -> RunDirectoryError:
        return RunDirectoryError(
            f"{self._path} {what} by somebody else during the run, so that what the run writes to it is lost; the last "
            f"checkpoint is that of step {last_step}: restore the file as it was then and resume"
        )


def _tail(descriptor: int, size: int) -> bytes:
    start = max(0, size - TAIL_BYTES)
    return os.pread(descriptor, size - start, start)
