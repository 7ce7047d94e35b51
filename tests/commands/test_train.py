from __future__ import annotations

import gzip
import importlib
import tomllib
from pathlib import Path

import numpy as np
import pytest

from qmmlmm import MLPotential, XTBPotential
from qmmlmm.commands import entry
from qmmlmm.commands.main import main
from qmmlmm.coupling import Difference, LevelOfTheory, RegionSpecification
from qmmlmm.errors import PotentialError
from qmmlmm.learning import DataSetError, append_frames
from qmmlmm.learning.training.fit import learning_curve
from qmmlmm.learning.training.training_settings import TrainingSettings
from qmmlmm.learning.training.uncertainty import ForceUncertainty
from qmmlmm.ml import EmbeddedPotential, ResponseModel
from qmmlmm.ml.response_settings import ResponseSettings
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


@pytest.mark.slow
def test_a_data_set_and_a_base_become_a_difference(tmp_path, teacher, capsys):
    data, test = tmp_path / "train.xyz", tmp_path / "test.xyz"
    append_frames(data, teacher.frames(10))
    append_frames(test, teacher.frames(4))
    arguments = ["train", str(data), "--test", str(test), "--output", str(tmp_path / "delta"), "--base", "gfn2-xtb"]
    assert main([*arguments, *FAST, "--learning-curve", "6"]) == 0
    model = MLPotential.load(tmp_path / "delta" / "model.pt")
    assert model.difference == Difference(LevelOfTheory("formula"), XTBPotential("gfn2-xtb").level_of_theory)
    assert "labelled with formula - gfn2-xtb" in capsys.readouterr().out


def test_a_data_set_becomes_a_response(tmp_path, teacher, capsys):
    append_frames(tmp_path / "train.xyz", teacher.frames(8))
    output = tmp_path / "out"
    arguments = ["train", str(tmp_path / "train.xyz"), "--response", "--output", str(output), *FAST]
    assert main([*arguments, "--learning-curve", "6"]) == 0
    report = capsys.readouterr().out
    assert "labelled with response of formula" in report
    assert "| 6 |" in report
    response = ResponseModel.load(output / "response.pt")
    response.check(RegionSpecification("r", np.array([8, 1, 1, 6]), 0, 1))
    assert not (output / "model.pt").exists()
    assert main(arguments) == 0  # goes on from the checkpoint, which is at its end


@pytest.mark.slow
def test_a_base_gets_a_response_and_a_correction(tmp_path, teacher, capsys):
    data, output = tmp_path / "train.xyz", tmp_path / "out"
    append_frames(data, teacher.frames(8))
    arguments = ["train", str(data), "--output", str(output), "--base", "gfn2-xtb", "--response", "--correct"]
    assert main([*arguments, *FAST]) == 0
    response = ResponseModel.load(output / "response" / "response.pt")
    embedded = EmbeddedPotential(XTBPotential("gfn2-xtb"), response)
    correction = MLPotential.load(output / "correction" / "model.pt")
    assert correction.difference == Difference(LevelOfTheory("formula"), embedded.level_of_theory)
    report = capsys.readouterr().out
    assert "labelled with response of formula" in report
    assert "labelled with formula - gfn2-xtb with a response" in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base", "gfn3-xtb"], "--base is gfn2-xtb, gfn1-xtb, so3lr, or a model file, got 'gfn3-xtb'"),
        (["--trust-code"], "--trust-code is for so3lr or the model file of --base"),
        (["--base", "so3lr"], "are a pickle, and code in a pickle runs"),
        (["--base", "gfn2-xtb", "--dispersion", "b3lyp-d3bj"], "with --base leave it out"),
        (["--base", "gfn2-xtb", "--response"], "leave --base out, or add --correct"),
        (["--correct", "--response"], "--correct is for a base with a response"),
        (["--correct", "--base", "gfn2-xtb"], "--correct is for a base with a response"),
        (["--response", "--dispersion", "b3lyp-d3bj"], "a part of the energy in a vacuum; a response has none"),
    ],
)
def test_a_base_that_is_none_is_refused(tmp_path, teacher, capsys, arguments, message):
    append_frames(tmp_path / "train.xyz", teacher.frames(4))
    assert main(["train", str(tmp_path / "train.xyz"), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_the_command_is_installed_under_its_name():
    scripts = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, function = scripts["qmmlmm"].partition(":")
    assert getattr(importlib.import_module(module), function) is entry.main


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


BAD_OPTIONS = [
    ("--steps", "0", "steps is a whole number of 1 or more, got 0"),
    ("--steps", "-5", "steps is a whole number"),
    ("--batch-size", "0", "batch_size is a whole number of 1 or more"),
    ("--learning-rate", "0", "learning_rate is a finite number above 0"),
    ("--learning-rate", "nan", "learning_rate is a finite number above 0"),
    ("--features", "-4", "features is a whole number from 1 to 4096"),
    ("--layers", "0", "layers is a whole number from 1"),
    ("--cutoff", "0", "cutoff is a finite number above 0.7"),
    ("--cutoff", "inf", "cutoff is a finite number above 0.7"),
    ("--near-cutoff", "-1", "near_cutoff is a finite number at least 0"),
    ("--near-cutoff", "1e9", "near_cutoff is a finite number at least 0 and at most 50, in angstrom"),
    ("--dispersion", "b3lyp", "dispersion is a functional with '-d3bj'"),
    ("--dispersion", "no-such-d3bj", "no-such"),
    ("--validation", "0", "--validation is a finite number above 0 and at most 0.5, got 0"),
    ("--validation", "1", "--validation is a finite number"),
    ("--validation", "nan", "--validation is a finite number"),
    ("--members", "0", "members is a whole number"),
    ("--seed", "-1", "seed is a whole number"),
    ("--seed", "99999999999", "seed is a whole number"),
    ("--device", "foo", "device 'foo' cannot be used here"),
    ("--device", "cuda:99", "device 'cuda:99' cannot be used here"),
    ("--threads", "0", "--threads is a whole number of 1 or more"),
    ("--threads", "-1", "--threads is a whole number of 1 or more"),
    ("--learning-curve", "0", "a learning curve of 7 frames has sizes from 4"),
    ("--learning-curve", "99", "a learning curve of 7 frames has sizes from 4"),
    ("--output", "train.xyz", "--output 'train.xyz' is a file; name a folder"),
    ("--test", "none.xyz", "no data set 'none.xyz'"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    append_frames(folder / "train.xyz", Teacher(np.random.default_rng(11)).frames(8))
    return folder


@pytest.mark.parametrize(("option", "value", "message"), BAD_OPTIONS)
def test_a_wrong_option_is_refused_before_the_training(data, monkeypatch, capsys, option, value, message):
    monkeypatch.chdir(data)
    assert main(["train", "train.xyz", option, value]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (data / "model_run" / "checkpoint.pt").exists()


def frames_in(path, old, new):
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("C ", "Si ", "another region"),
        ("formula", "b3lyp", "energies of two methods"),
        ("multiplicity=1", "multiplicity=3", "the model is for (charge, multiplicity, electronic state) [(0, 1, 0)]"),
        (
            "multiplicity=1",
            "multiplicity=0",
            "'test.xyz', frame at line 1: frame 't-0': multiplicity is a whole number",
        ),
        ("multiplicity=1", "multiplicity=2", "16 electrons (charge 0) have an odd multiplicity"),
    ],
)
def test_a_test_set_of_something_else_is_refused_before_the_training(data, monkeypatch, capsys, old, new, message):
    monkeypatch.chdir(data)
    test = data / "test.xyz"
    test.write_bytes((data / "train.xyz").read_bytes())
    frames_in(test, old, new)
    assert main(["train", "train.xyz", "--test", "test.xyz"]) == 1
    assert message in capsys.readouterr().err
    assert not (data / "model_run" / "checkpoint.pt").exists()


def test_a_cut_file_of_gzip_is_refused(data, monkeypatch, capsys):
    monkeypatch.chdir(data)
    packed = gzip.compress((data / "train.xyz").read_bytes())
    (data / "cut.xyz.gz").write_bytes(packed[: len(packed) // 2])
    assert main(["train", "cut.xyz.gz"]) == 1
    assert "'cut.xyz.gz' is cut or damaged" in capsys.readouterr().err
