"""The command ``qmmlmm train``: train a potential of a region on labels."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from qmmlmm.learning.labels.data_set import read_frames
from qmmlmm.learning.training.fit import learning_curve, split_frames
from qmmlmm.learning.training.report import write_report
from qmmlmm.learning.training.trainer import Training, TrainingSettings, create_model
from qmmlmm.ml.ml_potential import region_potential
from qmmlmm.ml.network_file import save_network
from qmmlmm.ml.response_network import ResponseSettings


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``train`` to the command ``qmmlmm``."""
    train = commands.add_parser("train", help="train a potential of a region on a data set")
    train.set_defaults(run=_run)
    train.add_argument("data", type=Path, nargs="+", help="data sets, extended XYZ (.xyz or .xyz.gz)")
    train.add_argument("--output", type=Path, default=Path("model_run"), help="folder for model, checkpoint and report")
    train.add_argument("--test", type=Path, help="data set for the report, the validation frames if not given")
    train.add_argument("--validation", type=float, default=0.15, help="fraction of the frames held out for validation")
    train.add_argument("--members", type=int, default=1, help="number of committee members")
    train.add_argument("--steps", type=int, default=TrainingSettings.steps)
    train.add_argument("--batch-size", type=int, default=TrainingSettings.batch_size)
    train.add_argument("--learning-rate", type=float, default=TrainingSettings.learning_rate)
    train.add_argument("--features", type=int, default=ResponseSettings.features)
    train.add_argument("--layers", type=int, default=ResponseSettings.layers)
    train.add_argument("--cutoff", type=float, default=ResponseSettings.cutoff, help="cutoff of the messages, angstrom")
    train.add_argument(
        "--near-cutoff", type=float, default=ResponseSettings.near_cutoff,
        help="cutoff of the term of near charges, angstrom; 0 for none",
    )  # fmt: skip
    train.add_argument(
        "--dispersion", metavar="FUNCTIONAL-d3bj",
        help="D3(BJ) in the labels that is computed and not learned, such as b3lyp-d3bj",
    )  # fmt: skip
    train.add_argument("--seed", type=int, default=TrainingSettings.seed)
    train.add_argument(
        "--learning-curve", type=int, nargs="+", default=[], metavar="FRAMES",
        help="numbers of frames for additional trainings of a learning curve",
    )  # fmt: skip
    train.add_argument("--device", default="cpu", help="device of torch, such as cuda")
    train.add_argument(
        "--threads", type=int, default=1, help="number of threads for torch; one is fastest for small molecules"
    )


def _run(options: argparse.Namespace) -> int:
    torch.set_num_threads(options.threads)
    frames = [frame for path in options.data for frame in read_frames(path)]
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
    kept, validation = split_frames(frames, options.validation, options.seed)
    test = read_frames(options.test) if options.test is not None else validation
    options.output.mkdir(parents=True, exist_ok=True)
    model = create_model(kept, network, options.members, options.seed)
    trained = Training(model, kept, validation, settings, options.device).run(options.output / "checkpoint.pt")
    region_potential(trained.model).save(options.output / "model.pt")
    save_network(trained.model, options.output / "network.pt")
    curve = learning_curve(
        kept,
        test,
        options.learning_curve,
        network=network,
        training=settings,
        members=options.members,
        device=options.device,
    )
    report = write_report(
        options.output,
        trained,
        test,
        training_names=[frame.name for frame in kept],
        settings=settings,
        network=network,
        unseen=options.test is not None,
        learning_curve=curve,
    )
    sys.stdout.write(report.read_text(encoding="utf-8"))
    return 0
