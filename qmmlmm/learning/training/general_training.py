"""Training of one response for many molecules."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from qmmlmm.errors import DataSetError, SettingError, TrainingError
from qmmlmm.learning.labels.labelled_frame import LabelledFrame
from qmmlmm.learning.labels.response_labels import response_labels
from qmmlmm.learning.training.checkpoint_file import ADVICE, check_checkpoint, read_checkpoint, write_checkpoint
from qmmlmm.learning.training.frame_tensors import Condition, FrameTensors, conditions_of, frame_tensors
from qmmlmm.learning.training.label_loss import label_loss
from qmmlmm.learning.training.optimisation import Optimisation
from qmmlmm.learning.training.prediction import predict
from qmmlmm.learning.training.trainer import check_frames, check_members
from qmmlmm.learning.training.training_settings import DEFAULT_TRAINING, TrainingSettings
from qmmlmm.ml.general_response import GeneralResponse
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import DEFAULT_SETTINGS, ResponseSettings
from qmmlmm.progress_display import progress_bar
from qmmlmm.setting_checks import check_instance
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL

FRAMES_OF_A_MOLECULE = 2
"""Largest number of frames of one molecule in a step, which then has several molecules."""


@dataclass(frozen=True)
class InteractionErrors:
    """Errors of the interaction with the surroundings, over all frames of all molecules.

    Parameters
    ----------
    energy : float, kJ/mol
        Mean absolute error.
    forces : float, kJ/(mol nm)
        Mean absolute error of the components on the atoms.
    near_forces : float, kJ/(mol nm)
        Root mean square error of the components on near charges.
    """

    energy: float
    forces: float
    near_forces: float


@dataclass(frozen=True)
class TrainedResponse:
    """The result of `train_general_response`.

    Parameters
    ----------
    response : GeneralResponse
        With the averaged weights of the best validation.
    history : list of dict
        Step, loss and validation errors at each validation.
    validation : InteractionErrors
        Errors on the validation frames.
    """

    response: GeneralResponse
    history: list[dict[str, float]]
    validation: InteractionErrors


@dataclass(frozen=True)
class _Molecule:
    """The frames of molecules with the same atoms in the same order."""

    atomic_numbers: list[int]
    data: FrameTensors


def train_general_response(
    frames: Sequence[LabelledFrame],
    validation: Sequence[LabelledFrame],
    *,
    network: ResponseSettings | None = None,
    training: TrainingSettings = DEFAULT_TRAINING,
    members: int | None = None,
    start: GeneralResponse | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> TrainedResponse:
    """Train one response on labels of many molecules.

    Parameters
    ----------
    frames : sequence of LabelledFrame
        Frames of different molecules and charges, all in their lowest state and labelled with one method in the field
        and in a vacuum, see `Labeller`.
    validation : sequence of LabelledFrame
        Frames of other molecules, whose errors say when to stop.
    network : ResponseSettings, optional
        Size of the network; that of `start`, or the default, if not given.
    training : TrainingSettings
        `batch_size` is the number of frames in a step, at most two of them of one molecule.
    members : int, optional
        Number of committee members; that of `start`, or one, if not given.
    start : GeneralResponse, optional
        Response with which the training begins, such as one of labels of a cheaper method, or the one that comes with
        qmmlmm if the frames are of molecules that it does not know well. It stays unchanged.
    checkpoint : path, optional
        File from which a training that was stopped continues.
    progress : bool, optional
        Whether to show a progress bar; by default if standard error is a terminal.

    Raises
    ------
    SettingError
        If an argument has the wrong type or is out of range.
    DataSetError
        If the frames are of several methods or not of closed shells, lack a label, or validation frames have elements
        or charges that the others do not have, or that `start` does not know.
    TrainingError
        If the loss is not a number, the checkpoint cannot be written, or is damaged or of another training.
    """
    return GeneralTraining(frames, validation, network, training, members, start).run(checkpoint, progress)


class GeneralTraining:
    """A training of one response for many molecules, which can be continued from its checkpoint.

    Parameters
    ----------
    frames, validation : sequence of LabelledFrame
    network : ResponseSettings, optional
    settings : TrainingSettings
    members : int, optional
    start : GeneralResponse, optional

    Raises
    ------
    SettingError, DataSetError
        As `train_general_response`.
    """

    def __init__(
        self,
        frames: Sequence[LabelledFrame],
        validation: Sequence[LabelledFrame],
        network: ResponseSettings | None = None,
        settings: TrainingSettings = DEFAULT_TRAINING,
        members: int | None = None,
        start: GeneralResponse | None = None,
    ) -> None:
        train, kept = check_frames("frames", list(frames)), check_frames("validation", list(validation))
        _check_molecules([*train, *kept])
        self.settings = check_instance("training", settings, TrainingSettings)
        elements = sorted({int(z) for frame in train for z in frame.atomic_numbers})
        conditions = conditions_of(train)
        if start is not None:
            check_instance("start", start, GeneralResponse)
            elements, conditions = start.elements, start.network.known_conditions()
            _check_known(train, elements, conditions, "the response at the start does not know; train without start")
        _check_known(kept, elements, conditions)
        self.molecules = _molecules(train, conditions)
        self.validation = _molecules(kept, conditions)
        self._start = None if start is None else start.fingerprint()
        self.model = _model(elements, conditions, network, members, settings.seed, start).train()
        self.optimisation = Optimisation(self.model, settings)
        self.best = copy.deepcopy(self.optimisation.average.state_dict())
        self.best_score = float("inf")
        self.since_best = 0
        self.step = 0
        self.history: list[dict[str, float]] = []
        self._scales = _label_scales(self.molecules, conditions)

    def run(
        self,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        until: Callable[[], bool] | None = None,
    ) -> TrainedResponse:
        """Train until all steps are complete or the validation stops improving.

        Parameters
        ----------
        checkpoint : path, optional
            Checkpoint file, written at each validation; an existing one is continued.
        progress : bool, optional
        until : callable, optional
            Function that is called at each validation; the training stops there if it returns True.

        Raises
        ------
        TrainingError, SettingError
            As `qmmlmm.learning.training.trainer.Training.run`.
        """
        settings = self.settings
        if checkpoint is not None and check_checkpoint(checkpoint).exists():
            self._load(checkpoint)
        interval = max(1, settings.steps // settings.validations)
        with progress_bar(settings.steps, "training", "step", initial=self.step, shown=progress) as bar:
            while self.step < settings.steps and self.since_best < settings.patience:
                loss = self._train_one_step()
                bar.update()
                if self.step % interval == 0 or self.step == settings.steps:
                    errors = self._validate(loss)
                    text = f"energy {errors.energy:.2f} kJ/mol, forces {errors.forces:.1f} kJ/mol/nm"
                    bar.set_postfix_str(text, refresh=False)
                    if checkpoint is not None:
                        write_checkpoint(checkpoint, self._state())
                    if until is not None and until():
                        break
        model = copy.deepcopy(self.optimisation.average)
        model.become(model.elements[:1])
        model.load_state_dict(self.best)
        response = GeneralResponse(model)
        return TrainedResponse(response, list(self.history), _errors(model, self.validation))

    def _train_one_step(self) -> float:
        total = torch.zeros(self.model.members, dtype=torch.float64)
        batch = self._batch(self.step)
        frames = sum(len(index) for _, index in batch)
        for molecule, index in batch:
            self.model.become(molecule.atomic_numbers)
            part = molecule.data.select(index)
            loss = label_loss(predict(self.model, part, train=True), part, self.settings, self._scales)
            total = total + loss * (len(index) / frames)
        mean = self.optimisation.step(total, self.step)
        self.step += 1
        return mean

    def _batch(self, step: int) -> list[tuple[_Molecule, torch.Tensor]]:
        """Return molecules and frames of a step: in each epoch a pass over all frames in a new order."""
        chunks_of_step = max(1, self.settings.batch_size // FRAMES_OF_A_MOLECULE)
        chunks = sum(-(-len(molecule.data) // FRAMES_OF_A_MOLECULE) for molecule in self.molecules)
        per_epoch = max(1, -(-chunks // chunks_of_step))
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + step // per_epoch)
        pieces = []
        for molecule in self.molecules:
            order = torch.randperm(len(molecule.data), generator=generator)
            pieces += [(molecule, index) for index in order.split(FRAMES_OF_A_MOLECULE)]
        order = torch.randperm(len(pieces), generator=generator).tensor_split(per_epoch)[step % per_epoch]
        return [pieces[k] for k in order.tolist()]

    def _validate(self, loss: float) -> InteractionErrors:
        errors = _errors(self.optimisation.average, self.validation)
        score = errors.forces / FORCE_AU_IN_OPENMM / (self._scales["forces"] ** 0.5)
        score += errors.energy / HARTREE_IN_KJ_PER_MOL / (self._scales["energy"] ** 0.5)
        if score < self.best_score:
            self.best_score = score
            average = self.optimisation.average
            average.become(average.elements[:1])
            self.best = copy.deepcopy(average.state_dict())
            self.since_best = 0
        else:
            self.since_best += 1
        self.history.append({"step": self.step, "loss": loss, **asdict(errors)})
        return errors

    def _state(self) -> dict[str, object]:
        for network in (self.model, self.optimisation.average):
            network.become(network.elements[:1])
        return {
            **self._identity(),
            **self.optimisation.state(),
            "best": self.best,
            "progress": (self.step, self.best_score, self.since_best),
            "history": self.history,
        }

    def _load(self, path: str | os.PathLike[str]) -> None:
        state = read_checkpoint(path, torch.device("cpu"), self._identity())
        try:
            self._restore(state)
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise TrainingError(f"the checkpoint {str(path)!r} is damaged ({error}); {ADVICE}") from error

    def _restore(self, state: Mapping[str, Any]) -> None:
        for network in (self.model, self.optimisation.average):
            network.become(network.elements[:1])
        self.optimisation.restore(state)
        self.best = state["best"]
        self.step, self.best_score, self.since_best = state["progress"]
        self.history = state["history"]

    def _identity(self) -> dict[str, object]:
        """Return settings, and numbers that change with the frames and the size of the model."""
        numbers = [
            len(self.molecules),
            sum(parameter.numel() for parameter in self.model.parameters()),
            *(
                float(sum(molecule.data.energy.sum() for molecule in part))
                for part in (self.molecules, self.validation)
            ),
        ]
        return {"settings": asdict(self.settings), "start": self._start, "fingerprint": numbers}


def interaction_errors(response: GeneralResponse, frames: Sequence[LabelledFrame]) -> InteractionErrors:
    """Return the errors of a response on labelled frames of any molecules that it knows.

    Parameters
    ----------
    response : GeneralResponse
    frames : sequence of LabelledFrame
        Frames with labels in the field and in a vacuum.

    Raises
    ------
    DataSetError
        If a frame lacks a label, or the response does not know its elements or its charge.
    """
    check_instance("response", response, GeneralResponse)
    found = check_frames("frames", list(frames))
    conditions = response.network.known_conditions()
    _check_molecules(found)
    _check_known(found, response.elements, conditions)
    return _errors(copy.deepcopy(response.network), _molecules(found, conditions))


def _check_molecules(frames: list[LabelledFrame]) -> None:
    """Raise DataSetError unless all frames have one method and closed shells in their lowest state."""
    methods = sorted({frame.method for frame in frames})
    if len(methods) > 1:
        raise DataSetError(f"frames: a response is that of one method, and the frames have {methods}; keep one of them")
    for frame in frames:
        if (frame.multiplicity, frame.electronic_state) != (1, 0):
            raise DataSetError(
                f"frame {frame.name!r} has multiplicity {frame.multiplicity} and state {frame.electronic_state}; a "
                "response of many molecules is for closed shells in their lowest state"
            )


def _model(
    elements: Sequence[int],
    conditions: list[Condition],
    network: ResponseSettings | None,
    members: int | None,
    seed: int,
    start: GeneralResponse | None,
) -> ResponseNetwork:
    """Return the network of a training: a new one, or a copy of that at the start."""
    settings = None if network is None else check_instance("network", network, ResponseSettings)
    count = None if members is None else check_members(members)
    if start is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return ResponseNetwork(
                elements[:1],
                (),
                settings or DEFAULT_SETTINGS,
                conditions,
                count or 1,
                response_only=True,
                elements=elements,
            )
    source = start.network
    if (settings or source.settings) != source.settings or (count or source.members) != source.members:
        raise SettingError(
            f"network and members are those of the response at the start, {source.settings} and {source.members}; "
            "leave them out, or train without start"
        )
    return copy.deepcopy(source)


def _check_known(
    frames: list[LabelledFrame],
    elements: Sequence[int],
    conditions: list[Condition],
    missing: str = "no frame of the training has; add some, or leave it out",
) -> None:
    for frame in frames:
        unknown = sorted({int(z) for z in frame.atomic_numbers} - set(elements))
        if unknown or frame.condition not in conditions:
            what = f"atoms of {unknown}" if unknown else f"the charge {frame.charge}"
            raise DataSetError(f"frame {frame.name!r} has {what}, which {missing}")


def _molecules(frames: list[LabelledFrame], conditions: list[Condition]) -> list[_Molecule]:
    groups: dict[tuple[int, ...], list[LabelledFrame]] = {}
    for frame in response_labels(frames):
        groups.setdefault(tuple(int(z) for z in frame.atomic_numbers), []).append(frame)
    return [_Molecule(list(numbers), frame_tensors(group, conditions)) for numbers, group in groups.items()]


def _label_scales(molecules: list[_Molecule], conditions: list[Condition]) -> dict[str, float]:
    """Return mean squares of the labels of neutral molecules, or of all if there is none.

    Those of ions are a hundred times larger, for a reason that is not learned: their total charge.
    """
    neutral = torch.tensor([charge == 0 for charge, *_ in conditions])
    parts = [molecule.data.select(neutral[molecule.data.condition]) for molecule in molecules]
    parts = [part for part in parts if len(part)] or [molecule.data for molecule in molecules]

    def mean_square(values: list[torch.Tensor]) -> float:
        return max(float(torch.cat([value.flatten() for value in values]).square().mean()), 1e-12)

    scales = {
        "energy": mean_square([part.energy for part in parts]),
        "forces": mean_square([part.forces for part in parts]),
        "near": mean_square([part.near_forces[part.near_charges != 0] for part in parts]),
    }
    dipoles = [part.dipole if part.dipole is not None else part.vacuum_dipole for part in parts]
    labelled = [dipole for dipole in dipoles if dipole is not None]
    if labelled:
        scales["dipole"] = mean_square(labelled)
    return scales


def _errors(model: ResponseNetwork, molecules: list[_Molecule]) -> InteractionErrors:
    energies, forces, near = [], [], []
    for molecule in molecules:
        model.become(molecule.atomic_numbers)
        data = molecule.data
        predicted = predict(model, data)
        energies.append((predicted.energy.mean(0) - data.energy).detach().abs())
        forces.append((predicted.forces.mean(0) - data.forces).detach().abs().flatten())
        difference = (predicted.near_forces.mean(0) - data.near_forces).detach()
        near.append(difference[data.near_charges != 0].square().flatten())
    model.become(model.elements[:1])
    return InteractionErrors(
        float(torch.cat(energies).mean()) * HARTREE_IN_KJ_PER_MOL,
        float(torch.cat(forces).mean()) * FORCE_AU_IN_OPENMM,
        float(torch.cat(near).mean().sqrt()) * FORCE_AU_IN_OPENMM,
    )
