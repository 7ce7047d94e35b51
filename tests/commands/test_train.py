from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import numpy as np
import pytest

from qmmlmm import MLPotential
from qmmlmm.commands.main import main
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import PotentialError
from qmmlmm.learning import DataSetError, append_frames
from qmmlmm.learning.training.fit import learning_curve
from qmmlmm.learning.training.trainer import TrainingSettings
from qmmlmm.learning.training.uncertainty import ForceUncertainty
from qmmlmm.ml.response_network import ResponseSettings
from tests.learning.teacher import Teacher
from tests.quick_torch import quick_torch

FAST = ["--steps", "12", "--features", "8", "--batch-size", "4"]


@pytest.fixture(scope="module", autouse=True)
def _quick():
    with quick_torch():  # which puts back the number of threads that the command sets
        yield


@pytest.fixture
def teacher():
    return Teacher(np.random.default_rng(11))


def test_a_data_set_becomes_a_model_with_a_report(tmp_path, teacher, capsys):
    data, test, output = tmp_path / "train.xyz", tmp_path / "test.xyz", tmp_path / "out"
    append_frames(data, teacher.frames(14))
    append_frames(test, teacher.frames(6))
    arguments = ["train", str(data), "--test", str(test), "--output", str(output), "--members", "2", *FAST]

    status = main([*arguments, "--learning-curve", "6", "8"])

    assert status == 0
    report = (output / "report.md").read_text()
    assert report == capsys.readouterr().out
    for text in (
        "12 training frames",
        "6 test frames",
        "| test |",
        "| 8 |",
        "Committee of 2",
        "labelled with formula",
    ):
        assert text in report
    assert (output / "report.png").stat().st_size > 10_000
    potential = MLPotential.load(output / "model.pt")
    assert potential.atomic_numbers == (8, 1, 1, 6)
    assert potential.capabilities.embeddings == {"electrostatic", "mechanical"}
    with pytest.raises(PotentialError, match="does not know the elements"):
        potential.check(RegionSpecification("r", np.array([8, 1, 1, 7]), 0, 1))
    assert main(arguments) == 0  # goes on from the checkpoint, which is at its end
    assert "Steps: 12." in (output / "report.md").read_text()


def test_wrong_input_ends_with_a_message(tmp_path, teacher, capsys):
    assert main(["train", str(tmp_path / "none.xyz")]) == 1
    assert "no data set" in capsys.readouterr().err
    path = tmp_path / "few.xyz"
    append_frames(path, teacher.frames(2))
    assert main(["train", str(path), "--output", str(tmp_path / "out")]) == 1
    assert "too few" in capsys.readouterr().err


def test_the_command_is_installed_under_its_name():
    scripts = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, function = scripts["qmmlmm"].partition(":")
    assert getattr(importlib.import_module(module), function) is main


def test_a_learning_curve_has_one_point_for_each_size(teacher):
    frames, test = teacher.frames(10), teacher.frames(4)
    settings = TrainingSettings(steps=4, batch_size=4)
    network = ResponseSettings(features=8)
    curve = learning_curve(frames, test, [5, 10], network=network, training=settings)
    assert [size for size, _ in curve] == [5, 10]
    with pytest.raises(DataSetError, match="sizes from 4"):
        learning_curve(frames, test, [20], network=network, training=settings)


def test_calibration_finds_the_factor_between_spread_and_error():
    rng = np.random.default_rng(3)
    spread = rng.uniform(1, 5, size=(400, 6))
    uncertainty = ForceUncertainty(spread, 1.7 * spread)
    assert uncertainty.scale() == pytest.approx(1.7)
    assert uncertainty.correlation("frame") == pytest.approx(1.0)
    np.testing.assert_allclose(uncertainty.frame_error[7], sum(uncertainty.atom_error[7]) / 6, rtol=1e-14)
    np.testing.assert_allclose(uncertainty.frame_spread[7], sum(spread[7]) / 6, rtol=1e-14)
    noise = ForceUncertainty(spread, rng.uniform(1, 5, size=(400, 6)))
    assert abs(noise.correlation("atom")) < 0.1
    with pytest.raises(ValueError, match="per is one of 'frame', 'atom'"):
        noise.correlation("molecule")
