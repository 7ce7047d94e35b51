"""Velocities after a hop: the energy that the electrons take or give."""

from __future__ import annotations

import numpy as np

from qmmlmm.units import FloatArray


def rescaled(
    velocities: FloatArray, masses: FloatArray, direction: FloatArray, energy_change: float
) -> FloatArray | None:
    """Return velocities whose kinetic energy makes up for a change of the potential energy.

    Parameters
    ----------
    velocities : (n, 3) float array, nm/ps
    masses : (n,) float array, Da
    direction : (n, 3) float array
        Direction in which the momenta change, of any length: a derivative coupling, or the momenta themselves.
    energy_change : float, kJ/mol
        Potential energy after the hop less that before.

    Returns
    -------
    (n, 3) float array or None
        The solution with the smaller change of two; None if there is not enough kinetic energy along the direction.
    """
    step, a, b = _along(velocities, masses, direction)
    if a == 0.0:
        return None
    root = b * b - 4.0 * a * energy_change
    if root < 0.0:
        return None
    # The stable form of the smaller root of a x^2 + b x + energy_change = 0.
    scale = -2.0 * energy_change / (b + np.copysign(np.sqrt(root), b)) if b or root else 0.0
    return velocities + scale * step


def reversed_along(velocities: FloatArray, masses: FloatArray, direction: FloatArray) -> FloatArray:
    """Return the velocities with the momentum along a direction reversed; the kinetic energy is the same."""
    step, a, b = _along(velocities, masses, direction)
    return velocities if a == 0.0 else velocities - (b / a) * step


def _along(velocities: FloatArray, masses: FloatArray, direction: FloatArray) -> tuple[FloatArray, float, float]:
    """Return the change of the velocities by the direction, and the kinetic energy's second and first order in it."""
    moving = masses > 0.0
    step = np.zeros_like(direction)
    step[moving] = direction[moving] / masses[moving, None]
    a = 0.5 * float((masses[:, None] * step**2).sum())
    b = float((masses[:, None] * step * velocities).sum())
    return step, a, b
