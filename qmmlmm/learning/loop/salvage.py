"""Recovery of the readable rows of a damaged SQLite file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import warnings
from pathlib import Path

from qmmlmm.errors import LoopStoreError, QmmlmmWarning
from qmmlmm.learning.loop.schema import SCHEMA, TABLES

LONGEST_GAP = 1000
"""Number of missing rows after which the search ends, where the number of rows is not known."""
# Without these tables the loop cannot continue.
NEEDED = ("meta", "rounds")


def salvage(path: Path) -> None:
    """Replace a damaged file by one with all readable rows, and keep the damaged file under another name.

    Parameters
    ----------
    path : Path
        Path of a SQLite file. Nothing happens if it is not damaged.

    Raises
    ------
    LoopStoreError
        If the file is no database any more, or rows without which the loop cannot continue are damaged.
    """
    reason = _damage(path)
    if not reason:
        return
    fresh = path.with_name(f".{path.name}.salvaged")
    fresh.unlink(missing_ok=True)
    kept: dict[str, int] = {}
    failed: list[str] = []
    with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as target:
        for statement in SCHEMA:
            target.execute(statement)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as source:
            for table in TABLES:
                kept[table], whole = _copy_rows(source, target, table)
                if not whole:
                    failed.append(table)
    damaged = _free_name(path)
    if any(table in failed or not kept[table] for table in NEEDED):
        fresh.unlink(missing_ok=True)
        raise LoopStoreError(
            f"{path} is damaged ({reason}) in rows without which the loop cannot continue; the labels are safe in "
            "labels.xyz: start a loop in another directory with these labels"
        )
    journal = path.with_name(path.name + "-journal")
    os.replace(path, damaged)
    journal.unlink(missing_ok=True)
    os.replace(fresh, path)
    warnings.warn(
        f"{path} was damaged ({reason}); {kept['jobs']} jobs and {kept['walkers']} states of walkers were read and "
        f"kept, the damaged file is {damaged.name}",
        QmmlmmWarning,
        stacklevel=5,
    )


def _damage(path: Path) -> str:
    """Return the damage of a file, or an empty text."""
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            found = [str(row[0]) for row in database.execute("PRAGMA integrity_check(3)")]
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
            raise LoopStoreError(f"{path} cannot be opened: {error}") from error
        return str(error)
    return "" if found == ["ok"] else found[0].splitlines()[-1]


def _copy_rows(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> tuple[int, bool]:
    """Copy the readable rows of a table; return their number, and whether the table is complete."""
    columns = [row[1] for row in target.execute(f"PRAGMA table_info({table})")]
    try:
        (last,) = source.execute(f"SELECT MAX(rowid) FROM {table}").fetchone()
        whole = True
    except sqlite3.DatabaseError:
        last, whole = sys.maxsize, False
    # Row by row, because a damaged page affects only its own rows.
    count = rowid = missed = 0
    marks = ",".join("?" * len(columns))
    target.execute("BEGIN")
    while last is not None and rowid <= last and (whole or missed < LONGEST_GAP):
        missed += 1
        try:
            row = source.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE rowid=?", (rowid,)).fetchone()
            if row is not None:
                target.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", row)
                count, missed = count + 1, 0
        except (sqlite3.Error, UnicodeDecodeError):
            whole = False
        rowid += 1
    target.execute("COMMIT")
    return count, whole


def _free_name(path: Path) -> Path:
    number = 1
    while (damaged := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return damaged
