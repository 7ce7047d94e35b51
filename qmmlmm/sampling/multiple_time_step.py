"""Multiple time stepping: the expensive correction as an impulse every few steps of the fast potential.

It samples the Hamiltonian with the correction, with one evaluation of the correction per outer step.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import openmm
from openmm import unit

from qmmlmm.errors import HamiltonianError, SettingError, listed
from qmmlmm.mm.barostats import BAROSTATS
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.sampling.isokinetic import isokinetic_impulse, isokinetic_particles, isokinetic_thermostat
from qmmlmm.sampling.slow_terms import correction_terms, fast_multiples, multiple_of, named_terms
from qmmlmm.setting_checks import check_instance, check_quantity, check_steps, check_whole_number
from qmmlmm.units import GAS_CONSTANT, Scalar

LONGEST_STEP = 0.1
"""Largest outer step, ps: beyond it the number was given in femtoseconds."""

MOST_INNER_STEPS = 1000


class MultipleTimeStepIntegrator(openmm.CustomIntegrator):
    """Langevin dynamics with a fast force every inner step and a slow one every outer step.

    The slow force is the sum of the correction's terms, for example QM - ML of one region. It is smooth if the fast
    potential is accurate, and then an interval of a few femtoseconds is often sufficient.

    Parameters
    ----------
    mixed : MixedSystem
        System of the simulation. Biases and restraints, which are fast, are added to its ``system`` before.
    temperature : Quantity or float, K, or None
        Temperature; None for dynamics without a thermostat.
    friction : Quantity or float, 1/ps
    step_size : Quantity or float, ps
        Outer step, by which ``step(1)`` advances the simulation.
    inner_steps : int
        Number of inner steps in an outer one.
    slow : iterable of str, optional
        Names of the slow terms; by default those of `qmmlmm.sampling.slow_terms.correction_terms`.
    isokinetic : bool or iterable of int
        Particles with bounded velocities, which no resonance can heat: True for all that have a mass and no constraint.
        All others have Langevin dynamics.

    Attributes
    ----------
    slow_groups, fast_groups : tuple of int
        Force groups of the slow and the fast forces.
    isokinetic : tuple of int
        Particles with bounded velocities.

    Raises
    ------
    HamiltonianError
        If there is no slow term, or a slow one shares its force group with a fast one.
    SettingError
        If a number is out of range, an argument has another type, or an isokinetic particle has a constraint or no
        mass.

    Notes
    -----
    One outer step of length D = n d, with forces at the positions after the previous line::

        v += D F_slow(x) / m
        n times:
            v += d F_fast(x) / m
            x += d v / 2;  v = exp(-g d) v + sqrt((1 - exp(-2 g d)) kT / m) R;  x += d v / 2

    The positions are those of BAOAB-RESPA, with its two half impulses at the end of one step and the beginning of the
    next as one impulse. Each outer step evaluates the slow force once and the fast force n times, at positions that
    reporters get. A slow term that is a multiple of a fast one, such as -ML of ML, is not evaluated: the first impulse
    of the fast force has the length d - D instead. Velocities are those of the middle of a step, as in OpenMM's
    LangevinMiddleIntegrator; `kinetic_energy` gives the kinetic energy at the positions.

    Reporters get positions at which the impulse acts. Of the shift f/k by a constant slow force f of a vibration with
    force constant k and angular frequency w they have the fraction (w D/2) cot(w D/2): 0.86 for C=O and 0.53 for C-H at
    4 fs. The mean over the inner steps has the whole shift, because the impulses and the spring balance each other.

    Sources: Tuckerman, Berne, Martyna, J. Chem. Phys. 97, 1990 (1992); Lagardere et al., J. Phys. Chem. Lett. 10,
    2593 (2019), BAOAB-RESPA; Zhang et al., J. Phys. Chem. A 123, 6056 (2019), one impulse and the thermostat in the
    middle.

    An outer step near a multiple of half the period of the fastest vibration in the slow force makes that vibration
    gain energy (resonance): first at approximately 4.5 fs for bonds to hydrogen, unless hydrogens are made heavier. If
    friction cannot remove this energy, averages are wrong. `isokinetic` bounds the velocities for any friction, see
    `qmmlmm.sampling.isokinetic`. Temperatures of reporters are then too low, there is no `kinetic_energy`, and time
    correlations are not those of Newton's dynamics.

    What remains at long outer steps is the error of the impulse, which grows with the slow force. In a vibration of 10
    fs with a slow force constant of 2 % of the fast one the error of the variance is at most 6 % for outer steps up to
    20 fs and friction of at least 2 per ps; without `isokinetic` it is unbounded at 4.95, 9.9, 14.8 and 19.6 fs unless
    friction is 20 per ps or more. With a slow force constant of 10 % it is at most 66 %, 25 % and 12 % with friction of
    2, 10 and 50 per ps; without `isokinetic` there is no bound with any of these.

    Examples
    --------
    ::

        mixed = create_mixed_system(topology, system, Hamiltonian([
            Term(ml, site, embedding="electrostatic"),
            Term(qm, site, embedding="electrostatic"),
            Term(ml, site, embedding="electrostatic", coefficient=-1.0),
        ]))
        integrator = MultipleTimeStepIntegrator(mixed, 300*kelvin, 1/picosecond, 4*femtoseconds, inner_steps=8)
        simulation = Simulation(topology, mixed.system, integrator)
    """

    slow_groups: tuple[int, ...]
    fast_groups: tuple[int, ...]
    isokinetic: tuple[int, ...]

    def __init__(
        self,
        mixed: MixedSystem,
        temperature: Scalar | None,
        friction: Scalar,
        step_size: Scalar,
        inner_steps: int,
        *,
        slow: Iterable[str] | None = None,
        isokinetic: bool | Iterable[int] = False,
    ) -> None:
        check_instance("mixed", mixed, MixedSystem)
        outer = check_quantity("step_size", step_size, unit.picosecond, above=0.0, at_most=LONGEST_STEP)
        check_whole_number(
            "inner_steps", inner_steps, at_most=MOST_INNER_STEPS, what="a whole number of inner steps in an outer one"
        )
        kelvin = None
        if temperature is not None:
            kelvin = check_quantity("temperature", temperature, unit.kelvin, above=0.0)
        rate = check_quantity("friction", friction, unit.picosecond**-1, at_least=0.0)
        names = correction_terms(mixed.hamiltonian) if slow is None else named_terms(mixed, slow)
        slow_groups = tuple(dict.fromkeys(mixed.force_group(name) for name in names))
        shared = [name for name in mixed.terms if mixed.force_group(name) in slow_groups and name not in names]
        if shared:
            raise HamiltonianError(
                f"the fast terms {listed(shared)} share a force group with a slow term; give each term its own "
                "force_group, or none"
            )
        super().__init__(outer)
        self.slow_groups = slow_groups
        self.fast_groups = tuple(sorted(_force_groups(mixed.system) - set(slow_groups)))
        self._system = mixed.system
        self._mixed = mixed
        self._inner_steps = inner_steps
        self._slow = names
        self._multiples = fast_multiples(mixed, names)
        self._checked = False
        self.isokinetic = isokinetic_particles(mixed.system, isokinetic, temperature)
        inner = f"(dt/{inner_steps})"
        if kelvin is not None:
            self.addGlobalVariable("kT", GAS_CONSTANT * kelvin)
            self.addGlobalVariable("friction", rate)
            self.addGlobalVariable("keep", 1.0)
            self.addGlobalVariable("kick", 0.0)
        self.addPerDofVariable("x1", 0)
        if self.isokinetic:
            self.addPerDofVariable("bounded", 0)
            self._mark_bounded(mixed.system.getNumParticles())
            self.addComputePerDof("x1", "v")
        self.addUpdateContextState()
        if self.isokinetic:
            # Removal of momentum and new random velocities would leave the circle.
            self.addComputePerDof("v", "select(bounded, x1, v)")
        if temperature is not None:
            self.addComputeGlobal("keep", f"exp(-friction*{inner})")
            self.addComputeGlobal("kick", "sqrt(kT*(1-keep*keep))")
        multiples = {
            mixed.force_group(fast): (mixed.force_group(name), factor)
            for name, (fast, factor) in self._multiples.items()
        }
        not_evaluated = {group for group, _ in multiples.values()}
        for group in slow_groups:
            if group not in not_evaluated:
                self.addComputePerDof("v", self._impulse("dt", group))
        for step in range(inner_steps):
            for group in self.fast_groups:
                length = inner
                if step == 0 and group in multiples:
                    length = f"({inner}+({multiples[group][1]!r})*dt)"
                self.addComputePerDof("v", self._impulse(length, group))
            self.addConstrainVelocities()
            if temperature is not None:
                self.addComputePerDof("x", f"x+0.5*{inner}*v")
                self.addComputePerDof("v", self._friction_and_noise())
                self.addComputePerDof("x", f"x+0.5*{inner}*v")
            else:
                self.addComputePerDof("x", f"x+{inner}*v")
            self.addComputePerDof("x1", "x")
            self.addConstrainPositions()
            self.addComputePerDof("v", f"v+(x-x1)/{inner}")

    def _mark_bounded(self, n_particles: int) -> None:
        marks = np.zeros((n_particles, 3))
        marks[list(self.isokinetic)] = 1.0
        self.setPerDofVariableByName("bounded", marks.tolist())

    def _impulse(self, length: str, group: int) -> str:
        """Return the expression for the velocity after an impulse of a force group."""
        return isokinetic_impulse(length, group) if self.isokinetic else f"v+{length}*f{group}/m"

    def _friction_and_noise(self) -> str:
        """Return the expression for the velocity after friction and noise."""
        langevin = "keep*v+kick*gaussian/sqrt(m)"
        return isokinetic_thermostat(langevin) if self.isokinetic else langevin

    def step(self, steps: int) -> None:
        """Advance by a number of outer steps.

        Raises
        ------
        SettingError
            If it is no number of steps of zero or more.
        HamiltonianError
            If the System has a new force in a group that this integrator does not have, slow terms were moved to other
            groups, or one of two terms that are multiples of each other has another model.
        UnsupportedSystemError
            If charges of the System were changed after it was created.
        """
        check_steps("steps", steps)
        for name, (fast, factor) in self._multiples.items():
            if multiple_of(self._mixed, name, fast) != factor:
                raise HamiltonianError(
                    f"the term {name!r} was a multiple of {fast!r} when this integrator was created, and they differ "
                    "now; give both the same model (exchange_model), or create the integrator again"
                )
        if not self._checked:
            unknown = _force_groups(self._system) - set(self.slow_groups) - set(self.fast_groups)
            if unknown:
                raise HamiltonianError(
                    f"the System has forces in the groups {sorted(unknown)}, added after the integrator was made, "
                    "which would have no effect; add all forces first, or give them force group 0"
                )
            _check_groups(self._mixed, self._slow, self.slow_groups)
            self._mixed.check_unchanged()
            self._checked = True
        super().step(steps)

    def kinetic_energy(self, context: openmm.Context) -> unit.Quantity:
        """Return the kinetic energy at the positions, with velocities after half an impulse of each force.

        Terms that run in Python do not evaluate forces at these positions again.

        Parameters
        ----------
        context : openmm.Context
            Context of this integrator.

        Returns
        -------
        Quantity, kJ/mol

        Raises
        ------
        SettingError
            If there are isokinetic particles, whose velocities do not give the kinetic energy, or it is no Context.
        """
        check_instance("context", context, openmm.Context, "an openmm.Context")
        if self.isokinetic:
            raise SettingError(
                f"{len(self.isokinetic)} particles are isokinetic: their velocities are bounded and do not give the "
                "kinetic energy; create the integrator without isokinetic"
            )
        velocities = context.getState(velocities=True).getVelocities(asNumpy=True)._value
        system = context.getSystem()
        masses = np.array([system.getParticleMass(k)._value for k in range(system.getNumParticles())])
        inverse = np.divide(1.0, masses, out=np.zeros_like(masses), where=masses > 0)[:, None]
        step = self.getStepSize()._value
        slow = context.getState(forces=True, groups=set(self.slow_groups)).getForces(asNumpy=True)._value
        fast = context.getState(forces=True, groups=set(self.fast_groups)).getForces(asNumpy=True)._value
        context.setVelocities(velocities + 0.5 * step * inverse * (slow + fast / self._inner_steps))
        try:
            if system.getNumConstraints():
                context.applyVelocityConstraints(1e-8)
            return context.getState(energy=True, groups=0).getKineticEnergy()
        finally:
            context.setVelocities(velocities)


def _check_groups(mixed: MixedSystem, slow: Iterable[str], groups: tuple[int, ...]) -> None:
    """Raise HamiltonianError if slow terms are no longer in these force groups."""
    present = tuple(dict.fromkeys(mixed.force_group(name) for name in slow))
    if present != groups:
        raise HamiltonianError(
            f"the slow terms are in the force groups {listed(present)} now and were in {listed(groups)} when the "
            "integrator was created; assign force groups first"
        )


def _force_groups(system: openmm.System) -> set[int]:
    """Return the force groups in use; barostats, thermostats and momentum removers apply no forces."""
    groups = set()
    for force in system.getForces():
        if isinstance(force, _WITHOUT_FORCES):
            continue
        groups.add(force.getForceGroup())
        if isinstance(force, openmm.NonbondedForce) and force.getReciprocalSpaceForceGroup() >= 0:
            groups.add(force.getReciprocalSpaceForceGroup())
    return groups


_WITHOUT_FORCES = (*BAROSTATS, openmm.AndersenThermostat, openmm.CMMotionRemover)
