"""What can be saved of a damaged SQLite file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import warnings
from pathlib import Path

from qmmlmm.errors import QmmlmmWarning
from qmmlmm.learning.loop.errors import LoopStoreError

VERSION = 1

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS rounds (round INTEGER PRIMARY KEY, phase TEXT NOT NULL, result TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS walkers (round INTEGER, walker INTEGER, state BLOB NOT NULL, checksum TEXT NOT NULL, "
    "event TEXT NOT NULL, UNIQUE (round, walker))",
    "CREATE TABLE IF NOT EXISTS trace (round INTEGER, walker INTEGER, step INTEGER, uncertainty REAL, energy REAL, "
    "variables TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, round INTEGER, kind TEXT, walker INTEGER, step INTEGER, "
    "geometry BLOB, geometry_checksum TEXT, uncertainty REAL, variables TEXT, status TEXT, "
    "attempts INTEGER, reason TEXT, seconds REAL, label TEXT, label_checksum TEXT)",
    "CREATE TABLE IF NOT EXISTS hills (round INTEGER, walker INTEGER, hills TEXT NOT NULL, checksum TEXT NOT NULL, "
    "UNIQUE (round, walker))",
    "CREATE TABLE IF NOT EXISTS times (round INTEGER, kind TEXT, seconds REAL)",
)
TABLES = ("meta", "rounds", "walkers", "trace", "jobs", "hills", "times")
LONGEST_GAP = 1000
"""Rows that are looked for in vain before the search ends, where the file does not say how many there are."""
# Without these the loop does not know where it stands.
NEEDED = ("meta", "rounds")


def salvage(path: Path) -> None:
    """Replace a damaged file by one with all rows that can be read; keep the damaged one beside it.

    Parameters
    ----------
    path : Path
        Of a SQLite file. Nothing happens if it is sound.

    Raises
    ------
    LoopStoreError
        If the file is no database any more, or the rows that say where the loop stands are among the damaged.
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
            f"{path} is damaged ({reason}) where it says how far the loop is; the labels are safe in the file beside "
            "it: start a loop in another directory with these labels"
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
    """Return what is wrong with a file, or an empty text."""
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            found = [str(row[0]) for row in database.execute("PRAGMA integrity_check(3)")]
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
            raise LoopStoreError(f"{path} cannot be opened: {error}") from error
        return str(error)
    return "" if found == ["ok"] else found[0].splitlines()[-1]


def _copy_rows(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> tuple[int, bool]:
    """Copy row by row, since a damaged page spoils those on it alone; return how many, and whether all."""
    columns = [row[1] for row in target.execute(f"PRAGMA table_info({table})")]
    try:
        (last,) = source.execute(f"SELECT MAX(rowid) FROM {table}").fetchone()
        whole = True
    except sqlite3.DatabaseError:
        last, whole = sys.maxsize, False
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
