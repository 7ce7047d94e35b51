"""Trainings that learn the response of a molecule alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from qmmlmm import MLPotential
from qmmlmm.coupling import Difference, LevelOfTheory, RegionSpecification
from qmmlmm.embedding.module_evaluator import ModuleEvaluator
from qmmlmm.errors import SettingError
from qmmlmm.geometry import Geometry
from qmmlmm.learning import (
    DataSetError,
    ResponseSettings,
    TrainingSettings,
    difference_labels,
    fine_tune,
    learning_curve,
    train,
)
from qmmlmm.learning.labels.frame_field import field_of_frame
from qmmlmm.learning.labels.response_labels import response_labels
from qmmlmm.learning.training.accuracy import accuracy
from qmmlmm.learning.training.frame_tensors import frame_tensors
from qmmlmm.learning.training.prediction import predict
from qmmlmm.ml import EmbeddedPotential, FixedResponse, ResponseModel
from qmmlmm.units import FORCE_AU_IN_OPENMM
from tests.learning.teacher import NUMBERS, Teacher
from tests.toy_potentials import ELEMENTS, Springs, fixed_in_openmm

SMALL = ResponseSettings(features=16, layers=1, radial_functions=8, near_functions=6, tensor_features=4)
SHORT = TrainingSettings(steps=60, batch_size=8, learning_rate=1e-2, validations=4)
WITHOUT_NEAR = replace(SMALL, near_cutoff=0.0)
LONG = TrainingSettings(steps=1500, batch_size=16, learning_rate=1e-2, validations=10)
# Root mean square errors of interaction energies, forces and forces on near charges, relative to these: of the short
# training, and of the long one, which has 0.004, 0.023 and 0.009.
LEARNED, LEARNED_WELL = 0.3, (0.008, 0.035, 0.015)
SAME_WEIGHTS = 1e-5  # after three steps, whose labels differ by round-off
BONDS = [(0, 1), (0, 2), (0, 3)]


class FixedTeacher(Teacher):
    """The same molecule, whose energy in the field is that of a `FixedResponse`, with or without its near charges."""

    def __init__(self, rng: np.random.Generator, near: float = 1.0) -> None:
        super().__init__(rng)
        empty, numbers = FixedResponse(NUMBERS, BONDS), np.random.default_rng(5)
        parts = [0.2 * numbers.normal(size=size) for size in empty.sizes]
        # A field only lowers the energy.
        for k in (2, 3, 4):
            parts[k] = np.abs(parts[k]) * (10.0, 2.0, 0.5)[k - 2]
        parts[5:] = [near * part for part in parts[5:]]
        distances = empty.mean_distances(torch.tensor(self.start)[None]).numpy()
        self.response = FixedResponse(NUMBERS, BONDS, 0, distances, np.concatenate(parts))

    def interaction(self, x, near, charges):
        _, potential, slope = super().interaction(x, near, charges)
        energy = self.response.energy(self.response.coefficients, x, potential, -slope, near, charges)
        return energy, potential, slope

    def frame(self, name="t", k=5, spread=5.0):
        # The dipole of the formula is not that of the response.
        return replace(super().frame(name, k, spread), vacuum_dipole=None)


@pytest.fixture
def teacher(rng):
    return FixedTeacher(rng)


def relative_errors(model, frames):
    """Return the errors of interaction energies and forces on region and near charges, as parts of what they are."""
    evaluator = ModuleEvaluator(RegionSpecification("mol", frames[0].atomic_numbers, 0, 1), model)
    found = [evaluator.evaluate(Geometry(frame.positions), field_of_frame(frame)) for frame in frames]
    pairs = [
        (
            [part(evaluation) for evaluation in found],
            [part_of_label(frame) for frame in frames],
        )
        for part, part_of_label in (
            (lambda e: e.energy, lambda f: f.energy - f.vacuum_energy),
            (lambda e: -e.gradient, lambda f: f.forces - f.vacuum_forces),
            (lambda e: -e.charge_gradient, lambda f: f.near.forces),
        )
    ]
    return [
        float(np.sqrt(np.mean(np.square(np.subtract(one, other))) / np.mean(np.square(other)))) for one, other in pairs
    ]


def test_labels_of_a_response_are_those_in_the_field_less_those_in_a_vacuum(teacher):
    frames = teacher.frames(2)
    for frame, found in zip(frames, response_labels(frames), strict=True):
        assert found.energy == frame.energy - frame.vacuum_energy
        np.testing.assert_array_equal(found.forces, frame.forces - frame.vacuum_forces)
        assert (found.vacuum_energy, found.vacuum_forces) == (None, None)
        np.testing.assert_array_equal(found.near.forces, frame.near.forces)
        assert found.method == "response of formula"
    in_vacuum = frames[0].without_surroundings()
    for frame in (in_vacuum, replace(frames[0], vacuum_forces=None), replace(frames[0], vacuum_energy=None)):
        with pytest.raises(DataSetError, match=r"frame 't-0' lacks the field, or energy and forces in a vacuum"):
            response_labels([frame])


def test_a_response_is_learned(teacher):
    frames = teacher.frames(24)
    trained = train(frames, network=SMALL, training=SHORT, response_only=True)
    assert trained.model.response_only
    errors = relative_errors(trained.model, teacher.frames(10))
    assert max(errors) < LEARNED
    # The errors of the training are those of the interaction, too.
    assert np.isnan(trained.validation.vacuum_energy)
    again = fine_tune(trained.model, teacher.frames(6), frames, training=replace(SHORT, steps=4))
    assert again.model.response_only
    with pytest.raises(SettingError, match="with no base; leave base out"):
        fine_tune(trained.model, frames[:4], frames, base=fixed_in_openmm([0.0, 0.0, 0.0, 0.0]))


@pytest.mark.slow
def test_charges_dipoles_polarisabilities_and_flow_of_a_fixed_response_are_learned(rng):
    teacher = FixedTeacher(rng, near=0.0)
    trained = train(teacher.frames(200), network=WITHOUT_NEAR, training=LONG, response_only=True)
    errors = relative_errors(trained.model, teacher.frames(40))
    assert all(error < bound for error, bound in zip(errors, LEARNED_WELL, strict=True))


@pytest.mark.slow
def test_what_base_and_response_lack_is_learned_as_a_difference(teacher):
    frames, test = teacher.frames(24), teacher.frames(10)
    response = ResponseModel(train(frames, network=SMALL, training=SHORT, response_only=True).model)
    base = EmbeddedPotential(MLPotential(Springs(0.01), elements=ELEMENTS), response)
    trained = train(frames, network=SMALL, training=SHORT, base=base)
    assert trained.model.difference == Difference(LevelOfTheory("formula"), base.level_of_theory)
    rest = difference_labels(test, base).frames
    data = frame_tensors(rest, [(0, 1, 0)])
    before = float(data.forces.abs().mean()) * FORCE_AU_IN_OPENMM
    assert accuracy(predict(trained.model, data), data).forces < LEARNED * before


def test_energies_in_a_vacuum_have_no_effect(teacher):
    frames = teacher.frames(8)
    moved = [replace(f, energy=f.energy - 64.0, vacuum_energy=f.vacuum_energy - 64.0) for f in frames]
    few = replace(SHORT, steps=3, batch_size=4)
    one, other = (train(f, network=SMALL, training=few, response_only=True).model.state_dict() for f in (frames, moved))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=SAME_WEIGHTS)


def test_a_learning_curve_of_responses_has_errors_of_the_interaction(teacher):
    few = replace(SHORT, steps=2, batch_size=4)
    ((size, found),) = learning_curve(
        teacher.frames(6), teacher.frames(3), [6], network=SMALL, training=few, response_only=True
    )
    assert size == 6
    assert np.isnan(found.vacuum_forces)
    assert found.forces > 0.0


def test_what_a_response_does_not_have_is_refused(teacher):
    frames = teacher.frames(6)
    with pytest.raises(SettingError, match=r"a response is learned .* with no base; leave base out"):
        train(frames, base=fixed_in_openmm([0.0, 0.0, 0.0, 0.0]), response_only=True)
    with pytest.raises(SettingError, match="dispersion of the network is a part of the energy in a vacuum"):
        train(frames, network=replace(SMALL, dispersion="b3lyp-d3bj"), response_only=True)
    with pytest.raises(SettingError, match="response=False of the network leaves nothing to learn"):
        train(frames, network=replace(SMALL, response=False), response_only=True)
    with pytest.raises(SettingError, match="response_only is True or False, got 1"):
        train(frames, response_only=1)
    with pytest.raises(DataSetError, match="lacks the field, or energy and forces in a vacuum"):
        train([frame.without_surroundings() for frame in frames], response_only=True)


def test_labels_of_a_response_and_of_whole_energies_are_not_mixed_up(teacher):
    frames = teacher.frames(6)
    with pytest.raises(DataSetError, match=r"the model is a potential with its energy, .* of 'response of formula'"):
        train(response_labels(frames), network=SMALL, training=SHORT)
