"""Gradients of a region against differences of its energy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qmmlmm.geometry import Geometry
from tests.finite_differences import central_difference, central_differences

STEP = 5e-4  # bohr
EXACT = 1e-6  # hartree/bohr: the central difference itself is in error by 2e-7 for an O-H bond
TIGHT = 1e-12


def _gradients(case, potential):
    """Return for atoms, charges and broad charges: gradient, positions, and energy as a function of these."""
    evaluator = potential.create_evaluator(case.specification)
    field, broad = case.field, case.field.smooth_potential
    result = evaluator.evaluate(case.geometry, field)

    def energy(geometry=case.geometry, **changes):
        return evaluator.evaluate(geometry, replace(field, **changes)).energy

    return (
        (result.gradient, case.positions, lambda r: energy(Geometry(r))),
        (result.charge_gradient, field.positions, lambda r: energy(positions=r)),
        (broad.gradient(result), broad.positions, lambda r: energy(smooth_potential=replace(broad, positions=r))),
    )


def check_every_component(case, potential):
    """Every component of all gradients."""
    for gradient, positions, energy in _gradients(case, potential):
        expected = central_differences(energy, positions, range(len(positions)), STEP)
        np.testing.assert_allclose(gradient, expected, atol=EXACT)


def check_gradients(case, potential):
    """All atoms, and the charges and broad charges along one direction each, which are the same code."""
    (gradient, positions, energy), *others = _gradients(case, potential)
    np.testing.assert_allclose(
        gradient, central_differences(energy, positions, range(len(positions)), STEP), atol=EXACT
    )
    random = np.random.default_rng(2)
    for gradient, positions, energy in others:
        direction = random.normal(size=positions.shape)
        direction /= np.linalg.norm(direction)
        expected = central_difference(energy, positions, direction, STEP)
        assert np.sum(gradient * direction) == pytest.approx(expected, abs=EXACT)
