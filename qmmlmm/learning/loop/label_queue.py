"""Labels of all waiting jobs of a store, made in parallel; each is kept the moment it is there."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from qmmlmm.learning.data_set import parse_frame
from qmmlmm.learning.labelled_frame import DataSetError
from qmmlmm.learning.loop.errors import LoopError, LoopStoreError
from qmmlmm.learning.loop.label_task import (
    DEFAULT_LIMITS,
    JobLimits,
    LabelOutcome,
    LabelSource,
    LabelTask,
    leave_servers,
    make_label,
)
from qmmlmm.learning.loop.spool import SpoolFile
from qmmlmm.learning.loop.store import CLAIMED, WAITING, Job, LoopStore

SPOOL_NAME = "spool"
LOOK = 0.5
"""Seconds between two calls of the function that shows progress."""


@dataclass(frozen=True)
class LabelSettings:
    """How labels are made.

    Parameters
    ----------
    workers : int
        Labels that are made at once. With an executor of your own: how many are handed to it.
    limits : JobLimits
        Of each.
    attempts : int
        After so many failures a job is set aside.
    isolated : bool
        Whether each worker makes labels in a process of its own, which limits of time and memory need.
    """

    workers: int = 1
    limits: JobLimits = DEFAULT_LIMITS
    attempts: int = 2
    isolated: bool = True


DEFAULT_SETTINGS = LabelSettings()


class LabelQueue:
    """Makes the labels of a store.

    Parameters
    ----------
    store : LoopStore
    source : LabelSource
    reserve : int
        Bytes that a label may take on disk.
    settings : LabelSettings
    executor : Executor, or callable that returns one, optional
        Threads by default, each with a process that computes. A callable is asked again when its executor breaks.
    """

    def __init__(
        self,
        store: LoopStore,
        source: LabelSource,
        reserve: int,
        settings: LabelSettings = DEFAULT_SETTINGS,
        executor: Executor | Callable[[], Executor] | None = None,
    ) -> None:
        self.store = store
        self.settings = settings
        self._source = pickle.dumps(source)
        self._reserve = reserve
        self._spool = store.directory / SPOOL_NAME
        self._make: Callable[[], Executor] | None = None
        self._own = executor is None or callable(executor)
        if executor is None:
            self._make = lambda: ThreadPoolExecutor(settings.workers, thread_name_prefix="label")
        elif isinstance(executor, Executor):
            self._own = False
        else:
            self._make = executor
        self._executor: Executor | None = executor if isinstance(executor, Executor) else None
        self.busy = 0.0

    def close(self) -> None:
        """End workers that were started here."""
        if self._own and self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
        leave_servers()

    def run(self, look: Callable[[], None] = lambda: None) -> float:
        """Make the labels of all jobs that wait; return once each has one or is set aside.

        Parameters
        ----------
        look : callable
            Called now and then.

        Returns
        -------
        float
            Seconds of wall time in which at least one label was being computed.

        Raises
        ------
        LoopStoreError
            If the disk is full. Labels that were being made are finished and kept where there is room.
        LoopError
            If the executor broke and there is no way to a new one.
        """
        self._spool.mkdir(exist_ok=True)
        waiting = self._pick_up(self.store.jobs(CLAIMED, WAITING))
        running: dict[Future[LabelOutcome], Job] = {}
        spans: list[tuple[float, float]] = []
        full: LoopStoreError | None = None
        while waiting or running:
            while waiting and len(running) < self.settings.workers and full is None:
                try:
                    SpoolFile(self._path(waiting[0])).reserve(self._reserve)
                    job = self.store.claim(waiting[0])
                except LoopStoreError as error:
                    full = error
                    break
                waiting.pop(0)
                running[self._submit(job)] = job
            if not running and full is not None:
                raise full
            done, _ = wait(running, timeout=LOOK, return_when=FIRST_COMPLETED)
            # In the order of the jobs, so that a run with one worker always takes the same course.
            for future in sorted(done, key=lambda future: running[future].id):
                job = running.pop(future)
                outcome = self._outcome(future)
                if outcome.ended:
                    spans.append((outcome.started, outcome.ended))
                try:
                    again = self._settle(job, outcome)
                except LoopStoreError as error:
                    full = error
                    continue
                if again is not None:
                    waiting.insert(0, again)
            look()
        if full is not None:
            raise full
        return covered(spans)

    def _path(self, job: Job) -> Path:
        return self._spool / f"{job.id:06d}.label"

    def _pick_up(self, jobs: list[Job]) -> list[Job]:
        """Keep labels that were finished after the loop was killed; return the jobs that are still open."""
        still_open = []
        for job in jobs:
            found = SpoolFile(self._path(job)).read()
            if found is None or self._settle(job, LabelOutcome(found[0], "", found[1])) is not None:
                still_open.append(job)
        return still_open

    def _submit(self, job: Job) -> Future[LabelOutcome]:
        assert job.snapshot is not None
        task = LabelTask(
            source=self._source,
            name=job.name,
            positions=job.snapshot.positions,
            box=job.snapshot.box,
            limits=self.settings.limits,
            isolated=self.settings.isolated,
            spool=str(self._path(job).resolve()),
        )
        try:
            return self._running_executor().submit(make_label, task)
        except BrokenExecutor:
            if self._make is None:
                raise LoopError(
                    "the executor broke: one of its processes died. Hand in a function that returns a new executor in "
                    "the place of the executor, or none for the default, which survives that"
                ) from None
            self._executor = None
            return self._running_executor().submit(make_label, task)

    def _running_executor(self) -> Executor:
        if self._executor is None:
            assert self._make is not None
            self._executor = self._make()
        return self._executor

    @staticmethod
    def _outcome(future: Future[LabelOutcome]) -> LabelOutcome:
        try:
            return future.result()
        except Exception as error:  # noqa: BLE001  (every executor has its own ways to say that a worker died)
            return LabelOutcome("", f"the worker was lost: {type(error).__name__}: {error}")

    def _settle(self, job: Job, outcome: LabelOutcome) -> Job | None:
        """Keep a label or the reason of a failure; return the job if it is to be tried again."""
        file = SpoolFile(self._path(job))
        error = outcome.error
        if not error:
            try:
                parse_frame(outcome.label, f"label of job {job.id}")
            except DataSetError as wrong:
                error = f"{type(wrong).__name__}: {wrong}"
        if not error:
            self.store.add_label(job, outcome.label, outcome.seconds)
            file.remove()
            return None
        final = job.attempts + 1 >= self.settings.attempts
        self.store.give_back(job, error, final)
        if final:
            file.remove()
            return None
        return replace(job, attempts=job.attempts + 1)


def covered(spans: list[tuple[float, float]]) -> float:
    """Return the length of the union of spans of time."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
