"""The loss of predictions, in units of the variances of the labels."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from qmmlmm.learning.training.frame_tensors import FrameTensors
from qmmlmm.learning.training.prediction import Prediction
from qmmlmm.learning.training.training_settings import TrainingSettings


def label_loss(
    predicted: Prediction, batch: FrameTensors, settings: TrainingSettings, scales: Mapping[str, float]
) -> Tensor:
    """Return the loss of every member on a batch, (members,).

    Parameters
    ----------
    predicted : Prediction
        Prediction that can be differentiated by the weights.
    batch : FrameTensors
    settings : TrainingSettings
    scales : mapping of str to float
        Variances of ``energy``, ``forces``, ``near`` and, where there are labels, ``dipole``.
    """

    def squared(value: Tensor, label: Tensor) -> Tensor:
        return (value - label).square().flatten(1).mean(1)

    loss = settings.force_weight * squared(predicted.forces, batch.forces) / scales["forces"]
    loss = loss + settings.energy_weight * squared(predicted.energy, batch.energy) / scales["energy"]
    if batch.vacuum_forces is not None and batch.vacuum_energy is not None:
        loss = loss + settings.vacuum_weight * squared(predicted.vacuum_forces, batch.vacuum_forces) / scales["forces"]
        loss = loss + settings.energy_weight * squared(predicted.vacuum_energy, batch.vacuum_energy) / scales["energy"]
    if batch.dipole is not None:
        loss = loss + settings.dipole_weight * squared(predicted.dipole, batch.dipole) / scales["dipole"]
    if batch.vacuum_dipole is not None:
        loss = loss + settings.dipole_weight * squared(predicted.vacuum_dipole, batch.vacuum_dipole) / scales["dipole"]
    if batch.near_charges.shape[1] and settings.near_weight > 0:
        used = (batch.near_charges != 0).unsqueeze(-1)
        error = ((predicted.near_forces - batch.near_forces) * used).square().flatten(1).sum(1)
        loss = loss + settings.near_weight * error / (3 * used.sum().clamp(min=1)) / scales["near"]
    return loss
