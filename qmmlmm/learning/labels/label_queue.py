"""Labels of all waiting jobs of a store, computed in parallel and stored one by one."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from qmmlmm.errors import DataSetError, LoopError, LoopStoreError
from qmmlmm.learning.labels.data_set import parse_frame
from qmmlmm.learning.labels.label_file import LabelFile
from qmmlmm.learning.labels.label_job import CLAIMED, WAITING, Job, JobStore
from qmmlmm.learning.labels.label_task import (
    DEFAULT_LIMITS,
    JobLimits,
    LabelOutcome,
    LabelSource,
    LabelTask,
    leave_servers,
    make_label,
)
from qmmlmm.setting_checks import check_count, check_flag, check_instance

LABEL_FILES = "label_files"
PROGRESS_INTERVAL = 0.5
"""Seconds between two calls of the function that shows progress."""


@dataclass(frozen=True)
class LabelSettings:
    """Settings of the labelling.

    Parameters
    ----------
    workers : int
        Number of labels computed at the same time; with an executor, number of tasks submitted at the same time.
    limits : JobLimits
        Limits of each label.
    attempts : int
        Number of attempts before a job has failed.
    isolated : bool
        Whether each worker computes labels in its own process, which limits of time and memory require.

    Raises
    ------
    SettingError
        If a value has the wrong type or is out of range.
    """

    workers: int = 1
    limits: JobLimits = DEFAULT_LIMITS
    attempts: int = 2
    isolated: bool = True

    def __post_init__(self) -> None:
        for name in ("workers", "attempts"):
            object.__setattr__(self, name, check_count(name, vars(self)[name]))
        object.__setattr__(self, "isolated", check_flag("isolated", self.isolated))
        check_instance("limits", self.limits, JobLimits)


DEFAULT_SETTINGS = LabelSettings()


class LabelQueue:
    """Computes the labels of a store.

    Parameters
    ----------
    store : JobStore
    source : LabelSource
    reserve : int
        Space reserved on disk for a label, bytes.
    settings : LabelSettings
    executor : Executor, or callable that returns one, optional
        Executor of the tasks; threads by default, each with a process that computes. A callable is called again if its
        executor breaks. Tasks and labels travel as pickles, see `check_executor`.

    Raises
    ------
    LoopError
        If the executor is neither.
    """

    def __init__(
        self,
        store: JobStore,
        source: LabelSource,
        reserve: int,
        settings: LabelSettings = DEFAULT_SETTINGS,
        executor: Executor | Callable[[], Executor] | None = None,
    ) -> None:
        check_executor(executor)
        self.store = store
        self.settings = check_instance("settings", settings, LabelSettings, error=LoopError)
        self._source = pickle.dumps(source)
        self._reserve = reserve
        self._folder = store.directory / LABEL_FILES
        self._make: Callable[[], Executor] | None = None
        self._own = executor is None or callable(executor)
        if executor is None:
            self._make = lambda: ThreadPoolExecutor(settings.workers, thread_name_prefix="label")
        elif isinstance(executor, Executor):
            self._own = False
        else:
            self._make = executor
        self._executor: Executor | None = executor if isinstance(executor, Executor) else None

    def close(self) -> None:
        """End the workers that this queue has started."""
        if self._own and self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
        leave_servers()

    def run(self, show_progress: Callable[[], None] = lambda: None) -> float:
        """Compute the labels of all waiting jobs; return when each has a label or has failed.

        Parameters
        ----------
        show_progress : callable
            Function that is called after each label, and at least twice a second.

        Returns
        -------
        float
            Wall time in which at least one label was being computed, s.

        Raises
        ------
        LoopStoreError
            If the disk is full. Labels that are being computed are finished, and kept where there is room.
        LoopError
            If the executor broke and there is no callable that returns a new one.
        """
        self._folder.mkdir(exist_ok=True)
        waiting = self._pick_up(self.store.jobs(CLAIMED, WAITING))
        running: dict[Future[LabelOutcome], Job] = {}
        spans: list[tuple[float, float]] = []
        full: LoopStoreError | None = None
        while waiting or running:
            while waiting and len(running) < self.settings.workers and full is None:
                try:
                    LabelFile(self._path(waiting[0])).reserve(self._reserve)
                    job = self.store.claim(waiting[0])
                except LoopStoreError as error:
                    full = error
                    break
                waiting.pop(0)
                running[self._submit(job)] = job
            if not running and full is not None:
                raise full
            done, _ = wait(running, timeout=PROGRESS_INTERVAL, return_when=FIRST_COMPLETED)
            # In the order of the jobs, so that a run with one worker is reproducible.
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
            show_progress()
        if full is not None:
            raise full
        return covered(spans)

    def _path(self, job: Job) -> Path:
        return self._folder / f"{job.id:06d}.label"

    def _pick_up(self, jobs: list[Job]) -> list[Job]:
        """Store labels that were finished after the loop was killed; return the other jobs."""
        still_open = []
        for job in jobs:
            found = LabelFile(self._path(job)).read()
            if found is None or self._settle(job, LabelOutcome(found[0], "", found[1])) is not None:
                still_open.append(job)
        return still_open

    def _submit(self, job: Job) -> Future[LabelOutcome]:
        assert job.geometry is not None
        task = LabelTask(
            source=self._source,
            name=job.name,
            geometry=job.geometry,
            limits=self.settings.limits,
            isolated=self.settings.isolated,
            label_file=str(self._path(job).resolve()),
        )
        try:
            return self._running_executor().submit(make_label, task)
        except BrokenExecutor:
            if self._make is None:
                raise LoopError(
                    "the executor broke: one of its processes died. Hand in a function that returns a new executor "
                    "instead of the executor, or none for the default, which survives that"
                ) from None
            self._executor = None
            return self._running_executor().submit(make_label, task)

    def _running_executor(self) -> Executor:
        if self._executor is None:
            assert self._make is not None
            made = self._make()
            if not isinstance(made, Executor):
                raise LoopError(f"the function that was given as executor returns an Executor, got {made!r}")
            self._executor = made
        return self._executor

    @staticmethod
    def _outcome(future: Future[LabelOutcome]) -> LabelOutcome:
        try:
            return future.result()
        except Exception as error:  # noqa: BLE001  (every executor has its own exceptions for a worker that died)
            return LabelOutcome("", f"the worker was lost: {type(error).__name__}: {error}")

    def _settle(self, job: Job, outcome: LabelOutcome) -> Job | None:
        """Store a label or the reason of a failure; return the job if there is another attempt."""
        file = LabelFile(self._path(job))
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


def check_executor(executor: object) -> None:
    """Raise LoopError unless an argument is None, an Executor, or a function that returns one.

    Notes
    -----
    Executors of other packages, such as those of Dask, Parsl and mpi4py, send tasks and results over the network as
    pickles. Unpickling runs code, and nobody is asked for a password: whoever reaches the ports of the scheduler or of
    a worker can run programs as the user. Use TLS with certificates (for Dask: ``distributed.security.Security``), or a
    private network.
    """
    if executor is None or isinstance(executor, Executor):
        return
    if isinstance(executor, type) or not callable(executor):
        raise LoopError(
            f"executor is a concurrent.futures.Executor, a function that returns one, or None, got {executor!r}"
        )


def covered(spans: list[tuple[float, float]]) -> float:
    """Return the length of the union of time spans."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
