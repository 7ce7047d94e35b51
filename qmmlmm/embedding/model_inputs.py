"""Inputs of a torch module about a region, besides positions and field."""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

from typing import Dict  # noqa: UP035  (TorchScript reads it)

import torch
from torch import Tensor

from qmmlmm.coupling.potential import RegionSpecification


class ModelInputs(torch.nn.Module):
    """Creates the inputs of a module that follows the contract of `qmmlmm.ml.MLPotential`.

    Parameters
    ----------
    specification : RegionSpecification
    state : int
        Electronic state.
    """

    atomic_numbers: Tensor
    charge: Tensor
    multiplicity: Tensor
    state: Tensor

    def __init__(self, specification: RegionSpecification, state: int = 0) -> None:
        super().__init__()
        self.register_buffer("atomic_numbers", torch.tensor(specification.atomic_numbers))
        self.register_buffer("charge", torch.tensor(float(specification.charge), dtype=torch.float64))
        self.register_buffer("multiplicity", torch.tensor(float(specification.multiplicity), dtype=torch.float64))
        self.register_buffer("state", torch.tensor(float(state), dtype=torch.float64))

    def forward(self, positions: Tensor) -> Dict[str, Tensor]:  # noqa: UP006
        """Return the inputs for positions, (n, 3) bohr; the caller adds potential and field."""
        return {
            "atomic_numbers": self.atomic_numbers,
            "charge": self.charge,
            "multiplicity": self.multiplicity,
            "state": self.state,
            "positions": positions,
        }
