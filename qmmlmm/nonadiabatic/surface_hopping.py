"""Surface hopping: classical nuclei on one electronic surface at a time."""

from __future__ import annotations

import os

import numpy as np
from openmm import app

from qmmlmm.coupling.potential import Memory
from qmmlmm.errors import RunDirectoryError, SettingError
from qmmlmm.nonadiabatic.amplitudes import ComplexArray, coupled_step, damped, diabatic_step, propagate
from qmmlmm.nonadiabatic.gap_minimum import hopping_probabilities
from qmmlmm.nonadiabatic.hop import Hop
from qmmlmm.nonadiabatic.hopping_checkpoint import HoppingMemory, read_checkpoint, write_checkpoint
from qmmlmm.nonadiabatic.methods import FewestSwitches, LandauZener
from qmmlmm.nonadiabatic.momentum import rescaled, reversed_along
from qmmlmm.nonadiabatic.nuclei import Nuclei, StepStart
from qmmlmm.nonadiabatic.spin_crossing import flip_probabilities
from qmmlmm.nonadiabatic.state_order import have_crossed, reordered, state_order
from qmmlmm.nonadiabatic.surfaces import SurfacePoint, Surfaces
from qmmlmm.setting_checks import check_choice, check_path, check_steps, check_whole_number, is_whole_number
from qmmlmm.units import FloatArray, IntArray


class SurfaceHopping:
    """Runs a Simulation on one of several electronic surfaces, with hops between them.

    Parameters
    ----------
    simulation : openmm.app.Simulation
        Simulation with a `VelocityVerletIntegrator`. Set positions and velocities before the first step.
    surfaces : Surfaces
    state : int
        State at the start, counted from 0, the ground state.
    method : FewestSwitches or LandauZener, optional
        ``FewestSwitches()`` if not given.
    rescale_along : {"velocity", "coupling"}
        Direction in which the momenta of the region change at a hop: that of the momenta, which are all scaled by one
        factor, or the derivative coupling of both states on the atoms of the region, which `surfaces` have to give with
        any propagation. With Landau-Zener only ``"velocity"``, also for spin flips.
    frustrated : {"keep", "reverse"}
        Fate of the momentum along that direction when a hop lacks kinetic energy; with ``rescale_along="velocity"``,
        ``"reverse"`` turns the whole region back.
    seed : int
        Seed of the random numbers that decide about hops.

    Attributes
    ----------
    state : int
        Active state.
    amplitudes : (m,) complex array
        Amplitudes of the electronic wave function; their absolute squares are the populations. With Landau-Zener hops
        the population of the active state is one.
    hops : list of Hop
    point : SurfacePoint or None
        States at the present geometry.

    Raises
    ------
    SettingError
        If a setting is wrong or the Simulation has another integrator.

    Notes
    -----
    ``hopping.step(n)`` and ``simulation.step(n)`` do the same: hops happen inside the step of the integrator, and
    reporters get the velocities and the surface after them. A step consists of velocity Verlet on the active surface;
    exchange of the numbers of states that crossed within the step (squared overlap above 0.8 with a state in another
    position), where the trajectory keeps the character of its state and the last half kick is that of its surface;
    propagation of the amplitudes; the hop; decoherence.

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
            raise SettingError(f"method is FewestSwitches(...) or LandauZener(), got {method!r}")
        check_choice("rescale_along", rescale_along, ("velocity", "coupling"))
        check_choice("frustrated", frustrated, ("keep", "reverse"))
        if isinstance(method, LandauZener) and rescale_along != "velocity":
            raise SettingError("LandauZener has only energies and no couplings: rescale_along is 'velocity'")
        if isinstance(surfaces, type) or not isinstance(surfaces, Surfaces):
            raise SettingError(f"surfaces are TermSurfaces(...) or CoefficientSurfaces(...), got {surfaces!r}")
        self.simulation = simulation
        self._nuclei = Nuclei(simulation)
        self._surfaces = surfaces
        self._method = method
        self._along_coupling = rescale_along == "coupling"
        self._reverse = frustrated == "reverse"
        self._nuclei.integrator.listener = self
        self.reset(state, seed)

    def reset(self, state: int, seed: int) -> None:
        """Start a new trajectory; the caller sets positions and velocities before the next step.

        Parameters
        ----------
        state : int
            State at the start.
        seed : int
            Seed of the random numbers that decide about hops.

        Raises
        ------
        SettingError
            If there is no such state, or the seed is no whole number of zero or more.
        """
        check_whole_number("seed", seed, at_least=0)
        count = self._surfaces.n_states
        if not is_whole_number(state) or not 0 <= state < count:
            raise SettingError(f"state {state!r} does not exist: there are states 0 to {count - 1}")
        self.state = int(state)
        self.amplitudes: ComplexArray = np.eye(count, dtype=complex)[state]
        self.hops: list[Hop] = []
        self.point: SurfacePoint | None = None
        self._random = np.random.default_rng(seed)
        self._gaps: list[FloatArray] = []
        self._step_start: StepStart | None = None
        self._surfaces.recall({})
        self._select(self.state)

    def step(self, steps: int) -> None:
        """Advance by a number of steps, with reporters.

        Raises
        ------
        SettingError
            If it is no number of steps of zero or more.
        """
        check_steps("steps", steps)
        self.simulation.step(steps)

    @property
    def populations(self) -> FloatArray:
        """The absolute squares of the amplitudes."""
        return np.asarray(abs(self.amplitudes) ** 2)

    def before_step(self) -> None:
        """Observe the first geometry, and keep the start of the step."""
        if self.point is None:
            self.point = self._surfaces.observe(self.simulation.context)
            self._check(self.point)
            self._gaps = [self.point.energies]
        if isinstance(self._method, LandauZener) or self._method.propagation == "couplings":
            self._step_start = self._nuclei.step_start()

    def after_step(self) -> None:
        """Propagate the amplitudes and hop."""
        old, new = self.point, self._surfaces.observe(self.simulation.context)
        assert old is not None
        self.point = new
        if isinstance(self._method, LandauZener):
            crossed = self._follow(state_order(new))
            if not self._flip_spin(old, new):
                self._hop_at_minimum(crossed)
            return
        order = state_order(new)
        duration = self._nuclei.step_size
        propagators = self._propagators(
            self._method, old, reordered(new, order) if have_crossed(order) else new, duration
        )
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
            kinetic = self._nuclei.kinetic_energy(self._surfaces.atoms)
            self.amplitudes = damped(self.amplitudes, self.state, new.energies, kinetic, duration)

    def memory(self) -> Memory:
        """Return what a checkpoint has to hold besides the Context, as arrays for `recall`.

        Amplitudes, hops, random numbers and the states at the last geometry.
        """
        return HoppingMemory(
            self.state,
            self.hops,
            self._random.bit_generator.state,
            repr(self._method),
            self.amplitudes,
            np.array(self._gaps),
            self.point,
            self._surfaces.memory(),
        ).to_arrays()

    def recall(self, memory: Memory) -> None:
        """Continue from what `memory` returned with the same System, surfaces and method.

        Raises
        ------
        RunDirectoryError
            If it comes from another method or another number of states, or from something else.
        """
        found = HoppingMemory.from_arrays(memory)
        count = len(found.amplitudes)
        if found.method != repr(self._method) or count != self._surfaces.n_states:
            raise RunDirectoryError(
                f"the checkpoint is of {count} states and {found.method}, this run of "
                f"{self._surfaces.n_states} and {self._method!r}; continue with the same surfaces and method"
            )
        self.state = found.state
        self.amplitudes = found.amplitudes
        self.hops = list(found.hops)
        self._random.bit_generator.state = found.random
        self._gaps = list(found.gaps)
        self.point = found.point
        self._step_start = None
        self._surfaces.recall(found.surfaces)
        self._select(self.state)

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Write a file from which the trajectory continues as if it had not stopped: the Context and `memory`."""
        write_checkpoint(check_path("path", path), self.simulation.context, self.memory())

    def load_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Continue from a file of `save_checkpoint` with the same System, surfaces and method.

        Raises
        ------
        RunDirectoryError
            If the file is damaged, or comes from another method or another number of states.
        """
        memory = read_checkpoint(check_path("path", path), self.simulation.context)
        try:
            self.recall(memory)
        except RunDirectoryError as error:
            raise RunDirectoryError(f"{path}: {error}") from error

    def _check(self, point: SurfacePoint) -> None:
        """Raise SettingError if the surfaces do not give what the method needs."""
        if isinstance(self._method, FewestSwitches) and point.multiplicities is not None:
            raise SettingError(
                f"states of the multiplicities {point.multiplicities.tolist()} hop by LandauZener(), which uses the "
                "crossings of their energies and their spin-orbit coupling; FewestSwitches is for states of one "
                "multiplicity"
            )
        coupled = isinstance(self._method, FewestSwitches) and self._method.propagation == "couplings"
        if (coupled or self._along_coupling) and point.couplings is None:
            raise SettingError(
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
            assert self._step_start is not None
            rates = (
                np.einsum("ijnx,nx->ij", old.couplings, self._step_start.velocities),
                np.einsum("ijnx,nx->ij", new.couplings, self._nuclei.velocities),
            )
            return coupled_step(*energies, rates, duration, method.substeps)
        if new.overlaps is None:
            raise SettingError(
                "these surfaces give no overlaps between the states of two steps: use "
                "FewestSwitches(propagation='couplings') or LandauZener()"
            )
        return diabatic_step(*energies, new.overlaps, duration, method.substeps)

    def _follow(self, order: IntArray) -> bool:
        """Keep the character of the active state, and make the last half kick that of its surface.

        Returns whether any states have crossed.
        """
        position = int(order[self.state])
        if position == self.state:
            return have_crossed(order)
        former = self._nuclei.forces
        self._select(position)
        self._nuclei.replace_half_kick(former)
        return True

    def _hop_at_minimum(self, crossed: bool) -> None:
        """Hop one step earlier if the gap had a minimum there, and repeat the last step."""
        assert self.point is not None
        # States that have crossed have kept their characters: their minimum is no chance to hop.
        self._gaps = [*([] if crossed else self._gaps[-2:]), self.point.energies]
        if len(self._gaps) < 3:
            return
        spins = self.point.multiplicities
        target = self._drawn(hopping_probabilities(self._gaps, self.state, self._nuclei.step_size, spins))
        if target == self.state:
            return
        step_end, energies = self._nuclei.step_start(), self._gaps[1]
        assert self._step_start is not None
        self._nuclei.return_to(self._step_start)
        before = self.state
        self._hop(target, SurfacePoint(energies))
        if self.state == before and not self._reverse:
            self._nuclei.return_to(step_end)
            return
        # The overlaps of the repeated step are with the states at the minimum.
        middle = self._surfaces.observe(self.simulation.context)
        self._nuclei.integrator.step_without_listener()
        self.point = self._surfaces.observe(self.simulation.context)
        self._gaps = [energies, self.point.energies]
        self._follow(state_order(self.point))
        self._flip_spin(middle, self.point)

    def _flip_spin(self, old: SurfacePoint, new: SurfacePoint) -> bool:
        """Hop to a state of another spin that was crossed in the last step; return whether the surface has changed."""
        if new.multiplicities is None:
            return False
        target = self._drawn(flip_probabilities(old, new, self.state, self._nuclei.step_size))
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
        velocities = self._nuclei.velocities
        masses = self._nuclei.masses[region]
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
            self._nuclei.set_velocities(velocities)
        elif self._reverse:
            velocities[region] = reversed_along(velocities[region], masses, direction)
            self._nuclei.set_velocities(velocities)

    def _select(self, state: int) -> None:
        self.state = state
        self._surfaces.select(self.simulation.context, state)
        if isinstance(self._method, LandauZener):
            self.amplitudes = np.eye(self._surfaces.n_states, dtype=complex)[state]

    def _drawn(self, probabilities: FloatArray) -> int:
        """Return the state that a random number selects; every call draws one number."""
        reached = np.flatnonzero(np.cumsum(probabilities) > self._random.random())
        return int(reached[0]) if len(reached) else self.state
