"""Training in a loop: the same labels give the same model, also after the training was interrupted."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch

from qmmlmm.learning.frame_tensors import frame_tensors
from qmmlmm.learning.labelled_frame import DataSetError, LabelledFrame
from qmmlmm.learning.loop.error_bound import ErrorBound, error_bound
from qmmlmm.learning.loop.errors import full_disk, is_full
from qmmlmm.learning.prediction import predict
from qmmlmm.learning.training import TrainedModel, Training, TrainingError, TrainingSettings, create_model
from qmmlmm.learning.uncertainty import ForceUncertainty, force_uncertainty
from qmmlmm.ml.response_network import ResponseNetwork, ResponseSettings
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL

FEWEST_FRAMES = 6


def divided(frames: list[LabelledFrame], share: float) -> tuple[list[LabelledFrame], list[LabelledFrame]]:
    """Return frames to train on and for validation; a frame keeps its part when others are added behind it.

    Parameters
    ----------
    frames : list of LabelledFrame
        In the order in which they came.
    share : float
        Of the second.
    """
    if len(frames) < FEWEST_FRAMES:
        raise DataSetError(f"{len(frames)} labels are too few to train on; {FEWEST_FRAMES} are needed")
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
) -> TrainedModel:
    """Train a committee on all labels.

    Parameters
    ----------
    frames : list of LabelledFrame
    last : ResponseNetwork or None
        Where to go on from; None: from random weights.
    network : ResponseSettings
    training : TrainingSettings
    members : int
    share : float
        For validation.
    checkpoint : Path
        From which an interrupted training goes on. One of another training, or damaged, is removed.

    Raises
    ------
    LoopStoreError
        If the disk is full.
    """
    train, kept = divided(frames, share)
    settings = replace(training, batch_size=min(training.batch_size, len(train)))

    def begin() -> Training:
        model = create_model(train, network, members, settings.seed) if last is None else copy.deepcopy(last)
        return Training(model, train, kept, settings)

    def run(work: Training) -> TrainedModel:
        try:
            return work.run(checkpoint, progress=False)
        except (OSError, RuntimeError) as error:
            # torch.save has an error of its own for a full disk, which says nothing about the reason.
            if is_full(error) or (not isinstance(error, TrainingError) and "writ" in str(error)):
                _clear(checkpoint)
                raise full_disk(checkpoint, error) from error
            raise

    if not checkpoint.exists():
        return run(begin())
    work = begin()
    try:
        work.load(checkpoint)
    except Exception:  # noqa: BLE001  (a damaged file raises anything; the training begins anew)
        checkpoint.unlink()
        work = begin()
    return run(work)


def _clear(checkpoint: Path) -> None:
    """Remove what a full disk left half written."""
    checkpoint.with_name(checkpoint.name + ".part").unlink(missing_ok=True)


def judge(
    model: ResponseNetwork, frames: list[LabelledFrame], confidence: float
) -> tuple[ErrorBound, ForceUncertainty | None]:
    """Return the errors of a model on frames that it has not seen, and what its committee says about them."""
    if not frames:
        return ErrorBound(0, float("nan"), float("inf"), float("nan"), float("inf")), None
    data = frame_tensors(frames, model.known_conditions())
    predicted = predict(model, data)
    with torch.no_grad():
        forces = (predicted.forces.mean(0) - data.forces).numpy() * FORCE_AU_IN_OPENMM
        energies = (predicted.energy.mean(0) - data.energy).numpy() * HARTREE_IN_KJ_PER_MOL
    return error_bound(forces, energies, confidence), force_uncertainty(predicted, data)
