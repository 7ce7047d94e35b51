"""Heating: the temperature of the thermostat rises in equal parts of a run."""

from __future__ import annotations

import openmm
from openmm import app, unit

from qmmlmm.coupling.potential import Memory
from qmmlmm.errors import SettingError
from qmmlmm.sampling.multiple_time_step import MultipleTimeStepIntegrator
from qmmlmm.setting_checks import (
    LARGEST_COUNT,
    check_instance,
    check_mapping,
    check_quantity,
    check_steps,
    check_whole_number,
)
from qmmlmm.units import GAS_CONSTANT, Scalar

MOST_PARTS = 100
"""Number of different temperatures, where there are as many steps."""


_LANGEVIN = (openmm.LangevinMiddleIntegrator, openmm.LangevinIntegrator, openmm.BrownianIntegrator)


class Heating:
    """Steps a Simulation while the temperature of its thermostat rises.

    Parameters
    ----------
    simulation : openmm.app.Simulation
        Simulation with an integrator that has a thermostat: one of OpenMM's Langevin integrators, or
        `MultipleTimeStepIntegrator`.
    start, end : Quantity or float, K
        Temperatures of the first and the last part.
    steps : int
        Number of steps from the beginning, step zero, to the end; later steps have the last temperature.

    Raises
    ------
    SettingError
        If the integrator has no thermostat, or an argument is out of range or has another type.

    Notes
    -----
    The temperature depends on the number of the step and on nothing else, so that a run that was stopped continues as
    if it was not. In a `RunDirectory` it is the sampler.

    Examples
    --------
    ::

        heating = Heating(simulation, 10 * kelvin, 300 * kelvin, steps=20000)
        heating.step(20000)
    """

    def __init__(self, simulation: app.Simulation, start: Scalar, end: Scalar, steps: int) -> None:
        self._simulation = check_instance("simulation", simulation, app.Simulation, "an app.Simulation")
        self._start = check_quantity("start", start, unit.kelvin, above=0.0)
        self._end = check_quantity("end", end, unit.kelvin, above=0.0)
        self._steps = check_whole_number("steps", steps, at_most=LARGEST_COUNT, what="a number of steps")
        self._parts = min(MOST_PARTS, self._steps)
        set_temperature(simulation.integrator, self._temperature(0))

    @property
    def simulation(self) -> app.Simulation:
        """The Simulation."""
        return self._simulation

    def step(self, steps: int) -> None:
        """Advance by a number of steps.

        Raises
        ------
        SettingError
            If it is no number of steps of zero or more.
        """
        end = self._simulation.currentStep + check_steps("steps", steps)
        while self._simulation.currentStep < end:
            now = self._simulation.currentStep
            part = self._part(now)
            set_temperature(self._simulation.integrator, self._temperature(part))
            until = end if part == self._parts - 1 else min(end, self._first_step(part + 1))
            self._simulation.step(until - now)

    def memory(self) -> Memory:
        """Return nothing: the number of the step says all."""
        return {}

    def recall(self, memory: Memory) -> None:
        """Continue from what `memory` returned."""
        check_mapping("memory", memory)

    def _first_step(self, part: int) -> int:
        return -(-part * self._steps // self._parts)

    def _part(self, step: int) -> int:
        return min(self._parts - 1, step * self._parts // self._steps)

    def _temperature(self, part: int) -> float:
        if self._parts == 1:
            return self._end
        return self._start + (self._end - self._start) * part / (self._parts - 1)


def set_temperature(integrator: openmm.Integrator, temperature: Scalar) -> None:
    """Change the temperature of an integrator's thermostat.

    Parameters
    ----------
    integrator : openmm.Integrator
        One of OpenMM's Langevin integrators, or `MultipleTimeStepIntegrator` with a temperature.
    temperature : Quantity or float, K

    Raises
    ------
    SettingError
        If it has no thermostat, or the temperature is no number above zero.
    """
    kelvin = check_quantity("temperature", temperature, unit.kelvin, above=0.0)
    if isinstance(integrator, MultipleTimeStepIntegrator):
        names = [integrator.getGlobalVariableName(k) for k in range(integrator.getNumGlobalVariables())]
        if "kT" in names:
            integrator.setGlobalVariableByName("kT", GAS_CONSTANT * kelvin)
            return
    elif isinstance(integrator, _LANGEVIN):
        integrator.setTemperature(kelvin)
        return
    raise SettingError(
        f"the integrator is one with a thermostat, LangevinMiddleIntegrator or MultipleTimeStepIntegrator with a "
        f"temperature, got {type(integrator).__name__}"
    )
