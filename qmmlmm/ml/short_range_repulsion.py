"""A repulsion between nuclei that come too close: what keeps atoms apart where no label ever was."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from qmmlmm.errors import PotentialError
from qmmlmm.units import ANGSTROM_IN_BOHR

# Covalent radii in angstrom of hydrogen to radon: Cordero et al., Dalton Trans. 2832 (2008).
COVALENT_RADII = (
    0.31, 0.28, 1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41, 1.21, 1.11, 1.07, 1.05, 1.02, 1.06, 2.03,
    1.76, 1.70, 1.60, 1.53, 1.39, 1.39, 1.32, 1.26, 1.24, 1.32, 1.22, 1.22, 1.20, 1.19, 1.20, 1.20, 1.16, 2.20, 1.95,
    1.90, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45, 1.44, 1.42, 1.39, 1.39, 1.38, 1.39, 1.40, 2.44, 2.15, 2.07,
    2.04, 2.03, 2.01, 1.99, 1.98, 1.98, 1.96, 1.94, 1.92, 1.92, 1.89, 1.90, 1.87, 1.87, 1.75, 1.70, 1.62, 1.51, 1.44,
    1.41, 1.36, 1.36, 1.32, 1.45, 1.46, 1.48, 1.40, 1.50, 1.50,
)  # fmt: skip


def covalent_radius(atomic_number: int) -> float:
    """Return the covalent radius of an element in bohr.

    Raises
    ------
    PotentialError
        If there is none in the table.
    """
    if not 1 <= atomic_number <= len(COVALENT_RADII):
        raise PotentialError(f"no covalent radius of the element {atomic_number}; there are radii of 1 to 86")
    return COVALENT_RADII[atomic_number - 1] * ANGSTROM_IN_BOHR


BONDED_REACH = 0.8
"""Reach of the repulsion of bonded atoms in sums of covalent radii: vibrations do not come there."""

OTHER_REACH = 1.2
"""The same of all other pairs: a contact as close as a bond is repulsive."""


class ShortRangeRepulsion(torch.nn.Module):
    """Ziegler-Biersack-Littmark repulsion, switched off near the sum of two covalent radii.

    Parameters
    ----------
    atomic_numbers : sequence of int
    bonds : iterable of (int, int)
        Positions of bonded atoms in `atomic_numbers`.

    Notes
    -----
    Source: Ziegler, Biersack and Littmark, The Stopping and Range of Ions in Matter (1985), the universal
    screening function. It is multiplied by a polynomial that is one at no distance and goes to zero with its first
    and second derivative at its reach, so that the energy has two derivatives everywhere.
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
        # Places of the pairs in a table of all distances.
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
