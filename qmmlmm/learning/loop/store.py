"""The durable state of a learning loop: a SQLite file, and a copy of the labels as extended XYZ.

Every change is one transaction that is on the disk when the call returns, so that the process may end at any moment.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from qmmlmm.durable_files import checksum
from qmmlmm.errors import LoopError
from qmmlmm.learning.labels.data_set import parse_frame
from qmmlmm.learning.labels.label_job import CANDIDATE, CLAIMED, FAILED, LABELLED, WAITING, Job
from qmmlmm.learning.labels.label_mirror import LabelMirror
from qmmlmm.learning.labels.labelled_frame import LabelledFrame
from qmmlmm.learning.loop.database import LoopDatabase
from qmmlmm.learning.loop.round_record import Round, RoundResult, round_fault
from qmmlmm.learning.loop.walker_state import TraceRow, WalkerState
from qmmlmm.sampling.metadynamics import Hill

STORE_NAME = "loop.sqlite"
LABELS_NAME = "labels.xyz"


class LoopStore:
    """The state of a loop in a directory.

    Parameters
    ----------
    directory : Path
        Existing directory, locked by the caller.
    n_particles : int
        Number of particles of the System.

    Raises
    ------
    LoopStoreError
        If the files cannot be opened, or are damaged beyond repair.

    Notes
    -----
    ``loop.sqlite`` has the tables ``jobs`` (candidate, waiting, claimed, labelled or failed, with geometry, label and
    reason), ``rounds``, ``walkers`` (states at the end of each round), ``trace`` (observations along the
    trajectories), ``hills`` (of metadynamics: step, centre and height of each, as JSON) and ``times``. ``labels.xyz``
    is a copy of all labels for other tools. Geometries and labels have checksums, which are checked when the store is
    opened; see `LoopDatabase.repair`.
    """

    def __init__(self, directory: Path, n_particles: int) -> None:
        self.directory = directory
        self.n_particles = n_particles
        self.path = directory / STORE_NAME
        self.mirror = LabelMirror(directory / LABELS_NAME)
        self._database = LoopDatabase(self.path, self.mirror)
        self._database.repair()

    def close(self) -> None:
        """Close the files."""
        self._database.close()

    # Identity and rounds.

    def get(self, key: str) -> str | None:
        """Return the text of a key, or None."""
        rows = self._database.select("SELECT value FROM meta WHERE key=?", (key,))
        return str(rows[0][0]) if rows else None

    def put(self, key: str, value: str) -> None:
        """Store a text under a key."""
        with self._database.transaction() as database:
            database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def round(self) -> Round:
        """Return the last round; number -1 before the first round."""
        rounds = self.rounds()
        return rounds[-1] if rounds else Round(-1, "", {})

    def rounds(self) -> list[Round]:
        """Return all rounds.

        Raises
        ------
        LoopStoreError
            If a row is damaged.
        """
        rows = self._database.select("SELECT round, phase, result FROM rounds ORDER BY round")
        return [self._round(*row) for row in rows]

    def _round(self, number: object, phase: object, text: object) -> Round:
        what = f"the row of round {number} in the table rounds"
        result = self._database.decoded(text, what)
        fault = round_fault(number, phase, result)
        if fault:
            raise self._database.damaged(what, fault)
        return Round(cast(int, number), cast(str, phase), cast(RoundResult, result))

    def enter(self, number: int, phase: str, result: RoundResult) -> None:
        """Set phase and results of a round."""
        with self._database.transaction() as database:
            database.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?, ?)", (number, phase, json.dumps(result)))

    # Sampling.

    def add_walker_result(
        self,
        number: int,
        walker: int,
        state: WalkerState,
        candidates: Sequence[Job],
        trace: Iterable[TraceRow] = (),
        event: str = "",
        hills: Sequence[Hill] | None = None,
    ) -> None:
        """Store the results of a walker in a round.

        Parameters
        ----------
        number, walker : int
        state : WalkerState
            State from which its next round starts.
        candidates : sequence of Job
        trace : iterable of (step, uncertainty, energy, collective variables)
        event : str
            Reason for which it was stopped, empty if it was not.
        hills : sequence of Hill, optional
            Hills of the round; required with metadynamics, also if there are none.
        """
        with self._database.transaction() as database:
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
        return {int(row[0]) for row in self._database.select("SELECT walker FROM walkers WHERE round=?", (number,))}

    def walker_state(self, number: int, walker: int) -> WalkerState:
        """Return the state of a walker at the end of a round.

        Raises
        ------
        LoopError
            If it is missing or damaged.
        """
        rows = self._database.select("SELECT state, checksum FROM walkers WHERE round=? AND walker=?", (number, walker))
        row = rows[0] if rows else None
        if row is None or checksum(row[0]) != row[1]:
            raise LoopError(
                f"the state of walker {walker} after round {number} is {'missing' if row is None else 'damaged'} in "
                f"{self.path}; start a loop in another directory with labels={str(self.mirror.path)!r}"
            )
        return WalkerState.from_bytes(row[0], self.n_particles)

    def hills(self, number: int, walker: int | None = None) -> list[Hill]:
        """Return the hills added before a round, by one walker or by all, in the order of rounds and walkers.

        Raises
        ------
        LoopError
            If hills are missing or damaged.
        """
        rows = self._database.select(
            "SELECT walkers.round, walkers.walker, hills, hills.checksum FROM walkers LEFT JOIN hills ON "
            "walkers.round=hills.round AND walkers.walker=hills.walker WHERE walkers.round BETWEEN 1 AND ? "
            "ORDER BY walkers.round, walkers.walker",
            (number - 1,),
        )
        found = []
        for r, w, text, expected in rows:
            if walker is not None and w != walker:
                continue
            if text is None or checksum(text) != expected:
                state = "missing" if text is None else "damaged"
                raise LoopError(
                    f"the hills of walker {w} in round {r} are {state} in {self.path}; "
                    f"start a loop in another directory with labels={str(self.mirror.path)!r}"
                )
            hills = cast(list[Any], self._database.decoded(text, f"the hills of walker {w} in round {r}"))
            found += [Hill(int(step), tuple(centre), float(height)) for step, centre, height in hills]
        return found

    def events(self, number: int | None = None) -> list[tuple[int, int, str]]:
        """Return round, walker and reason of the walkers that were stopped, in one round or in all."""
        rows = self._database.select(
            "SELECT round, walker, event FROM walkers WHERE event != '' ORDER BY round, walker"
        )
        return [(int(r), int(w), str(text)) for r, w, text in rows if number is None or r == number]

    def trace(self) -> list[tuple[int, int, int, float, float, dict[str, float]]]:
        """Return round, walker, step, uncertainty, energy and collective variables of all observations."""
        rows = self._database.select("SELECT * FROM trace ORDER BY round, walker, step")
        return [(r, w, s, _number(u), _number(e), self._variables(cv, "a row of trace")) for r, w, s, u, e, cv in rows]

    # Jobs.

    def jobs(self, *status: str, number: int | None = None) -> list[Job]:
        """Return jobs in the order of their numbers: with one of the given statuses if any, of one round if given."""
        conditions = ([f"status IN ({','.join('?' * len(status))})"] if status else []) + (
            ["round=?"] if number is not None else []
        )
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        values = [*status, *([] if number is None else [number])]
        rows = self._database.select(f"SELECT {', '.join(_COLUMNS)} FROM jobs{where} ORDER BY id", values)
        return [self._job(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Return the number of jobs of each status."""
        found = dict.fromkeys((CANDIDATE, WAITING, CLAIMED, LABELLED, FAILED), 0)
        found.update(dict(self._database.select("SELECT status, COUNT(*) FROM jobs GROUP BY status")))
        return found

    def choose(self, number: int, chosen: Iterable[int], phase: str) -> None:
        """Let some candidates of a round wait for labels, delete the others, and set the phase of the round."""
        with self._database.transaction() as database:
            for identity in chosen:
                database.execute("UPDATE jobs SET status=? WHERE id=? AND status=?", (WAITING, identity, CANDIDATE))
            database.execute("DELETE FROM jobs WHERE round=? AND status=?", (number, CANDIDATE))
            database.execute("UPDATE rounds SET phase=? WHERE round=?", (phase, number))

    def claim(self, job: Job) -> Job:
        """Mark a job as being computed, and return it with its new status."""
        with self._database.transaction() as database:
            database.execute(
                "UPDATE jobs SET status=? WHERE id=? AND status IN (?, ?)",
                (CLAIMED, job.id, WAITING, CLAIMED),
            )
        return replace(job, status=CLAIMED)

    def add_label(self, job: Job, text: str, seconds: float) -> None:
        """Store the label of a job in the database, then in the file of all labels."""
        with self._database.transaction() as database:
            database.execute(
                "UPDATE jobs SET status=?, label=?, label_checksum=?, seconds=?, reason='' WHERE id=?",
                (LABELLED, text, checksum(text), seconds, job.id),
            )
        try:
            self.mirror.append(text)
        except OSError as error:
            raise self._database.translated(error) from error

    def give_back(self, job: Job, reason: str, final: bool) -> None:
        """Record a failed attempt: the job waits again, or has finally failed."""
        with self._database.transaction() as database:
            database.execute(
                "UPDATE jobs SET status=?, reason=?, attempts=attempts+1 WHERE id=?",
                (FAILED if final else WAITING, reason[:4000], job.id),
            )

    def try_again(self, number: int) -> None:
        """Let the failed jobs of a round wait again, without attempts."""
        with self._database.transaction() as database:
            database.execute(
                "UPDATE jobs SET status=?, attempts=0 WHERE round=? AND status=? AND geometry IS NOT NULL",
                (WAITING, number, FAILED),
            )

    def add_given(self, texts: Sequence[str]) -> None:
        """Store labels that were given to the loop, as texts of frames."""
        with self._database.transaction() as database:
            for text in texts:
                identity = _insert(database, Job(-1, "given", -1, 0, None))
                database.execute(
                    "UPDATE jobs SET status=?, label=?, label_checksum=? WHERE id=?",
                    (LABELLED, text, checksum(text), identity),
                )
        for text in texts:
            self.mirror.append(text)

    def labels(self, number: int | None = None) -> list[tuple[Job, LabelledFrame]]:
        """Return jobs with their labels in the order of the jobs, of one round or of all."""
        where = "" if number is None else " AND round=?"
        rows = self._database.select(
            f"SELECT {', '.join(_COLUMNS)}, label FROM jobs WHERE status=?{where} ORDER BY id",
            (LABELLED, *([] if number is None else [number])),
        )
        return [(self._job(row[:-1]), parse_frame(row[-1], f"{self.path}, label of job {row[0]}")) for row in rows]

    def _job(self, row: Sequence[Any]) -> Job:
        values = dict(zip(_COLUMNS, row, strict=True))
        data = values["geometry"]
        try:
            values["geometry"] = None if data is None else WalkerState.from_bytes(data, self.n_particles).geometry
        except LoopError as error:
            raise self._database.damaged(f"the geometry of job {values['id']}", error) from error
        values["variables"] = self._variables(values["variables"], f"the row of job {values['id']}")
        values["uncertainty"] = _number(values["uncertainty"])
        return Job(**values)

    def _variables(self, text: object, what: str) -> dict[str, float]:
        return cast(dict[str, float], self._database.decoded(text, what))

    # Time.

    def add_times(self, number: int, seconds: Mapping[str, float]) -> None:
        """Add wall times of a round by kind, in seconds."""
        with self._database.transaction() as database:
            database.executemany(
                "INSERT INTO times VALUES (?, ?, ?)", [(number, kind, spent) for kind, spent in seconds.items()]
            )

    def times(self) -> dict[str, float]:
        """Return the wall times of all rounds by kind, in seconds."""
        rows = self._database.select("SELECT kind, SUM(seconds) FROM times GROUP BY kind ORDER BY kind")
        return {str(kind): float(seconds) for kind, seconds in rows}


_COLUMNS = (
    "id", "round", "kind", "walker", "step", "geometry", "uncertainty", "variables", "status", "attempts",
    "reason", "seconds",
)  # fmt: skip


def _insert(database: sqlite3.Connection, job: Job) -> int:
    data = None if job.geometry is None else WalkerState(job.geometry).to_bytes()
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
    """Return a number of the database, where NULL stands for NaN."""
    return float("nan") if value is None else float(value)
