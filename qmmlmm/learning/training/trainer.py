"""Training of a response network, or a committee of them, that can be stopped and continued at any step."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from qmmlmm.coupling.level_of_theory import Difference
from qmmlmm.elements import covalent_radius
from qmmlmm.errors import DataSetError, TrainingError, listed
from qmmlmm.learning.labels.labelled_frame import LabelledFrame, check_together
from qmmlmm.learning.labels.response_labels import RESPONSE_OF
from qmmlmm.learning.training.accuracy import Accuracy, accuracy
from qmmlmm.learning.training.checkpoint_file import ADVICE, check_checkpoint, read_checkpoint, write_checkpoint
from qmmlmm.learning.training.device import check_device
from qmmlmm.learning.training.frame_tensors import FrameTensors, conditions_of, frame_tensors
from qmmlmm.learning.training.label_loss import label_loss
from qmmlmm.learning.training.optimisation import Optimisation
from qmmlmm.learning.training.prediction import predict
from qmmlmm.learning.training.training_settings import DEFAULT_TRAINING, TrainingSettings
from qmmlmm.learning.training.uncertainty import force_uncertainty
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings
from qmmlmm.progress_display import progress_bar
from qmmlmm.setting_checks import (
    check_instance,
    check_items,
    check_seed,
    check_whole_number,
)

LARGEST_COMMITTEE = 1000


@dataclass(frozen=True)
class TrainedModel:
    """The result of a training.

    Parameters
    ----------
    model : ResponseNetwork
        Model in evaluation mode, with the averaged weights of the best validation.
    history : list of dict
        Step, loss and validation errors, kJ/mol and kJ/(mol nm), at each validation.
    validation : Accuracy
        Errors of the model on the validation frames.
    """

    model: ResponseNetwork
    history: list[dict[str, float]]
    validation: Accuracy


def find_bonds(frames: list[LabelledFrame], stretch: float = 1.25) -> list[tuple[int, int]]:
    """Return the pairs of atoms with the mean distance of a bond.

    Parameters
    ----------
    frames : list of LabelledFrame
    stretch : float
        Largest mean distance of two bonded atoms, in units of the sum of their covalent radii.
    """
    distances = torch.stack([_distances(torch.tensor(frame.positions)) for frame in frames]).mean(0)
    radii = [covalent_radius(int(z)) for z in frames[0].atomic_numbers]
    n = len(radii)
    return [
        (i, j) for i in range(n) for j in range(i + 1, n) if float(distances[i, j]) < stretch * (radii[i] + radii[j])
    ]


def _distances(positions: Tensor) -> Tensor:
    return (positions[:, None] - positions[None]).norm(dim=-1)


def create_model(
    frames: list[LabelledFrame],
    settings: ResponseSettings,
    members: int = 1,
    seed: int = 1,
    difference: Difference | None = None,
    response_only: bool = False,
) -> ResponseNetwork:
    """Return a network for the region of the frames, with its linear part fitted to them.

    Parameters
    ----------
    frames : list of LabelledFrame
    settings : ResponseSettings
    members : int
        Number of committee members.
    seed : int
        Seed of the initial weights.
    difference : Difference, optional
        The two levels whose difference the labels are, from `difference_labels`.
    response_only : bool
        Whether the labels are those of the response alone, from `response_labels`.

    Raises
    ------
    SettingError
        If an argument has the wrong type or is out of range.
    DataSetError
        If the frames do not go together.
    """
    check_together(frames)
    check_instance("network", settings, ResponseSettings)
    members = check_members(members)
    seed = check_seed("seed", seed)
    conditions = conditions_of(frames)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ResponseNetwork(
            [int(z) for z in frames[0].atomic_numbers],
            find_bonds(frames),
            settings,
            conditions,
            members,
            difference=difference,
            response_only=response_only,
        )
    if response_only:
        return model
    data = frame_tensors(frames, conditions)
    has_vacuum = data.vacuum_forces is not None and data.vacuum_energy is not None
    energy = data.vacuum_energy if has_vacuum else data.energy
    forces = data.vacuum_forces if has_vacuum else data.forces
    assert energy is not None
    assert forces is not None
    leaf = data.positions.clone().requires_grad_(True)
    (fixed_gradient,) = torch.autograd.grad(model.fixed_energy(leaf).sum(), leaf)
    model.bonded.fit(data.positions, -forces - fixed_gradient)
    with torch.no_grad():
        rest = energy - model.bonded(data.positions) - model.fixed_energy(data.positions)
        for row in range(len(conditions)):
            model.constants[row] = rest[data.condition == row].mean()
    return model


def check_members(members: object) -> int:
    """Return a number of committee members."""
    return check_whole_number("members", members, at_most=LARGEST_COMMITTEE)


class Training:
    """A training that can be continued from its checkpoint, with the same result to the last bit.

    Parameters
    ----------
    model : ResponseNetwork
        Model to train, in place.
    train, validation : list of LabelledFrame
    settings : TrainingSettings
    device : str or torch.device
        Device of the training. Results on "cuda" differ in the last bits from one run to the next. The trained model is
        on the CPU.

    Raises
    ------
    SettingError
        If an argument has the wrong type, or there is no such device.
    DataSetError
        If the frames do not go together, or are not of the molecule of the model.
    """

    def __init__(
        self,
        model: ResponseNetwork,
        train: list[LabelledFrame],
        validation: list[LabelledFrame],
        settings: TrainingSettings = DEFAULT_TRAINING,
        device: str | torch.device = "cpu",
    ) -> None:
        check_instance("model", model, ResponseNetwork)
        check_frames("train", train)
        check_frames("validation", validation)
        check_together([*train, *validation])
        check_molecule(model, train[0])
        check_levels(model, train[0])
        conditions = model.known_conditions()
        self.settings = check_instance("training", settings, TrainingSettings)
        self.device = check_device(device)
        self.model = model.to(self.device).train()
        self.data = frame_tensors(train, conditions).to(self.device)
        self.validation = frame_tensors(validation, conditions).to(self.device)
        self.optimisation = Optimisation(self.model, settings)
        self.average = self.optimisation.average
        self.best = copy.deepcopy(model.state_dict())
        self.best_score = float("inf")
        self.since_best = 0
        self.step = 0
        self.history: list[dict[str, float]] = []
        self._scales = self._label_scales()

    def _label_scales(self) -> dict[str, float]:
        """Return the variances of the labels; those of energy and forces without the linear part of the model."""
        data, model = self.data, self.model
        leaf = data.positions.clone().requires_grad_(True)
        bonded = model.bonded(leaf) + model.fixed_energy(leaf)
        (gradient,) = torch.autograd.grad(bonded.sum(), leaf)
        rest = data.energy - bonded.detach() - model.constants[data.condition]
        used = (data.near_charges != 0).unsqueeze(-1)
        scales = {
            "energy": rest.var(unbiased=False),
            "forces": (data.forces + gradient).square().mean(),
            "near": (data.near_forces.square() * used).sum() / (3 * used.sum().clamp(min=1)),
        }
        dipole = data.dipole if data.dipole is not None else data.vacuum_dipole
        if dipole is not None:
            scales["dipole"] = dipole.var(0, unbiased=False).mean()
        return {key: max(float(value), 1e-12) for key, value in scales.items()}

    def loss(self, batch: FrameTensors) -> Tensor:
        """Return the loss of every member on a batch, (members,)."""
        return label_loss(predict(self.model, batch, train=True), batch, self.settings, self._scales)

    def _frames_of_step(self, step: int) -> Tensor:
        """Return the frames of a step: a shuffled pass over all frames in every epoch, from the seed only."""
        n = len(self.data)
        per_epoch = max(1, -(-n // self.settings.batch_size))
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + step // per_epoch)
        order = torch.randperm(n, generator=generator)
        return order.tensor_split(per_epoch)[step % per_epoch].to(self.device)

    def run(
        self,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        until: Callable[[], bool] | None = None,
    ) -> TrainedModel:
        """Train until all steps are complete or the validation stops improving.

        Parameters
        ----------
        checkpoint : path, optional
            Checkpoint file, written at each validation; an existing one is continued.
        progress : bool, optional
            Whether to show a progress bar with the errors; by default if standard error is a terminal.
        until : callable, optional
            Function that is called at each validation; the training stops there if it returns True.

        Raises
        ------
        TrainingError
            If the loss is not a number, the checkpoint cannot be written, or is damaged or of another training.
        SettingError
            If there is no folder for the checkpoint.
        """
        settings = self.settings
        if checkpoint is not None and check_checkpoint(checkpoint).exists():
            self.load(checkpoint)
        interval = max(1, settings.steps // settings.validations)
        with progress_bar(settings.steps, "training", "step", initial=self.step, shown=progress) as bar:
            while self.step < settings.steps and self.since_best < settings.patience:
                mean = self._train_one_step()
                bar.update()
                if self.step % interval == 0 or self.step == settings.steps:
                    result = self._validate(mean)
                    text = f"energy {result.energy:.2f} kJ/mol, forces {result.forces:.1f} kJ/mol/nm"
                    bar.set_postfix_str(text, refresh=False)
                    if checkpoint is not None:
                        self.save(checkpoint)
                    if until is not None and until():
                        break
        model = copy.deepcopy(self.average)
        model.load_state_dict(self.best)
        model.separate_parts.fill_(self.data.vacuum_forces is not None and settings.vacuum_weight > 0)
        predicted = predict(model.eval(), self.validation)
        if model.members > 1:
            model.uncertainty_scale.fill_(force_uncertainty(predicted, self.validation).scale())
        return TrainedModel(model.cpu(), list(self.history), accuracy(predicted, self.validation))

    def _train_one_step(self) -> float:
        loss = self.optimisation.step(self.loss(self.data.select(self._frames_of_step(self.step))), self.step)
        self.step += 1
        return loss

    def _validate(self, loss: float) -> Accuracy:
        result = accuracy(predict(self.average, self.validation), self.validation)
        score = result.forces / (self._scales["forces"] ** 0.5) + result.energy / (self._scales["energy"] ** 0.5)
        if score < self.best_score:
            self.best_score = score
            self.best = copy.deepcopy(self.average.state_dict())
            self.since_best = 0
        else:
            self.since_best += 1
        self.history.append({"step": self.step, "loss": loss, **asdict(result)})
        return result

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint for `load`, as a whole or not at all.

        Raises
        ------
        TrainingError
            If it cannot be written.
        """
        content = {
            **self._identity(),
            **self.optimisation.state(),
            "best": self.best,
            "progress": (self.step, self.best_score, self.since_best),
            "history": self.history,
        }
        write_checkpoint(path, content)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Load a checkpoint.

        Raises
        ------
        TrainingError
            If it is damaged, of other frames or settings, or has another format.
        """
        state = read_checkpoint(path, self.device, self._identity())
        try:
            self._restore(state)
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise TrainingError(f"the checkpoint {str(path)!r} is damaged ({error}); {ADVICE}") from error

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.optimisation.restore(state)
        self.best = state["best"]
        self.step, self.best_score, self.since_best = state["progress"]
        self.history = state["history"]

    def _identity(self) -> dict[str, object]:
        """Return settings, and numbers that change with the frames and the size of the model."""
        data = self.data
        size = sum(parameter.numel() for parameter in self.model.parameters())
        numbers = [
            len(data),
            len(self.validation),
            size,
            float(data.energy.sum()),
            float(data.positions.square().sum()),
        ]
        return {"settings": asdict(self.settings), "fingerprint": numbers}


def check_frames(name: str, frames: object) -> list[LabelledFrame]:
    """Return frames as a list, at least one."""
    return list(check_items(name, frames, LabelledFrame, error=DataSetError))


def check_molecule(model: ResponseNetwork, frame: LabelledFrame) -> None:
    """Raise DataSetError if a frame is not of the molecule of a model."""
    if list(model.atomic_numbers) != frame.atomic_numbers.tolist():
        raise DataSetError(
            f"the model is for the atoms {listed(model.atomic_numbers, 30)}, the frames have "
            f"{listed(frame.atomic_numbers, 30)}; use frames of the same region, with its atoms in the same order"
        )


def check_levels(model: ResponseNetwork, frame: LabelledFrame) -> None:
    """Raise DataSetError if a model of a difference or a response is to learn labels of something else."""
    difference = model.difference
    if difference is not None and frame.method != difference.method:
        raise DataSetError(
            f"the model is the difference {difference}, the frames have labels of {frame.method!r}; give the base, "
            "which is then subtracted from labels of the target"
        )
    if model.response_only != frame.method.startswith(RESPONSE_OF):
        raise DataSetError(
            f"the model is {'the response to surroundings' if model.response_only else 'a potential with its energy'}, "
            f"the frames have labels of {frame.method!r}; energies in the field less those in a vacuum are for a "
            "response, and for nothing else"
        )
