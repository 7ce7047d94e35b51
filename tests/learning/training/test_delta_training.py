"""Trainings that learn the difference to a base."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qmmlmm import OpenMMPotential, Term
from qmmlmm.coupling import Difference, LevelOfTheory, Region
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
from qmmlmm.learning.training.accuracy import accuracy
from qmmlmm.learning.training.frame_tensors import frame_tensors
from qmmlmm.learning.training.prediction import predict
from qmmlmm.learning.training.trainer import Training, create_model
from tests.learning.loop.water_case import make_source, springs, waters

NETWORK = ResponseSettings(features=8, layers=1, radial_functions=6, near_cutoff=0.0, tensor_features=0)
QUICK = TrainingSettings(steps=120, batch_size=8, learning_rate=1e-2, validations=4)
# What an untrained network of this size has is 300 times more in energy and 100 times more in forces.
ZERO_ENERGY, ZERO_FORCE = 0.05, 2.0  # kJ/mol, kJ/(mol nm)


def water_frames(count=16):
    """Return labels of springs and fixed charges among other waters."""
    topology, system, positions = waters()
    source = make_source(topology, system, Term(springs(), Region("water", [0, 1, 2]), embedding="electrostatic"))
    rng = np.random.default_rng(3)
    moved = [positions + 0.004 * rng.normal(size=positions.shape) for _ in range(count)]
    return [source.label(Geometry(x), f"w-{k}") for k, x in enumerate(moved)]


def weaker() -> OpenMMPotential:
    """Return springs that differ from those of the labels in their charges."""
    system = springs().system
    for k, charge in enumerate((-0.7, 0.35, 0.35)):
        system.getForce(1).setParticleParameters(k, charge, 0.1, 0.0)
    return OpenMMPotential(system)


@pytest.fixture(scope="module")
def frames():
    return water_frames()


def errors(model, frames):
    data = frame_tensors(frames, model.known_conditions())
    return accuracy(predict(model, data), data)


def test_a_difference_that_is_zero_is_learned_as_zero(frames):
    trained = train(frames[:12], network=NETWORK, training=QUICK, base=springs())
    left = errors(trained.model, difference_labels(frames[12:], springs()).frames)
    assert left.energy < ZERO_ENERGY
    assert left.forces < ZERO_FORCE
    assert left.near_forces < ZERO_FORCE
    start = errors(create_model(frames, NETWORK), frames[12:])
    assert start.forces > 10.0 * ZERO_FORCE
    assert trained.model.difference == Difference(LevelOfTheory("springs"), springs().level_of_theory)


@pytest.mark.slow
def test_a_difference_is_learned_better_than_the_whole(frames):
    train_frames, test = frames[:12], frames[12:]
    base = weaker()
    difference = train(train_frames, network=NETWORK, training=QUICK, base=base)
    whole = train(train_frames, network=NETWORK, training=QUICK)
    of_difference = errors(difference.model, difference_labels(test, base).frames)
    of_whole = errors(whole.model, test)
    assert of_difference.forces < 0.5 * of_whole.forces
    assert of_difference.near_forces < 0.5 * of_whole.near_forces


def test_a_learning_curve_is_of_differences(frames):
    short = replace(QUICK, steps=6)
    ((size, found),) = learning_curve(frames[:10], frames[10:], [8], network=NETWORK, training=short, base=weaker())
    model = train(frames[:8], network=NETWORK, training=short, base=weaker()).model
    assert size == 8
    assert found == errors(model, difference_labels(frames[10:], weaker()).frames)
    assert learning_curve(frames[:10], frames[10:], [], network=NETWORK, base=weaker()) == []


def test_a_model_of_a_difference_is_fine_tuned_with_its_base_alone(frames):
    short = replace(QUICK, steps=4)
    model = train(frames[:8], network=NETWORK, training=short, base=weaker()).model
    again = fine_tune(model, frames[8:12], frames[:8], training=short, base=weaker())
    assert again.model.difference == model.difference
    with pytest.raises(DataSetError, match="the model is the difference springs - OpenMMPotential, the frames have"):
        fine_tune(model, frames[8:12], frames[:8], training=short)
    with pytest.raises(DataSetError, match="give the base of the model's training"):
        fine_tune(model, frames[8:12], frames[:8], training=short, base=springs())
    full = train(frames[:8], network=NETWORK, training=short).model
    with pytest.raises(DataSetError, match="the model is the energy of one level; give the base"):
        fine_tune(full, frames[8:12], frames[:8], training=short, base=weaker())


def test_labels_of_the_target_do_not_train_a_difference(frames):
    labels = difference_labels(frames, weaker())
    model = create_model(labels.frames, NETWORK, difference=labels.difference)
    with pytest.raises(DataSetError, match="give the base, which is then subtracted from labels of the target"):
        Training(model, frames[:8], frames[8:], QUICK)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": 5}, "base is a potential such as XTBPotential"),
        ({"base": "gfn2-xtb"}, "base is a potential such as XTBPotential"),
        ({"base": springs(), "network": ResponseSettings(dispersion="b3lyp-d3bj")}, "with a base leave it out"),
    ],
)
def test_a_wrong_base_is_refused(frames, changes, message):
    with pytest.raises(SettingError, match=message):
        train(frames, **{"network": NETWORK, "training": QUICK} | changes)
    with pytest.raises(SettingError, match=message):
        learning_curve(frames[:8], frames[8:], [6], **{"network": NETWORK, "training": QUICK} | changes)
