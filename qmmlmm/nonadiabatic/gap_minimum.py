"""Minima of energy gaps along a trajectory, for Landau-Zener hops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qmmlmm.units import HBAR_IN_OPENMM, FloatArray, IntArray


def hopping_probabilities(
    energies: Sequence[FloatArray], active: int, step: float, multiplicities: IntArray | None = None
) -> FloatArray:
    """Return the probability to hop from the active state to each other one at the middle one of three steps.

    Parameters
    ----------
    energies : three (m,) float arrays, kJ/mol
        Energies at three subsequent steps.
    active : int
    step : float, ps
    multiplicities : (m,) int array, optional
        Multiplicity of each state; only states of the same multiplicity hop here.

    Notes
    -----
    Zero unless the gap is smallest in the middle. See `LandauZener`. Where the parabola through a sharp minimum goes
    below zero, the gap is taken as zero: the hop is certain.
    """
    first, middle, last = (np.abs(e - e[active]) for e in energies)
    curvature = (first - 2.0 * middle + last) / step**2
    lowest = (first > middle) & (middle <= last) & (curvature > 0.0)
    lowest[active] = False
    if multiplicities is not None:
        lowest &= multiplicities == multiplicities[active]
    probabilities = np.zeros(len(middle))
    rate = (last - first)[lowest] / (2.0 * step)
    gap = np.clip(middle[lowest] - rate**2 / (2.0 * curvature[lowest]), 0.0, None)
    probabilities[lowest] = np.exp(-0.5 * np.pi / HBAR_IN_OPENMM * np.sqrt(gap**3 / curvature[lowest]))
    return probabilities / max(1.0, float(probabilities.sum()))
