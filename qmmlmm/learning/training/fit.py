"""Training of a model on labelled frames, learning curves, and fine-tuning."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence

import torch

from qmmlmm.coupling.potential import EvaluatedPotential
from qmmlmm.errors import DataSetError, SettingError
from qmmlmm.learning.labels.difference_labels import learned_frames
from qmmlmm.learning.labels.labelled_frame import LabelledFrame, check_frames, check_together
from qmmlmm.learning.training.accuracy import Accuracy, accuracy
from qmmlmm.learning.training.checkpoint_file import check_checkpoint
from qmmlmm.learning.training.device import check_device
from qmmlmm.learning.training.frame_tensors import conditions_of, frame_tensors
from qmmlmm.learning.training.prediction import predict
from qmmlmm.learning.training.trainer import TrainedModel, Training, check_members, create_model
from qmmlmm.learning.training.training_settings import DEFAULT_TRAINING, TrainingSettings
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import DEFAULT_SETTINGS, ResponseSettings
from qmmlmm.setting_checks import check_flag, check_instance, check_number, check_seed, is_whole_number

DEFAULT_VALIDATION = 0.15
DEFAULT_FINE_TUNING = TrainingSettings(steps=800, learning_rate=1e-3)


def split_frames(
    frames: list[LabelledFrame], validation: float = DEFAULT_VALIDATION, seed: int = 1
) -> tuple[list[LabelledFrame], list[LabelledFrame]]:
    """Return frames to train on and frames for validation, drawn at random.

    Parameters
    ----------
    frames : list of LabelledFrame
    validation : float
        Fraction of the frames for validation.
    seed : int

    Raises
    ------
    DataSetError
        If there are too few frames.
    SettingError
        If the fraction is not above 0 and at most 0.5.
    """
    check_frames("frames", frames)
    validation = check_number("validation", validation, above=0.0, at_most=0.5)
    seed = check_seed("seed", seed)
    n_validation = max(1, round(validation * len(frames)))
    if len(frames) < 4 or n_validation >= len(frames):
        raise DataSetError(f"{len(frames)} frames are too few for training and validation; label more")
    order = torch.randperm(len(frames), generator=torch.Generator().manual_seed(seed)).tolist()
    return [frames[k] for k in order[n_validation:]], [frames[k] for k in order[:n_validation]]


def train(
    frames: list[LabelledFrame],
    *,
    network: ResponseSettings = DEFAULT_SETTINGS,
    training: TrainingSettings = DEFAULT_TRAINING,
    members: int = 1,
    validation: float | list[LabelledFrame] = DEFAULT_VALIDATION,
    base: EvaluatedPotential | None = None,
    response_only: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
) -> TrainedModel:
    """Train a model of the region of the frames.

    Parameters
    ----------
    frames : list of LabelledFrame
    network : ResponseSettings
    training : TrainingSettings
    members : int
        Number of committee members.
    validation : float or list of LabelledFrame
        Fraction of the frames that is held out for validation, or frames for it.
    base : EvaluatedPotential, optional
        Potential that is evaluated on the frames, such as `XTBPotential`. The model learns the difference to it, and is
        used as ``Term(..., correction=True)`` beside a term of the base. See ``docs/delta_learning.md``.
    response_only : bool
        Whether the model learns only the response to the surroundings, from labels with energy and forces in the field
        and in a vacuum, for `qmmlmm.ml.ResponseModel`. Its errors are then those of the interaction.
    checkpoint : path, optional
        File from which a training that was stopped continues.
    device : str or torch.device
        See `Training`.

    Raises
    ------
    SettingError
        If an argument has the wrong type or is out of range.
    DataSetError
        If there are too few frames, or they do not go together.
    TrainingError
        As `Training.run`.
    """
    _check_arguments(network, training, members, device, base, response_only)
    if checkpoint is not None:
        check_checkpoint(checkpoint)
    if isinstance(validation, list | tuple):
        kept = check_frames("validation", validation)
    else:
        frames, kept = split_frames(frames, validation, training.seed)
    check_together([*check_frames("frames", frames), *kept])
    (frames, kept), difference = learned_frames(base, [frames, kept], response_only)
    model = create_model(frames, network, members, training.seed, difference, response_only)
    return Training(model, frames, kept, training, device).run(checkpoint)


def learning_curve(
    frames: list[LabelledFrame],
    test: list[LabelledFrame],
    sizes: Sequence[int],
    *,
    network: ResponseSettings = DEFAULT_SETTINGS,
    training: TrainingSettings = DEFAULT_TRAINING,
    members: int = 1,
    base: EvaluatedPotential | None = None,
    response_only: bool = False,
    device: str | torch.device = "cpu",
) -> list[tuple[int, Accuracy]]:
    """Train on several numbers of frames, and return the errors on test frames.

    Parameters
    ----------
    frames, test : list of LabelledFrame
    sizes : sequence of int
        Numbers of frames, including validation frames; each training has the first frames of the list.
    network : ResponseSettings
    training : TrainingSettings
    members : int
    base : EvaluatedPotential, optional
    response_only : bool
        As in `train`.
    device : str or torch.device
        See `Training`.

    Raises
    ------
    DataSetError
        If a size is below four, or larger than the number of frames, or the frames do not go together.
    SettingError
        If another argument has the wrong type or is out of range.
    """
    _check_arguments(network, training, members, device, base, response_only)
    check_curve(frames, test, sizes)
    if not len(sizes):
        return []
    (labelled, unseen), difference = learned_frames(base, [frames[: max(sizes)], test], response_only)
    curve = []
    for size in sizes:
        part, kept = split_frames(labelled[:size], DEFAULT_VALIDATION, training.seed)
        start = create_model(part, network, members, training.seed, difference, response_only)
        model = Training(start, part, kept, training, device).run().model
        data = frame_tensors(unseen, conditions_of(labelled[:size]))
        curve.append((size, accuracy(predict(model, data), data)))
    return curve


def check_curve(frames: list[LabelledFrame], test: list[LabelledFrame], sizes: Sequence[int]) -> None:
    """Raise DataSetError unless the arguments of `learning_curve` go together."""
    check_together([*check_frames("frames", frames), *check_frames("test", test)])
    if isinstance(sizes, str) or not isinstance(sizes, Iterable):
        raise DataSetError(f"sizes is a list of numbers of frames, got {sizes!r}")
    if any(not is_whole_number(size) or not 4 <= size <= len(frames) for size in sizes):
        raise DataSetError(
            f"a learning curve of {len(frames)} frames has sizes from 4 to this number, got {list(sizes)}"
        )


def _check_arguments(
    network: object, training: object, members: object, device: object, base: object, response_only: object
) -> None:
    settings = check_instance("network", network, ResponseSettings)
    if settings.dispersion is not None and base is not None:
        raise SettingError("dispersion of the network is a part of the energy of one level; with a base leave it out")
    if check_flag("response_only", response_only):
        check_response_only(settings, base)
    check_instance("training", training, TrainingSettings)
    check_members(members)
    check_device(device)


def check_response_only(network: ResponseSettings, base: object) -> None:
    """Raise SettingError if a response is to be trained with something that it does not have."""
    if base is not None:
        raise SettingError(
            "a response is learned from labels in the field and in a vacuum, with no base; leave base out, and give it "
            "to EmbeddedPotential(base, ResponseModel(...))"
        )
    if network.dispersion is not None:
        raise SettingError("dispersion of the network is a part of the energy in a vacuum; a response has none")
    if not network.response:
        raise SettingError("response=False of the network leaves nothing to learn of a response")


def fine_tune(
    model: ResponseNetwork,
    new: list[LabelledFrame],
    old: list[LabelledFrame],
    *,
    training: TrainingSettings = DEFAULT_FINE_TUNING,
    validation: float = DEFAULT_VALIDATION,
    base: EvaluatedPotential | None = None,
    device: str | torch.device = "cpu",
) -> TrainedModel:
    """Train a model further on new frames together with old ones.

    Parameters
    ----------
    model : ResponseNetwork
        Model at the start; unchanged afterwards.
    new, old : list of LabelledFrame
        New and old frames; new ones are repeated to approximately the number of old ones.
    training : TrainingSettings
    validation : float
        Fraction of both that is held out for validation.
    base : EvaluatedPotential, optional
        Base of a model that is a difference, as in `train`.
    device : str or torch.device
        See `Training`.

    Raises
    ------
    SettingError
        If an argument has the wrong type or is out of range.
    DataSetError
        If there are too few frames, or they are not of the molecule and the surfaces of the model.
    """
    check_instance("model", model, ResponseNetwork)
    check_instance("training", training, TrainingSettings)
    check_together([*check_frames("new", new), *check_frames("old", old)])
    if model.response_only:
        check_response_only(model.settings, base)
    (new, old), difference = learned_frames(base, [new, old], model.response_only)
    if base is not None and (difference is None or difference != model.difference):
        raise DataSetError(
            f"labels and base are the difference {difference}, the model is "
            f"{'the energy of one level' if model.difference is None else f'the difference {model.difference}'}; give "
            "the base of the model's training, and labels of its target"
        )
    new_train, new_kept = split_frames(new, validation, training.seed)
    old_train, old_kept = split_frames(old, validation, training.seed)
    repeats = max(1, round(len(old_train) / len(new_train)))
    together, kept = [*old_train, *(new_train * repeats)], [*old_kept, *new_kept]
    return Training(copy.deepcopy(model), together, kept, training, device).run()
