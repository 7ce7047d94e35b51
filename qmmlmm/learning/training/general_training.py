"""Training of one response for many molecules."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from qmmlmm.errors import SettingError
from qmmlmm.learning.labels.labelled_frame import LabelledFrame, check_frames
from qmmlmm.learning.training.frame_tensors import conditions_of
from qmmlmm.learning.training.interaction_errors import (
    InteractionErrors,
    MoleculeFrames,
    check_closed_shells,
    check_known,
    errors_of_network,
    frames_by_molecule,
)
from qmmlmm.learning.training.label_loss import label_loss
from qmmlmm.learning.training.prediction import predict
from qmmlmm.learning.training.resumable_training import ResumableTraining
from qmmlmm.learning.training.trainer import check_members
from qmmlmm.learning.training.training_settings import DEFAULT_TRAINING, TrainingSettings
from qmmlmm.ml.conditions import Condition
from qmmlmm.ml.general_response import GeneralResponse
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import DEFAULT_SETTINGS, ResponseSettings
from qmmlmm.setting_checks import check_instance
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL

FRAMES_OF_A_MOLECULE = 2
"""Largest number of frames of one molecule in a step, which then has several molecules."""


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


class GeneralTraining(ResumableTraining[InteractionErrors, TrainedResponse]):
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
        check_closed_shells([*train, *kept])
        check_instance("training", settings, TrainingSettings)
        elements = sorted({int(z) for frame in train for z in frame.atomic_numbers})
        conditions = conditions_of(train)
        if start is not None:
            check_instance("start", start, GeneralResponse)
            elements, conditions = start.elements, start.network.known_conditions()
            check_known(train, elements, conditions, "the response at the start does not know; train without start")
        check_known(kept, elements, conditions)
        self.molecules = frames_by_molecule(train, conditions)
        self.validation = frames_by_molecule(kept, conditions)
        self._start = None if start is None else start.fingerprint()
        model = _model(elements, conditions, network, members, settings.seed, start).train()
        super().__init__(model, settings, torch.device("cpu"))
        self._scales = _label_scales(self.molecules, conditions)

    def _losses(self, step: int) -> torch.Tensor:
        total = torch.zeros(self.model.members, dtype=torch.float64)
        batch = self._batch(step)
        frames = sum(len(index) for _, index in batch)
        for molecule, index in batch:
            self.model.become(molecule.atomic_numbers)
            part = molecule.data.select(index)
            loss = label_loss(predict(self.model, part, train=True), part, self.settings, self._scales)
            total = total + loss * (len(index) / frames)
        return total

    def _batch(self, step: int) -> list[tuple[MoleculeFrames, torch.Tensor]]:
        """Return molecules and frames of a step: in each epoch a pass over all frames in a new order."""
        chunks_of_step = max(1, self.settings.batch_size // FRAMES_OF_A_MOLECULE)
        chunks = sum(-(-len(molecule.data) // FRAMES_OF_A_MOLECULE) for molecule in self.molecules)
        per_epoch = max(1, -(-chunks // chunks_of_step))
        generator = self._generator(step, per_epoch)
        pieces = []
        for molecule in self.molecules:
            order = torch.randperm(len(molecule.data), generator=generator)
            pieces += [(molecule, index) for index in order.split(FRAMES_OF_A_MOLECULE)]
        order = torch.randperm(len(pieces), generator=generator).tensor_split(per_epoch)[step % per_epoch]
        return [pieces[k] for k in order.tolist()]

    def _validation_errors(self) -> InteractionErrors:
        return errors_of_network(self.average, self.validation)

    def _score(self, errors: InteractionErrors) -> float:
        score = errors.forces / FORCE_AU_IN_OPENMM / (self._scales["forces"] ** 0.5)
        return score + errors.energy / HARTREE_IN_KJ_PER_MOL / (self._scales["energy"] ** 0.5)

    def _result(self) -> TrainedResponse:
        model = copy.deepcopy(self.average)
        model.become(model.elements[:1])
        model.load_state_dict(self.best)
        response = GeneralResponse(model)
        return TrainedResponse(response, list(self.history), errors_of_network(model, self.validation))

    def _state(self) -> dict[str, object]:
        self._leave_molecules()
        return super()._state()

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._leave_molecules()
        super()._restore(state)

    def _leave_molecules(self) -> None:
        """Bring the networks into the form in which checkpoints have them, for any last molecule."""
        for network in (self.model, self.average):
            network.become(network.elements[:1])

    def _identity(self) -> dict[str, object]:
        numbers = [
            len(self.molecules),
            sum(parameter.numel() for parameter in self.model.parameters()),
            *(
                float(sum(molecule.data.energy.sum() for molecule in part))
                for part in (self.molecules, self.validation)
            ),
        ]
        return {"settings": asdict(self.settings), "start": self._start, "fingerprint": numbers}


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


def _label_scales(molecules: list[MoleculeFrames], conditions: list[Condition]) -> dict[str, float]:
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
