"""The command ``qmmlmm train``: train a potential of a region on labels."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from qmmlmm.commands.potential_input import base_of_name
from qmmlmm.coupling.potential import EvaluatedPotential
from qmmlmm.errors import DataSetError, SettingError
from qmmlmm.learning.labels.data_set import read_frames
from qmmlmm.learning.labels.difference_labels import learned_frames
from qmmlmm.learning.labels.labelled_frame import LabelledFrame, check_together
from qmmlmm.learning.training.device import check_device
from qmmlmm.learning.training.fit import check_curve, check_response_only, learning_curve, split_frames
from qmmlmm.learning.training.frame_tensors import conditions_of, frame_tensors
from qmmlmm.learning.training.report import write_report
from qmmlmm.learning.training.trainer import Training, check_members, create_model
from qmmlmm.learning.training.training_settings import TrainingSettings
from qmmlmm.ml.embedded_potential import EmbeddedPotential
from qmmlmm.ml.ml_potential import region_potential
from qmmlmm.ml.network_file import save_network
from qmmlmm.ml.response_model import ResponseModel
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings
from qmmlmm.setting_checks import check_count, check_number


@dataclass(frozen=True)
class _Data:
    """Labels of all trainings of a command; `unseen` says whether those of the test have no part in them."""

    train: list[LabelledFrame]
    validation: list[LabelledFrame]
    test: list[LabelledFrame]
    unseen: bool


@dataclass(frozen=True)
class _Setup:
    """Settings of all trainings of a command; `curve` has the sizes of a learning curve."""

    network: ResponseSettings
    training: TrainingSettings
    members: int
    curve: tuple[int, ...]
    device: torch.device


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parents: Sequence[argparse.ArgumentParser]
) -> None:
    """Add ``train`` to the command ``qmmlmm``."""
    train = commands.add_parser(
        "train",
        help="train a potential of a region on a data set",
        description="Train a potential of a region on a data set. A training that was stopped continues.",
        epilog="example: qmmlmm train labels.xyz --members 4 --output site_run",
        parents=parents,
    )
    train.set_defaults(run=_run)
    train.add_argument("data", type=Path, nargs="+", help="data sets, extended XYZ (.xyz or .xyz.gz)")
    train.add_argument("--output", type=Path, default=Path("model_run"), help="folder for model, checkpoint and report")
    train.add_argument("--test", type=Path, help="data set for the report, the validation frames if not given")
    train.add_argument("--validation", type=float, default=0.15, help="fraction of the frames held out for validation")
    train.add_argument("--members", type=int, default=1, help="number of committee members")
    train.add_argument("--steps", type=int, default=TrainingSettings.steps, help="steps of the optimiser")
    train.add_argument("--batch-size", type=int, default=TrainingSettings.batch_size, help="frames in a step")
    train.add_argument("--learning-rate", type=float, default=TrainingSettings.learning_rate, help="largest one")
    train.add_argument("--features", type=int, default=ResponseSettings.features, help="features of an atom")
    train.add_argument("--layers", type=int, default=ResponseSettings.layers, help="message-passing layers")
    train.add_argument("--cutoff", type=float, default=ResponseSettings.cutoff, help="cutoff of the messages, angstrom")
    train.add_argument(
        "--near-cutoff", type=float, default=ResponseSettings.near_cutoff,
        help="cutoff of the term of near charges, angstrom; 0 for none",
    )  # fmt: skip
    train.add_argument(
        "--dispersion", metavar="FUNCTIONAL-d3bj",
        help="D3(BJ) in the labels that is computed and not learned, such as b3lyp-d3bj",
    )  # fmt: skip
    train.add_argument(
        "--base", metavar="LEVEL",
        help="learn the difference of the labels to this level: gfn2-xtb, gfn1-xtb, so3lr, or a model file",
    )  # fmt: skip
    train.add_argument(
        "--response", action="store_true",
        help="learn only the response to the surroundings, with which any potential is embedded",
    )  # fmt: skip
    train.add_argument(
        "--correct", action="store_true",
        help="after --response, learn what --base and the response together lack of the labels",
    )  # fmt: skip
    train.add_argument(
        "--trust-code", action="store_true", help="read so3lr, or a model file of --base that has code in it"
    )
    train.add_argument("--seed", type=int, default=TrainingSettings.seed, help="seed of all random numbers")
    train.add_argument(
        "--learning-curve", type=int, nargs="+", default=[], metavar="FRAMES",
        help="numbers of frames for additional trainings of a learning curve",
    )  # fmt: skip
    train.add_argument("--device", default="cpu", help="device of torch, such as cuda")
    train.add_argument(
        "--threads", type=int, default=1, help="number of threads for torch; one is fastest for small molecules"
    )


def _run(options: argparse.Namespace) -> int:
    # All arguments are checked before the first file is read.
    network = ResponseSettings(
        features=options.features,
        layers=options.layers,
        cutoff=options.cutoff,
        near_cutoff=options.near_cutoff,
        dispersion=options.dispersion,
    )
    settings = replace(
        TrainingSettings(),
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    members = check_members(options.members)
    fraction = check_number("--validation", options.validation, above=0.0, at_most=0.5)
    torch.set_num_threads(check_count("--threads", options.threads))
    device = check_device(options.device)
    base = None if options.base is None else base_of_name("--base", options.base, trust_code=options.trust_code)
    if options.trust_code and base is None:
        raise SettingError("--trust-code is for so3lr or the model file of --base; leave it out")
    if network.dispersion is not None and base is not None:
        raise SettingError("--dispersion is a part of the energy of one level; with --base leave it out")
    if options.correct and (base is None or not options.response):
        raise SettingError("--correct is for a base with a response; give --base and --response, too")
    if options.response:
        if base is not None and not options.correct:
            raise SettingError(
                "--response is learned from the labels alone; leave --base out, or add --correct to learn the rest"
            )
        check_response_only(network, None)
    output: Path = options.output
    if output.exists() and not output.is_dir():
        raise SettingError(f"--output {str(output)!r} is a file; name a folder")
    frames = [frame for path in options.data for frame in read_frames(path)]
    check_together(frames)
    kept, validation = split_frames(frames, fraction, settings.seed)
    test = validation if options.test is None else _test_frames(options.test, kept)
    check_curve(kept, test, options.learning_curve)
    data = _Data(kept, validation, test, options.test is not None)
    setup = _Setup(network, settings, members, tuple(options.learning_curve), device)
    if not options.correct:
        _train(output, data, setup, base, options.response)
        return 0
    assert base is not None
    response = ResponseModel(_train(output / "response", data, setup, None, True))
    _train(output / "correction", data, setup, EmbeddedPotential(base, response), False)
    return 0


def _train(
    folder: Path, data: _Data, setup: _Setup, base: EvaluatedPotential | None, response_only: bool
) -> ResponseNetwork:
    """Train into a folder, and print the report; return the network."""
    parts = [data.train, data.validation, data.test]
    (learned, validation, test), difference = learned_frames(base, parts, response_only)
    folder.mkdir(parents=True, exist_ok=True)
    model = create_model(learned, setup.network, setup.members, setup.training.seed, difference, response_only)
    trained = Training(model, learned, validation, setup.training, setup.device).run(folder / "checkpoint.pt")
    if response_only:
        ResponseModel(trained.model).save(folder / "response.pt")
    else:
        region_potential(trained.model).save(folder / "model.pt")
        save_network(trained.model, folder / "network.pt")
    curve = learning_curve(
        data.train,
        data.test,
        setup.curve,
        network=setup.network,
        training=setup.training,
        members=setup.members,
        base=base,
        response_only=response_only,
        device=setup.device,
    )
    report = write_report(
        folder,
        trained,
        test,
        training_names=[frame.name for frame in data.train],
        settings=setup.training,
        network=setup.network,
        unseen=data.unseen,
        learning_curve=curve,
    )
    sys.stdout.write(report.read_text(encoding="utf-8"))
    return trained.model


def _test_frames(path: Path, train: list[LabelledFrame]) -> list[LabelledFrame]:
    """Return frames for the report, which are of the region, the method and the surfaces of the training."""
    test = read_frames(path)
    try:
        check_together([train[0], *test])
        frame_tensors(test, conditions_of(train))
    except DataSetError as error:
        raise DataSetError(f"--test {str(path)!r} does not belong to the data (frame 0 here): {error}") from error
    return test
