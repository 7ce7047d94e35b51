"""Rows of the CSV tables that reporters write, and what remains of them when a run continues from a checkpoint."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from qmmlmm.errors import OutputFileError


def csv_row(values: Sequence[object], *, header: bool = False) -> str:
    """Return a line of a table; a header is quoted and begins with ``#``, as OpenMM's reporters write it."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL if header else csv.QUOTE_MINIMAL, lineterminator="\n").writerow(values)
    return "#" + text.getvalue() if header else text.getvalue()


def first_line(path: Path) -> str:
    """Return the beginning of the first line of a file, for a message."""
    with open(path, "rb") as file:
        return file.readline(80).decode("utf-8", errors="replace").rstrip("\n")


def read_names(path: Path) -> list[str] | None:
    """Return the column names in the first line of a table, none if it is no header; None if it was cut short."""
    with open(path, "rb") as file:
        line = file.readline()
    if not line.endswith(b"\n"):
        return None
    text = line.decode("utf-8", errors="replace").rstrip("\n")
    return next(csv.reader([text[1:]])) if text.startswith("#") else []


def cut_rows(path: Path, last_step: int) -> int:
    """Remove the rows of a table after a step, and a last line that was cut short; return how many remain.

    Parameters
    ----------
    path : Path
        Table with a header, whose first column is the step.
    last_step : int
        Last step to keep.

    Raises
    ------
    OutputFileError
        If a line does not begin with a step.
    """
    if read_names(path) is None:
        os.truncate(path, 0)
        return 0
    with open(path, "r+b") as file:
        end = len(file.readline())
        rows = 0
        for number, line in enumerate(file, start=2):
            if not line.endswith(b"\n"):
                break
            try:
                step = int(line.split(b",", 1)[0])
            except ValueError:
                raise OutputFileError(
                    f"line {number} of {path} is no row of the table: {line[:60]!r}; "
                    "remove this and all later lines and resume again"
                ) from None
            if step > last_step:
                break
            rows += 1
            end += len(line)
        file.truncate(end)
    return rows
