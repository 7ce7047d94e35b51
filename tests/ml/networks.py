"""A small network of random weights, with a bonded part that is not zero, and the inputs of a geometry."""

from __future__ import annotations

import torch

from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings

NUMBERS = [6, 8, 1, 1, 9]
BONDS = [(0, 1), (0, 2), (0, 3)]
SMALL = ResponseSettings(features=12, near_cutoff=5.0, near_functions=4)
CONDITIONS = [(0, 1, 0), (-1, 2, 0), (-1, 2, 1)]


def network(settings=SMALL, conditions=CONDITIONS, members=2, dtype=torch.float64) -> ResponseNetwork:
    """Return a network of one molecule, the same one for the same arguments."""
    torch.manual_seed(5)
    model = ResponseNetwork(NUMBERS, BONDS, settings, conditions, members, dtype=dtype)
    model.constants = torch.tensor([-0.3, 0.2, 0.1], dtype=torch.float64)[: len(conditions)]
    torch.nn.init.normal_(model.bonded.coefficients, std=0.05)
    model.bonded.equilibrium.fill_(2.2)
    return model.eval()


def network_inputs() -> dict[str, torch.Tensor]:
    """Return a geometry of that molecule among three charges."""
    generator = torch.Generator().manual_seed(6)
    places = [[0.0, 0.0, 0.0], [0.1, 0.2, 2.3], [1.8, 0.0, -1.0], [-1.7, 0.3, -1.1], [0.5, 5.2, 1.0]]
    return {
        "atomic_numbers": torch.tensor(NUMBERS),
        "charge": torch.tensor(-1.0, dtype=torch.float64),
        "multiplicity": torch.tensor(2.0, dtype=torch.float64),
        "positions": torch.tensor(places, dtype=torch.float64),
        "potential": 0.1 * torch.randn(5, generator=generator, dtype=torch.float64),
        "field": 0.03 * torch.randn(5, 3, generator=generator, dtype=torch.float64),
        "near_positions": torch.tensor([[0.0, 1.0, 6.0], [5.0, 1.0, -2.0], [-3.0, -4.0, 1.0]], dtype=torch.float64),
        "near_charges": torch.tensor([0.4, -0.8, 1.0], dtype=torch.float64),
    }
