"""Landau-Zener probabilities from three gaps."""

import numpy as np
import pytest

from qmmlmm.nonadiabatic.gap_minimum import hopping_probabilities
from qmmlmm.units import HBAR_IN_OPENMM

STEP = 1e-4  # ps


def crossing(coupling, speed, time):
    """Return energies of two straight lines whose gap changes by `speed`, with a constant coupling."""
    root = 0.5 * np.hypot(speed * time, 2.0 * coupling)
    return np.array([-root, root])


@pytest.mark.parametrize("coupling", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_two_straight_lines_have_the_probability_of_landau_and_zener(coupling, offset):
    speed = 400.0  # kJ/(mol ps)
    energies = [crossing(coupling, speed, (k + offset) * STEP) for k in (-1, 0, 1)]
    expected = np.exp(-2.0 * np.pi * coupling**2 / (HBAR_IN_OPENMM * speed))
    found = hopping_probabilities(energies, 1, STEP)
    assert found[0] == pytest.approx(expected, rel=2e-3)
    assert found[1] == 0.0


def test_no_hop_without_a_minimum_in_the_middle():
    energies = [crossing(1.0, 400.0, k * STEP) for k in (1, 2, 3)]
    assert (hopping_probabilities(energies, 0, STEP) == 0.0).all()


def test_a_crossing_between_two_steps_is_almost_certain():
    energies = [np.array([0.0, gap]) for gap in (5.0, 1.0, 3.0)]
    assert hopping_probabilities(energies, 0, STEP)[1] > 0.999
