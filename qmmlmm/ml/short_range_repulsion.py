"""A repulsion between nuclei at distances shorter than in any label."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from qmmlmm.elements import covalent_radius

BONDED_REACH = 0.8
"""Reach of the repulsion of bonded atoms in sums of covalent radii; vibrations do not reach it."""

OTHER_REACH = 1.2
"""The same for all other pairs: a contact as close as a bond is repulsive."""


class ShortRangeRepulsion(torch.nn.Module):
    """Ziegler-Biersack-Littmark repulsion, switched off near the sum of two covalent radii.

    Parameters
    ----------
    atomic_numbers : sequence of int
    bonds : iterable of (int, int)
        Pairs of bonded atoms, as indices in `atomic_numbers`.

    Notes
    -----
    Source: Ziegler, Biersack and Littmark, The Stopping and Range of Ions in Matter (1985), the universal
    screening function. It is multiplied by a polynomial that is one at distance zero and goes to zero with its first
    and second derivatives at its reach, so that the energy has two derivatives everywhere.
    """

    first: Tensor
    second: Tensor
    pairs: Tensor
    products: Tensor
    rates: Tensor
    reach: Tensor
    weights: Tensor

    def __init__(self, atomic_numbers: Sequence[int], bonds: Iterable[tuple[int, int]] = ()) -> None:
        super().__init__()
        z = torch.tensor([float(number) for number in atomic_numbers], dtype=torch.float64)
        radii = torch.tensor([covalent_radius(int(number)) for number in atomic_numbers], dtype=torch.float64)
        first, second = torch.triu_indices(len(z), len(z), offset=1)
        self.register_buffer("first", first)
        self.register_buffer("second", second)
        # Indices of the pairs in a table of all distances.
        self.register_buffer("pairs", first * len(z) + second)
        self.register_buffer("products", z[first] * z[second])
        exponents = torch.tensor([3.2, 0.9423, 0.4029, 0.2016], dtype=torch.float64)
        screening = 0.8854 / (z[first] ** 0.23 + z[second] ** 0.23)
        self.register_buffer("rates", -exponents / screening.unsqueeze(-1))
        bonded = {(min(pair), max(pair)) for pair in bonds}
        pairs = zip(first.tolist(), second.tolist(), strict=True)
        factors = torch.tensor([BONDED_REACH if pair in bonded else OTHER_REACH for pair in pairs], dtype=torch.float64)
        self.register_buffer("reach", factors * (radii[first] + radii[second]))
        self.register_buffer("weights", torch.tensor([0.1818, 0.5099, 0.2802, 0.02817], dtype=torch.float64))

    def forward(self, positions: Tensor) -> Tensor:
        """Return the energies, (...) hartree, of geometries, (..., n, 3) bohr."""
        delta = positions.index_select(-2, self.first) - positions.index_select(-2, self.second)
        return self._sum(torch.sqrt((delta * delta).sum(-1)))

    def energy(self, distances: Tensor) -> Tensor:
        """Return the energies, (...) hartree, of all distances, (..., n, n) bohr."""
        return self._sum(distances.flatten(-2).index_select(-1, self.pairs))

    def _sum(self, distances: Tensor) -> Tensor:
        x = torch.clamp(distances / self.reach, max=1.0)
        square = x * x
        switch = 1.0 - square * square * square * (28.0 - 48.0 * x + 21.0 * square)
        screened = (self.weights * torch.exp(self.rates * distances.unsqueeze(-1))).sum(-1)
        return (self.products / distances * screened * switch).sum(-1)
