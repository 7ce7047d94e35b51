"""Isokinetic particles: velocities that are bounded, so that no resonance of multiple time steps can heat them.

Notes
-----
Each coordinate of such a particle has the velocity v = c cos(a) with c = sqrt(kT/m) and its own angle a. A force F
rotates the angle, da/dt = -F sin(a)/(m c), which for an impulse of length h is

    y -> (y + t)/(1 + y t),    y = v/c,    t = tanh(h F/(m c)),

so that impulses of several forces at the same positions add up. Instead of friction and noise the angle makes a step of
arccos(exp(-g d)) to either side. Along the flow the volume in phase space shrinks at the rate F v/kT, at which the
weight exp(-U/kT) grows, and the random steps keep the uniform distribution of the angle: positions have the canonical
distribution, exactly for small steps, and velocities the density 1/(pi sqrt(c^2 - v^2)), with half the mean kinetic
energy of the temperature. A reporter's temperature is therefore too low.

A constraint would take a velocity off its circle, so that particles with constraints keep Langevin dynamics. This is
correct, because each coordinate keeps its canonical distribution, and rigid water has no vibration that resonates below
15 fs. Momentum is removed from these particles only. Barostats depend on positions only and are correct.

Sources: Minary, Martyna, Tuckerman, Phys. Rev. Lett. 93, 150201 (2004); Leimkuhler, Margul, Tuckerman, Mol. Phys. 111,
3579 (2013), with L = 1: more auxiliary velocities bound less and are worse. The random rotation, instead of their
Nose-Hoover thermostats: Robnik, Seljak, arXiv:2303.18221 (2023).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import openmm

from qmmlmm.errors import SettingError, listed
from qmmlmm.setting_checks import check_atoms
from qmmlmm.units import Scalar

# Velocity of an isokinetic coordinate over its bound; a script may have set a larger one.
_ON_CIRCLE = "y=max(-0.999999, min(0.999999, v/c)); c=sqrt(kT/m)"


def isokinetic_particles(
    system: openmm.System, chosen: bool | Iterable[int], temperature: Scalar | None
) -> tuple[int, ...]:
    """Return the particles with bounded velocities.

    Parameters
    ----------
    system : openmm.System
    chosen : bool or iterable of int
        True for all particles that have a mass and no constraint.
    temperature : Quantity or float, K, or None

    Raises
    ------
    SettingError
        If one of them has a constraint or no mass, or if there is no temperature.
    """
    if isinstance(chosen, np.bool_):
        chosen = bool(chosen)
    if chosen is False:
        return ()
    if temperature is None:
        raise SettingError("isokinetic needs a temperature, got None")
    n = system.getNumParticles()
    constrained: set[int] = set()
    for k in range(system.getNumConstraints()):
        constrained.update(system.getConstraintParameters(k)[:2])
    massive = {k for k in range(n) if system.getParticleMass(k)._value > 0}
    if chosen is True:
        found = sorted(massive - constrained)
        if not found:
            raise SettingError(
                f"isokinetic=True, but all {len(massive)} particles with a mass have constraints; build the System "
                "without constraints on the atoms of the slow force"
            )
        return tuple(found)
    given = sorted(check_atoms("isokinetic", chosen, n, error=SettingError))
    for wrong, what in (([k for k in given if k in constrained], "constraints"), (set(given) - massive, "no mass")):
        if wrong:
            raise SettingError(
                f"isokinetic particles {listed(sorted(wrong))} have {what}; leave them out, so that they have Langevin "
                "dynamics, or build the System without constraints on them"
            )
    return tuple(given)


def isokinetic_impulse(length: str, group: int) -> str:
    """Return the expression for the velocity after an impulse of a force group; others have Newton's dynamics."""
    return f"select(bounded, c*(y+t)/(1+y*t), v+{length}*f{group}/m); t=tanh({length}*f{group}/(m*c)); {_ON_CIRCLE}"


def isokinetic_thermostat(langevin: str) -> str:
    """Return the expression for the velocity after a random rotation; others have an expression of friction and
    noise."""
    rotated = "c*keep*y+kick/sqrt(m)*sqrt(1-y*y)*side"
    return f"select(bounded, {rotated}, {langevin}); side=2*step(uniform-0.5)-1; {_ON_CIRCLE}"
