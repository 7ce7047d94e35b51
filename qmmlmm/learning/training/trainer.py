"""Training of a response network, or a committee of them, on frames of one region."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from qmmlmm.coupling.level_of_theory import Difference
from qmmlmm.elements import covalent_radius
from qmmlmm.errors import DataSetError, listed
from qmmlmm.learning.labels.labelled_frame import LabelledFrame, check_frames, check_together
from qmmlmm.learning.labels.response_labels import RESPONSE_OF
from qmmlmm.learning.training.accuracy import Accuracy, accuracy
from qmmlmm.learning.training.device import check_device
from qmmlmm.learning.training.frame_tensors import FrameTensors, conditions_of, frame_tensors
from qmmlmm.learning.training.label_loss import label_loss
from qmmlmm.learning.training.prediction import predict
from qmmlmm.learning.training.resumable_training import ResumableTraining
from qmmlmm.learning.training.training_settings import DEFAULT_TRAINING, TrainingSettings
from qmmlmm.learning.training.uncertainty import force_uncertainty
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings
from qmmlmm.setting_checks import check_instance, check_seed, check_whole_number

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


class Training(ResumableTraining[Accuracy, TrainedModel]):
    """A training on frames of one region, which can be continued from its checkpoint.

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
        check_instance("training", settings, TrainingSettings)
        device = check_device(device)
        super().__init__(model.to(device).train(), settings, device)
        self.data = frame_tensors(train, conditions).to(device)
        self.validation = frame_tensors(validation, conditions).to(device)
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
        order = torch.randperm(n, generator=self._generator(step, per_epoch))
        return order.tensor_split(per_epoch)[step % per_epoch].to(self.device)

    def _losses(self, step: int) -> Tensor:
        return self.loss(self.data.select(self._frames_of_step(step)))

    def _validation_errors(self) -> Accuracy:
        return accuracy(predict(self.average, self.validation), self.validation)

    def _score(self, errors: Accuracy) -> float:
        return errors.forces / (self._scales["forces"] ** 0.5) + errors.energy / (self._scales["energy"] ** 0.5)

    def _result(self) -> TrainedModel:
        model = copy.deepcopy(self.average)
        model.load_state_dict(self.best)
        model.separate_parts.fill_(self.data.vacuum_forces is not None and self.settings.vacuum_weight > 0)
        predicted = predict(model.eval(), self.validation)
        if model.members > 1:
            model.uncertainty_scale.fill_(force_uncertainty(predicted, self.validation).scale())
        return TrainedModel(model.cpu(), list(self.history), accuracy(predicted, self.validation))

    def _identity(self) -> dict[str, object]:
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
