"""One label as a task for any `concurrent.futures.Executor`: the task, its outcome, and the function that runs it.

The function passes an isolated task to a separate process, which remains for the next task. Such a process can be
killed when it hangs or uses too much memory, with any executor.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe, spawn
from multiprocessing.connection import Connection
from pathlib import Path

from qmmlmm.errors import EvaluationError
from qmmlmm.geometry import Geometry
from qmmlmm.learning.labels.data_set import format_frame
from qmmlmm.learning.labels.label_file import LabelFile
from qmmlmm.learning.labels.labelled_frame import LabelledFrame
from qmmlmm.setting_checks import check_count, check_number

START_LIMIT = 300.0
"""Seconds that a process may take to start and import packages."""
LARGEST_MEMORY = 1e9
"""Largest limit of memory that the kernel takes, MB."""
LONGEST_LABEL = 3e7
"""Largest limit of time, s: one year."""
GRACE = 10.0
"""Seconds after its limit at which a process is killed that the timer of the kernel did not end."""


class LabelSource(ABC):
    """A source of labels that can be pickled, such as `qmmlmm.learning.Labeller`. Subclasses must define `label`."""

    @abstractmethod
    def label(self, geometry: Geometry, name: str = "frame") -> LabelledFrame:
        """Return the label of a geometry of all particles, nm; an exception becomes the reason of a failure."""

    def forget(self) -> None:  # noqa: B027  (a source without memory has nothing to forget)
        """Forget all labels before, so that the next label does not depend on them."""

    def prepare(self) -> None:  # noqa: B027  (a source that imports nothing late has nothing to do)
        """Import packages that the first label would import."""


@dataclass(frozen=True)
class JobLimits:
    """Limits of the computation of one label.

    Parameters
    ----------
    threads : int
        Number of threads for linear algebra and PySCF.
    memory : float, optional, MB
        Private memory beyond that of the process after its start; no limit if not given.
    seconds : float
        Wall time; a job that takes longer counts as hanging and is killed.

    Raises
    ------
    SettingError
        If a value has the wrong type or is out of range.
    """

    threads: int = 1
    memory: float | None = None
    seconds: float = 3600.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "threads", check_count("threads", self.threads))
        if self.memory is not None:
            memory = check_number("memory", self.memory, above=0.0, at_most=LARGEST_MEMORY, unit_name="MB")
            object.__setattr__(self, "memory", memory)
        seconds = check_number("seconds", self.seconds, above=0.0, at_most=LONGEST_LABEL, unit_name="s")
        object.__setattr__(self, "seconds", seconds)

    def environment(self) -> dict[str, str]:
        """Return the environment variables that libraries read when they are loaded."""
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
                 "OPENMM_CPU_THREADS")  # fmt: skip
        return dict.fromkeys(names, str(self.threads))


DEFAULT_LIMITS = JobLimits()


@dataclass(frozen=True)
class LabelTask:
    """The task of computing one label.

    Parameters
    ----------
    source : bytes
        Pickle of a `LabelSource`.
    name : str
        Name of the frame.
    geometry : Geometry, nm
        Positions of all particles.
    limits : JobLimits
    isolated : bool
        Whether a separate process computes the label. Limits hold only there.
    label_file : str
        Path of the file for the label, which is written if it exists on the machine of the worker.
    """

    source: bytes
    name: str
    geometry: Geometry
    limits: JobLimits = DEFAULT_LIMITS
    isolated: bool = True
    label_file: str = ""


@dataclass(frozen=True)
class LabelOutcome:
    """A label, or the reason why there is none.

    Parameters
    ----------
    label : str
        Extended XYZ; empty without a label.
    error : str
        Empty with a label.
    seconds : float
        Computing time.
    started, ended : float
        Seconds since the epoch, on the clock of the worker.
    """

    label: str = ""
    error: str = ""
    seconds: float = 0.0
    started: float = field(default=0.0, compare=False)
    ended: float = field(default=0.0, compare=False)


def make_label(task: LabelTask) -> LabelOutcome:
    """Compute a label; failures are in the outcome and not raised."""
    started = time.time()
    outcome = _server_for(task).run(task) if task.isolated else compute(_source_of(task.source), task)
    return LabelOutcome(outcome.label, outcome.error, outcome.seconds, started, time.time())


def compute(
    source: LabelSource, task: LabelTask, timer: Callable[[float], None] = lambda seconds: None
) -> LabelOutcome:
    """Compute a label in this process, or read it from its file if another process has finished it meanwhile.

    Parameters
    ----------
    source : LabelSource
    task : LabelTask
    timer : callable
        Function that is called with the limit in seconds when the computation starts, and with zero when it ends.
    """
    file = LabelFile(Path(task.label_file)) if task.label_file else None
    descriptor: int | None = None
    try:
        if file is not None:
            descriptor = file.acquire(task.limits.seconds + GRACE)
            found = file.read()
            if found is not None:
                return LabelOutcome(found[0], "", found[1])
        timer(task.limits.seconds)
        started = time.perf_counter()
        source.forget()
        text = format_frame(source.label(task.geometry, task.name))
        seconds = time.perf_counter() - started
        if descriptor is not None:
            # The outcome has the label too.
            with contextlib.suppress(OSError):
                LabelFile.write(descriptor, text, seconds)
        return LabelOutcome(text, "", seconds)
    except Exception as error:  # noqa: BLE001  (a label may fail in any way; the reason is stored)
        return LabelOutcome("", f"{type(error).__name__}: {error}")
    finally:
        timer(0.0)
        if descriptor is not None:
            os.close(descriptor)


class _ThreadLocal(threading.local):
    """Variables of each thread."""

    server: LabelServer | None = None


_sources: dict[str, LabelSource] = {}
_local = _ThreadLocal()
_servers: set[LabelServer] = set()
# Processes that finish a label for which nobody waits; referenced because Popen warns when it is collected before.
_left: list[subprocess.Popen[bytes]] = []


def _source_of(data: bytes) -> LabelSource:
    """Return the unpickled source; each thread has its own because evaluators keep state."""
    key = f"{threading.get_ident()} {hashlib.sha256(data).hexdigest()}"
    if key not in _sources:
        _sources[key] = pickle.loads(data)
    return _sources[key]


def _server_for(task: LabelTask) -> LabelServer:
    """Return the server of this thread; a server with another source or other limits is closed."""
    key = (hashlib.sha256(task.source).hexdigest(), task.limits)
    held = _local.server
    if held is not None and (held.key != key or held not in _servers):
        held.close()
        held = None
    if held is None:
        held = _local.server = LabelServer(key, task)
        _servers.add(held)
    return held


def leave_servers() -> None:
    """Let all servers of this process end, each after the label that it is computing.

    Such a label is written to its file, where the next loop finds it.
    """
    _left[:] = [process for process in _left if process.poll() is None]
    while _servers:
        _servers.pop().leave()


class LabelServer:
    """A process that computes labels one after another.

    Parameters
    ----------
    key : object
        Identifies source and limits.
    task : LabelTask
        Task with source and limits.
    """

    def __init__(self, key: object, task: LabelTask) -> None:
        self.key = key
        self._source, self._limits = task.source, task.limits
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._leaving = False

    def _start(self) -> None:
        connection, server_end = Pipe()
        # The interpreter must find this package also from another working directory.
        paths = [str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, **self._limits.environment(), "PYTHONPATH": os.pathsep.join(paths)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "qmmlmm.learning.labels.label_server", str(server_end.fileno())],
            pass_fds=[server_end.fileno()], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        server_end.close()
        self._connection = connection
        connection.send_bytes(pickle.dumps((_preparation(), self._source, self._limits)))
        if not connection.poll(START_LIMIT):
            raise TimeoutError(f"the process for labels was not ready after {START_LIMIT:.0f} s")
        failure = connection.recv()
        if failure:
            raise EvaluationError(failure)

    def run(self, task: LabelTask) -> LabelOutcome:
        """Compute a label in the process."""
        try:
            if self._process is None and not self._leaving:
                self._start()
            if self._connection is None:
                raise EOFError
            self._connection.send((task.name, task.geometry, task.label_file))
            if not self._connection.poll(2 * self._limits.seconds + 2 * GRACE):
                raise TimeoutError
            outcome = self._connection.recv()
            assert isinstance(outcome, LabelOutcome)
            return outcome
        except (EOFError, OSError, EvaluationError) as error:
            return LabelOutcome("", self._failure(error))

    def _failure(self, error: BaseException) -> str:
        """End the process, and return the reason of its failure."""
        if self._leaving:
            return "the loop ended before the label was finished"
        process = self._process
        code: int | None = None
        if process is not None and not isinstance(error, TimeoutError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=GRACE)
        self.close()
        if code == -signal.SIGALRM or (isinstance(error, TimeoutError) and not str(error)):
            return f"TimeoutError: the job took longer than {self._limits.seconds:g} s and was killed"
        if code is not None and code < 0:
            return f"ProcessError: the process was killed by {signal.Signals(-code).name}"
        if code:
            return f"ProcessError: the process ended with status {code}"
        return f"{type(error).__name__}: {error}"

    def leave(self) -> None:
        """Release the process; it ends by itself after its last label."""
        self._leaving = True
        process, self._process = self._process, None
        if process is not None:
            _left.append(process)
        if self._connection is not None:
            # Unlike closing, this wakes a thread that is waiting for an answer.
            with socket.socket(fileno=os.dup(self._connection.fileno())) as end, contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Kill the process."""
        _servers.discard(self)
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()


def _preparation() -> dict[str, object]:
    """Return the data with which multiprocessing lets another process unpickle objects of the main module."""
    try:
        data = dict(spawn.get_preparation_data("labels"))
    except (AttributeError, ValueError):
        return {}
    return {key: data[key] for key in ("sys_path", "dir", "init_main_from_path", "init_main_from_name") if key in data}
