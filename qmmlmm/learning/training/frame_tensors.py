"""Labelled frames as tensors, with the linear maps from the response of a model to forces on near charges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from qmmlmm.embedding.kernels import screened_kernel
from qmmlmm.errors import DataSetError
from qmmlmm.learning.labels.labelled_frame import LabelledFrame, check_together, optional_labels
from qmmlmm.ml.conditions import Condition
from qmmlmm.units import ANGSTROM_IN_BOHR


@dataclass(frozen=True)
class FrameTensors:
    """Frames of one region, all with the same kinds of labels. Atomic units; a label that the frames lack is None.

    Parameters
    ----------
    positions : (frames, n, 3) tensor
    condition : (frames,) int64 tensor
        Indices into a table of conditions.
    energy, forces, vacuum_energy, vacuum_forces, dipole, vacuum_dipole : tensors
        Labels. The dipoles are about the centre of the nuclear charges.
    potential, potential_gradient, potential_curvature : (frames, n), (frames, n, 3) and (frames, n, 3, 3) tensors
        Potential of the surroundings with its derivatives; zeros in a vacuum.
    origin : (frames, 3) tensor
        Centre of the nuclear charges.
    near_positions, near_charges, near_forces : (frames, k, 3), (frames, k) and (frames, k, 3) tensors
        Near charges, padded with charges of zero far away; k is zero without surroundings.
    near_map : (frames, 3 k, 4 n) float32 tensor
        Derivative of the potential and its gradient at the atoms by the positions of the near charges, transposed.
    """

    positions: Tensor
    condition: Tensor
    energy: Tensor
    forces: Tensor
    potential: Tensor
    potential_gradient: Tensor
    potential_curvature: Tensor
    origin: Tensor
    near_positions: Tensor
    near_charges: Tensor
    near_forces: Tensor
    near_map: Tensor
    vacuum_energy: Tensor | None = None
    vacuum_forces: Tensor | None = None
    dipole: Tensor | None = None
    vacuum_dipole: Tensor | None = None

    def __len__(self) -> int:
        return len(self.energy)

    def select(self, index: Tensor) -> FrameTensors:
        """Return some of the frames."""
        return self._with(lambda value: value[index])

    def to(self, device: str | torch.device) -> FrameTensors:
        """Return the same frames on another device."""
        return self._with(lambda value: value.to(device))

    def _with(self, change: Callable[[Tensor], Tensor]) -> FrameTensors:
        tensors = vars(self)
        return replace(self, **{key: change(value) for key, value in tensors.items() if value is not None})


def conditions_of(frames: list[LabelledFrame]) -> list[Condition]:
    """Return the charges, multiplicities and electronic states that occur."""
    return sorted({frame.condition for frame in frames})


def frame_tensors(frames: list[LabelledFrame], conditions: list[Condition], near_reach: float = 6.5) -> FrameTensors:
    """Return frames as tensors.

    Parameters
    ----------
    frames : list of LabelledFrame
    conditions : list of (int, int, int)
        Table of conditions of the model.
    near_reach : float, angstrom
        Distance from all atoms beyond which near charges are left out of the training on forces; the potential of the
        surroundings includes them.

    Raises
    ------
    DataSetError
        If the frames are not of one region and one method, a label is missing in some of them, or a condition is not in
        the table.
    """
    check_together(frames)
    for name in optional_labels():
        have = [vars(frame)[name] is not None for frame in frames]
        if any(have) and not all(have) and name != "near":
            raise DataSetError(
                f"{sum(have)} of {len(have)} frames have the label {name!r}, frame {have.index(False)} "
                f"({frames[have.index(False)].name!r}) does not; train on frames with the same labels"
            )
    unknown = sorted({frame.condition for frame in frames} - set(conditions))
    if unknown:
        raise DataSetError(
            f"the model is for (charge, multiplicity, electronic state) {conditions}, the frames also have {unknown}; "
            "train a new model on all frames"
        )
    n = len(frames[0].atomic_numbers)
    nuclear = torch.tensor(frames[0].atomic_numbers, dtype=torch.float64)
    positions = _stack([frame.positions for frame in frames])
    zeros = np.zeros((n, 3, 3))
    gradient = _stack([np.zeros((n, 3)) if frame.field is None else -frame.field for frame in frames])
    near = [_near(frame, near_reach) for frame in frames]
    k = max(len(charges) for _, charges, _, _ in near)
    near_positions = positions.new_full((len(frames), k, 3), 1e3)
    near_charges = positions.new_zeros(len(frames), k)
    near_forces = positions.new_zeros(len(frames), k, 3)
    near_map = torch.zeros(len(frames), 3 * k, 4 * n, dtype=torch.float32)
    for index, (frame, (sources, charges, forces, widths)) in enumerate(zip(frames, near, strict=True)):
        count = len(charges)
        near_positions[index, :count] = sources
        near_charges[index, :count] = charges
        near_forces[index, :count] = forces
        if frame.near is not None:
            near_map[index, : 3 * count] = _map(positions[index], sources, charges, widths)
    return FrameTensors(
        positions=positions,
        condition=torch.tensor([conditions.index(frame.condition) for frame in frames]),
        energy=_stack([frame.energy for frame in frames]),
        forces=_stack([frame.forces for frame in frames]),
        potential=_stack([np.zeros(n) if frame.potential is None else frame.potential for frame in frames]),
        potential_gradient=gradient,
        potential_curvature=_stack(
            [zeros if frame.field_gradient is None else -frame.field_gradient for frame in frames]
        ),
        origin=torch.einsum("fic,i->fc", positions, nuclear) / nuclear.sum(),
        near_positions=near_positions,
        near_charges=near_charges,
        near_forces=near_forces,
        near_map=near_map,
        **{
            name: _stack([vars(frame)[name] for frame in frames])
            for name in ("vacuum_energy", "vacuum_forces", "dipole", "vacuum_dipole")
            if vars(frames[0])[name] is not None
        },
    )


def _stack(values: list[object]) -> Tensor:
    return torch.tensor(np.array(values, dtype=float))


def _near(frame: LabelledFrame, reach: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if frame.near is None:
        none = torch.zeros(0, 3, dtype=torch.float64)
        return none, none[:, 0], none, none[:, 0]
    distance = np.linalg.norm(frame.near.positions[:, None] - frame.positions[None], axis=-1).min(axis=1)
    keep = distance < reach * ANGSTROM_IN_BOHR
    near = frame.near
    widths = np.zeros(len(near.charges)) if near.widths is None else near.widths
    positions, charges, forces, kept = (
        torch.tensor(values[keep]) for values in (near.positions, near.charges, near.forces, widths)
    )
    return positions, charges, forces, kept


def _map(positions: Tensor, sources: Tensor, charges: Tensor, widths: Tensor) -> Tensor:
    """Return the derivatives of the potential and its gradient at the atoms by the near positions, (3 k, 4 n)."""
    n, k = len(positions), len(sources)
    delta = positions[None, :, :] - sources[:, None, :]
    r = delta.norm(dim=-1)
    radial, along = -1.0 / r**3, 3.0 / r**5
    extended = widths > 0.0
    _, first, second = screened_kernel(r[extended], 1.0 / widths[extended, None])
    screening = first / r[extended]
    radial[extended] -= screening
    along[extended] -= (second - screening) / r[extended] ** 2
    of_potential = -(charges[:, None] * radial)[..., None] * delta
    outer = delta[..., :, None] * delta[..., None, :] * along[..., None, None]
    of_gradient = -charges[:, None, None, None] * (outer + radial[..., None, None] * torch.eye(3, dtype=r.dtype))
    # (k, n, 3) to (k, 3, n) and (k, n, 3, 3) to (k, 3, n, 3).
    table = torch.cat([of_potential.transpose(1, 2), of_gradient.transpose(1, 2).reshape(k, 3, 3 * n)], dim=-1)
    return table.reshape(3 * k, 4 * n).float()
