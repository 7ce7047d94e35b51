"""The process that makes labels: ``python -m qmmlmm.learning.loop.label_server FILE_DESCRIPTOR``.

It ends when the other end of its pipe is closed, after the label that it is making, which it writes to the spool first.
"""

from __future__ import annotations

import contextlib
import pickle
import resource
import signal
import sys
from multiprocessing import spawn
from multiprocessing.connection import Connection

from qmmlmm.learning.loop.label_task import JobLimits, LabelSource, LabelTask, compute


def serve(connection: Connection) -> None:
    """Make labels until the pipe is closed.

    Parameters
    ----------
    connection : Connection
        Brings preparation, source and limits first, then (name, positions, box, spool) of each label.
    """
    preparation, data, limits = pickle.loads(connection.recv_bytes())
    try:
        spawn.prepare(preparation)
        source: LabelSource = pickle.loads(data)
        # What is imported with the first label is not to count against its memory and time.
        import_engines(source)
        limit_memory(limits)
    except Exception as error:  # noqa: BLE001  (the other side decides)
        connection.send(f"the source of labels cannot be set up: {type(error).__name__}: {error}")
        return
    connection.send("")
    while True:
        try:
            name, positions, box, spool = connection.recv()
        except EOFError:
            return
        outcome = compute(source, LabelTask(b"", name, positions, box, limits, False, spool), end_after)
        try:
            connection.send(outcome)
        except OSError:  # nobody listens any more
            return


def end_after(seconds: float) -> None:
    """Let the kernel end this process after so many seconds, whatever it is doing; zero calls it off."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def import_engines(source: LabelSource) -> None:
    """Let a source import what it needs for labels, if it says how."""
    prepare = getattr(source, "prepare", None)
    if prepare is not None:
        prepare()


def limit_memory(limits: JobLimits) -> None:
    """Refuse private memory beyond what is in use now and what a job may have."""
    if limits.memory is None:
        return
    used = 0
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    wanted = used + int(limits.memory * 1e6)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
