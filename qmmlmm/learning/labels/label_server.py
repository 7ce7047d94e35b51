"""The process that computes labels: ``python -m qmmlmm.learning.labels.label_server FILE_DESCRIPTOR``.

It ends when the other end of its pipe is closed, after it has written the label that it is computing to its file.
"""

from __future__ import annotations

import contextlib
import pickle
import resource
import signal
import sys
from multiprocessing import spawn
from multiprocessing.connection import Connection

from qmmlmm.learning.labels.label_task import JobLimits, LabelSource, LabelTask, compute


def serve(connection: Connection) -> None:
    """Compute labels until the pipe is closed.

    Parameters
    ----------
    connection : Connection
        Pipe that sends preparation, source and limits first, then (name, geometry, label file) of each label.
    """
    preparation, data, limits = pickle.loads(connection.recv_bytes())
    try:
        spawn.prepare(preparation)
        source: LabelSource = pickle.loads(data)
        # Imports of the first label must not count against its memory and time.
        source.prepare()
        limit_memory(limits)
    except Exception as error:  # noqa: BLE001  (the parent process decides)
        connection.send(f"the source of labels cannot be set up: {type(error).__name__}: {error}")
        return
    connection.send("")
    while True:
        try:
            name, geometry, label_file = connection.recv()
        except EOFError:
            return
        outcome = compute(source, LabelTask(b"", name, geometry, limits, False, label_file), end_after)
        try:
            connection.send(outcome)
        except OSError:
            # The parent process has closed the pipe or ended.
            return


def end_after(seconds: float) -> None:
    """Let the kernel end this process after a number of seconds; zero cancels that."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def limit_memory(limits: JobLimits) -> None:
    """Limit private memory to what is in use now plus the limit of a job."""
    if limits.memory is None:
        return
    used = 0
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    limit = used + int(limits.memory * 1e6)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
