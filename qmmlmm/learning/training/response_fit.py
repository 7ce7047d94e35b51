"""Fit of a `FixedResponse` to a dozen labels: linear least squares of interaction energies and forces."""

from __future__ import annotations

import torch
from torch import Tensor

from qmmlmm.embedding.chain_rule import site_gradient
from qmmlmm.errors import DataSetError
from qmmlmm.learning.labels.labelled_frame import LabelledFrame, check_frames, check_together
from qmmlmm.learning.training.frame_tensors import FrameTensors, frame_tensors
from qmmlmm.learning.training.trainer import find_bonds
from qmmlmm.ml.fixed_response import FixedResponse
from qmmlmm.setting_checks import check_number
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL

FEWEST_LABELS = 6

ENERGY_ERROR, FORCE_ERROR, NEAR_ERROR = 3.0, 50.0, 33.0
"""Errors of interaction energies, forces on the region and on near charges that count the same, kJ/mol and
kJ/(mol nm). There are a hundred times more near charges than atoms, with small forces."""


def fit_response(frames: list[LabelledFrame], *, ridge: float = 1e-4) -> FixedResponse:
    """Return the response of a molecule, fitted to labels with and without surroundings.

    Parameters
    ----------
    frames : list of LabelledFrame
        Labels of one molecule, charge and electronic state, with energies and forces in the field and in a vacuum, and
        near charges; ten are enough for a dozen atoms.
    ridge : float
        Relative size of the regularisation.

    Raises
    ------
    DataSetError
        If there are too few frames, or they lack a label.
    PotentialError
        If they are of several molecules.
    SettingError
        If the ridge is no positive number.

    Notes
    -----
    E(with surroundings) - E(vacuum), its forces on the region, and the forces on near charges are linear in the
    coefficients of `FixedResponse`. The sum of squares of all errors, each divided by its constant above, is minimal.
    """
    frames = check_frames("frames", frames)
    ridge = check_number("ridge", ridge, above=0.0, at_most=1.0)
    check_together(frames)
    if len(frames) < FEWEST_LABELS:
        raise DataSetError(f"{len(frames)} frames are too few for a response, {FEWEST_LABELS} are needed; label more")
    for frame in frames:
        if frame.potential is None or frame.near is None or frame.field_gradient is None or frame.vacuum_forces is None:
            raise DataSetError(
                f"frame {frame.name!r} lacks the field, near charges or vacuum labels, of which a response is fitted; "
                "label it with Labeller(..., vacuum=True) in electrostatic embedding"
            )
    conditions = {frame.condition for frame in frames}
    if len(conditions) > 1:
        raise DataSetError(
            f"a response is that of one charge, multiplicity and state; the frames have {sorted(conditions)}"
        )
    data = frame_tensors(frames, sorted(conditions))
    start = FixedResponse(frames[0].atomic_numbers.tolist(), find_bonds(frames), frames[0].charge)
    distances = start.mean_distances(data.positions)
    response = FixedResponse(start.atomic_numbers, start.bonds, start.charge, distances.numpy())
    normal = torch.zeros(response.n_coefficients, response.n_coefficients, dtype=torch.float64)
    right = torch.zeros(response.n_coefficients, dtype=torch.float64)
    for k in range(len(frames)):
        # The zeroth column is the part that does not depend on coefficients.
        columns = [_weighted(response, data, k, None)]
        columns += [_weighted(response, data, k, p) for p in range(response.n_coefficients)]
        labels = _labels(data, k) - columns[0]
        design = torch.stack(columns[1:], dim=1) - columns[0][:, None]
        normal += design.T @ design
        right += design.T @ labels
    scale = normal.diagonal().sqrt().clamp(min=1e-12)
    scaled = normal / scale[:, None] / scale
    solution = torch.linalg.solve(scaled + ridge * torch.eye(len(scale), dtype=scaled.dtype), right / scale) / scale
    return FixedResponse(response.atomic_numbers, response.bonds, response.charge, distances.numpy(), solution.numpy())


def _labels(data: FrameTensors, k: int) -> Tensor:
    """Return energy, gradient and near gradient of the interaction in a frame, each in units of its error."""
    assert data.vacuum_energy is not None
    assert data.vacuum_forces is not None
    return _in_errors(
        data.energy[k] - data.vacuum_energy[k], data.vacuum_forces[k] - data.forces[k], -data.near_forces[k]
    )


def _weighted(response: FixedResponse, data: FrameTensors, k: int, index: int | None) -> Tensor:
    """Return the same of the response in which one coefficient is one, or none, and all others are zero."""
    coefficients = torch.zeros(response.n_coefficients, dtype=torch.float64)
    if index is not None:
        coefficients[index] = 1.0
    inputs = (data.positions[k], data.potential[k], -data.potential_gradient[k], data.near_positions[k])
    leaves = [tensor.clone().requires_grad_(True) for tensor in inputs]
    x, potential, field, near_positions = leaves
    energy = response.energy(coefficients, x, potential, field, near_positions, data.near_charges[k])
    found = torch.autograd.grad(energy, leaves, allow_unused=True)
    explicit, charges, by_field, by_near = (
        torch.zeros_like(leaf) if gradient is None else gradient for gradient, leaf in zip(found, leaves, strict=True)
    )
    gradient = site_gradient(explicit, charges, -by_field, data.potential_gradient[k], data.potential_curvature[k])
    moments = torch.cat([charges, -by_field.flatten()]).to(data.near_map.dtype)
    near = (data.near_map[k] @ moments).reshape(by_near.shape).to(torch.float64) + by_near
    return _in_errors(energy.detach(), gradient, near * (data.near_charges[k] != 0).unsqueeze(-1))


def _in_errors(energy: Tensor, gradient: Tensor, near: Tensor) -> Tensor:
    return torch.cat(
        [
            energy.reshape(1) * (HARTREE_IN_KJ_PER_MOL / ENERGY_ERROR),
            gradient.flatten() * (FORCE_AU_IN_OPENMM / FORCE_ERROR),
            near.flatten() * (FORCE_AU_IN_OPENMM / NEAR_ERROR),
        ]
    )
