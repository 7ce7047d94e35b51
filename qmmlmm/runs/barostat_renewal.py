"""Constant pressure in simulations that are continued from checkpoints."""

from __future__ import annotations

import openmm
from openmm import app

from qmmlmm.errors import SettingError
from qmmlmm.mm.barostats import barostats_of
from qmmlmm.runs.reporters import NextReport, checked_interval, steps_to_next


class BarostatRenewal:
    """A reporter by which a simulation at constant pressure takes the same steps whether it was continued or not.

    OpenMM's checkpoints have the box, and the random numbers, but not what a barostat counts: steps since its last
    attempt, and the accepted ones, from which it adapts the size of its moves. A simulation that continues from a
    checkpoint begins to count anew. So this one does too, at every checkpoint: its Context is made anew, with its
    state. Add it before the reporter that writes checkpoints. Averages do not depend on it.

    Parameters
    ----------
    system : openmm.System
    interval : int
        Number of steps between checkpoints.

    Raises
    ------
    SettingError
        If it is no multiple of the steps between two attempts of a barostat, which would then come at other steps, or
        never.
    """

    def __init__(self, system: openmm.System, interval: int) -> None:
        for barostat in barostats_of(system):
            every = barostat.getFrequency()
            if every and interval % every:
                raise SettingError(
                    f"a checkpoint comes every {interval} steps, and {barostat.getName()} changes the box every "
                    f"{every}: make the first a multiple of the second, so that a simulation that is continued from a "
                    "checkpoint takes the same steps"
                )
        self._interval = checked_interval("interval", interval)

    def describeNextReport(self, simulation: app.Simulation) -> NextReport:
        """Return when the Context is made anew."""
        return {"steps": steps_to_next(self._interval, simulation), "periodic": None, "include": []}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Make the Context anew, with its state."""
        simulation.context.reinitialize(preserveState=True)
