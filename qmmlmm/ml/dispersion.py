"""The dispersion energy of a region: D3 with the damping of Becke and Johnson, between all pairs."""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

from collections.abc import Sequence

import torch
from torch import Tensor

from qmmlmm.errors import MissingDependencyError, PotentialError

SUFFIX = "-d3bj"
STEEPNESS = 16.0
"""Steepness of the coordination number."""

WEIGHT = 4.0
"""Exponent in the weights of the reference systems."""


class DispersionTail(torch.nn.Module):
    """Energy of DFT-D3(BJ) without three-body terms, as PySCF adds it to a functional.

    The dispersion coefficients depend on the geometry through coordination numbers. There is no cutoff.

    Parameters
    ----------
    atomic_numbers : sequence of int
    method : str
        A functional or Hartree-Fock with the ending "-d3bj", as for `PySCFPotential`: "b3lyp-d3bj".

    Raises
    ------
    PotentialError
        If the name has another ending or the functional has no parameters.
    MissingDependencyError
        If the package tad-dftd3, the source of the parameters, is not installed.

    Notes
    -----
    E = -sum_{i<j} C6 [s6 / (r^6 + f^6) + s8 Q / (r^8 + f^8)], Q = C8 / C6, f = a1 sqrt(Q) + a2

    Sources: Grimme et al., J. Chem. Phys. 132, 154104 (2010), eqs. 15-17 for C6; Grimme, Ehrlich and Goerigk,
    J. Comput. Chem. 32, 1456 (2011), eqs. 5 and 6 for the damping.
    """

    first: Tensor
    second: Tensor
    contact: Tensor
    reference_numbers: Tensor
    absent: Tensor
    reference_c6: Tensor
    ratio: Tensor
    radius: Tensor

    def __init__(self, atomic_numbers: Sequence[int], method: str) -> None:
        super().__init__()
        numbers = torch.tensor([int(z) for z in atomic_numbers], dtype=torch.int64)
        parameters, radii, ratios, coordination, c6 = _package_data(method, numbers)
        self.n_atoms = len(numbers)
        self.s6, self.s8 = parameters["s6"], parameters["s8"]
        self.steepness, self.weight = STEEPNESS, WEIGHT
        first, second = torch.triu_indices(self.n_atoms, self.n_atoms, offset=1)
        self.register_buffer("first", first)
        self.register_buffer("second", second)
        self.register_buffer("contact", radii[first] + radii[second])
        self.register_buffer("absent", coordination < 0.0)
        self.register_buffer("reference_numbers", coordination)
        self.register_buffer("reference_c6", c6[numbers[first], numbers[second]])
        self.register_buffer("ratio", 3.0 * ratios[first] * ratios[second])
        self.register_buffer("radius", parameters["a1"] * torch.sqrt(self.ratio) + parameters["a2"])

    def forward(self, positions: Tensor) -> Tensor:
        """Return the energies, (...) hartree, of geometries, (..., n, 3) bohr."""
        delta = positions.index_select(-2, self.first) - positions.index_select(-2, self.second)
        squared = (delta * delta).sum(-1)
        count = torch.sigmoid(self.steepness * (self.contact / torch.sqrt(squared) - 1.0))
        shape = list(positions.shape[:-2]) + [self.n_atoms]  # noqa: RUF005  (TorchScript)
        neighbours = positions.new_zeros(shape)
        neighbours = neighbours.index_add(-1, self.first, count).index_add(-1, self.second, count)
        exponents = -self.weight * (neighbours.unsqueeze(-1) - self.reference_numbers) ** 2
        weights = torch.softmax(exponents.masked_fill(self.absent, -1e30), dim=-1)
        left = weights.index_select(-2, self.first).unsqueeze(-2)
        c6 = (torch.matmul(left, self.reference_c6).squeeze(-2) * weights.index_select(-2, self.second)).sum(-1)
        sixth = self.s6 / (squared**3 + self.radius**6)
        eighth = self.s8 * self.ratio / (squared**4 + self.radius**8)
        return -(c6 * (sixth + eighth)).sum(-1)


def _package_data(method: str, numbers: Tensor) -> tuple[dict[str, float], Tensor, Tensor, Tensor, Tensor]:
    """Return damping parameters; radii, roots of C8/C6 and reference coordination of the atoms; the table of C6."""
    functional = method.strip().lower()
    if not functional.endswith(SUFFIX) or functional == SUFFIX:
        raise PotentialError(
            f"dispersion is the functional of the labels with the ending {SUFFIX!r}, such as 'b3lyp{SUFFIX}', got "
            f"{method!r}; other forms of dispersion are learned with the rest (dispersion=None)"
        )
    try:
        from tad_dftd3.data import R4R2
        from tad_dftd3.param import get_functional_params
        from tad_dftd3.reference import Reference
        from tad_mctc.data.radii import COV_D3
    except ImportError as error:
        raise MissingDependencyError(
            f"the parameters of the dispersion are in the package tad-dftd3, which cannot be imported ({error}); "
            "install it with 'pip install tad-dftd3'"
        ) from error
    try:
        found = get_functional_params(functional.removesuffix(SUFFIX), damping="bj", dtype=torch.float64)
    except (KeyError, ValueError) as error:
        raise PotentialError(f"there are no D3(BJ) parameters for {method!r}: {error}") from error
    reference = Reference(dtype=torch.float64)
    if int(numbers.max()) >= len(reference.cn):
        raise PotentialError(
            f"D3 knows the elements up to {len(reference.cn) - 1}, the region has {int(numbers.max())}"
        )
    return (
        {key: float(found[key]) for key in ("s6", "s8", "a1", "a2")},
        COV_D3(dtype=torch.float64)[numbers],
        R4R2(dtype=torch.float64)[numbers],
        reference.cn[numbers],
        reference.c6,
    )
