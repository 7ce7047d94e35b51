"""Numerical derivatives for tests."""

from __future__ import annotations

import numpy as np


def central_difference(function, positions, direction, step, points=2):
    """Return the derivative of a function of positions along a direction, from 2 or 4 points."""

    def across(distance):
        return function(positions + distance * direction) - function(positions - distance * direction)

    if points == 2:
        return across(step) / (2.0 * step)
    return (8.0 * across(step) - across(2.0 * step)) / (12.0 * step)


def central_differences(function, positions, atoms, step, points=2):
    """Return the derivatives of a function by all coordinates of some atoms, (len(atoms), 3)."""
    found = np.zeros((len(atoms), 3))
    for row, atom in enumerate(atoms):
        for axis in range(3):
            direction = np.zeros_like(positions)
            direction[atom, axis] = 1.0
            found[row, axis] = central_difference(function, positions, direction, step, points)
    return found
