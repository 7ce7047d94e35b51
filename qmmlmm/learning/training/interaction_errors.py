"""Errors of a response for many molecules: of the interaction with the surroundings, on frames of any molecules."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from qmmlmm.errors import DataSetError
from qmmlmm.learning.labels.labelled_frame import LabelledFrame, check_frames
from qmmlmm.learning.labels.response_labels import response_labels
from qmmlmm.learning.training.frame_tensors import FrameTensors, frame_tensors
from qmmlmm.learning.training.prediction import predict
from qmmlmm.ml.conditions import Condition
from qmmlmm.ml.general_response import GeneralResponse
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.setting_checks import check_instance
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL


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
class MoleculeFrames:
    """The frames of molecules with the same atoms in the same order.

    Parameters
    ----------
    atomic_numbers : list of int
    data : FrameTensors
    """

    atomic_numbers: list[int]
    data: FrameTensors


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
    check_closed_shells(found)
    check_known(found, response.elements, conditions)
    return errors_of_network(copy.deepcopy(response.network), frames_by_molecule(found, conditions))


def check_closed_shells(frames: list[LabelledFrame]) -> None:
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


def check_known(
    frames: list[LabelledFrame],
    elements: Sequence[int],
    conditions: list[Condition],
    missing: str = "no frame of the training has; add some, or leave it out",
) -> None:
    """Raise DataSetError unless a response knows the elements and charges of frames; `missing` says who does not."""
    for frame in frames:
        unknown = sorted({int(z) for z in frame.atomic_numbers} - set(elements))
        if unknown or frame.condition not in conditions:
            what = f"atoms of {unknown}" if unknown else f"the charge {frame.charge}"
            raise DataSetError(f"frame {frame.name!r} has {what}, which {missing}")


def frames_by_molecule(frames: list[LabelledFrame], conditions: list[Condition]) -> list[MoleculeFrames]:
    """Return the labels of the interaction of frames, in groups with the same atoms in the same order."""
    groups: dict[tuple[int, ...], list[LabelledFrame]] = {}
    for frame in response_labels(frames):
        groups.setdefault(tuple(int(z) for z in frame.atomic_numbers), []).append(frame)
    return [MoleculeFrames(list(numbers), frame_tensors(group, conditions)) for numbers, group in groups.items()]


def errors_of_network(model: ResponseNetwork, molecules: list[MoleculeFrames]) -> InteractionErrors:
    """Return the errors of a network, which takes the place of each molecule, and that of its first element last."""
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
