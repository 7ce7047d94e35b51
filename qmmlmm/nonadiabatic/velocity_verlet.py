"""Velocity Verlet as an OpenMM integrator that calls a listener around every step."""

from __future__ import annotations

from typing import Protocol

import openmm
from openmm import unit

from qmmlmm.setting_checks import check_quantity, check_steps
from qmmlmm.units import Scalar

LONGEST_STEP = 0.1
"""Largest step, ps: beyond it the number was given in femtoseconds."""


class StepListener(Protocol):
    """Object that a `VelocityVerletIntegrator` calls around every step."""

    def before_step(self) -> None:
        """Read the state from which the step starts."""
        ...

    def after_step(self) -> None:
        """Read the state after the step; the velocities may be changed."""
        ...


class VelocityVerletIntegrator(openmm.CustomIntegrator):
    """Velocity Verlet: positions and velocities at the same time, one evaluation of the forces per step.

    Parameters
    ----------
    step_size : Quantity or float, ps

    Attributes
    ----------
    listener : StepListener or None
        Called around every step, before reporters.

    Raises
    ------
    SettingError
        If the step is not a positive number, or too long for one in picoseconds.

    Notes
    -----
    Barostats, thermostats and a CMMotionRemover of the System do nothing with this integrator: the energy is conserved,
    and a hop changes the total momentum.
    """

    listener: StepListener | None

    def __init__(self, step_size: Scalar) -> None:
        super().__init__(check_quantity("step_size", step_size, unit.picosecond, above=0.0, at_most=LONGEST_STEP))
        self.listener = None
        self.addPerDofVariable("x1", 0)
        self.addComputePerDof("v", "v+0.5*dt*f/m")
        self.addComputePerDof("x", "x+dt*v")
        self.addComputePerDof("x1", "x")
        self.addConstrainPositions()
        self.addComputePerDof("v", "v+0.5*dt*f/m+(x-x1)/dt")
        self.addConstrainVelocities()

    def step(self, steps: int) -> None:
        """Advance by a number of steps.

        Raises
        ------
        SettingError
            If it is no number of steps of zero or more.
        """
        check_steps("steps", steps)
        if self.listener is None:
            super().step(steps)
            return
        for _ in range(steps):
            self.listener.before_step()
            super().step(1)
            self.listener.after_step()

    def step_without_listener(self) -> None:
        """Advance by one step without a call of the listener."""
        super().step(1)
