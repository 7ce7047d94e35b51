from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from qmmlmm.learning import LabelledFrame, NearCharges
from tests.learning.teacher import Teacher
from tests.quick_torch import quick_torch


@pytest.fixture(scope="module", autouse=True)
def _quick():
    with quick_torch():
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture
def make_frame(rng) -> Callable[..., LabelledFrame]:
    """Return a maker of frames of a bent triatomic with every label there is."""

    def make(**changes) -> LabelledFrame:
        n, k = 3, 4
        labels = {
            "atomic_numbers": np.array([8, 1, 1]),
            "positions": np.array([[0.0, 0.0, 0.0], [1.8, 0.1, 0.0], [-0.4, 1.7, 0.2]]) + 0.1 * rng.normal(size=(n, 3)),
            "energy": -76.1 + 0.01 * rng.normal(),
            "forces": 0.05 * rng.normal(size=(n, 3)),
            "method": "hf/sto-3g",
            "potential": 0.1 * rng.normal(size=n),
            "field": 0.02 * rng.normal(size=(n, 3)),
            "field_gradient": 0.01 * rng.normal(size=(n, 3, 3)),
            "charges": rng.normal(size=n),
            "dipole": rng.normal(size=3),
            "vacuum_energy": -76.05,
            "vacuum_forces": 0.05 * rng.normal(size=(n, 3)),
            "vacuum_dipole": rng.normal(size=3),
            "near": NearCharges(5 * rng.normal(size=(k, 3)), rng.normal(size=k), 0.01 * rng.normal(size=(k, 3))),
            "name": "water-1",
        }
        labels.update(changes)
        return LabelledFrame(**labels)

    return make


@pytest.fixture
def teacher(rng) -> Teacher:
    return Teacher(rng)
