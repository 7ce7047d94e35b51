"""Held positions: energy and forces of a spring to a place, with and without a box."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import unit

from qmmlmm.errors import SelectionError, SettingError
from qmmlmm.sampling import hold_positions

ROUND_OFF = 1e-20
"""kJ/mol: 0.5 k d^2 with k = 800 and d = 1e-15 nm has 4e-28."""
PLACES = np.array([[0.1, 0.2, 0.3], [1.0, 1.0, 1.9]])


def state(force, positions, strength, box=None):
    system = openmm.System()
    for _ in positions:
        system.addParticle(1.0)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*(box * np.eye(3)))
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(positions)
    context.setParameter("core_k", strength)
    return context.getState(energy=True, forces=True)


@pytest.mark.parametrize("box", [None, 2.0])
def test_the_energy_is_half_k_times_the_square_of_the_distance_from_the_place(box):
    shift = np.array([[0.0, 0.0, 0.0], [0.01, -0.02, 0.03]])
    found = state(hold_positions("core", [1], PLACES, periodic=box is not None), PLACES + shift, 800.0, box)
    assert found.getPotentialEnergy()._value == pytest.approx(0.5 * 800.0 * (shift[1] ** 2).sum(), rel=1e-9)
    np.testing.assert_allclose(found.getForces(asNumpy=True)._value, -800.0 * shift, atol=1e-9)


def test_with_a_box_the_nearest_image_of_the_place_counts():
    moved = PLACES + np.array([0.0, 0.0, 2.0])
    found = state(hold_positions("core", [0, 1], PLACES, True), moved, 800.0, 2.0)
    assert found.getPotentialEnergy()._value == pytest.approx(0.0, abs=ROUND_OFF)


def test_it_is_off_until_its_parameter_is_set():
    force = hold_positions("core", [0], PLACES * unit.nanometer)
    assert force.getGlobalParameterDefaultValue(0) == 0.0
    assert force.getName() == "hold core"


def test_what_is_no_name_or_no_atom_is_refused():
    with pytest.raises(SettingError, match="name has letters, digits and underscores .* got '1 core'"):
        hold_positions("1 core", [0], PLACES)
    with pytest.raises(SelectionError, match="atoms has atom indices from 0 to 1"):
        hold_positions("core", [2], PLACES)
