"""Surface hopping: classical nuclei on one electronic surface at a time."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from openmm import app, unit
from scipy.optimize import linear_sum_assignment

from qmmlmm.dynamics.amplitudes import ComplexArray, coupled_step, damped, diabatic_step, propagate
from qmmlmm.dynamics.gap_minimum import hopping_probabilities
from qmmlmm.dynamics.hopping_checkpoint import read_checkpoint, write_checkpoint
from qmmlmm.dynamics.methods import FewestSwitches, LandauZener, check_choice
from qmmlmm.dynamics.momentum import rescaled, reversed_along
from qmmlmm.dynamics.spin_crossing import flip_probabilities
from qmmlmm.dynamics.surfaces import SurfacePoint, Surfaces
from qmmlmm.dynamics.velocity_verlet import VelocityVerletIntegrator
from qmmlmm.units import FloatArray, IntArray

SAME_CHARACTER = 0.8
"""Squared overlap with a state of another place from which on two states have crossed within one step. Below it, the
crossing is avoided and the amplitudes decide."""

FORCE = unit.kilojoule_per_mole / unit.nanometer
SPEED = unit.nanometer / unit.picosecond


@dataclass(frozen=True)
class Hop:
    """A hop, or one that was frustrated.

    Parameters
    ----------
    step : int
        Of the simulation.
    origin, target : int
        States.
    energy_change : float, kJ/mol
        Of the potential energy.
    accepted : bool
        False if the kinetic energy along the direction did not suffice.
    """

    step: int
    origin: int
    target: int
    energy_change: float
    accepted: bool


@dataclass(frozen=True)
class _Place:
    """A time step that the trajectory may go back to."""

    positions: FloatArray
    velocities: FloatArray
    time: float
    step: int


class SurfaceHopping:
    """Runs a Simulation on one of several electronic surfaces, with hops between them.

    Parameters
    ----------
    simulation : openmm.app.Simulation
        With a `VelocityVerletIntegrator`. Positions and velocities are set before the first step.
    surfaces : Surfaces
    state : int
        On which it starts, counted from 0, the ground state.
    method : FewestSwitches or LandauZener, optional
        ``FewestSwitches()`` if not given.
    rescale_along : {"velocity", "coupling"}
        Direction in which the momenta of the region change at a hop: that of the region's momenta, which are all
        scaled by one factor, or the derivative coupling of both states on the region's atoms, which `surfaces` have to
        give, whatever propagates the amplitudes. Landau-Zener has ``"velocity"`` alone, also for spin flips.
    frustrated : {"keep", "reverse"}
        What becomes of the momentum along that direction when a hop lacks kinetic energy: along the velocity
        ``"reverse"`` turns the whole region back.
    seed : int
        Of the random numbers that decide about hops.

    Attributes
    ----------
    state : int
        The active one.
    amplitudes : (m,) complex array
        Their absolute squares are the populations of the electronic wave function. With Landau-Zener hops that of the
        active state is one.
    hops : list of Hop
    point : SurfacePoint or None
        The states at the present geometry.

    Raises
    ------
    ValueError
        If a setting makes no sense or the Simulation has another integrator.

    Notes
    -----
    ``hopping.step(n)`` and ``simulation.step(n)`` do the same: hops happen inside the integrator's step, and reporters
    see the velocities and the surface after them. Every step is: velocity Verlet on the active surface; states that
    crossed within the step (squared overlap above 0.8 with another place) exchange their numbers, the trajectory stays
    with the character and the last half kick of the step is that of its surface; amplitudes; the hop; decoherence.

    Examples
    --------
    ::

        simulation = app.Simulation(mixed.topology, mixed.system, VelocityVerletIntegrator(0.5 * femtosecond))
        simulation.context.setPositions(positions)
        simulation.context.setVelocitiesToTemperature(300, 1)
        hopping = SurfaceHopping(simulation, TermSurfaces(mixed, "dye/QM"), state=1, seed=7)
        hopping.step(200)
        print(hopping.state, hopping.hops)
    """

    def __init__(
        self,
        simulation: app.Simulation,
        surfaces: Surfaces,
        state: int,
        *,
        method: FewestSwitches | LandauZener | None = None,
        rescale_along: str = "velocity",
        frustrated: str = "keep",
        seed: int = 0,
    ) -> None:
        method = FewestSwitches() if method is None else method
        if not isinstance(method, FewestSwitches | LandauZener):
            raise ValueError(f"method is FewestSwitches(...) or LandauZener(), got {method!r}")
        check_choice("rescale_along", rescale_along, ("velocity", "coupling"))
        check_choice("frustrated", frustrated, ("keep", "reverse"))
        if isinstance(method, LandauZener) and rescale_along != "velocity":
            raise ValueError("LandauZener works from energies alone: rescale_along is 'velocity'")
        integrator = simulation.integrator
        if not isinstance(integrator, VelocityVerletIntegrator):
            raise ValueError(
                f"surface hopping needs a Simulation with a VelocityVerletIntegrator, this has a "
                f"{type(integrator).__name__}"
            )
        self.simulation = simulation
        self._integrator = integrator
        self._surfaces = surfaces
        self._method = method
        self._along_coupling = rescale_along == "coupling"
        self._reverse = frustrated == "reverse"
        system = simulation.system
        self._masses = np.array([system.getParticleMass(k)._value for k in range(system.getNumParticles())])
        self._constrained = system.getNumConstraints() > 0
        integrator.listener = self
        self.reset(state, seed)

    def reset(self, state: int, seed: int) -> None:
        """Begin a new trajectory: positions and velocities are set before the next step."""
        count = self._surfaces.n_states
        if isinstance(state, bool) or not isinstance(state, int | np.integer) or not 0 <= state < count:
            raise ValueError(f"state {state!r} does not exist: there are states 0 to {count - 1}")
        self.state = int(state)
        self.amplitudes: ComplexArray = np.eye(count, dtype=complex)[state]
        self.hops: list[Hop] = []
        self.point: SurfacePoint | None = None
        self._random = np.random.default_rng(seed)
        self._gaps: list[FloatArray] = []
        self._last: _Place | None = None
        self._surfaces.recall({})
        self._select(self.state)

    def step(self, steps: int) -> None:
        """Advance by a number of steps, with reporters."""
        self.simulation.step(steps)

    @property
    def populations(self) -> FloatArray:
        """The absolute squares of the amplitudes."""
        return np.asarray(abs(self.amplitudes) ** 2)

    def before_step(self) -> None:
        """Observe the first geometry, and remember where the step begins."""
        if self.point is None:
            self.point = self._surfaces.observe(self.simulation.context)
            self._check(self.point)
            self._gaps = [self.point.energies]
        if isinstance(self._method, LandauZener) or self._method.propagation == "couplings":
            self._last = self._place()

    def after_step(self) -> None:
        """Propagate the amplitudes and hop."""
        old, new = self.point, self._surfaces.observe(self.simulation.context)
        assert old is not None
        self.point = new
        if isinstance(self._method, LandauZener):
            crossed = self._follow(self._order(new))
            if not self._flip_spin(old, new):
                self._look_for_minimum(crossed)
            return
        order = self._order(new)
        moved = new if (order == np.arange(len(order))).all() else _reordered(new, order)
        duration = self._integrator.getStepSize()._value
        propagators = self._propagators(self._method, old, moved, duration)
        amplitudes, probabilities = propagate(self.amplitudes, propagators, self.state)
        self._follow(order)
        self.amplitudes = np.empty_like(amplitudes)
        self.amplitudes[order] = amplitudes
        chances = np.zeros_like(probabilities)
        chances[order] = probabilities
        target = self._drawn(chances)
        if target != self.state:
            self._hop(target, new)
        if self._method.decoherence == "energy":
            region = self._surfaces.atoms
            speeds = self._velocities()[region]
            kinetic = 0.5 * float((self._masses[region, None] * speeds**2).sum())
            self.amplitudes = damped(self.amplitudes, self.state, new.energies, kinetic, duration)

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Write a file from which the trajectory goes on as if it had never stopped.

        It holds the Context, amplitudes, hops, random numbers and the states of the last geometry.
        """
        write_checkpoint(
            path,
            self.simulation.context,
            {
                "state": self.state,
                "hops": [vars(hop) for hop in self.hops],
                "random": self._random.bit_generator.state,
                "method": repr(self._method),
            },
            {"amplitudes": self.amplitudes, "gaps": np.array(self._gaps)},
            self.point,
            self._surfaces.memory(),
        )

    def load_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Go on from a file that `save_checkpoint` has written with the same System, surfaces and method.

        Raises
        ------
        ValueError
            If the file is damaged, or of another kind of run.
        """
        record, arrays, point, memory = read_checkpoint(path, self.simulation.context)
        if record["method"] != repr(self._method) or len(arrays["amplitudes"]) != self._surfaces.n_states:
            raise ValueError(
                f"{path} is of {len(arrays['amplitudes'])} states and {record['method']}, this run of "
                f"{self._surfaces.n_states} and {self._method!r}"
            )
        self.state = int(record["state"])
        self.amplitudes = arrays["amplitudes"]
        self.hops = [Hop(**hop) for hop in record["hops"]]
        self._random.bit_generator.state = record["random"]
        self._gaps = list(arrays["gaps"])
        self.point = point
        self._last = None
        self._surfaces.recall(memory)
        self._select(self.state)

    def _check(self, point: SurfacePoint) -> None:
        """Raise ValueError if the surfaces do not give what the method needs."""
        if isinstance(self._method, FewestSwitches) and point.multiplicities is not None:
            raise ValueError(
                f"states of the multiplicities {point.multiplicities.tolist()} hop by LandauZener(), which knows where "
                "their energies cross and their spin-orbit coupling; FewestSwitches is for states of one multiplicity"
            )
        coupled = isinstance(self._method, FewestSwitches) and self._method.propagation == "couplings"
        if (coupled or self._along_coupling) and point.couplings is None:
            raise ValueError(
                "these surfaces give no derivative couplings: use FewestSwitches(propagation='local diabatisation') "
                "and rescale_along='velocity', or LandauZener()"
            )

    def _propagators(
        self, method: FewestSwitches, old: SurfacePoint, new: SurfacePoint, duration: float
    ) -> list[ComplexArray]:
        energies = old.energies, new.energies
        if method.propagation == "couplings":
            assert old.couplings is not None
            assert new.couplings is not None
            assert self._last is not None
            rates = (
                np.einsum("ijnx,nx->ij", old.couplings, self._last.velocities),
                np.einsum("ijnx,nx->ij", new.couplings, self._velocities()),
            )
            return coupled_step(*energies, rates, duration, method.substeps)
        if new.overlaps is None:
            raise ValueError(
                "these surfaces give no overlaps between the states of two steps: use "
                "FewestSwitches(propagation='couplings') or LandauZener()"
            )
        return diabatic_step(*energies, new.overlaps, duration, method.substeps)

    def _order(self, new: SurfacePoint) -> IntArray:
        """Return the place that each state before has now: another one only if states have crossed."""
        same = np.arange(self._surfaces.n_states)
        if new.overlaps is None:
            return same
        squares = new.overlaps**2
        _, places = linear_sum_assignment(-squares)
        moved = places != same
        crossed = moved.any() and bool((squares[same, places][moved] > SAME_CHARACTER).all())
        return np.asarray(places) if crossed else same

    def _follow(self, order: IntArray) -> bool:
        """Stay with the character of the active state, and make the last half kick that of its surface.

        Returns whether any states have crossed.
        """
        place = int(order[self.state])
        if place == self.state:
            return bool((order != np.arange(len(order))).any())
        context = self.simulation.context
        wrong = self._forces()
        self._select(place)
        half = 0.5 * self._integrator.getStepSize()._value
        kick = np.zeros_like(wrong)
        moving = self._masses > 0.0
        kick[moving] = half * (self._forces() - wrong)[moving] / self._masses[moving, None]
        self._set_velocities(self._velocities() + kick)
        if self._constrained:
            context.applyVelocityConstraints(self._integrator.getConstraintTolerance())
        return True

    def _look_for_minimum(self, crossed: bool) -> None:
        """Hop one step earlier if the gap had a minimum there, and take the last step again."""
        assert self.point is not None
        # States that have crossed have followed their characters: that minimum is done with.
        self._gaps = [*([] if crossed else self._gaps[-2:]), self.point.energies]
        if len(self._gaps) < 3:
            return
        duration = self._integrator.getStepSize()._value
        spins = self.point.multiplicities
        target = self._drawn(hopping_probabilities(self._gaps, self.state, duration, spins))
        if target == self.state:
            return
        there, energies = self._place(), self._gaps[1]
        assert self._last is not None
        self._go_to(self._last)
        before = self.state
        self._hop(target, SurfacePoint(energies))
        if self.state == before and not self._reverse:
            self._go_to(there)
            return
        # The states of that step become those that the next ones are compared with.
        middle = self._surfaces.observe(self.simulation.context)
        self._integrator.step_alone()
        self.point = self._surfaces.observe(self.simulation.context)
        self._gaps = [energies, self.point.energies]
        self._follow(self._order(self.point))
        self._flip_spin(middle, self.point)

    def _flip_spin(self, old: SurfacePoint, new: SurfacePoint) -> bool:
        """Hop to a state of another spin if it was crossed in the last step; returns whether the surface changed."""
        if new.multiplicities is None:
            return False
        target = self._drawn(flip_probabilities(old, new, self.state, self._integrator.getStepSize()._value))
        if target == self.state:
            return False
        before = self.state
        self._hop(target, new)
        if self.state == before:
            return False
        self._gaps = [new.energies]
        return True

    def _hop(self, target: int, point: SurfacePoint) -> None:
        """Change the surface and the velocities, if the kinetic energy allows it."""
        region = self._surfaces.atoms
        velocities = self._velocities()
        masses = self._masses[region]
        if self._along_coupling:
            assert point.couplings is not None
            direction = point.couplings[self.state, target][region]
        else:
            direction = masses[:, None] * velocities[region]
        change = float(point.energies[target] - point.energies[self.state])
        found = rescaled(velocities[region], masses, direction, change)
        self.hops.append(Hop(self.simulation.currentStep, self.state, target, change, found is not None))
        if found is not None:
            self._select(target)
            velocities[region] = found
            self._set_velocities(velocities)
        elif self._reverse:
            velocities[region] = reversed_along(velocities[region], masses, direction)
            self._set_velocities(velocities)

    def _select(self, state: int) -> None:
        self.state = state
        self._surfaces.select(self.simulation.context, state)
        if isinstance(self._method, LandauZener):
            self.amplitudes = np.eye(self._surfaces.n_states, dtype=complex)[state]

    def _drawn(self, probabilities: FloatArray) -> int:
        """Return the state that a random number chooses; one is drawn in every step."""
        reached = np.flatnonzero(np.cumsum(probabilities) > self._random.random())
        return int(reached[0]) if len(reached) else self.state

    def _place(self) -> _Place:
        state = self.simulation.context.getState(positions=True, velocities=True)
        return _Place(
            np.array(state.getPositions(asNumpy=True)._value),
            np.array(state.getVelocities(asNumpy=True)._value),
            state.getTime()._value,
            self.simulation.currentStep,
        )

    def _go_to(self, place: _Place) -> None:
        context = self.simulation.context
        context.setPositions(place.positions)
        context.setVelocities(place.velocities)
        context.setTime(place.time)
        context.setStepCount(place.step)

    def _velocities(self) -> FloatArray:
        return np.array(self.simulation.context.getState(velocities=True).getVelocities(asNumpy=True)._value)

    def _set_velocities(self, velocities: FloatArray) -> None:
        self.simulation.context.setVelocities(velocities)

    def _forces(self) -> FloatArray:
        return np.array(self.simulation.context.getState(forces=True).getForces(asNumpy=True)._value)


def _reordered(point: SurfacePoint, order: IntArray) -> SurfacePoint:
    """Return the states in the order that their characters had before."""
    return SurfacePoint(
        energies=point.energies[order],
        overlaps=None if point.overlaps is None else point.overlaps[:, order],
        couplings=None if point.couplings is None else point.couplings[np.ix_(order, order)],
    )
