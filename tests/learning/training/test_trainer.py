from __future__ import annotations

import io
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from qmmlmm.durable_files import sealed, unsealed
from qmmlmm.errors import SettingError, TrainingError
from qmmlmm.learning import DataSetError
from qmmlmm.learning.training.accuracy import accuracy
from qmmlmm.learning.training.checkpoint_file import CHECKPOINT_FORMAT
from qmmlmm.learning.training.fit import fine_tune, learning_curve, split_frames, train
from qmmlmm.learning.training.frame_tensors import frame_tensors
from qmmlmm.learning.training.prediction import predict
from qmmlmm.learning.training.trainer import Training, create_model, find_bonds
from qmmlmm.learning.training.training_settings import TrainingSettings
from qmmlmm.learning.training.uncertainty import force_uncertainty
from qmmlmm.ml.response_settings import ResponseSettings
from tests.learning.teacher import Teacher

SMALL = ResponseSettings(features=16, radial_functions=8, near_cutoff=0.0)
LONG = TrainingSettings(steps=200, batch_size=8, learning_rate=1e-2, validations=4)
SHORT = TrainingSettings(steps=40, batch_size=4, validations=4, learning_rate=1e-2)
# What is left of the errors that the untrained network has; of three seeds the worst has 0.13, 0.05 and 0.03.
LEARNED_FORCES, LEARNED_NEAR_FORCES, LEARNED_ENERGY = 0.15, 0.08, 0.05
# hartree, hartree/bohr; a least-squares fit in float64 to gradients of the order of 0.1
SAME_FIT = 1e-9


def errors(model, frames):
    data = frame_tensors(frames, [(0, 1, 0)])
    return accuracy(predict(model, data), data)


@pytest.fixture(scope="module")
def learned():
    """A teacher, the frames that a model has learned from it, and the training's result."""
    teacher = Teacher(np.random.default_rng(11))
    frames = teacher.frames(30)
    return teacher, frames, train(frames, network=SMALL, training=LONG)


def test_a_formula_is_learned(learned):
    teacher, frames, trained = learned
    test = teacher.frames(20)
    start = errors(create_model(frames, SMALL), test)
    result = errors(trained.model, test)
    # The linear part has the springs already; their coupling and what the surroundings do is left.
    assert result.forces < LEARNED_FORCES * start.forces
    assert result.near_forces < LEARNED_NEAR_FORCES * start.near_forces
    assert result.energy < LEARNED_ENERGY * start.energy
    assert trained.history[-1]["step"] == 200


def test_dispersion_of_the_labels_is_taken_out_of_the_training_and_put_back(teacher):
    pytest.importorskip("tad_dftd3")
    frames = teacher.frames(8)
    network = replace(SMALL, dispersion="pbe-d3bj")
    tail = create_model(frames, network).dispersion
    assert tail is not None

    def with_dispersion(frame):
        leaf = torch.tensor(frame.positions, requires_grad=True)
        energy = tail(leaf)
        forces = -torch.autograd.grad(energy, leaf)[0].numpy()
        return replace(
            frame,
            energy=frame.energy + energy.item(),
            forces=frame.forces + forces,
            vacuum_energy=frame.vacuum_energy + energy.item(),
            vacuum_forces=frame.vacuum_forces + forces,
        )

    pair = []
    for settings, part in ((SMALL, frames), (network, [with_dispersion(frame) for frame in frames])):
        training = Training(create_model(part, settings), part, part, SHORT)
        found = predict(training.average, training.data)
        pair.append((training, found, training.loss(training.data).item()))
    (plain, bare, loss), (dispersed, full, other_loss) = pair
    # The fits of the linear part are of one and the same residual, and so are the losses.
    expected_energy = dispersed.data.energy - plain.data.energy
    expected_forces = dispersed.data.forces - plain.data.forces
    torch.testing.assert_close(full.energy[0] - bare.energy[0], expected_energy, rtol=0, atol=SAME_FIT)
    torch.testing.assert_close(full.forces[0] - bare.forces[0], expected_forces, rtol=0, atol=SAME_FIT)
    assert expected_energy.std() > 100 * SAME_FIT
    assert expected_forces.std() > 100 * SAME_FIT
    assert other_loss == pytest.approx(loss, rel=1e-5)


def test_training_goes_on_from_a_checkpoint_with_the_same_bits(tmp_path, teacher):
    frames, kept = teacher.frames(10), teacher.frames(4)
    whole = Training(create_model(frames, SMALL, members=2), frames, kept, SHORT).run()

    path = tmp_path / "checkpoint.pt"
    calls: list[int] = []
    first = Training(create_model(frames, SMALL, members=2), frames, kept, SHORT)
    first.run(path, until=lambda: bool(calls.append(1)) or len(calls) == 2)
    assert first.step == 20
    second = Training(create_model(frames, SMALL, members=2, seed=99), frames, kept, SHORT)
    resumed = second.run(path)

    assert second.step == 40
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert whole.history == resumed.history


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_trains_the_same_model(teacher):
    frames, kept = teacher.frames(10), teacher.frames(4)
    here, there = (
        train(frames, network=SMALL, training=SHORT, members=2, validation=kept, device=device)
        for device in ("cpu", "cuda")
    )
    assert {parameter.device.type for parameter in there.model.parameters()} == {"cpu"}
    # Rounding of single precision grows in 40 steps of the optimiser.
    assert there.validation.forces == pytest.approx(here.validation.forces, rel=1e-2)
    assert there.validation.energy == pytest.approx(here.validation.energy, rel=1e-2)


def test_seeds_decide(teacher):
    frames, kept = teacher.frames(8), teacher.frames(3)

    def embedding(seed):
        settings = replace(SHORT, steps=8, seed=seed)
        return train(frames, network=SMALL, training=settings, validation=kept).model.embedding

    assert torch.equal(embedding(3), embedding(3))
    assert not torch.equal(embedding(3), embedding(4))


def test_importing_and_training_leaves_the_random_state_alone(teacher):
    frames, kept = teacher.frames(6), teacher.frames(3)
    before = torch.get_rng_state()
    train(frames, network=SMALL, training=replace(SHORT, steps=4), validation=kept)
    assert torch.equal(before, torch.get_rng_state())


def test_members_are_trained_as_if_alone(teacher):
    frames, kept = teacher.frames(8), teacher.frames(3)
    settings = replace(SHORT, steps=5, validations=1)
    both = create_model(frames, SMALL, members=2)
    alone = create_model(frames, SMALL, members=1, seed=5)
    named = dict(both.named_parameters())
    state = {key: v[1:] if key in named else v for key, v in both.state_dict().items()}
    alone.load_state_dict(state)
    pair = Training(both, frames, kept, settings)
    one = Training(alone, frames, kept, settings)
    for training in (pair, one):
        training.run()
        assert training.step == 5
    for key, value in one.model.named_parameters():
        # The loss sums over members; weight decay and clipping act on each alone.
        torch.testing.assert_close(value[0], dict(pair.model.named_parameters())[key][1], rtol=1e-3, atol=2e-5)


def test_a_checkpoint_of_another_training_is_refused(tmp_path, teacher):
    frames, kept = teacher.frames(8), teacher.frames(3)
    path = tmp_path / "checkpoint.pt"
    Training(create_model(frames, SMALL), frames, kept, SHORT).save(path)
    other = Training(create_model(frames, SMALL), frames[1:], kept, SHORT)
    with pytest.raises(TrainingError, match="another training: fingerprint: "):
        other.run(path)
    with pytest.raises(TrainingError, match="another training: settings have "):
        Training(create_model(frames, SMALL), frames, kept, replace(SHORT, seed=2)).run(path)


def content(path):
    return torch.load(io.BytesIO(unsealed(path.read_bytes())), weights_only=True)


def write_content(path, state):
    """Write a checkpoint whose checksum is right."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path.write_bytes(sealed(buffer.getvalue()))


def test_no_flipped_bit_of_a_checkpoint_is_accepted(tmp_path, teacher):
    frames, path = teacher.frames(8), tmp_path / "checkpoint.pt"
    training = Training(create_model(frames, SMALL), frames, frames[:2], SHORT)
    training.save(path)
    good, places = path.read_bytes(), random.Random(3)
    for _ in range(40):
        bad = bytearray(good)
        bad[places.randrange(len(bad))] ^= 1 << places.randrange(8)
        path.write_bytes(bytes(bad))
        with pytest.raises(TrainingError, match=r"is no checkpoint of a training, or is damaged"):
            training.load(path)


def test_a_checkpoint_of_another_format_is_refused_with_what_to_do(tmp_path, teacher):
    frames, kept = teacher.frames(8), teacher.frames(3)
    path = tmp_path / "checkpoint.pt"
    training = Training(create_model(frames, SMALL), frames, kept, SHORT)
    training.save(path)
    state = content(path)
    write_content(path, {**state, "format": CHECKPOINT_FORMAT + 1})
    with pytest.raises(TrainingError, match=r"checkpoint\.pt' has the format 3.*delete it to start from scratch"):
        training.load(path)
    del state["format"]
    write_content(path, state)
    with pytest.raises(TrainingError, match="has the format None"):
        training.load(path)


def test_training_stops_when_nothing_improves(teacher):
    frames, kept = teacher.frames(6), teacher.frames(3)
    settings = TrainingSettings(steps=400, validations=400, patience=3, learning_rate=1e-12, averaging=0.0)
    training = Training(create_model(frames, SMALL), frames, kept, settings)
    training.best_score = 0.0  # nothing is better
    training.run()
    assert training.step == 3


def test_labels_that_are_far_off_end_the_training_with_a_reason(teacher):
    frames = teacher.frames(6)
    training = Training(create_model(frames, SMALL), frames, frames, SHORT)
    training.data.energy.fill_(float("inf"))
    with pytest.raises(TrainingError, match="the loss is"):
        training.run()


def test_fine_tuning_learns_the_new_and_keeps_the_old(learned):
    teacher, old, trained = learned
    new = teacher.frames(10, spread=4.5)  # charges much closer
    model = trained.model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tuned = fine_tune(model, new, old, training=replace(LONG, steps=100, learning_rate=2e-3)).model
    test_old, test_new = teacher.frames(15), teacher.frames(15, spread=4.5)
    assert errors(tuned, test_new).forces < errors(model, test_new).forces
    assert errors(tuned, test_old).forces < 1.1 * errors(model, test_old).forces
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_bonds_are_found_from_distances(teacher):
    frames = teacher.frames(5)
    # Oxygen binds the two hydrogens and the carbon; nothing else is within reach.
    assert find_bonds(frames) == [(0, 1), (0, 2), (0, 3)]


def test_a_split_keeps_every_frame_once(teacher):
    frames = teacher.frames(10)
    kept, validation = split_frames(frames, 0.3)
    assert sorted(f.name for f in kept + validation) == sorted(f.name for f in frames)
    assert len(validation) == 3
    with pytest.raises(DataSetError, match="too few"):
        split_frames(frames[:3])


@pytest.mark.parametrize(("vacuum_weight", "labelled"), [(0.5, True), (0.0, True), (0.5, False)])
def test_variances_of_separately_learned_parts_are_added(teacher, vacuum_weight, labelled):
    """A vacuum of its own has labels of its own: without them its errors go with those of the interaction."""
    frames = teacher.frames(8)
    if not labelled:
        frames = [replace(frame, vacuum_energy=None, vacuum_forces=None) for frame in frames]
    settings = replace(SHORT, vacuum_weight=vacuum_weight)
    model = Training(create_model(frames, SMALL, members=3), frames[:5], frames[5:], settings).run().model
    separate = vacuum_weight > 0.0 and labelled
    assert bool(model.separate_parts) == separate
    data = frame_tensors(frames, [(0, 1, 0)])
    predicted = predict(model, data)
    forces, alone = predicted.forces.detach().numpy(), predicted.vacuum_forces.detach().numpy()
    plain = np.var(forces, axis=0, ddof=1)
    parts = np.var(alone, axis=0, ddof=1) + np.var(forces - alone, axis=0, ddof=1)
    assert np.abs(parts - plain).max() > 0.05 * plain.max()
    found = force_uncertainty(predicted, data)
    wanted = 49614.7526 * np.sqrt((parts if separate else plain).mean(axis=-1))
    np.testing.assert_allclose(found.atom_spread, wanted, rtol=1e-7)
    # The scale was found with the same spread.
    kept = frame_tensors(frames[5:], [(0, 1, 0)])
    assert float(model.uncertainty_scale) == pytest.approx(force_uncertainty(predict(model, kept), kept).scale())


def test_accuracy_is_what_numpy_makes_of_the_same_numbers(teacher):
    frames = teacher.frames(6)
    model = create_model(frames, SMALL, members=2)
    data = frame_tensors(frames, [(0, 1, 0)])
    predicted = predict(model, data)
    result = accuracy(predicted, data)
    error = (predicted.energy.detach().numpy().mean(0) - data.energy.numpy()) * 2625.4996394799
    forces = (predicted.forces.detach().numpy().mean(0) - data.forces.numpy()) * 49614.7526
    assert result.energy == pytest.approx(np.abs(error - error.mean()).mean(), rel=1e-7)
    assert result.energy_shift == pytest.approx(error.mean(), rel=1e-7)
    assert result.forces == pytest.approx(np.abs(forces).mean(), rel=1e-7)


def test_only_weights_of_the_answer_to_near_charges_decay(teacher):
    frames = teacher.frames(8)
    lengths = {}
    for decay in (0.0, 50.0):
        model = create_model(frames, replace(SMALL, near_cutoff=5.0, near_functions=4, near_features=4))
        settings = replace(SHORT, near_decay=decay, learning_rate=1e-4, validations=20)
        training = Training(model, frames, frames, settings)
        training.run(until=lambda: True)  # at the first validation
        assert training.step == 2
        lengths[decay] = {name: float(weight.detach().norm()) for name, weight in model.named_parameters()}
    kept = {name: lengths[50.0][name] / length for name, length in lengths[0.0].items() if length > 0.1}
    near = {name: share for name, share in kept.items() if name.startswith(("near_", "vector_head"))}
    assert len(near) > 5
    # Two steps of the warm-up, at a half and at the whole of the learning rate, take 1 - 0.0025 and 1 - 0.005.
    assert max(near.values()) < 0.994
    assert min(share for name, share in kept.items() if name not in near) > 0.999


def test_nothing_of_a_training_step_stays_on_another_device(teacher):
    """On the device "meta", whose tensors have no values: an operation with one from elsewhere fails, as on a GPU."""
    frames = teacher.frames(6)
    network = replace(SMALL, near_cutoff=5.0, near_functions=4, near_features=4)
    training = Training(create_model(frames, network, members=2), frames, frames, SHORT)
    training.model.to("meta")
    training.device = torch.device("meta")
    loss = training.loss(training.data.to("meta"))
    loss.sum().backward()
    assert loss.device.type == "meta"
    assert {weight.grad.device.type for weight in training.model.parameters() if weight.grad is not None} == {"meta"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({"validation": v}, "validation is a finite number above 0") for v in (0, -0.1, 0.6, 1, True, "x", None)),
        *(({"validation": v}, "validation is a finite number above 0") for v in (math.nan, math.inf)),
        ({"validation": []}, "validation has one LabelledFrame or more, got none"),
        ({"validation": [5]}, "each of validation is an instance of LabelledFrame"),
        *(({"members": value}, "members is a whole number") for value in (0, -1, 1.5, True, "2", None, 10**30)),
        *(({"device": value}, "device 'f?o?o?x?p?u?") for value in ("foo", "", "xpu", "cuda:99")),
        *(({"device": value}, "device is a text or a torch.device") for value in (5, None, [], True)),
        *(({"network": v}, "network is an instance of ResponseSettings") for v in (None, 5, {}, ResponseSettings)),
        *(({"training": value}, "training is an instance of TrainingSettings") for value in (None, 5, {})),
        *(({"frames": value}, "frames") for value in (None, 5, "x", [], [5])),
        *(({"checkpoint": value}, "checkpoint is a path") for value in (5, b"x", "", "a\0b", True)),
        ({"checkpoint": "no/such/folder/c.pt"}, "the folder 'no/such/folder' is not there"),
        ({"checkpoint": "."}, "checkpoint is a file, '.' is a folder"),
    ],
)
def test_a_wrong_argument_of_a_training_is_refused_by_name(teacher, arguments, message):
    given = {"frames": teacher.frames(8), "network": SMALL, "training": SHORT, **arguments}
    with pytest.raises((SettingError, DataSetError), match=message):
        train(given.pop("frames"), **given)


@pytest.mark.parametrize("found", [b"", b"nonsense", b"PK\x03\x04", None])
def test_what_is_no_checkpoint_is_refused_with_what_to_do(tmp_path, teacher, found):
    path = tmp_path / "checkpoint.pt"
    if found is None:
        write_content(path, [1.0])
    else:
        path.write_bytes(found)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt' is no checkpoint of a training.*delete it"):
        train(teacher.frames(8), network=SMALL, training=SHORT, checkpoint=path)


def test_a_damaged_checkpoint_is_refused(tmp_path, teacher):
    frames, path = teacher.frames(8), tmp_path / "checkpoint.pt"
    training = Training(create_model(frames, SMALL), frames, frames[:2], SHORT)
    training.save(path)
    state = content(path)
    for key, value in (("progress", 5), ("model", {}), ("optimizer", None)):
        write_content(path, {**state, key: value})
        with pytest.raises(TrainingError, match=r"checkpoint\.pt' is damaged"):
            training.load(path)


def test_a_checkpoint_that_cannot_be_written_is_named(tmp_path, teacher):
    frames = teacher.frames(8)
    training = Training(create_model(frames, SMALL), frames, frames[:2], SHORT)
    with pytest.raises(TrainingError, match=r"no/c\.pt' cannot be written .*No such file.*; choose another file"):
        training.save(tmp_path / "no" / "c.pt")


def test_frames_of_another_molecule_are_refused(teacher):
    frames = teacher.frames(8)
    other = [replace(frame, atomic_numbers=np.array([8, 1, 1, 14])) for frame in teacher.frames(4)]
    with pytest.raises(DataSetError, match="another region"):
        train(frames, network=SMALL, training=SHORT, validation=other)
    with pytest.raises(DataSetError, match=r"the model is for the atoms 8, 1, 1, 6, the frames have 8, 1, 1, 14"):
        fine_tune(create_model(frames, SMALL), other, other, training=SHORT)
    with pytest.raises(DataSetError, match="another region"):
        learning_curve(frames, other, [8], network=SMALL, training=SHORT)


@pytest.mark.parametrize("sizes", [5, "8", [1.5], [True], [3], [9], None])
def test_wrong_sizes_of_a_learning_curve_are_refused(teacher, sizes):
    frames = teacher.frames(8)
    with pytest.raises(DataSetError, match="sizes"):
        learning_curve(frames, frames, sizes, network=SMALL, training=SHORT)
