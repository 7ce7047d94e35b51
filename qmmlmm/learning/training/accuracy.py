"""Errors of a model on labelled frames, in kJ/mol and nm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qmmlmm.learning.training.frame_tensors import FrameTensors
from qmmlmm.learning.training.prediction import Prediction
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL


@dataclass(frozen=True)
class Accuracy:
    """Mean absolute errors of the mean of a committee; root mean square errors of the near forces.

    Parameters
    ----------
    energy, vacuum_energy : float, kJ/mol
        Errors without the mean error, ``energy_shift``, which has no effect on energy differences.
    forces, vacuum_forces, near_forces : float, kJ/(mol nm)
        Errors of components; NaN without labels.
    energy_shift : float, kJ/mol
        Mean error of the energy.
    """

    energy: float
    forces: float
    vacuum_energy: float
    vacuum_forces: float
    near_forces: float
    energy_shift: float


def accuracy(predicted: Prediction, frames: FrameTensors) -> Accuracy:
    """Return the errors of the mean of a committee."""
    error = (predicted.energy.detach().mean(0) - frames.energy) * HARTREE_IN_KJ_PER_MOL
    nan = float("nan")
    vacuum_energy, vacuum_forces, near = nan, nan, nan
    if frames.vacuum_energy is not None and frames.vacuum_forces is not None:
        bare = (predicted.vacuum_energy.detach().mean(0) - frames.vacuum_energy) * HARTREE_IN_KJ_PER_MOL
        vacuum_energy = _mean_absolute(bare - bare.mean())
        vacuum_forces = _mean_absolute(predicted.vacuum_forces.mean(0) - frames.vacuum_forces) * FORCE_AU_IN_OPENMM
    used = frames.near_charges != 0
    if bool(used.any()):
        difference = (predicted.near_forces.detach().mean(0) - frames.near_forces)[used]
        near = float(difference.square().mean().sqrt()) * FORCE_AU_IN_OPENMM
    return Accuracy(
        energy=_mean_absolute(error - error.mean()),
        forces=_mean_absolute(predicted.forces.mean(0) - frames.forces) * FORCE_AU_IN_OPENMM,
        vacuum_energy=vacuum_energy,
        vacuum_forces=vacuum_forces,
        near_forces=near,
        energy_shift=float(error.mean()),
    )


def _mean_absolute(error: Tensor) -> float:
    return float(torch.mean(torch.abs(error.detach())))
