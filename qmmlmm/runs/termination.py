"""The signal SIGTERM, which batch systems send before they kill a job: a checkpoint is saved and the run stops."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

import openmm
from openmm import app

from qmmlmm.errors import TerminatedError
from qmmlmm.runs.reporters import NextReport

SECONDS_BETWEEN_LOOKS = 0.5


def raise_terminated(number: int, frame: FrameType | None) -> None:
    """Raise TerminatedError: a handler of SIGTERM for work that can be killed at any moment and continued."""
    raise TerminatedError("stopped by SIGTERM; the same command continues where this one stopped")


class TerminationSignal:
    """Context in which SIGTERM sets a flag instead of ending the process.

    The flag is only set, because the signal can arrive in a callback of OpenMM, through which no exception passes. A
    handler of the user's own stays, and so does everything in threads other than the main one, where Python has no
    signals.
    """

    def __init__(self) -> None:
        self.received = False
        self._before: object = None

    def __enter__(self) -> TerminationSignal:
        before = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is threading.main_thread() and before in (signal.SIG_DFL, raise_terminated):
            self._before = before
            signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, raise_terminated if self._before is raise_terminated else signal.SIG_DFL)
            self._before = None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True


class TerminationReporter:
    """Stops a run after SIGTERM. It looks for the signal every half second, or after each step that takes longer.

    Parameters
    ----------
    signal_received : TerminationSignal
    save : callable
        Function of the Simulation that saves a checkpoint.
    """

    def __init__(self, signal_received: TerminationSignal, save: Callable[[app.Simulation], None]) -> None:
        self._signal = signal_received
        self._save = save
        self._interval = 1
        self._due: int | None = None
        self._last_look = time.monotonic()

    def describeNextReport(self, simulation: app.Simulation) -> NextReport:
        """Return when it looks for the signal next; it needs no part of the State."""
        if self._due is None or self._due <= simulation.currentStep:
            self._due = simulation.currentStep + self._interval
        return {"steps": self._due - simulation.currentStep, "periodic": None, "include": []}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Save a checkpoint and raise TerminatedError if the signal came."""
        now = time.monotonic()
        seconds, self._last_look = now - self._last_look, now
        if seconds < SECONDS_BETWEEN_LOOKS / 2:
            self._interval *= 2
        elif seconds > SECONDS_BETWEEN_LOOKS:
            self._interval = max(1, self._interval // 2)
        self.stop_if_received(simulation)

    def stop_if_received(self, simulation: app.Simulation) -> None:
        """Save a checkpoint and raise TerminatedError if the signal came."""
        if self._signal.received:
            self._save(simulation)
            raise TerminatedError(
                f"stopped by SIGTERM at step {simulation.currentStep}, which the checkpoint has; start the same script "
                "or command again, and the run continues"
            )

    def close(self) -> None:
        """Do nothing, because no file is open."""
