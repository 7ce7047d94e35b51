"""The classical nuclei of a Simulation: velocities, forces, and steps that can be repeated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app

from qmmlmm.errors import SettingError
from qmmlmm.nonadiabatic.velocity_verlet import VelocityVerletIntegrator
from qmmlmm.setting_checks import check_instance
from qmmlmm.units import FloatArray, IntArray


@dataclass(frozen=True)
class StepStart:
    """The start of a time step, to which a trajectory can return.

    Parameters
    ----------
    positions : (n_particles, 3) float array, nm
    velocities : (n_particles, 3) float array, nm/ps
    time : float, ps
    step : int
    """

    positions: FloatArray
    velocities: FloatArray
    time: float
    step: int


def check_context(name: str, context: openmm.Context) -> openmm.Context:
    """Return a Context with positions.

    Raises
    ------
    SettingError
        If it is no Context, or has no positions.
    """
    check_instance(name, context, openmm.Context, "an openmm.Context, such as simulation.context")
    try:
        context.getState(energy=True, groups=0)  # of no force, so that nothing is computed
    except openmm.OpenMMException as error:
        raise SettingError(f"{name} is a Context with positions: {error}") from error
    return context


class Nuclei:
    """The nuclei of a Simulation with a `VelocityVerletIntegrator`.

    Parameters
    ----------
    simulation : openmm.app.Simulation

    Attributes
    ----------
    integrator : VelocityVerletIntegrator
    masses : (n_particles,) float array, Da

    Raises
    ------
    SettingError
        If it is no Simulation, or has another integrator.
    """

    def __init__(self, simulation: app.Simulation) -> None:
        check_instance("simulation", simulation, app.Simulation, "an openmm.app.Simulation")
        integrator = simulation.integrator
        if not isinstance(integrator, VelocityVerletIntegrator):
            raise SettingError(
                f"surface hopping needs a Simulation with a VelocityVerletIntegrator, this has a "
                f"{type(integrator).__name__}"
            )
        system = simulation.system
        self.integrator = integrator
        self.masses = np.array([system.getParticleMass(k)._value for k in range(system.getNumParticles())])
        self._simulation = simulation
        self._constrained = system.getNumConstraints() > 0

    @property
    def step_size(self) -> float:
        """Time step, ps."""
        return float(self.integrator.getStepSize()._value)

    @property
    def velocities(self) -> FloatArray:
        """Velocities of all particles, (n_particles, 3) nm/ps."""
        return np.array(self._simulation.context.getState(velocities=True).getVelocities(asNumpy=True)._value)

    @property
    def forces(self) -> FloatArray:
        """Forces on all particles, (n_particles, 3) kJ/(mol nm)."""
        return np.array(self._simulation.context.getState(forces=True).getForces(asNumpy=True)._value)

    def set_velocities(self, velocities: FloatArray) -> None:
        """Set the velocities of all particles, (n_particles, 3) nm/ps."""
        self._simulation.context.setVelocities(velocities)

    def kinetic_energy(self, atoms: IntArray) -> float:
        """Return the kinetic energy of some atoms, kJ/mol."""
        return 0.5 * float((self.masses[atoms, None] * self.velocities[atoms] ** 2).sum())

    def replace_half_kick(self, former: FloatArray) -> None:
        """Repeat the last half kick of a step, which was made with former forces, with the present forces.

        Parameters
        ----------
        former : (n_particles, 3) float array, kJ/(mol nm)
        """
        half = 0.5 * self.step_size
        kick = np.zeros_like(former)
        moving = self.masses > 0.0
        kick[moving] = half * (self.forces - former)[moving] / self.masses[moving, None]
        self.set_velocities(self.velocities + kick)
        if self._constrained:
            self._simulation.context.applyVelocityConstraints(self.integrator.getConstraintTolerance())

    def step_start(self) -> StepStart:
        """Return the present state as the start of a step."""
        state = self._simulation.context.getState(positions=True, velocities=True)
        return StepStart(
            np.array(state.getPositions(asNumpy=True)._value),
            np.array(state.getVelocities(asNumpy=True)._value),
            state.getTime()._value,
            self._simulation.currentStep,
        )

    def return_to(self, start: StepStart) -> None:
        """Bring positions, velocities, time and step count back to the start of a step."""
        context = self._simulation.context
        context.setPositions(start.positions)
        context.setVelocities(start.velocities)
        context.setTime(start.time)
        context.setStepCount(start.step)
