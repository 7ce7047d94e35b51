"""Metadynamics of one simulation, which a run directory can stop and continue."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from openmm import app

from qmmlmm.errors import RunDirectoryError, SettingError
from qmmlmm.geometry import Geometry
from qmmlmm.sampling.metadynamics import Hill, HillForce
from qmmlmm.setting_checks import check_instance, check_mapping, check_steps
from qmmlmm.units import FloatArray


class HillSampler:
    """Steps a Simulation, and adds a hill to its bias at every interval.

    Parameters
    ----------
    force : HillForce
        Bias in the System of the Simulation.
    simulation : app.Simulation

    Attributes
    ----------
    hills : list of Hill
        All hills so far.

    Raises
    ------
    SettingError
        If an argument has another type, or the bias is not in the System.
    """

    def __init__(self, force: HillForce, simulation: app.Simulation) -> None:
        self._force = check_instance("force", force, HillForce)
        self.simulation = check_instance("simulation", simulation, app.Simulation, "an app.Simulation")
        if all(each.getName() != "hills" for each in simulation.system.getForces()):
            raise SettingError("the bias is not in the System of the Simulation: make it before the Simulation")
        self.hills: list[Hill] = []

    def step(self, steps: int) -> None:
        """Advance the Simulation by a number of steps, with its reporters.

        Parameters
        ----------
        steps : int

        Raises
        ------
        SettingError
            If it is no number of steps of zero or more.
        """
        check_steps("steps", steps)
        simulation, interval = self.simulation, self._force.settings.interval
        end = simulation.currentStep + steps
        while simulation.currentStep < end:
            # At the beginning of an interval, so that a checkpoint at its end does not have the next hill.
            if simulation.currentStep and simulation.currentStep % interval == 0:
                self._add()
            simulation.step(min(interval - simulation.currentStep % interval, end - simulation.currentStep))

    def free_energy(self) -> FloatArray:
        """Return the free energy from all hills on the grid, kJ/mol, zero at its minimum."""
        settings = self._force.settings
        return settings.free_energy(settings.bias(self.hills))

    def memory(self) -> dict[str, FloatArray]:
        """Return the arrays of a checkpoint, for `recall`."""
        rows = [[hill.step, hill.height, *hill.centre] for hill in self.hills]
        return {"hills": np.array(rows, dtype=float).reshape(len(rows), self._width)}

    def recall(self, memory: Mapping[str, FloatArray]) -> None:
        """Continue from what `memory` returned.

        Raises
        ------
        RunDirectoryError
            If it comes from something else.
        """
        check_mapping("memory", memory, RunDirectoryError)
        if "hills" not in memory or np.ndim(memory["hills"]) != 2 or np.shape(memory["hills"])[1] != self._width:
            raise RunDirectoryError(f"this memory is not of hills along {self._width - 2} variables")
        self.hills = [Hill(int(row[0]), tuple(float(x) for x in row[2:]), float(row[1])) for row in memory["hills"]]
        self._force.set(self.hills, self.simulation.context)

    @property
    def _width(self) -> int:
        return 2 + len(self._force.settings.along)

    def _add(self) -> None:
        context = self.simulation.context
        values = self._force.values(Geometry.from_context(context))
        hill = self._force.add(self.simulation.currentStep, values, context)
        if hill is not None:
            self.hills.append(hill)
