"""The reporter of a run, which calls several reporters in a fixed order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol

import openmm
from openmm import app

from qmmlmm.runs.reporters import NextReport, ProgressReporter, checked_interval, steps_to_next


class Reporter(Protocol):
    """A reporter of OpenMM that can be closed."""

    def describeNextReport(self, simulation: app.Simulation) -> NextReport:
        """Return when the next report is due and what it needs."""
        ...

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Report."""
        ...

    def close(self) -> None:
        """Close files."""
        ...


class RunReporter:
    """Calls several reporters in a fixed order, which a Simulation does not guarantee.

    Parameters
    ----------
    *reporters : Reporter
    """

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters
        self._due: list[Reporter] = []

    def describeNextReport(self, simulation: app.Simulation) -> NextReport:
        """Return when the first of them is due, and what the reporters that are due then need."""
        wanted = [reporter.describeNextReport(simulation) for reporter in self._reporters]
        steps = min(want["steps"] for want in wanted)
        due = [want["steps"] == steps for want in wanted]
        self._due = [reporter for reporter, now in zip(self._reporters, due, strict=True) if now]
        include = {name for want, now in zip(wanted, due, strict=True) if now for name in want["include"]}
        return {"steps": steps, "periodic": None, "include": sorted(include)}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Call the reporters that are due."""
        for reporter in self._due:
            reporter.report(simulation, state)

    def pause(self) -> None:
        """Finish the line of the progress display."""
        for reporter in self._reporters:
            if isinstance(reporter, ProgressReporter):
                reporter.close()

    def close(self) -> None:
        """Close all reporters."""
        with contextlib.ExitStack() as stack:  # all are closed, even if one of them fails
            for reporter in self._reporters:
                stack.callback(reporter.close)


class CheckpointReporter:
    """Calls a function that saves a checkpoint.

    Parameters
    ----------
    interval : int
        Number of steps between checkpoints.
    save : callable
        Function of the Simulation.
    """

    def __init__(self, interval: int, save: Callable[[app.Simulation], None]) -> None:
        self._interval = checked_interval("checkpoint_interval", interval)
        self._save = save

    def describeNextReport(self, simulation: app.Simulation) -> NextReport:
        """Return when the next checkpoint is due."""
        return {"steps": steps_to_next(self._interval, simulation), "periodic": None, "include": []}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Save a checkpoint."""
        self._save(simulation)

    def close(self) -> None:
        """Do nothing, because no file is open."""
