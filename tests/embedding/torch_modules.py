"""Terms of torch modules, called as TorchForce calls them."""

from __future__ import annotations

from qmmlmm.embedding.region_geometry import tensors_of
from qmmlmm.geometry import Geometry


def evaluate(module, positions, box):
    """Return energy, kJ/mol, and forces, kJ/(mol nm), of a term's module at positions and box in nm."""
    energy, forces = module(*tensors_of(Geometry(positions, box)))
    return float(energy), forces.numpy()
