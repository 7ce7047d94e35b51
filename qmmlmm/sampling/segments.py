"""Short pieces of dynamics that depend on nothing but their start and their seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.mm.barostats import barostats_of
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.sampling.switching import switching_work
from qmmlmm.units import FloatArray


@dataclass(frozen=True, eq=False)
class Frame:
    """Positions, velocities and box of a System.

    Parameters
    ----------
    positions : (n, 3) float array, nm
    velocities : (n, 3) float array, nm/ps, or None
        None before the first segment, which draws them.
    box : (3, 3) float array, nm, or None
    """

    positions: FloatArray
    velocities: FloatArray | None
    box: FloatArray | None


class SegmentSimulation:
    """A Simulation at constant temperature whose segments can be computed again and again, with the same result.

    Each segment starts from a frame with new random numbers from its seed, so that trajectories that were interrupted
    between two segments continue as if they had not been. On OpenMM's Reference platform the result is the same bit by
    bit.

    Parameters
    ----------
    mixed : MixedSystem
        System with the parameter of `interpolated_hamiltonian`.
    parameter : str
        Name of the parameter.
    temperature : float, K
    friction : float, 1/ps
    step_size : float, ps
    platform : str, optional
        Name of the OpenMM platform; OpenMM chooses one if not given.
    """

    def __init__(
        self,
        mixed: MixedSystem,
        parameter: str,
        *,
        temperature: float,
        friction: float,
        step_size: float,
        platform: str | None,
    ) -> None:
        self.mixed = mixed
        self.parameter = parameter
        self.temperature = temperature
        self._periodic = mixed.system.usesPeriodicBoundaryConditions()
        self._integrator = openmm.LangevinMiddleIntegrator(temperature, friction, step_size)
        chosen = () if platform is None else (openmm.Platform.getPlatform(platform),)
        self.simulation = app.Simulation(mixed.topology, mixed.system, self._integrator, *chosen)

    def sample(self, frame: Frame, seed: int, value: float, steps: int) -> Frame:
        """Return the frame after dynamics at one value of the parameter.

        Parameters
        ----------
        frame : Frame
        seed : int
        value : float
        steps : int
        """
        try:
            self._start(frame, seed, value)
            self.simulation.step(steps)
            return self._frame()
        except (openmm.OpenMMException, ValueError) as error:
            self.mixed.raise_original(error)

    def derivative(self) -> float:
        """Return the derivative of the energy with respect to the parameter at the last frame, kJ/mol."""
        found = self.mixed.parameter_derivatives(self.simulation.context)[self.parameter]
        return float(found.value_in_unit(unit.kilojoule_per_mole))

    def switch(
        self, frame: Frame, seed: int, start: float, end: float, parts: int, steps_between: int
    ) -> tuple[Frame, float]:
        """Return the frame after a change of the parameter in equal parts, and the work, kJ/mol.

        Parameters
        ----------
        frame : Frame
        seed : int
        start, end : float
        parts, steps_between : int
            See `switching_work`.
        """
        try:
            self._start(frame, seed, start)
            work = switching_work(
                self.mixed, self.simulation, self.parameter, start, end, parts, steps_between=steps_between
            )
            return self._frame(), float(work.value_in_unit(unit.kilojoule_per_mole))
        except (openmm.OpenMMException, ValueError) as error:
            self.mixed.raise_original(error)

    def _start(self, frame: Frame, seed: int, value: float) -> None:
        self._integrator.setRandomNumberSeed(seed)
        for barostat in barostats_of(self.simulation.system):
            barostat.setRandomNumberSeed(seed)
        self.mixed.forget()
        context = self.simulation.context
        # Seeds take effect when a Context is initialised.
        context.reinitialize()
        context.setParameter(self.parameter, value)
        if frame.box is not None and self._periodic:
            context.setPeriodicBoxVectors(*frame.box)
        context.setPositions(frame.positions)
        if frame.velocities is None:
            context.setVelocitiesToTemperature(self.temperature, seed)
        else:
            context.setVelocities(frame.velocities)

    def _frame(self) -> Frame:
        state = self.simulation.context.getState(positions=True, velocities=True)
        box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value) if self._periodic else None
        return Frame(
            np.array(state.getPositions(asNumpy=True)._value), np.array(state.getVelocities(asNumpy=True)._value), box
        )
