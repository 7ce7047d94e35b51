"""Velocities after hops."""

import numpy as np
import pytest

from qmmlmm.nonadiabatic.momentum import rescaled, reversed_along

MASSES = np.array([1.0, 12.0, 0.0, 16.0])
RANDOM = np.random.default_rng(2)
VELOCITIES = RANDOM.normal(size=(4, 3)) * np.array([1.0, 1.0, 0.0, 1.0])[:, None]


def kinetic(velocities):
    return 0.5 * (MASSES[:, None] * velocities**2).sum()


@pytest.mark.parametrize("change", [-30.0, -0.1, 0.0, 0.5])
@pytest.mark.parametrize("along", ["momenta", "vector"])
def test_the_kinetic_energy_makes_up_for_the_change(change, along):
    direction = MASSES[:, None] * VELOCITIES if along == "momenta" else np.random.default_rng(4).normal(size=(4, 3))
    after = rescaled(VELOCITIES, MASSES, direction, change)
    assert kinetic(after) - kinetic(VELOCITIES) == pytest.approx(-change, abs=1e-12)
    step = (after - VELOCITIES) * MASSES[:, None]
    moving = MASSES > 0
    factors = step[moving] / direction[moving]
    assert np.ptp(factors) < 1e-9
    assert (after[2] == VELOCITIES[2]).all()


def test_the_smaller_of_two_changes_is_taken():
    after = rescaled(VELOCITIES, MASSES, MASSES[:, None] * VELOCITIES, 0.4 * kinetic(VELOCITIES))
    assert after == pytest.approx(np.sqrt(0.6) * VELOCITIES)


def test_too_little_kinetic_energy_along_the_direction_frustrates_a_hop():
    direction = np.zeros((4, 3))
    direction[0, 0] = 1.0
    along = 0.5 * MASSES[0] * VELOCITIES[0, 0] ** 2
    assert rescaled(VELOCITIES, MASSES, direction, 1.01 * along) is None
    assert rescaled(VELOCITIES, MASSES, direction, 0.99 * along) is not None
    assert rescaled(VELOCITIES, MASSES, np.zeros((4, 3)), 0.1) is None


def test_reversal_keeps_the_kinetic_energy():
    direction = np.random.default_rng(4).normal(size=(4, 3))
    after = reversed_along(VELOCITIES, MASSES, direction)
    assert kinetic(after) == pytest.approx(kinetic(VELOCITIES))
    assert (direction * after)[MASSES > 0].sum() == pytest.approx(-(direction * VELOCITIES)[MASSES > 0].sum())
