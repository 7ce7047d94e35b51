"""Predictions of a model for labelled frames: energies, forces and response of every member of a committee."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qmmlmm.embedding.chain_rule import site_gradient
from qmmlmm.learning.training.frame_tensors import FrameTensors
from qmmlmm.ml.response_network import ResponseNetwork


@dataclass(frozen=True)
class Prediction:
    """Predictions in atomic units; the first axis is that of the members.

    Parameters
    ----------
    energy, vacuum_energy : (members, frames) tensors
    forces, vacuum_forces : (members, frames, n, 3) tensors
    near_forces : (members, frames, k, 3) tensor
    dipole, vacuum_dipole : (members, frames, 3) tensors
        Dipole moments about the centre of the nuclear charges.
    separate_parts : () bool tensor
        Whether the energy in a vacuum and the interaction were learned from separate labels, so that their errors are
        independent; see `qmmlmm.learning.training.uncertainty.force_uncertainty`.
    """

    energy: Tensor
    forces: Tensor
    vacuum_energy: Tensor
    vacuum_forces: Tensor
    near_forces: Tensor
    dipole: Tensor
    vacuum_dipole: Tensor
    separate_parts: Tensor


def predict(model: ResponseNetwork, frames: FrameTensors, train: bool = False) -> Prediction:
    """Return the predictions of a model for frames.

    Parameters
    ----------
    model : ResponseNetwork
    frames : FrameTensors
    train : bool
        Whether the result can be differentiated by the weights.

    Notes
    -----
    The force on an atom has the explicit derivative of the energy, and the derivatives by potential and field at the
    atom (its charge and dipole) times the field and its gradient. The force on near charges is the adjoint.
    """
    members = model.members

    def new_leaf(tensor: Tensor) -> Tensor:
        return tensor.expand(members, *tensor.shape).clone().requires_grad_(True)

    x = new_leaf(frames.positions)
    properties = model.properties(x, frames.condition)
    intrinsic = model.intrinsic_energy(x, properties, frames.condition)
    (by_intrinsic,) = torch.autograd.grad(intrinsic.sum(), x, create_graph=train, retain_graph=True)
    potential, field = new_leaf(frames.potential), new_leaf(-frames.potential_gradient)
    near = new_leaf(frames.near_positions)
    interaction = model.field_energy(properties, potential, field)
    if model.near_cutoff > 0.0 and frames.near_charges.shape[1]:
        interaction = interaction + model.near_energy(properties, model.near(x, near, frames.near_charges))
    zeros = torch.zeros_like
    if interaction.requires_grad:
        found = torch.autograd.grad(
            interaction.sum(), [x, potential, field, near], create_graph=train, retain_graph=train, allow_unused=True
        )
        leaves = (x, potential, field, near)
        explicit, charges, by_field, by_near = (
            zeros(leaf) if gradient is None else gradient for gradient, leaf in zip(found, leaves, strict=True)
        )
    else:
        explicit, charges, by_field, by_near = zeros(x), zeros(potential), zeros(field), zeros(near)
    # The derivative by the gradient of the potential is minus that by the field.
    dipoles = -by_field
    by_position = site_gradient(explicit, charges, dipoles, frames.potential_gradient, frames.potential_curvature)
    response = torch.cat([charges, dipoles.flatten(-2)], dim=-1).to(frames.near_map.dtype)
    on_near = torch.matmul(frames.near_map, response.unsqueeze(-1)).reshape(near.shape) + by_near
    arms = frames.positions - frames.origin.unsqueeze(1)
    own_charges = properties["charges"]
    own_dipoles = properties["dipoles"] + properties["polarisabilities"].unsqueeze(-1) * properties["internal_field"]
    if not model.response:
        charges, dipoles = own_charges, own_dipoles
    return Prediction(
        energy=intrinsic + interaction,
        forces=-(by_intrinsic + by_position),
        vacuum_energy=intrinsic,
        vacuum_forces=-by_intrinsic,
        near_forces=-on_near,
        dipole=(charges.unsqueeze(-1) * arms + dipoles).sum(-2),
        vacuum_dipole=(own_charges.unsqueeze(-1) * arms + own_dipoles).sum(-2),
        separate_parts=model.separate_parts,
    )
