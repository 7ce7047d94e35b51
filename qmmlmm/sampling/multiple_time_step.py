"""Multiple time stepping: the dear correction as an impulse every few steps of the quick potential.

Samples the Hamiltonian with the correction, at one evaluation of it per outer step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import openmm
from openmm import unit

from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.errors import HamiltonianError, listed, nearest
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.units import in_unit


class MultipleTimeStepIntegrator(openmm.CustomIntegrator):
    """Langevin dynamics with a fast force every inner step and a slow one every outer step.

    The slow force is what the terms of the correction add up to, for example QM - ML of one region. It is smooth
    where the fast potential is good, and then a few femtoseconds apart is often enough.

    Parameters
    ----------
    mixed : MixedSystem
        Biases and restraints are added to its ``system`` before; they are fast.
    temperature : Quantity or float, K, or None
        None for dynamics without a thermostat.
    friction : Quantity or float, 1/ps
    step_size : Quantity or float, ps
        Outer step; ``step(1)`` moves the simulation by as much.
    inner_steps : int
        Inner steps in an outer one.
    slow : iterable of str, optional
        Names of the slow terms. By default those of `correction_terms`.
    isokinetic : bool or iterable of int
        Particles whose velocities are bounded, so that no resonance can heat them: True for all that have a mass and no
        constraint. All others keep Langevin dynamics.

    Attributes
    ----------
    slow_groups, fast_groups : tuple of int
        Force groups of either kind.
    isokinetic : tuple of int
        Particles with bounded velocities.

    Raises
    ------
    HamiltonianError
        If there is no slow term, or a slow one shares its force group with a fast one.
    ValueError
        If a number is out of range, or a particle that is to be isokinetic has a constraint or no mass.

    Notes
    -----
    One outer step of length D = n d, with forces at the positions that the line before leaves::

        v += D F_slow(x) / m
        n times:
            v += d F_fast(x) / m
            x += d v / 2;  v = exp(-g d) v + sqrt((1 - exp(-2 g d)) kT / m) R;  x += d v / 2

    These are the positions of BAOAB-RESPA, whose two half impulses at the end of one step and the beginning of the
    next are one here. So each outer step evaluates the slow force once and the fast force n times, and both at
    positions that reporters see. A slow term that takes a fast one back, -ML beside ML, is not evaluated at all: it is
    a multiple of the fast force at the same positions, whose first impulse has the length d - D then. Velocities are
    those of the middle of a step, as in OpenMM's LangevinMiddleIntegrator; `kinetic_energy` gives the kinetic energy at
    the positions.

    Reporters see a position where the impulse acts. Of the shift f/k that a constant slow force f gives a vibration
    with force constant k and angular frequency w they show (w D/2) cot(w D/2): 0.86 for C=O and 0.53 for C-H at 4 fs.
    In the mean over the inner steps it is all there, since the impulses and the spring balance each other.

    Sources: Tuckerman, Berne, Martyna, J. Chem. Phys. 97, 1990 (1992); Lagardere et al., J. Phys. Chem. Lett. 10,
    2593 (2019), BAOAB-RESPA; Zhang et al., J. Phys. Chem. A 123, 6056 (2019), one impulse and the thermostat in the
    middle.

    An outer step near a multiple of half the period of the fastest vibration that the slow force acts on makes that
    vibration gain energy (resonance): first at about 4.5 fs for bonds to hydrogen, unless hydrogens are made heavier.
    With an amplitude that friction cannot hold, averages are lost. `isokinetic` holds it, whatever the friction. Each
    coordinate of such a particle has the velocity v = c cos(a) with c = sqrt(kT/m) and its own angle a. A force F turns
    the angle, da/dt = -F sin(a)/(m c), which for a kick of length h is

        y -> (y + t)/(1 + y t),    y = v/c,    t = tanh(h F/(m c)),

    so that kicks by several forces at one place add up. In the place of friction and noise the angle makes a step of
    arccos(exp(-g d)) to either side. Along the flow the volume in phase space shrinks at the rate F v/kT, at which the
    weight exp(-U/kT) grows, and the random steps keep the uniform distribution of the angle: positions have the
    canonical distribution, exactly for small steps, and velocities the density 1/(pi sqrt(c^2 - v^2)), with half the
    mean kinetic energy of the temperature. So a reporter's temperature is too low, and there is no `kinetic_energy`. A
    constraint would take a velocity off its circle; so particles with constraints have Langevin dynamics beside, which
    is right, since each coordinate keeps the canonical distribution for itself, and rigid water has no vibration that
    resonates below 15 fs.
    Momentum is removed from these others alone. Barostats see positions only and are right.

    What is left at long outer steps is the error of the impulse itself, which goes with the slow force. In a stretch of
    10 fs with a slow force constant of 2 % of the fast one the variance is off by 6 % at most for outer steps up to
    20 fs and friction from 2 per ps on; without `isokinetic` it grows without bound at 4.95, 9.9, 14.8 and 19.6 fs
    unless friction is 20 per ps or more. With a slow force constant of 10 % it is off by 66 %, 25 % and 12 % at most
    with friction of 2, 10 and 50 per ps; without `isokinetic` there is no bound with any of these. Time correlations
    are not those of Newton's dynamics.

    Sources: Minary, Martyna, Tuckerman, Phys. Rev. Lett. 93, 150201 (2004); Leimkuhler, Margul, Tuckerman, Mol. Phys.
    111, 3579 (2013), whose L is 1 here: more auxiliary velocities bound less and are worse. The random turn in the
    place of their Nose-Hoover thermostats: Robnik, Seljak, arXiv:2303.18221 (2023).

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
        temperature: Any,
        friction: Any,
        step_size: Any,
        inner_steps: int,
        *,
        slow: Iterable[str] | None = None,
        isokinetic: bool | Iterable[int] = False,
    ) -> None:
        outer = _positive("step_size", in_unit(step_size, unit.picosecond), "ps")
        if isinstance(inner_steps, bool) or not isinstance(inner_steps, int) or inner_steps < 1:
            raise ValueError(f"inner_steps is a whole number of inner steps in an outer one, got {inner_steps!r}")
        names = correction_terms(mixed.hamiltonian) if slow is None else _known(mixed, slow)
        slow_groups = tuple(dict.fromkeys(mixed.force_groups[name] for name in names))
        shared = [name for name, group in mixed.force_groups.items() if group in slow_groups and name not in names]
        if shared:
            raise HamiltonianError(
                f"the fast terms {listed(shared)} share a force group with a slow term; give each term a force_group "
                "of its own, or none"
            )
        super().__init__(outer)
        self.slow_groups = slow_groups
        self.fast_groups = tuple(sorted(_force_groups(mixed.system) - set(slow_groups)))
        self._system = mixed.system
        self._mixed = mixed
        self._inner_steps = inner_steps
        self._opposites = _opposites(mixed, names)
        self._checked = False
        self.isokinetic = _isokinetic(mixed.system, isokinetic, temperature)
        inner = f"(dt/{inner_steps})"
        if temperature is not None:
            kelvin = _positive("temperature", in_unit(temperature, unit.kelvin), "K")
            rate = in_unit(friction, unit.picosecond**-1)
            if not math.isfinite(rate) or rate < 0:
                raise ValueError(f"friction is zero or more, in 1/ps, got {friction!r}")
            energy = unit.MOLAR_GAS_CONSTANT_R * kelvin * unit.kelvin
            self.addGlobalVariable("kT", energy.value_in_unit(unit.kilojoule_per_mole))
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
            # What removes momentum or draws velocities would leave the circle.
            self.addComputePerDof("v", "select(bounded, x1, v)")
        if temperature is not None:
            self.addComputeGlobal("keep", f"exp(-friction*{inner})")
            self.addComputeGlobal("kick", "sqrt(kT*(1-keep*keep))")
        multiples = {
            mixed.force_groups[fast]: (mixed.force_groups[name], ratio)
            for name, (fast, ratio) in self._opposites.items()
        }
        not_evaluated = {group for group, _ in multiples.values()}
        for group in slow_groups:
            if group not in not_evaluated:
                self.addComputePerDof("v", self._kick("dt", group))
        for step in range(inner_steps):
            for group in self.fast_groups:
                length = inner
                if step == 0 and group in multiples:
                    length = f"({inner}+({multiples[group][1]!r})*dt)"
                self.addComputePerDof("v", self._kick(length, group))
            self.addConstrainVelocities()
            if temperature is not None:
                self.addComputePerDof("x", f"x+0.5*{inner}*v")
                self.addComputePerDof("v", self._rub())
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

    def _kick(self, length: str, group: int) -> str:
        """Return the velocity after a force has acted."""
        if not self.isokinetic:
            return f"v+{length}*f{group}/m"
        return f"select(bounded, c*(y+t)/(1+y*t), v+{length}*f{group}/m); t=tanh({length}*f{group}/(m*c)); {_ON_CIRCLE}"

    def _rub(self) -> str:
        """Return the velocity after friction and noise."""
        langevin = "keep*v+kick*gaussian/sqrt(m)"
        if not self.isokinetic:
            return langevin
        turned = "c*keep*y+kick/sqrt(m)*sqrt(1-y*y)*side"
        return f"select(bounded, {turned}, {langevin}); side=2*step(uniform-0.5)-1; {_ON_CIRCLE}"

    def step(self, steps: int) -> None:
        """Advance by a number of outer steps.

        Raises
        ------
        HamiltonianError
            If the System has got a force in a group that this integrator does not know, or one of two terms that take
            each other back has got another model.
        """
        for name, (fast, ratio) in self._opposites.items():
            if _ratio(self._mixed, name, fast) != ratio:
                raise HamiltonianError(
                    f"the term {name!r} took {fast!r} back when this integrator was made, and they differ now; give "
                    "both the same model (exchange_model), or make the integrator anew"
                )
        if not self._checked:
            unknown = _force_groups(self._system) - set(self.slow_groups) - set(self.fast_groups)
            if unknown:
                raise HamiltonianError(
                    f"the System has forces in the groups {sorted(unknown)}, added after the integrator was made, "
                    "which would not move anything; add all forces first, or give them force group 0"
                )
            self._checked = True
        super().step(steps)

    def kinetic_energy(self, context: openmm.Context) -> unit.Quantity:
        """Return the kinetic energy at the positions, where the velocities are half an impulse of each force on.

        Forces at these positions that were evaluated before are not evaluated again by terms that run in Python.

        Parameters
        ----------
        context : openmm.Context
            Of this integrator.

        Returns
        -------
        Quantity, kJ/mol

        Raises
        ------
        ValueError
            If there are isokinetic particles, whose velocities do not tell the kinetic energy.
        """
        if self.isokinetic:
            raise ValueError(
                f"{len(self.isokinetic)} particles are isokinetic: their velocities are bounded and do not tell the "
                "kinetic energy; make the integrator without isokinetic"
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


def correction_terms(hamiltonian: Hamiltonian) -> tuple[str, ...]:
    """Return the names of the terms that correct others: QM and -ML of a region with ML + QM - ML, or with QM - ML.

    These are the terms with a negative coefficient, and those of the same region with another potential.

    Raises
    ------
    HamiltonianError
        If there is no correction, or nothing that it corrects.
    """
    named = list(zip(hamiltonian.term_names(), hamiltonian.terms, strict=True))
    slow: list[str] = []
    for region in hamiltonian.regions:
        here = [(name, term) for name, term in named if term.region == region]
        subtracted = {id(term.potential) for _, term in here if _subtracts(term)}
        if not subtracted:
            continue
        found = [name for name, term in here if _subtracts(term) or id(term.potential) not in subtracted]
        if region in hamiltonian.outermost and len(found) == len(here):
            raise HamiltonianError(
                f"region {region.name!r} would have no fast term: the potential with coefficient -1 is the same object "
                "as that with coefficient +1, load a model once and use it in both terms"
            )
        slow += found
    if not slow:
        raise HamiltonianError(
            "this Hamiltonian has no correction that could be slow: write ML + QM - ML of one region, or QM - ML of a "
            'region inside another, or say which terms are slow, for example slow=["ligand/QM"]'
        )
    return tuple(slow)


def _opposites(mixed: MixedSystem, slow: Iterable[str]) -> dict[str, tuple[str, float]]:
    """Return for each slow term that is a multiple of a fast one the name of that, and the factor.

    Both have a force group for themselves.
    """
    names = list(slow)
    sharing = [force.getForceGroup() for force in mixed.system.getForces()]
    single = [name for name, group in mixed.force_groups.items() if sharing.count(group) == 1]
    found: dict[str, tuple[str, float]] = {}
    for name in names:
        taken = {fast for fast, _ in found.values()}
        for fast in single:
            if name not in single or fast in names or fast in taken or name in found:
                continue
            ratio = _ratio(mixed, name, fast)
            if ratio is not None:
                found[name] = fast, ratio
    return found


def _ratio(mixed: MixedSystem, name: str, other: str) -> float | None:
    """Return what a term is as a multiple of another one, at any geometry, or None if it is no multiple."""
    terms = dict(zip(mixed.hamiltonian.term_names(), mixed.hamiltonian.terms, strict=True))
    if name not in terms or other not in terms:
        return None
    first, second = terms[name], terms[other]
    if first.potential is not second.potential or first.weight.parameters or second.weight.parameters:
        return None
    if replace(first, coefficient=1.0, force_group=None, name=None) != replace(
        second, coefficient=1.0, force_group=None, name=None
    ):
        return None
    divisor = second.weight.value({})
    return first.weight.value({}) / divisor if divisor else None


def _subtracts(term: Term) -> bool:
    """Return whether a coefficient is negative, for parameters between zero and one."""
    return term.weight.value(dict.fromkeys(term.weight.parameters, 0.5)) < 0


_ON_CIRCLE = "y=max(-0.999999, min(0.999999, v/c)); c=sqrt(kT/m)"
"""Velocity of an isokinetic coordinate over its bound; a script may have set a larger one."""


def _isokinetic(system: openmm.System, asked: bool | Iterable[int], temperature: Any) -> tuple[int, ...]:
    """Return the particles with bounded velocities.

    Raises
    ------
    ValueError
        If one of them has a constraint or no mass, or if there is no temperature.
    """
    if asked is False:
        return ()
    if temperature is None:
        raise ValueError("isokinetic needs a temperature, got None")
    n = system.getNumParticles()
    constrained: set[int] = set()
    for k in range(system.getNumConstraints()):
        constrained.update(system.getConstraintParameters(k)[:2])
    massive = {k for k in range(n) if system.getParticleMass(k)._value > 0}
    if asked is True:
        chosen = sorted(massive - constrained)
        if not chosen:
            raise ValueError(
                f"isokinetic=True, but all {len(massive)} particles with a mass have constraints; build the System "
                "without constraints on what the slow force acts on"
            )
        return tuple(chosen)
    given = sorted({int(k) for k in asked})
    unknown = [k for k in given if not 0 <= k < n]
    if unknown or not given:
        raise ValueError(f"isokinetic names particles from 0 to {n - 1}, got {listed(unknown) if given else 'none'}")
    for wrong, what in (([k for k in given if k in constrained], "constraints"), (set(given) - massive, "no mass")):
        if wrong:
            raise ValueError(
                f"isokinetic particles {listed(sorted(wrong))} have {what}; leave them out, so that they have Langevin "
                "dynamics, or build the System without constraints on them"
            )
    return tuple(given)


def _known(mixed: MixedSystem, slow: Iterable[str]) -> tuple[str, ...]:
    names: Sequence[str] = [slow] if isinstance(slow, str) else list(slow)
    for name in names:
        if name not in mixed.force_groups:
            raise HamiltonianError(
                f"there is no term {name!r}; the terms are {listed(mixed.force_groups, 10)}."
                f"{nearest(name, list(mixed.force_groups))}"
            )
    if not names:
        raise HamiltonianError(f"name at least one slow term of {listed(mixed.force_groups, 10)}")
    return tuple(names)


def _force_groups(system: openmm.System) -> set[int]:
    """Return the force groups in use; barostats and the like apply no forces."""
    groups = set()
    for force in system.getForces():
        if isinstance(force, _WITHOUT_FORCES):
            continue
        groups.add(force.getForceGroup())
        if isinstance(force, openmm.NonbondedForce) and force.getReciprocalSpaceForceGroup() >= 0:
            groups.add(force.getReciprocalSpaceForceGroup())
    return groups


_WITHOUT_FORCES = (
    openmm.MonteCarloBarostat,
    openmm.MonteCarloAnisotropicBarostat,
    openmm.MonteCarloMembraneBarostat,
    openmm.MonteCarloFlexibleBarostat,
    openmm.AndersenThermostat,
    openmm.CMMotionRemover,
)


def _positive(name: str, value: float, unit_name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} is a number above zero, in {unit_name}, got {value!r}")
    return float(value)
