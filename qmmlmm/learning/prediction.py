"""What a model says about labelled frames: energies, forces and response, for every member of a committee."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qmmlmm.learning.frame_tensors import FrameTensors
from qmmlmm.ml.response_network import ResponseNetwork


@dataclass(frozen=True)
class Prediction:
    """Predictions in atomic units; the first axis counts the members.

    Parameters
    ----------
    energy, vacuum_energy : (members, frames) tensors
    forces, vacuum_forces : (members, frames, n, 3) tensors
    near_forces : (members, frames, k, 3) tensor
    dipole, vacuum_dipole : (members, frames, 3) tensors
        About the centre of the nuclear charges.
    separate_parts : () bool tensor
        Whether the members' errors in a vacuum and those of the interaction were learned from labels of their own, see
        `qmmlmm.learning.uncertainty.force_uncertainty`.
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
    """Return what the model says about frames.

    Parameters
    ----------
    model : ResponseNetwork
    frames : FrameTensors
    train : bool
        Whether the result is to be differentiated by the weights.

    Notes
    -----
    The atoms move in the potential of the surroundings: the force on an atom has the explicit derivative of the
    energy and the charge and dipole that the atom shows to the field, in the field and its gradient. The force on
    near charges is the adjoint of the same.
    """
    members = model.members

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.expand(members, *tensor.shape).clone().requires_grad_(True)

    x = leaf(frames.positions)
    properties = model.properties(x, frames.condition)
    intrinsic = model.intrinsic_energy(x, properties, frames.condition)
    (by_intrinsic,) = torch.autograd.grad(intrinsic.sum(), x, create_graph=train, retain_graph=True)
    potential, field, near = leaf(frames.potential), leaf(-frames.slope), leaf(frames.near_positions)
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
            zeros(at) if slope is None else slope for slope, at in zip(found, leaves, strict=True)
        )
    else:
        explicit, charges, by_field, by_near = zeros(x), zeros(potential), zeros(field), zeros(near)
    dipoles = -by_field  # the derivative by the slope is minus that by the field
    by_position = (
        explicit
        + charges.unsqueeze(-1) * frames.slope
        + torch.matmul(frames.curvature, dipoles.unsqueeze(-1)).squeeze(-1)
    )
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
