"""Dynamics of walkers, with checks of the committee, and returns from where a walker runs away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import openmm
from openmm import unit

from qmmlmm.errors import LoopError
from qmmlmm.geometry import Geometry
from qmmlmm.learning.labels.label_job import Job
from qmmlmm.learning.loop.guard import Guard
from qmmlmm.learning.loop.settings import LoopSettings
from qmmlmm.learning.loop.walker_state import TraceRow, WalkerState
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.sampling.collective_variables import CollectiveVariable
from qmmlmm.sampling.metadynamics import Hill, HillForce
from qmmlmm.units import FloatArray

FINE_CHECKS = 2
"""Number of steps between checks where the last interval before a fault is repeated."""


@dataclass(frozen=True, eq=False)
class Observation:
    """A simulation at one moment.

    Parameters
    ----------
    step : int
        Step of this round.
    geometry : Geometry, nm
    velocities : (n, 3) float array, nm/ps
    energy : float, kJ/mol
        Potential energy.
    uncertainty : float, kJ/(mol nm)
        Largest expected error of a force; NaN if the geometry has a fault.
    fault : str
        Reason to stop the simulation; empty if there is none.
    usable : bool
        Whether the geometry can be labelled.
    """

    step: int
    geometry: Geometry
    velocities: FloatArray
    energy: float
    uncertainty: float
    fault: str
    usable: bool

    @property
    def state(self) -> WalkerState:
        """The state of the walker."""
        return WalkerState(self.geometry, self.velocities)


@dataclass(frozen=True)
class WalkerResult:
    """The results of a walker in a round.

    Parameters
    ----------
    state : WalkerState
        State from which its next round starts.
    candidates : list of Job
    trace : list of (step, uncertainty, energy, collective variables)
    event : str
        Reason for which it was stopped; empty if it was not.
    steps : int
        Number of steps.
    hills : list of Hill
        Hills that were added before `state`.
    """

    state: WalkerState
    candidates: list[Job]
    trace: list[TraceRow]
    event: str
    steps: int
    hills: list[Hill] = field(default_factory=list)


class WalkerSimulation:
    """Runs walkers one after another in one Context.

    Parameters
    ----------
    system : openmm.System
        System with biases.
    guard : Guard
    settings : LoopSettings
    platform : openmm.Platform
    platform_properties : mapping of str to str
    variables : mapping of str to collective variable
    hill_force : HillForce, optional
        Bias of metadynamics in this System, to which walkers with a learned potential add hills.

    Raises
    ------
    LoopError
        If OpenMM refuses System, platform or properties.
    """

    def __init__(
        self,
        system: openmm.System,
        guard: Guard,
        settings: LoopSettings,
        platform: openmm.Platform,
        platform_properties: Mapping[str, str],
        variables: Mapping[str, CollectiveVariable],
        hill_force: HillForce | None = None,
    ) -> None:
        self._system = system
        self._hill_force = hill_force
        self._guard = guard
        self._settings = settings
        self._variables = dict(variables)
        self._integrator = openmm.LangevinMiddleIntegrator(
            settings.temperature * unit.kelvin,
            settings.friction / unit.picosecond,
            settings.time_step * unit.picosecond,
        )
        try:
            self.context = openmm.Context(system, self._integrator, platform, dict(platform_properties))
        except openmm.OpenMMException as error:
            raise LoopError(
                f"OpenMM cannot run the System with its biases on the platform {platform.getName()}, properties "
                f"{dict(platform_properties)}: {error}"
            ) from error

    def begin(self, state: WalkerState, parameters: Mapping[str, float], seed: int, hills: Sequence[Hill] = ()) -> None:
        """Set up the Context for a walker.

        The Context is reinitialised, so that the steps of a walker do not depend on what ran before in this process.

        Parameters
        ----------
        state : WalkerState
            State at the start; velocities are drawn if it has none.
        parameters : mapping of str to float
            Global parameters of the Context.
        seed : int
            Seed of all random numbers.
        hills : sequence of Hill
            Hills at the start.
        """
        for force in self._system.getForces():
            # Forces of OpenMM that draw random numbers share this method and no base class.
            if hasattr(force, "setRandomNumberSeed"):
                force.setRandomNumberSeed(seed)
        self._integrator.setRandomNumberSeed(seed)
        if self._hill_force is not None:
            self._hill_force.set(hills)
        self.context.reinitialize(preserveState=False)
        self.context.setTime(0.0)
        self.context.setStepCount(0)
        self._set_geometry(state.geometry)
        for name, value in parameters.items():
            self.context.setParameter(name, value)
        if state.velocities is None:
            self.context.setVelocitiesToTemperature(self._settings.temperature * unit.kelvin, seed)
        else:
            self.context.setVelocities(state.velocities)

    def state(self) -> WalkerState:
        """Return the present state."""
        return WalkerState(*self._read(self.context.getState(positions=True, velocities=True)))

    def values(self, geometry: Geometry) -> dict[str, float]:
        """Return the values of the collective variables at a geometry, nm."""
        return {name: float(value(geometry)) for name, value in self._variables.items()}

    def minimise(self, iterations: int = 100) -> None:
        """Remove bad contacts by minimisation; velocities must be drawn again."""
        openmm.LocalEnergyMinimizer.minimize(self.context, 10.0, iterations)

    def advance_unchecked(self, steps: int) -> WalkerState:
        """Take steps without checks, and return the state after them."""
        self._integrator.step(steps)
        return self.state()

    def run_round(
        self,
        mixed: MixedSystem,
        term: str,
        number: int,
        walker: int,
        fresh_checks: Sequence[int],
        on_check: Callable[[int, float], None] = lambda step, uncertainty: None,
    ) -> WalkerResult:
        """Take the steps of a round with a learned potential, after `begin`.

        Parameters
        ----------
        mixed : MixedSystem
            Owner of the System.
        term : str
            Name of the term with the committee.
        number, walker : int
            Numbers of round and walker.
        fresh_checks : sequence of int
            Checks, counted from 0, whose configurations are fresh.
        on_check : callable
            Function that is called with step and uncertainty at each check.
        """
        settings = self._settings
        calm, calm_step, trace, event = self.state(), 0, list[TraceRow](), ""
        hills: list[Hill] = []
        uncertain: list[Observation] = []
        candidates: list[Job] = []
        fresh = set(fresh_checks)
        before = calm
        steps = 0
        for check in range(settings.steps_per_round // settings.check_interval):
            steps += settings.check_interval
            observation = self._advance(mixed, term, settings.check_interval, steps)
            step, uncertainty = observation.step, observation.uncertainty
            on_check(step, uncertainty)
            if np.isfinite(uncertainty):
                trace.append((step, uncertainty, observation.energy, self.values(observation.geometry)))
            if observation.fault:
                event = f"step {step}: {observation.fault}"
                candidates += self._escape(mixed, term, before, observation, number, walker)
                break
            before = observation.state
            if check in fresh:
                candidates.append(self._job(observation, "fresh", number, walker))
            elif uncertainty > settings.threshold:
                uncertain.append(observation)
            if uncertainty <= settings.threshold:
                calm, calm_step = observation.state, step
            hills += self._add_hill(observation)
        if event:
            hills = [hill for hill in hills if hill.step <= calm_step]
        candidates += [self._job(one, "uncertain", number, walker) for one in _thinned(uncertain, settings)]
        return WalkerResult(calm if event else before, candidates, trace, event, steps, hills)

    def _add_hill(self, observation: Observation) -> list[Hill]:
        """Add a hill if the interval between hills is over, and return it."""
        force = self._hill_force
        if force is None or observation.step % force.settings.interval:
            return []
        hill = force.add(observation.step, force.values(observation.geometry), self.context)
        return [] if hill is None else [hill]

    def _advance(self, mixed: MixedSystem, term: str, steps: int, step: int) -> Observation:
        """Take steps and observe."""
        try:
            self._integrator.step(steps)
            state = self.context.getState(positions=True, velocities=True, forces=True, energy=True)
        except openmm.OpenMMException as error:
            last = self._read(self.context.getState(positions=True, velocities=True))
            return Observation(step, *last, float("nan"), float("nan"), str(error).splitlines()[0], False)
        geometry, velocities = self._read(state)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        fault = self._guard.geometry_fault(geometry.positions)
        if fault:
            return Observation(step, geometry, velocities, energy, float("nan"), fault, False)
        committee = mixed.term(term).runner.region_term.committee()
        uncertainty = float(committee.atom_uncertainty(geometry).max())
        fault = self._guard.fault(geometry.positions, velocities, forces, energy)
        fault = fault or self._guard.uncertainty_fault(uncertainty)
        usable = bool(np.isfinite(energy) and np.isfinite(uncertainty))
        return Observation(step, geometry, velocities, energy, uncertainty, fault, usable)

    def _escape(
        self, mixed: MixedSystem, term: str, before: WalkerState, observation: Observation, number: int, walker: int
    ) -> list[Job]:
        """Return configurations of a walker that runs away: at the fault, and before it from smaller intervals."""
        settings = self._settings
        found = [observation] if observation.usable else []
        self._set_geometry(before.geometry)
        self.context.setVelocities(before.velocities)
        first = observation.step - settings.check_interval
        for step in range(FINE_CHECKS, settings.check_interval, FINE_CHECKS):
            fine = self._advance(mixed, term, FINE_CHECKS, first + step)
            if fine.usable and fine.uncertainty > settings.threshold:
                found.append(fine)
            if fine.fault:
                break
        found.sort(key=lambda one: one.step)
        # The first uncertain configuration, and the last one.
        chosen = found[:1] + found[1:][-1:]
        return [self._job(one, "runaway", number, walker) for one in chosen]

    def _job(self, observation: Observation, kind: str, number: int, walker: int) -> Job:
        return Job(
            number, kind, walker, observation.step, observation.geometry,
            uncertainty=observation.uncertainty, variables=self.values(observation.geometry),
        )  # fmt: skip

    def _set_geometry(self, geometry: Geometry) -> None:
        if geometry.box is not None:
            self.context.setPeriodicBoxVectors(*geometry.box)
        self.context.setPositions(geometry.positions)

    def _read(self, state: openmm.State) -> tuple[Geometry, FloatArray]:
        velocities = state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)
        return Geometry.from_state(state, self._system.usesPeriodicBoundaryConditions()), np.array(velocities)


def _thinned(observations: list[Observation], settings: LoopSettings) -> list[Observation]:
    """Return at most `candidates_per_walker` observations, evenly distributed over the round."""
    count = settings.candidates_per_walker
    if len(observations) <= count:
        return observations
    return [observations[k] for k in np.unique(np.linspace(0, len(observations) - 1, count).astype(int))]
