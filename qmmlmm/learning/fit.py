"""From labelled frames to a model: training, learning curve, fine-tuning."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence

import torch

from qmmlmm.learning.accuracy import Accuracy, accuracy
from qmmlmm.learning.frame_tensors import conditions_of, frame_tensors
from qmmlmm.learning.labelled_frame import DataSetError, LabelledFrame
from qmmlmm.learning.prediction import predict
from qmmlmm.learning.training import TrainedModel, Training, TrainingSettings, create_model
from qmmlmm.ml.response_network import ResponseNetwork, ResponseSettings

DEFAULT_NETWORK = ResponseSettings()
DEFAULT_TRAINING = TrainingSettings()
DEFAULT_FINE_TUNING = TrainingSettings(steps=800, learning_rate=1e-3)


def split_frames(
    frames: list[LabelledFrame], validation: float = 0.15, seed: int = 1
) -> tuple[list[LabelledFrame], list[LabelledFrame]]:
    """Return frames to train on and frames for validation, drawn at random.

    Parameters
    ----------
    frames : list of LabelledFrame
    validation : float
        Share of the second.
    seed : int
    """
    n_validation = max(1, round(validation * len(frames)))
    if len(frames) < 4 or n_validation >= len(frames):
        raise DataSetError(f"{len(frames)} frames are too few to train on and to validate with")
    order = torch.randperm(len(frames), generator=torch.Generator().manual_seed(seed)).tolist()
    return [frames[k] for k in order[n_validation:]], [frames[k] for k in order[:n_validation]]


def train(
    frames: list[LabelledFrame],
    *,
    network: ResponseSettings = DEFAULT_NETWORK,
    training: TrainingSettings = DEFAULT_TRAINING,
    members: int = 1,
    validation: float | list[LabelledFrame] = 0.15,
    checkpoint: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
) -> TrainedModel:
    """Train a model of the region that the frames are of.

    Parameters
    ----------
    frames : list of LabelledFrame
    network : ResponseSettings
    training : TrainingSettings
    members : int
        More than one trains a committee.
    validation : float or list of LabelledFrame
        Share of the frames that is kept for validation, or frames for it.
    checkpoint : path, optional
        File from which a training that was stopped goes on.
    device : str or torch.device
        See `Training`.
    """
    if isinstance(validation, float):
        frames, kept = split_frames(frames, validation, training.seed)
    else:
        kept = validation
    model = create_model(frames, network, members, training.seed)
    return Training(model, frames, kept, training, device).run(checkpoint)


def learning_curve(
    frames: list[LabelledFrame],
    test: list[LabelledFrame],
    sizes: Sequence[int],
    *,
    network: ResponseSettings = DEFAULT_NETWORK,
    training: TrainingSettings = DEFAULT_TRAINING,
    members: int = 1,
    device: str | torch.device = "cpu",
) -> list[tuple[int, Accuracy]]:
    """Train on more and more frames, each set within the next, and return the errors on test frames.

    Parameters
    ----------
    frames, test : list of LabelledFrame
    sizes : sequence of int
        Numbers of frames, validation frames among them; the first frames of the list are taken.
    network : ResponseSettings
    training : TrainingSettings
    members : int
    device : str or torch.device
        See `Training`.
    """
    if any(not 4 <= size <= len(frames) for size in sizes):
        raise DataSetError(f"a learning curve over {len(frames)} frames has sizes from 4 to that, got {list(sizes)}")
    curve = []
    for size in sizes:
        model = train(frames[:size], network=network, training=training, members=members, device=device).model
        data = frame_tensors(test, conditions_of(frames[:size]))
        curve.append((size, accuracy(predict(model, data), data)))
    return curve


def fine_tune(
    model: ResponseNetwork,
    new: list[LabelledFrame],
    old: list[LabelledFrame],
    *,
    training: TrainingSettings = DEFAULT_FINE_TUNING,
    validation: float = 0.15,
    device: str | torch.device = "cpu",
) -> TrainedModel:
    """Train a model further on new frames while it rehearses the old ones.

    Parameters
    ----------
    model : ResponseNetwork
        Stays as it is.
    new, old : list of LabelledFrame
        New frames are repeated until they are as many as the old ones.
    training : TrainingSettings
    validation : float
        Share of both that is kept for validation.
    device : str or torch.device
        See `Training`.
    """
    new_train, new_kept = split_frames(new, validation, training.seed)
    old_train, old_kept = split_frames(old, validation, training.seed)
    repeats = max(1, round(len(old_train) / len(new_train)))
    together, kept = [*old_train, *(new_train * repeats)], [*old_kept, *new_kept]
    return Training(copy.deepcopy(model), together, kept, training, device).run()
