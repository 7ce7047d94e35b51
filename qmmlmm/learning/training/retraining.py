"""Reproducible training in a learning loop: the same labels give the same model, also after an interruption."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch

from qmmlmm.coupling.level_of_theory import Difference
from qmmlmm.durable_files import is_full
from qmmlmm.errors import DataSetError, TrainingError
from qmmlmm.learning.full_disk import full_disk
from qmmlmm.learning.labels.labelled_frame import LabelledFrame
from qmmlmm.learning.training.error_bound import ErrorBound, error_bound
from qmmlmm.learning.training.frame_tensors import frame_tensors
from qmmlmm.learning.training.prediction import predict
from qmmlmm.learning.training.trainer import TrainedModel, Training, create_model
from qmmlmm.learning.training.training_settings import TrainingSettings
from qmmlmm.learning.training.uncertainty import ForceUncertainty, force_uncertainty
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL

FEWEST_FRAMES = 6


def divided(frames: list[LabelledFrame], share: float) -> tuple[list[LabelledFrame], list[LabelledFrame]]:
    """Return frames for training and for validation; a frame keeps its part when more frames are appended.

    Parameters
    ----------
    frames : list of LabelledFrame
        Frames in the order of their labels.
    share : float
        Fraction of the frames for validation.

    Raises
    ------
    DataSetError
        If there are too few frames.
    """
    if len(frames) < FEWEST_FRAMES:
        raise DataSetError(f"{len(frames)} labels are too few for a training; {FEWEST_FRAMES} are needed")
    every = max(2, round(1.0 / share))
    kept = [frame for k, frame in enumerate(frames) if k % every == every - 1]
    train = [frame for k, frame in enumerate(frames) if k % every != every - 1]
    return (train, kept) if kept else (frames[:-1], frames[-1:])


def retrain(
    frames: list[LabelledFrame],
    last: ResponseNetwork | None,
    *,
    network: ResponseSettings,
    training: TrainingSettings,
    members: int,
    share: float,
    checkpoint: Path,
    difference: Difference | None = None,
) -> TrainedModel:
    """Train a committee on all labels.

    Parameters
    ----------
    frames : list of LabelledFrame
    last : ResponseNetwork or None
        Model at the start of the training; random weights if None.
    network : ResponseSettings
    training : TrainingSettings
    members : int
    share : float
        Fraction of the frames for validation.
    checkpoint : Path
        File from which an interrupted training continues. It is removed if it is damaged or of another training.
    difference : Difference, optional
        The two levels whose difference the labels are.

    Raises
    ------
    LoopStoreError
        If the disk is full.
    """
    train, kept = divided(frames, share)
    settings = replace(training, batch_size=min(training.batch_size, len(train)))

    def new_training() -> Training:
        if last is not None:
            return Training(copy.deepcopy(last), train, kept, settings)
        return Training(create_model(train, network, members, settings.seed, difference), train, kept, settings)

    def run(current: Training) -> TrainedModel:
        try:
            return current.run(checkpoint, progress=False)
        except TrainingError as error:
            if error.__cause__ is not None and is_full(error.__cause__):
                raise full_disk(checkpoint, error.__cause__) from error
            raise

    if not checkpoint.exists():
        return run(new_training())
    current = new_training()
    try:
        current.load(checkpoint)
    except Exception:  # noqa: BLE001  (a damaged file raises anything; the training starts again)
        checkpoint.unlink()
        current = new_training()
    return run(current)


def judge(
    model: ResponseNetwork, frames: list[LabelledFrame], confidence: float
) -> tuple[ErrorBound, ForceUncertainty | None]:
    """Return the errors of a model on frames that it was not trained on, with the uncertainty of its committee."""
    if not frames:
        return ErrorBound(0, float("nan"), float("inf"), float("nan"), float("inf")), None
    data = frame_tensors(frames, model.known_conditions())
    predicted = predict(model, data)
    with torch.no_grad():
        forces = (predicted.forces.mean(0) - data.forces).numpy() * FORCE_AU_IN_OPENMM
        energies = (predicted.energy.mean(0) - data.energy).numpy() * HARTREE_IN_KJ_PER_MOL
    return error_bound(forces, energies, confidence), force_uncertainty(predicted, data)
