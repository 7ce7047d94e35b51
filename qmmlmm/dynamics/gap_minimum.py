"""Minima of energy gaps along a trajectory, for Landau-Zener hops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qmmlmm.units import HBAR_IN_OPENMM, FloatArray, IntArray


def hopping_probabilities(
    energies: Sequence[FloatArray], active: int, step: float, multiplicities: IntArray | None = None
) -> FloatArray:
    """Return the probability to hop from the active state to each other one at the middle of three steps.

    Parameters
    ----------
    energies : three (m,) float arrays, kJ/mol
        At subsequent steps.
    active : int
    step : float, ps
    multiplicities : (m,) int array, optional
        There are hops between states of the same one alone.

    Notes
    -----
    Zero unless the gap is smallest in the middle. See `LandauZener`. The parabola through a sharp minimum can go below
    zero, and then the gap is zero: the hop is certain.
    """
    first, middle, last = (np.abs(e - e[active]) for e in energies)
    bend = first - 2.0 * middle + last
    lowest = (first > middle) & (middle <= last) & (bend > 0.0)
    lowest[active] = False
    if multiplicities is not None:
        lowest &= multiplicities == multiplicities[active]
    probabilities = np.zeros(len(middle))
    gap = np.clip(middle[lowest] - (last[lowest] - first[lowest]) ** 2 / (8.0 * bend[lowest]), 0.0, None)
    curvature = bend[lowest] / step**2
    probabilities[lowest] = np.exp(-0.5 * np.pi / HBAR_IN_OPENMM * np.sqrt(gap**3 / curvature))
    return probabilities / max(1.0, float(probabilities.sum()))
