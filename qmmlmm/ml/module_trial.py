"""A trial of a module: whether its result is one energy with derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.embedding.model_inputs import ModelInputs

SPACING = 2.5
"""Distance of atoms along the axis of the helix, bohr."""
RADIUS = 0.7
"""Radius of the helix, bohr. No four of its atoms lie in a plane, so that every angle is defined."""


def trial_sites(specification: RegionSpecification) -> Tensor:
    """Return the atoms of a region on a helix, (n, 3) bohr."""
    turns = torch.arange(len(specification.atomic_numbers), dtype=torch.float64)
    return torch.stack([SPACING * turns, RADIUS * torch.sin(2.0 * turns), RADIUS * torch.cos(2.0 * turns)], dim=1)


def result_fault(
    module: torch.jit.ScriptModule, specification: RegionSpecification, state: int, electrostatic: bool
) -> str:
    """Return what is wrong with the result of a module for a region, or an empty text.

    Parameters
    ----------
    module : torch.jit.ScriptModule
        Module of the form ``forward(inputs)``, see `qmmlmm.ml.MLPotential`. It is called once, with the atoms on a
        helix.
    specification : RegionSpecification
    state : int
        Electronic state.
    electrostatic : bool
        Whether to give it a potential and a field, of zero.
    """
    with torch.enable_grad():
        sites = trial_sites(specification).requires_grad_(True)
        inputs = ModelInputs(specification, state)(sites)
        if electrostatic:
            far = torch.full((1, 3), 1000.0, dtype=torch.float64)
            around = {"potential": sites.new_zeros(len(sites)), "field": torch.zeros_like(sites)}
            inputs |= {key: tensor.detach().requires_grad_(True) for key, tensor in around.items()}
            inputs |= {"near_positions": far.requires_grad_(True), "near_charges": far.new_zeros(1)}
        try:
            result = module(inputs)
        except Exception:  # noqa: BLE001  (a module may be made for other geometries; its first evaluation shows)
            return ""
    energy = result.get("energy") if isinstance(result, dict) else None
    if energy is None:
        return 'returns no "energy"; forward(inputs) returns a Dict[str, Tensor] with it'
    if energy.numel() != 1:
        return f"returns an energy of shape {tuple(energy.shape)}; it is one number, in hartree"
    if not energy.requires_grad:
        return (
            "returns an energy that depends neither on positions nor on the potential for autograd, so that there are "
            "no forces; leave out detach, item, no_grad and NumPy"
        )
    return ""
