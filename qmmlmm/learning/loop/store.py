"""The durable state of a learning loop: one SQLite file, and beside it the labels as extended XYZ.

Every change is one transaction that is on the disk when the call returns, so that the process may end at any moment.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qmmlmm.errors import QmmlmmWarning, listed
from qmmlmm.learning.data_set import parse_frame
from qmmlmm.learning.labelled_frame import LabelledFrame
from qmmlmm.learning.loop.errors import LoopError, LoopStoreError, full_disk, is_full
from qmmlmm.learning.loop.geometry_record import Snapshot, checksum
from qmmlmm.learning.loop.label_mirror import LabelMirror
from qmmlmm.learning.loop.metadynamics import Hill
from qmmlmm.learning.loop.salvage import SCHEMA, VERSION, salvage

STORE_NAME = "loop.sqlite"
LABELS_NAME = "labels.xyz"

CANDIDATE, WAITING, CLAIMED, LABELLED, FAILED = "candidate", "waiting", "claimed", "labelled", "failed"


@dataclass(frozen=True)
class Job:
    """A geometry that may get, waits for, or has a label.

    Parameters
    ----------
    round : int
        In which it was found.
    kind : str
        Why: "start", "fresh" (drawn at random), "uncertain", "runaway" or "given".
    walker, step : int
        Where and when.
    snapshot : Snapshot or None
        None for labels that were given to the loop.
    uncertainty : float, kJ/(mol nm)
        Largest expected error of a force; NaN without a model.
    variables : dict of str to float
        Collective variables.
    id : int
        Given by the store.
    status : str
    attempts : int
        That failed; those that ended with the loop do not count.
    reason : str
        Why it failed, or why the last attempt did.
    seconds : float
        What the label cost.
    """

    round: int
    kind: str
    walker: int
    step: int
    snapshot: Snapshot | None
    uncertainty: float = float("nan")
    variables: dict[str, float] | None = None
    id: int = 0
    status: str = CANDIDATE
    attempts: int = 0
    reason: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Name of its frame."""
        return f"{self.kind}-{self.id:06d}"


class LoopStore:
    """The state of a loop in a directory.

    Parameters
    ----------
    directory : Path
        Exists and is locked by the caller.
    n_particles : int
        Of the System.

    Raises
    ------
    LoopStoreError
        If the files cannot be opened, or are damaged beyond what can be repaired.

    Notes
    -----
    ``loop.sqlite`` has the tables ``jobs`` (candidate, waiting, claimed, labelled or failed, with geometry, label and
    reason), ``rounds``, ``walkers`` (states at the end of each round), ``trace`` (what was seen along the way),
    ``hills`` (of metadynamics: step, centre and height of each, as JSON) and ``times``. ``labels.xyz`` is a copy of all
    labels for other tools. Geometries and labels have checksums, which are looked at when the store is opened: a label
    that is damaged in one of the files comes back from the other, one that is damaged in both is made again.
    """

    def __init__(self, directory: Path, n_particles: int) -> None:
        self.directory = directory
        self.n_particles = n_particles
        self.path = directory / STORE_NAME
        self.mirror = LabelMirror(directory / LABELS_NAME)
        try:
            self._database = self._open()
            self._repair()
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _open(self) -> sqlite3.Connection:
        new = not self.path.exists()
        if not new:
            salvage(self.path)
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        # A rollback journal, since WAL needs shared memory, which network file systems lack. EXTRA also syncs the
        # directory after the journal is removed: a power cut does not bring it back.
        database.execute("PRAGMA journal_mode=DELETE")
        database.execute("PRAGMA synchronous=EXTRA")
        with self._transaction(database):
            for statement in SCHEMA:
                database.execute(statement)
            database.execute("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (str(VERSION),))
        (version,) = database.execute("SELECT value FROM meta WHERE key='version'").fetchone()
        if version != str(VERSION):
            raise LoopStoreError(f"{self.path} has the format {version}, this version reads {VERSION}")
        return database

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _translated(self, error: BaseException) -> LoopStoreError:
        if is_full(error):
            return full_disk(self.path, error)
        return LoopStoreError(f"{self.path} cannot be used: {error}; the labels are in {self.mirror.path} as well")

    @contextlib.contextmanager
    def _transaction(self, database: sqlite3.Connection | None = None) -> Iterator[sqlite3.Connection]:
        """All or nothing."""
        database = self._database if database is None else database
        try:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                # A full disk has already rolled back.
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _repair(self) -> None:
        """Look at checksums; bring the labels in both files together."""
        rows = self._database.execute(
            "SELECT id, label, label_checksum FROM jobs WHERE status=? ORDER BY id", (LABELLED,)
        ).fetchall()
        copies = self.mirror.read()
        good: dict[int, str] = {}
        lost: list[int] = []
        restored: list[int] = []
        for identity, label, wanted in rows:
            if label is not None and checksum(label) == wanted:
                good[identity] = label
            elif wanted in copies:
                good[identity] = copies[wanted]
                restored.append(identity)
            else:
                lost.append(identity)
        broken = [
            identity
            for identity, geometry, wanted in self._database.execute(
                "SELECT id, geometry, geometry_checksum FROM jobs WHERE status IN (?, ?) AND geometry IS NOT NULL",
                (WAITING, CLAIMED),
            )
            if checksum(geometry) != wanted
        ]
        with self._transaction() as database:
            for identity in restored:
                database.execute("UPDATE jobs SET label=? WHERE id=?", (good[identity], identity))
            for identity in lost:
                database.execute(
                    "UPDATE jobs SET status=?, label=NULL, label_checksum=NULL, reason='the label was damaged on disk' "
                    "WHERE id=?",
                    (WAITING, identity),
                )
            for identity in broken:
                database.execute(
                    "UPDATE jobs SET status=?, reason='the geometry was damaged on disk' WHERE id=?", (FAILED, identity)
                )
        if restored or lost or broken:
            warnings.warn(
                f"{self.path} was damaged: labels of {listed(restored) or 'no job'} came back from {LABELS_NAME}, "
                f"labels of {listed(lost) or 'no job'} are made again, geometries of {listed(broken) or 'no job'} are "
                f"set aside; {len(good)} labels are good",
                QmmlmmWarning,
                stacklevel=4,
            )
        try:
            self.mirror.make_equal(list(good.values()))
        except OSError as error:
            raise self._translated(error) from error

    # What the loop remembers of itself.

    def get(self, key: str) -> str | None:
        """Return a remembered text."""
        row = self._database.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, key: str, value: str) -> None:
        """Remember a text."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def round(self) -> tuple[int, str, dict[str, Any]]:
        """Return number, phase and results so far of the last round; (-1, "", {}) before the first."""
        row = self._database.execute("SELECT round, phase, result FROM rounds ORDER BY round DESC LIMIT 1").fetchone()
        return (-1, "", {}) if row is None else (int(row[0]), str(row[1]), dict(json.loads(row[2])))

    def rounds(self) -> list[tuple[int, str, dict[str, Any]]]:
        """Return number, phase and results of all rounds."""
        rows = self._database.execute("SELECT round, phase, result FROM rounds ORDER BY round")
        return [(int(number), str(phase), dict(json.loads(result))) for number, phase, result in rows]

    def enter(self, number: int, phase: str, result: dict[str, Any]) -> None:
        """Put a round into a phase."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?, ?)", (number, phase, json.dumps(result)))

    # Sampling.

    def add_walk(
        self,
        number: int,
        walker: int,
        state: Snapshot,
        candidates: Sequence[Job],
        trace: Iterable[tuple[int, float, float, dict[str, float]]] = (),
        event: str = "",
        hills: Sequence[Hill] | None = None,
    ) -> None:
        """Keep what one walker did in a round, as a whole.

        Parameters
        ----------
        number, walker : int
        state : Snapshot
            From which its next round starts.
        candidates : sequence of Job
        trace : iterable of (step, uncertainty, energy, collective variables)
        event : str
            Why it stopped early, if it did.
        hills : sequence of Hill, optional
            With metadynamics, also if there are none.
        """
        with self._transaction() as database:
            data = state.to_bytes()
            database.execute(
                "INSERT INTO walkers VALUES (?, ?, ?, ?, ?)", (number, walker, data, checksum(data), event)
            )
            database.executemany(
                "INSERT INTO trace VALUES (?, ?, ?, ?, ?, ?)",
                [(number, walker, step, spread, energy, json.dumps(cv)) for step, spread, energy, cv in trace],
            )
            if hills is not None:
                text = json.dumps([[hill.step, list(hill.centre), hill.height] for hill in hills])
                database.execute("INSERT INTO hills VALUES (?, ?, ?, ?)", (number, walker, text, checksum(text)))
            for job in candidates:
                _insert(database, job)

    def walkers_done(self, number: int) -> set[int]:
        """Return the walkers that have finished a round."""
        return {int(row[0]) for row in self._database.execute("SELECT walker FROM walkers WHERE round=?", (number,))}

    def walker_state(self, number: int, walker: int) -> Snapshot:
        """Return the state of a walker at the end of a round.

        Raises
        ------
        LoopError
            If it was damaged.
        """
        row = self._database.execute(
            "SELECT state, checksum FROM walkers WHERE round=? AND walker=?", (number, walker)
        ).fetchone()
        if row is None or checksum(row[0]) != row[1]:
            raise LoopError(
                f"the state of walker {walker} after round {number} is {'missing' if row is None else 'damaged'} in "
                f"{self.path}; start a loop in another directory with labels={str(self.mirror.path)!r}"
            )
        return Snapshot.from_bytes(row[0], self.n_particles)

    def hills(self, number: int, walker: int | None = None) -> list[Hill]:
        """Return the hills that were put before a round, by one walker or by all, in the order of rounds and walkers.

        Raises
        ------
        LoopError
            If some were damaged.
        """
        rows = self._database.execute(
            "SELECT walkers.round, walkers.walker, hills, hills.checksum FROM walkers LEFT JOIN hills ON "
            "walkers.round=hills.round AND walkers.walker=hills.walker WHERE walkers.round BETWEEN 1 AND ? "
            "ORDER BY walkers.round, walkers.walker",
            (number - 1,),
        )
        found = []
        for r, w, text, wanted in rows:
            if walker is not None and w != walker:
                continue
            if text is None or checksum(text) != wanted:
                state = "missing" if text is None else "damaged"
                raise LoopError(
                    f"the hills of walker {w} in round {r} are {state} in {self.path}; "
                    f"start a loop in another directory with labels={str(self.mirror.path)!r}"
                )
            found += [Hill(int(step), tuple(centre), float(height)) for step, centre, height in json.loads(text)]
        return found

    def events(self, number: int | None = None) -> list[tuple[int, int, str]]:
        """Return round, walker and text of the walks that ended early, in one round or in all."""
        rows = self._database.execute(
            "SELECT round, walker, event FROM walkers WHERE event != '' ORDER BY round, walker"
        )
        return [(int(r), int(w), str(text)) for r, w, text in rows if number is None or r == number]

    def trace(self) -> list[tuple[int, int, int, float, float, dict[str, float]]]:
        """Return round, walker, step, uncertainty, energy and collective variables of all that was looked at."""
        rows = self._database.execute("SELECT * FROM trace ORDER BY round, walker, step")
        return [(r, w, s, _number(u), _number(e), json.loads(cv)) for r, w, s, u, e, cv in rows]

    # Jobs.

    def jobs(self, *status: str, number: int | None = None) -> list[Job]:
        """Return jobs in the order of their numbers, with some status or any, of one round or all."""
        conditions = ([f"status IN ({','.join('?' * len(status))})"] if status else []) + (
            ["round=?"] if number is not None else []
        )
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        values = [*status, *([] if number is None else [number])]
        rows = self._database.execute(f"SELECT {', '.join(_COLUMNS)} FROM jobs{where} ORDER BY id", values)
        return [self._job(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Return how many jobs have each status."""
        found = dict.fromkeys((CANDIDATE, WAITING, CLAIMED, LABELLED, FAILED), 0)
        found.update(dict(self._database.execute("SELECT status, COUNT(*) FROM jobs GROUP BY status").fetchall()))
        return found

    def choose(self, number: int, chosen: Iterable[int], phase: str) -> None:
        """Let some candidates of a round wait for labels, drop the others, and put the round into a phase."""
        with self._transaction() as database:
            for identity in chosen:
                database.execute("UPDATE jobs SET status=? WHERE id=? AND status=?", (WAITING, identity, CANDIDATE))
            database.execute("DELETE FROM jobs WHERE round=? AND status=?", (number, CANDIDATE))
            database.execute("UPDATE rounds SET phase=? WHERE round=?", (phase, number))

    def claim(self, job: Job) -> Job:
        """Note that a job is about to be computed, and return it as it is then."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET status=? WHERE id=? AND status IN (?, ?)",
                (CLAIMED, job.id, WAITING, CLAIMED),
            )
        return replace(job, status=CLAIMED)

    def add_label(self, job: Job, text: str, seconds: float) -> None:
        """Keep the label of a job: in the database first, then in the file of all labels."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET status=?, label=?, label_checksum=?, seconds=?, reason='' WHERE id=?",
                (LABELLED, text, checksum(text), seconds, job.id),
            )
        try:
            self.mirror.append(text)
        except OSError as error:
            raise self._translated(error) from error

    def give_back(self, job: Job, reason: str, final: bool) -> None:
        """Note that an attempt failed: the job waits again, or is set aside for good."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET status=?, reason=?, attempts=attempts+1 WHERE id=?",
                (FAILED if final else WAITING, reason[:4000], job.id),
            )

    def try_again(self, number: int) -> None:
        """Let the jobs of a round that were set aside wait again, as if they had not been tried."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET status=?, attempts=0 WHERE round=? AND status=? AND geometry IS NOT NULL",
                (WAITING, number, FAILED),
            )

    def add_given(self, texts: Sequence[tuple[str, str]]) -> None:
        """Take in labels from elsewhere, (name, text) each, as one transaction."""
        with self._transaction() as database:
            for _, text in texts:
                identity = _insert(database, Job(-1, "given", -1, 0, None))
                database.execute(
                    "UPDATE jobs SET status=?, label=?, label_checksum=? WHERE id=?",
                    (LABELLED, text, checksum(text), identity),
                )
        for _, text in texts:
            self.mirror.append(text)

    def labels(self, number: int | None = None) -> list[tuple[Job, LabelledFrame]]:
        """Return jobs with their labels in the order of the jobs, however they were finished."""
        where = "" if number is None else " AND round=?"
        rows = self._database.execute(
            f"SELECT {', '.join(_COLUMNS)}, label FROM jobs WHERE status=?{where} ORDER BY id",
            (LABELLED, *([] if number is None else [number])),
        ).fetchall()
        return [(self._job(row[:-1]), parse_frame(row[-1], f"label of job {row[0]}")) for row in rows]

    def _job(self, row: Sequence[Any]) -> Job:
        values = dict(zip(_COLUMNS, row, strict=True))
        geometry = values.pop("geometry")
        values["snapshot"] = None if geometry is None else Snapshot.from_bytes(geometry, self.n_particles)
        values["variables"] = json.loads(values["variables"])
        values["uncertainty"] = _number(values["uncertainty"])
        return Job(**values)

    # Time.

    def book(self, number: int, seconds: dict[str, float]) -> None:
        """Add what was spent in a round."""
        with self._transaction() as database:
            database.executemany(
                "INSERT INTO times VALUES (?, ?, ?)", [(number, what, spent) for what, spent in seconds.items()]
            )

    def times(self) -> dict[str, float]:
        """Return what was spent in all, by kind, in seconds."""
        rows = self._database.execute("SELECT kind, SUM(seconds) FROM times GROUP BY kind ORDER BY kind")
        return {str(kind): float(seconds) for kind, seconds in rows}


_COLUMNS = (
    "id", "round", "kind", "walker", "step", "geometry", "uncertainty", "variables", "status", "attempts",
    "reason", "seconds",
)  # fmt: skip


def _insert(database: sqlite3.Connection, job: Job) -> int:
    data = None if job.snapshot is None else job.snapshot.to_bytes()
    cursor = database.execute(
        "INSERT INTO jobs (round, kind, walker, step, geometry, geometry_checksum, uncertainty, variables, "
        "status, attempts, reason, seconds) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '', 0.0)",
        (
            job.round, job.kind, job.walker, job.step, data, None if data is None else checksum(data),
            job.uncertainty, json.dumps(job.variables or {}), job.status,
        ),
    )  # fmt: skip
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _number(value: float | None) -> float:
    """SQLite keeps NaN as NULL."""
    return float("nan") if value is None else float(value)
