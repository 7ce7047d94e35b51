"""Velocity Verlet as an OpenMM integrator that lets somebody look on after every step."""

from __future__ import annotations

import math
from typing import Any, Protocol

import openmm
from openmm import unit

from qmmlmm.units import in_unit


class StepListener(Protocol):
    """Is called around every step of a `VelocityVerletIntegrator`."""

    def before_step(self) -> None:
        """Look at where the step begins."""
        ...

    def after_step(self) -> None:
        """Look at where the step has led; the particles' velocities may be changed."""
        ...


class VelocityVerletIntegrator(openmm.CustomIntegrator):
    """Velocity Verlet: positions and velocities of the same time, one evaluation of the forces in a step.

    Parameters
    ----------
    step_size : Quantity or float, ps

    Attributes
    ----------
    listener : StepListener or None
        Called around every step, before reporters look at it.

    Raises
    ------
    ValueError
        If the step is not a positive number.

    Notes
    -----
    Barostats, thermostats and a CMMotionRemover of the System do nothing under this integrator: the energy is to be
    conserved, a hop changes the total momentum.
    """

    listener: StepListener | None

    def __init__(self, step_size: Any) -> None:
        step = float(in_unit(step_size, unit.picosecond))
        if not 0.0 < step < math.inf:
            raise ValueError(f"step_size is a positive time in ps, got {step_size!r}")
        super().__init__(step)
        self.listener = None
        self.addPerDofVariable("x1", 0)
        self.addComputePerDof("v", "v+0.5*dt*f/m")
        self.addComputePerDof("x", "x+dt*v")
        self.addComputePerDof("x1", "x")
        self.addConstrainPositions()
        self.addComputePerDof("v", "v+0.5*dt*f/m+(x-x1)/dt")
        self.addConstrainVelocities()

    def step(self, steps: int) -> None:
        """Advance by a number of steps."""
        if self.listener is None:
            super().step(steps)
            return
        for _ in range(steps):
            self.listener.before_step()
            super().step(1)
            self.listener.after_step()

    def step_alone(self) -> None:
        """Advance by one step that the listener is not told of."""
        super().step(1)
