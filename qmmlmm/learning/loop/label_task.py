"""One label as a task for any `concurrent.futures.Executor`: what is sent, what comes back, and the function that runs.

With `isolated` tasks the function hands the work to a process of its own, which stays for the next task. Such a process
can be killed when it hangs or takes too much memory, whatever the executor is made of.
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
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe, spawn
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from qmmlmm.learning.data_set import format_frame
from qmmlmm.learning.labelled_frame import LabelledFrame
from qmmlmm.learning.loop.spool import SpoolFile
from qmmlmm.units import FloatArray

START_LIMIT = 300.0
"""Seconds that a process may take to import what it needs."""
GRACE = 10.0
"""Seconds after its limit at which a process that the kernel's timer did not end is killed."""


class LabelSource(Protocol):
    """Makes labels; can be pickled. `qmmlmm.learning.Labeller` is one.

    It may have a method `forget`, after which it computes as if it were new: a label must not depend on those before.
    """

    def label(self, positions: Any, box: Any = None, name: str = "frame") -> LabelledFrame:
        """Return the label of a geometry of all particles in nm, or raise what went wrong."""
        ...


@dataclass(frozen=True)
class JobLimits:
    """What one label may use.

    Parameters
    ----------
    threads : int
        Of its linear algebra and of PySCF.
    memory : float, MB
        Beyond what the process has when it is ready; for heap and other private memory. None for no limit.
    seconds : float
        Wall time. A job that takes longer counts as hanging and is killed.
    """

    threads: int = 1
    memory: float | None = None
    seconds: float = 3600.0

    def environment(self) -> dict[str, str]:
        """Return the variables that libraries read when they are loaded."""
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
                 "OPENMM_CPU_THREADS")  # fmt: skip
        return dict.fromkeys(names, str(self.threads))


DEFAULT_LIMITS = JobLimits()


@dataclass(frozen=True)
class LabelTask:
    """What a worker needs for one label.

    Parameters
    ----------
    source : bytes
        Pickle of a `LabelSource`.
    name : str
        Of the frame.
    positions : (n, 3) float array, nm
    box : (3, 3) float array, nm
    limits : JobLimits
    isolated : bool
        Whether the label is made in a process of its own. Otherwise limits are not kept.
    spool : str
        Path of the file that the label is written to where that directory exists.
    """

    source: bytes
    name: str
    positions: FloatArray
    box: FloatArray
    limits: JobLimits = DEFAULT_LIMITS
    isolated: bool = True
    spool: str = ""


@dataclass(frozen=True)
class LabelOutcome:
    """A label, or why there is none.

    Parameters
    ----------
    label : str
        Extended XYZ; empty without a label.
    error : str
        Empty with a label.
    seconds : float
        That the computation took.
    started, ended : float
        Seconds since the epoch, on the worker's clock.
    """

    label: str = ""
    error: str = ""
    seconds: float = 0.0
    started: float = field(default=0.0, compare=False)
    ended: float = field(default=0.0, compare=False)


def make_label(task: LabelTask) -> LabelOutcome:
    """Make a label; what goes wrong is in the outcome and not raised."""
    started = time.time()
    outcome = _server_for(task).run(task) if task.isolated else compute(_source_of(task.source), task)
    return LabelOutcome(outcome.label, outcome.error, outcome.seconds, started, time.time())


def compute(
    source: LabelSource, task: LabelTask, timer: Callable[[float], None] = lambda seconds: None
) -> LabelOutcome:
    """Make a label in this process, or take it from the spool if another process has made it meanwhile.

    Parameters
    ----------
    source : LabelSource
    task : LabelTask
    timer : callable
        Called with the limit in seconds when the computation starts, and with zero when it ends.
    """
    file = SpoolFile(Path(task.spool)) if task.spool else None
    descriptor: int | None = None
    try:
        if file is not None:
            descriptor = file.acquire(task.limits.seconds + GRACE)
            found = file.read()
            if found is not None:
                return LabelOutcome(found[0], "", found[1])
        timer(task.limits.seconds)
        started = time.perf_counter()
        forget = getattr(source, "forget", None)
        if forget is not None:
            forget()
        text = format_frame(source.label(task.positions, task.box, task.name))
        seconds = time.perf_counter() - started
        if descriptor is not None:
            with contextlib.suppress(OSError):  # the label goes back in memory
                SpoolFile.write(descriptor, text, seconds)
        return LabelOutcome(text, "", seconds)
    except Exception as error:  # noqa: BLE001  (a label may fail in any way; the reason is kept with its geometry)
        return LabelOutcome("", f"{type(error).__name__}: {error}")
    finally:
        timer(0.0)
        if descriptor is not None:
            os.close(descriptor)


_sources: dict[str, LabelSource] = {}
_local = threading.local()
_servers: set[LabelServer] = set()
# Processes that finish a label although nobody waits for them; held here, since Popen warns when it is forgotten.
_left: list[subprocess.Popen[bytes]] = []


def _source_of(data: bytes) -> LabelSource:
    """Return the unpickled source; each thread has its own, since evaluators keep state."""
    key = f"{threading.get_ident()} {hashlib.sha256(data).hexdigest()}"
    if key not in _sources:
        _sources[key] = pickle.loads(data)
    return _sources[key]


def _server_for(task: LabelTask) -> LabelServer:
    """Return the process of this thread; one for another source or other limits ends."""
    key = (hashlib.sha256(task.source).hexdigest(), task.limits)
    held: LabelServer | None = getattr(_local, "server", None)
    if held is not None and (held.key != key or held not in _servers):
        held.close()
        held = None
    if held is None:
        held = _local.server = LabelServer(key, task)
        _servers.add(held)
    return held


def leave_servers() -> None:
    """Let the processes that threads of this process have started end, each after the label that it is making.

    Such a label is written to the spool, where the next loop finds it.
    """
    _left[:] = [process for process in _left if process.poll() is None]
    while _servers:
        _servers.pop().leave()


class LabelServer:
    """A process that makes labels one after another.

    Parameters
    ----------
    key : object
        Says what it was made for.
    task : LabelTask
        Its source and limits.
    """

    def __init__(self, key: object, task: LabelTask) -> None:
        self.key = key
        self._source, self._limits = task.source, task.limits
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._leaving = False

    def _start(self) -> None:
        here, there = Pipe()
        # The interpreter finds this package where it was found here, also from another working directory.
        paths = [str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, **self._limits.environment(), "PYTHONPATH": os.pathsep.join(paths)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "qmmlmm.learning.loop.label_server", str(there.fileno())],
            pass_fds=[there.fileno()], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        there.close()
        self._connection = here
        here.send_bytes(pickle.dumps((_preparation(), self._source, self._limits)))
        if not here.poll(START_LIMIT):
            raise TimeoutError(f"the process for labels was not ready after {START_LIMIT:.0f} s")
        answer = here.recv()
        if answer:
            raise RuntimeError(answer)

    def run(self, task: LabelTask) -> LabelOutcome:
        """Make a label there."""
        try:
            if self._process is None and not self._leaving:
                self._start()
            if self._connection is None:
                raise EOFError
            self._connection.send((task.name, task.positions, task.box, task.spool))
            if not self._connection.poll(2 * self._limits.seconds + 2 * GRACE):
                raise TimeoutError
            outcome = self._connection.recv()
            assert isinstance(outcome, LabelOutcome)
            return outcome
        except (EOFError, OSError, TimeoutError, RuntimeError) as error:
            return LabelOutcome("", self._why(error))

    def _why(self, error: BaseException) -> str:
        """End the process and say what happened to it."""
        if self._leaving:
            return "the loop ended before the label was there"
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
        """Wait for nothing any more; the process ends by itself once it has nothing to do."""
        self._leaving = True
        process, self._process = self._process, None
        if process is not None:
            _left.append(process)
        if self._connection is not None:
            # Unlike closing, this wakes a thread that is waiting for an answer.
            with socket.socket(fileno=os.dup(self._connection.fileno())) as end, contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        _servers.discard(self)
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()


def _preparation() -> dict[str, Any]:
    """Return what another process needs to unpickle objects of this one's main module, as multiprocessing does it."""
    try:
        data = dict(spawn.get_preparation_data("labels"))
    except (AttributeError, ValueError):
        return {}
    return {key: data[key] for key in ("sys_path", "dir", "init_main_from_path", "init_main_from_name") if key in data}
