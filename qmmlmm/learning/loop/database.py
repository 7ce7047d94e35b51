"""The SQLite file of a loop: opening, transactions, and repair of damaged labels."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qmmlmm.durable_files import checksum, is_full
from qmmlmm.errors import LoopStoreError, QmmlmmWarning, listed
from qmmlmm.learning.full_disk import full_disk
from qmmlmm.learning.labels.label_job import CLAIMED, FAILED, LABELLED, WAITING
from qmmlmm.learning.labels.label_mirror import LabelMirror
from qmmlmm.learning.loop.salvage import salvage
from qmmlmm.learning.loop.schema import SCHEMA, VERSION

Row = tuple[Any, ...]
"""Values of SQLite: int, float, str, bytes or None."""


class LoopDatabase:
    """The open SQLite file of a loop.

    Parameters
    ----------
    path : Path
        Path of the file, created if necessary.
    mirror : LabelMirror
        Copy of all labels.

    Raises
    ------
    LoopStoreError
        If the file cannot be opened, or is damaged beyond repair.
    """

    def __init__(self, path: Path, mirror: LabelMirror) -> None:
        self.path = path
        self._mirror = mirror
        try:
            self._connection = self._open()
        except sqlite3.Error as error:
            raise self.translated(error) from error

    def _open(self) -> sqlite3.Connection:
        if self.path.exists():
            salvage(self.path)
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        # A rollback journal, because WAL needs shared memory, which network file systems lack. EXTRA also syncs the
        # directory after the journal is removed: a power cut does not bring it back.
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("PRAGMA synchronous=EXTRA")
        with self._transaction(connection):
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (str(VERSION),))
        ((version,),) = connection.execute("SELECT value FROM meta WHERE key='version'").fetchall()
        if version != str(VERSION):
            raise LoopStoreError(
                f"{self.path} has the format {version}, this version reads {VERSION}; start a loop in another "
                f"directory with the labels in {self._mirror.path}"
            )
        return connection

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def select(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Return the rows of a query.

        Parameters
        ----------
        statement : str
        values : sequence
            Values of the placeholders.

        Raises
        ------
        LoopStoreError
            If the file cannot be read.
        """
        try:
            return self._connection.execute(statement, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self.translated(error) from error

    def decoded(self, text: object, what: str) -> object:
        """Return the value of a text in JSON.

        Parameters
        ----------
        text : str
        what : str
            Row of the text, for the message.

        Raises
        ------
        LoopStoreError
            If it is damaged.
        """
        try:
            return json.loads(text)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise self.damaged(what, error) from error

    def damaged(self, what: str, error: object) -> LoopStoreError:
        """Return the error for a row that cannot be used."""
        return LoopStoreError(
            f"{self.path}: {what} is damaged ({error}); start a loop in another directory with the labels in "
            f"{self._mirror.path}"
        )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Return a context in which all changes are written together, or none.

        Raises
        ------
        LoopStoreError
            If the disk is full or the file cannot be written.
        """
        with self._transaction(self._connection) as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # SQLite has already rolled back on a full disk.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self.translated(error) from error

    def translated(self, error: BaseException) -> LoopStoreError:
        """Return the error of the package for an error of SQLite or of the file system."""
        if is_full(error):
            return full_disk(self.path, error)
        return LoopStoreError(f"{self.path} cannot be used: {error}; the labels are in {self._mirror.path} as well")

    def repair(self) -> None:
        """Check all checksums, and make the labels in the database and in its mirror equal.

        A label that is damaged in one of them is restored from the other; a label that is damaged in both waits again,
        and a job with a damaged geometry has failed.

        Raises
        ------
        LoopStoreError
            If a file cannot be read or written.
        """
        good, restored, lost = self._checked_labels()
        damaged = self._damaged_geometries()
        with self.transaction() as connection:
            for identity in restored:
                connection.execute("UPDATE jobs SET label=? WHERE id=?", (good[identity], identity))
            for identity in lost:
                connection.execute(
                    "UPDATE jobs SET status=?, label=NULL, label_checksum=NULL, reason='the label was damaged on disk' "
                    "WHERE id=?",
                    (WAITING, identity),
                )
            for identity in damaged:
                connection.execute(
                    "UPDATE jobs SET status=?, reason='the geometry was damaged on disk' WHERE id=?", (FAILED, identity)
                )
        if restored or lost or damaged:
            warnings.warn(
                f"{self.path} was damaged: labels of {listed(restored) or 'no job'} came back from "
                f"{self._mirror.path.name}, labels of {listed(lost) or 'no job'} are made again, geometries of "
                f"{listed(damaged) or 'no job'} are lost; {len(good)} labels are good",
                QmmlmmWarning,
                stacklevel=4,
            )
        try:
            self._mirror.make_equal(list(good.values()))
        except OSError as error:
            raise self.translated(error) from error

    def _checked_labels(self) -> tuple[dict[int, str], list[int], list[int]]:
        """Return the good labels by job, and the jobs whose labels were restored from the mirror or are lost."""
        copies = self._mirror.read()
        good: dict[int, str] = {}
        restored: list[int] = []
        lost: list[int] = []
        rows = self.select("SELECT id, label, label_checksum FROM jobs WHERE status=? ORDER BY id", (LABELLED,))
        for identity, label, expected in rows:
            if isinstance(label, str) and checksum(label) == expected:
                good[identity] = label
            elif expected in copies:
                good[identity] = copies[expected]
                restored.append(identity)
            else:
                lost.append(identity)
        return good, restored, lost

    def _damaged_geometries(self) -> list[int]:
        rows = self.select(
            "SELECT id, geometry, geometry_checksum FROM jobs WHERE status IN (?, ?) AND geometry IS NOT NULL",
            (WAITING, CLAIMED),
        )
        return [
            identity
            for identity, geometry, expected in rows
            if not isinstance(geometry, str | bytes) or checksum(geometry) != expected
        ]
