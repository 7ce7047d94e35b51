"""The order of electronic states from one step to the next."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from qmmlmm.nonadiabatic.surfaces import SurfacePoint
from qmmlmm.units import IntArray

SAME_CHARACTER = 0.8
"""Squared overlap with a state in another position above which two states have crossed within one step. Below it, the
crossing is avoided and the amplitudes decide."""


def state_order(point: SurfacePoint) -> IntArray:
    """Return the present position of each state of the step before; positions differ only if states have crossed.

    Parameters
    ----------
    point : SurfacePoint
        States after the step, with their overlaps.
    """
    same = np.arange(len(point.energies))
    if point.overlaps is None:
        return same
    squares = point.overlaps**2
    _, positions = linear_sum_assignment(-squares)
    moved = positions != same
    crossed = moved.any() and bool((squares[same, positions][moved] > SAME_CHARACTER).all())
    return np.asarray(positions) if crossed else same


def have_crossed(order: IntArray) -> bool:
    """Return whether any states have another position."""
    return bool((order != np.arange(len(order))).any())


def reordered(point: SurfacePoint, order: IntArray) -> SurfacePoint:
    """Return energies, overlaps and couplings of the states in the order of the step before."""
    return SurfacePoint(
        energies=point.energies[order],
        overlaps=None if point.overlaps is None else point.overlaps[:, order],
        couplings=None if point.couplings is None else point.couplings[np.ix_(order, order)],
    )
