"""Responses of small molecules with random coefficients, for tests."""

from __future__ import annotations

import numpy as np
import torch

from qmmlmm.ml import FixedResponse

# Methanol: C, O, H of the hydroxyl group, three H of the methyl group.
NUMBERS, BONDS = [6, 8, 1, 1, 1, 1], [(0, 1), (1, 2), (0, 3), (0, 4), (0, 5)]
X = torch.tensor(
    [[0.0, 0.0, 0.0], [2.7, 0.1, 0.0], [3.3, 1.7, 0.2], [-0.7, 1.0, 1.6], [-0.6, -1.9, 0.2], [-0.7, 0.9, -1.7]],
    dtype=torch.float64,
)


def response(seed=1, charge=0):
    rng = np.random.default_rng(seed)
    empty = FixedResponse(NUMBERS, BONDS, charge)
    return FixedResponse(
        NUMBERS, BONDS, charge, rng.normal(size=empty.n_classes), rng.normal(size=empty.n_coefficients)
    )


def response_of_ion() -> FixedResponse:
    """Return the same as an anion, of the size of a molecule's."""
    found = response(charge=-1)
    distances, coefficients = 3.0 + 0.1 * found.distances.numpy(), 0.1 * found.coefficients.numpy()
    return FixedResponse(NUMBERS, BONDS, -1, distances, coefficients)


def methyl() -> FixedResponse:
    """Return the response of a methyl group with its link atom."""
    bonds, numbers = [(0, 1), (0, 2), (0, 3), (0, 4)], [6, 1, 1, 1, 1]
    empty = FixedResponse(numbers, bonds)
    rng = np.random.default_rng(8)
    distances, coefficients = 2.0 + 0.1 * rng.normal(size=empty.n_classes), 0.2 * rng.normal(size=empty.n_coefficients)
    return FixedResponse(numbers, bonds, 0, distances, coefficients)
