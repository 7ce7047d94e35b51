"""Dynamics of a walker: forward, looking at the committee on the way, back from where it runs away."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import unit

from qmmlmm.learning.loop.collective_variables import CollectiveVariable
from qmmlmm.learning.loop.geometry_record import Snapshot
from qmmlmm.learning.loop.guard import Guard
from qmmlmm.learning.loop.metadynamics import Hill, HillForce
from qmmlmm.learning.loop.settings import LoopSettings
from qmmlmm.learning.loop.store import Job
from qmmlmm.mm.mixed_system import MixedSystem

FINE_CHECKS = 2
"""A stretch that ran away is gone through again with a look at every so many steps."""

TraceRow = tuple[int, float, float, dict[str, float]]


@dataclass(frozen=True)
class Sight:
    """What is seen of a simulation at one moment.

    Parameters
    ----------
    step : int
        Of this walk.
    snapshot : Snapshot
    energy : float, kJ/mol
        Potential energy.
    uncertainty : float, kJ/(mol nm)
        NaN where the geometry is no geometry.
    fault : str
        Why the simulation cannot go on; empty if it can.
    usable : bool
        Whether QM could make sense of it.
    """

    step: int
    snapshot: Snapshot
    energy: float
    uncertainty: float
    fault: str
    usable: bool


@dataclass(frozen=True)
class Walk:
    """What a walker brings home from a round.

    Parameters
    ----------
    state : Snapshot
        From which its next round starts.
    candidates : list of Job
    trace : list of (step, uncertainty, energy, collective variables)
    event : str
        Why it was stopped, if it was.
    steps : int
        That were taken.
    hills : list of Hill
        That were put on the way to `state`.
    """

    state: Snapshot
    candidates: list[Job]
    trace: list[TraceRow]
    event: str
    steps: int
    hills: list[Hill] = dataclasses.field(default_factory=list)


class Walking:
    """Runs walkers one after another in one Context.

    Parameters
    ----------
    system : openmm.System
        With biases.
    guard : Guard
    settings : LoopSettings
    platform : openmm.Platform
    platform_properties : mapping of str to str
    variables : mapping of str to collective variable
    hill_force : HillForce, optional
        Of this System; walks with a learned potential put hills then.
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
        self.context = openmm.Context(system, self._integrator, platform, dict(platform_properties))

    def begin(self, state: Snapshot, parameters: Mapping[str, float], seed: int, hills: Sequence[Hill] = ()) -> None:
        """Put the Context where a walk starts, with everything that is random decided by the seed, and with hills.

        The Context is reinitialised, so that a walk takes the same course whatever was run before, in this process or
        in another.
        """
        for force in self._system.getForces():
            if hasattr(force, "setRandomNumberSeed"):
                force.setRandomNumberSeed(seed)
        self._integrator.setRandomNumberSeed(seed)
        if self._hill_force is not None:
            self._hill_force.set(hills)
        self.context.reinitialize(preserveState=False)
        self.context.setTime(0.0)
        self.context.setStepCount(0)
        if self._system.usesPeriodicBoundaryConditions():
            self.context.setPeriodicBoxVectors(*state.box)
        self.context.setPositions(state.positions)
        for name, value in parameters.items():
            self.context.setParameter(name, value)
        if state.velocities is None:
            self.context.setVelocitiesToTemperature(self._settings.temperature * unit.kelvin, seed)
        else:
            self.context.setVelocities(state.velocities)

    def snapshot(self) -> Snapshot:
        """Return the present state."""
        return _snapshot(
            self.context.getState(positions=True, velocities=True), self._system.usesPeriodicBoundaryConditions()
        )

    def values(self, snapshot: Snapshot) -> dict[str, float]:
        """Return the collective variables of a geometry."""
        return {name: float(value(snapshot.positions, snapshot.box)) for name, value in self._variables.items()}

    def minimise(self, iterations: int = 100) -> None:
        """Take away bad contacts; velocities are drawn anew afterwards by the caller."""
        openmm.LocalEnergyMinimizer.minimize(self.context, 10.0, iterations)

    def plain(self, steps: int) -> Snapshot:
        """Take steps without looking, and return where they led."""
        self._integrator.step(steps)
        return self.snapshot()

    def learned(
        self,
        mixed: MixedSystem,
        term: str,
        number: int,
        walker: int,
        fresh_checks: Sequence[int],
        ticking: Callable[[int, float], None] = lambda step, uncertainty: None,
    ) -> Walk:
        """Take the steps of a round with a learned potential, from where `begin` put the Context.

        Parameters
        ----------
        mixed : MixedSystem
            Whose System this is.
        term : str
            The committee.
        number, walker : int
        fresh_checks : sequence of int
            Looks (the first is 0) whose configurations are drawn for the estimate of the error.
        ticking : callable
            Called with step and uncertainty at each look.
        """
        settings = self._settings
        start = self.snapshot()
        calm, calm_step, trace, event = start, 0, [], ""
        hills: list[Hill] = []
        uncertain: list[Sight] = []
        candidates: list[Job] = []
        looks = settings.steps_per_round // settings.check_interval
        fresh = set(fresh_checks)
        before = start
        for look in range(looks):
            sight = self._advance(mixed, term, settings.check_interval, (look + 1) * settings.check_interval)
            ticking(sight.step, sight.uncertainty)
            if np.isfinite(sight.uncertainty):
                trace.append((sight.step, sight.uncertainty, sight.energy, self.values(sight.snapshot)))
            if sight.fault:
                event = f"step {sight.step}: {sight.fault}"
                candidates += self._escape(mixed, term, before, sight, number, walker)
                break
            before = sight.snapshot
            if look in fresh:
                candidates.append(self._job(sight, "fresh", number, walker))
            elif sight.uncertainty > settings.threshold:
                uncertain.append(sight)
            if sight.uncertainty <= settings.threshold:
                calm, calm_step = sight.snapshot, sight.step
            hills += self._hills(sight)
        state = calm if event else before
        if event:
            hills = [hill for hill in hills if hill.step <= calm_step]
        candidates += [self._job(sight, "uncertain", number, walker) for sight in _thinned(uncertain, settings)]
        return Walk(state, candidates, trace, event, (look + 1) * settings.check_interval, hills)

    def _hills(self, sight: Sight) -> list[Hill]:
        """Put a hill if it is time for one, and return it."""
        force = self._hill_force
        if force is None or sight.step % force.settings.interval:
            return []
        snapshot = sight.snapshot
        hill = force.add(sight.step, force.values(snapshot.positions, snapshot.box), self.context)
        return [] if hill is None else [hill]

    def _advance(self, mixed: MixedSystem, term: str, steps: int, step: int) -> Sight:
        """Take steps and look."""
        periodic = self._system.usesPeriodicBoundaryConditions()
        try:
            self._integrator.step(steps)
            state = self.context.getState(positions=True, velocities=True, forces=True, energy=True)
        except openmm.OpenMMException as error:
            last = self.context.getState(positions=True, velocities=True)
            return Sight(step, _snapshot(last, periodic), float("nan"), float("nan"), str(error).splitlines()[0], False)
        snapshot = _snapshot(state, periodic)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        assert snapshot.velocities is not None
        wrong = self._guard.geometry_fault(snapshot.positions)
        if wrong:
            return Sight(step, snapshot, energy, float("nan"), wrong, False)
        uncertainty = float(mixed.committee(term).atom_uncertainty(snapshot.positions, snapshot.box).max())
        fault = self._guard.fault(snapshot.positions, snapshot.velocities, forces, energy)
        fault = fault or self._guard.uncertainty_fault(uncertainty)
        usable = bool(np.isfinite(energy) and np.isfinite(uncertainty))
        return Sight(step, snapshot, energy, uncertainty, fault, usable)

    def _escape(
        self, mixed: MixedSystem, term: str, before: Snapshot, sight: Sight, number: int, walker: int
    ) -> list[Job]:
        """Return configurations on the way out: where it was noticed, and on the way there in finer steps."""
        settings = self._settings
        found = [sight] if sight.usable else []
        self.context.setPositions(before.positions)
        if self._system.usesPeriodicBoundaryConditions():
            self.context.setPeriodicBoxVectors(*before.box)
        self.context.setVelocities(before.velocities)
        first = sight.step - settings.check_interval
        for step in range(FINE_CHECKS, settings.check_interval, FINE_CHECKS):
            fine = self._advance(mixed, term, FINE_CHECKS, first + step)
            if fine.usable and fine.uncertainty > settings.threshold:
                found.append(fine)
            if fine.fault:
                break
        found.sort(key=lambda one: one.step)
        # The first that is uncertain, and the last.
        chosen = found[:1] + found[1:][-1:]
        return [self._job(one, "runaway", number, walker) for one in chosen]

    def _job(self, sight: Sight, kind: str, number: int, walker: int) -> Job:
        bare = dataclasses.replace(sight.snapshot, velocities=None)
        return Job(
            number, kind, walker, sight.step, bare, uncertainty=sight.uncertainty, variables=self.values(sight.snapshot)
        )


def _snapshot(state: openmm.State, periodic: bool) -> Snapshot:
    box = np.eye(3)
    if periodic:
        box = np.array(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer))
    return Snapshot(
        np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)),
        box,
        np.array(state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)),
    )


def _thinned(sights: list[Sight], settings: LoopSettings) -> list[Sight]:
    """Return so many as are kept, evenly over the walk."""
    count = settings.candidates_per_walker
    if len(sights) <= count:
        return sights
    return [sights[k] for k in np.unique(np.linspace(0, len(sights) - 1, count).astype(int))]
