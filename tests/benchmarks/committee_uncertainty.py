"""What the spread of a committee says about the error of its forces, on geometries like and unlike the training's.

    python tests/benchmarks/committee_uncertainty.py --data labels/water.xyz --train 100 --test 40
    python tests/benchmarks/committee_uncertainty.py --random --also labels/water_800K.xyz labels/acetone.xyz
    python tests/benchmarks/committee_uncertainty.py --random --twice --train 150 --validation 10 --test 130

The frames are ordered by their energy in a vacuum, which is their strain. The committee is trained on frames of the
lower part alone and tested on others of that part and on the most strained frames. With --random the frames for
training, validation and test are drawn at random instead; --also tests on the frames of other files besides. Spread
and error of a frame are means over its atoms. Printed are their correlation (Pearson, Spearman), that of the largest
spread and the largest error of an atom, how often a frame of the tenth with the largest errors has a larger spread than
one of the rest, the factor found after training, the one that would be best here, and how often the spread times the
first was above the error. With --twice a second committee learns from as many other frames, none of them the first's:
what both get wrong alike is not in the labels, and no spread can show it.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm.learning import LabelledFrame, ResponseSettings, TrainingSettings, read_frames
from qmmlmm.learning.training.accuracy import accuracy
from qmmlmm.learning.training.frame_tensors import FrameTensors, frame_tensors
from qmmlmm.learning.training.prediction import Prediction, predict
from qmmlmm.learning.training.trainer import Training, create_model
from qmmlmm.learning.training.uncertainty import ForceUncertainty, force_uncertainty
from qmmlmm.ml.response_network import ResponseNetwork

DATA = Path(__file__).parent / "data" / "acetone_water.xyz.gz"


def split(
    frames: list[LabelledFrame], n_train: int, n_validation: int, n_test: int, seed: int
) -> tuple[list[LabelledFrame], list[LabelledFrame], dict[str, list[LabelledFrame]]]:
    """Return frames for training and validation, and test frames by name."""
    ordered = sorted(frames, key=lambda frame: float(frame.vacuum_energy or 0.0))
    strained = ordered[-n_test:]
    relaxed = ordered[:-n_test]
    n_known = n_train + n_validation + n_test
    if len(relaxed) < n_known:
        raise SystemExit(f"{len(frames)} frames are too few; {n_known + n_test} are needed")
    # Of the lower part the lowest, so that there is a gap to the strained ones if there are more frames.
    known = relaxed[:n_known]
    order = np.random.default_rng(seed).permutation(n_known)
    picked = [known[k] for k in order]
    train, rest = picked[:n_train], picked[n_train:]
    return train, rest[:n_validation], {"like the training": rest[n_validation:], "more strained": strained}


def drawn(
    frames: list[LabelledFrame], n_train: int, n_validation: int, n_test: int, seed: int
) -> tuple[list[LabelledFrame], list[LabelledFrame], dict[str, list[LabelledFrame]]]:
    """Return the same drawn at random."""
    n_known = n_train + n_validation
    picked = shuffled(frames, n_known + n_test, seed)
    return picked[:n_train], picked[n_train:n_known], {"like the training": picked[n_known:]}


def shuffled(frames: list[LabelledFrame], count: int, seed: int) -> list[LabelledFrame]:
    """Return some of the frames, in an order of the seed's."""
    if len(frames) < count:
        raise SystemExit(f"{len(frames)} frames are too few; {count} are needed")
    order = np.random.default_rng(seed).permutation(len(frames))
    return [frames[k] for k in order[:count]]


def shared_error(first: Prediction, second: Prediction, frames: FrameTensors) -> tuple[float, float, float]:
    """Return how alike two committees err: correlations of size per frame, of vectors, and of spreads per frame."""
    found = [force_uncertainty(predicted, frames) for predicted in (first, second)]
    vectors = [(predicted.forces.detach().mean(0) - frames.forces).flatten() for predicted in (first, second)]
    return (
        float(np.corrcoef(found[0].frame_error, found[1].frame_error)[0, 1]),
        float(torch.nn.functional.cosine_similarity(vectors[0], vectors[1], dim=0)),
        float(np.corrcoef(found[0].frame_spread, found[1].frame_spread)[0, 1]),
    )


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the place of each value in their order."""
    return np.argsort(np.argsort(values)).astype(float)


def found_worst(spread: np.ndarray, error: np.ndarray, share: float = 0.1) -> float:
    """Return how often a frame of the share with the largest errors has a larger spread than one of the rest."""
    worst = error >= np.quantile(error, 1.0 - share)
    return float(np.mean(spread[worst][:, None] > spread[~worst][None, :]))


COLUMNS = (
    "frames",
    "number",
    "error of forces, median, kJ/(mol nm)",
    "least",
    "largest",
    "correlation per frame",
    "of ranks",
    "of the largest atom",
    "worst tenth found, %",
    "calibrated spread over error",
    "covered, %",
    "energy, MAE, kJ/mol",
    "forces, MAE, kJ/(mol nm)",
)


def row(
    name: str, found: ForceUncertainty, scale: float, energy: float | None = None, forces: float | None = None
) -> tuple[str | float | None, ...]:
    """Return a row of the table."""
    spread, error = found.frame_spread, found.frame_error
    spearman = np.corrcoef(ranks(spread), ranks(error))[0, 1]
    largest = np.corrcoef(found.atom_spread.max(axis=1), found.atom_error.max(axis=1))[0, 1]
    covered = np.mean(scale * spread > error)
    return (
        name,
        len(error),
        float(np.median(error)),
        float(error.min()),
        float(error.max()),
        found.correlation("frame"),
        float(spearman),
        float(largest),
        round(100 * found_worst(spread, error)),
        float(scale * np.mean(spread) / np.mean(error)),
        round(100 * float(covered)),
        energy,
        forces,
    )


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--train", type=int, default=24)
    parser.add_argument("--validation", type=int, default=6)
    parser.add_argument("--test", type=int, default=10, help="of each kind")
    parser.add_argument("--random", action="store_true", help="draw the frames instead of ordering them by strain")
    parser.add_argument("--twice", action="store_true", help="train a second committee on other frames, with --random")
    parser.add_argument("--also", type=Path, nargs="+", default=[], help="files of other frames to test on")
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    add_option(parser)
    options = parser.parse_args()
    if options.twice and not options.random:
        parser.error("--twice draws the frames of both committees at random; give --random too")
    torch.set_num_threads(1)
    parted = drawn if options.random else split
    frames = read_frames(options.data)
    train, validation, tests = parted(frames, options.train, options.validation, options.test, options.seed)
    tests.update({path.name.split(".")[0]: read_frames(path) for path in options.also})
    settings = replace(TrainingSettings(), steps=options.steps, seed=options.seed, batch_size=8, validations=6)
    second: ResponseNetwork | None = None
    if options.twice:
        n_known = options.train + options.validation
        others = shuffled(frames, 2 * n_known + options.test, options.seed)[n_known + options.test :]
        again = create_model(others[: options.train], ResponseSettings(), options.members, options.seed + 1)
        second = Training(again, others[: options.train], others[options.train :], settings).run().model
    model = create_model(train, ResponseSettings(), options.members, options.seed)
    started = time.process_time()
    trained = Training(model, train, validation, settings).run()
    print(f"{options.members} members, {len(train)} frames, {time.process_time() - started:.0f} s of CPU time")
    scale = float(trained.model.uncertainty_scale)
    rows = []
    every: list[ForceUncertainty] = []
    for name, held_out in tests.items():
        data = frame_tensors(held_out, trained.model.known_conditions())
        predicted = predict(trained.model, data)
        every.append(force_uncertainty(predicted, data))
        errors = accuracy(predicted, data)
        rows.append(row(name, every[-1], scale, errors.energy, errors.forces))
        print(*rows[-1], flush=True)
        if second is not None:
            size, direction, spread = shared_error(predicted, predict(second, data), data)
            print(
                f"  with the second committee: errors per frame correlate by {size:.2f}, spreads by {spread:.2f}; "
                f"cosine of the errors of all forces {direction:.2f}"
            )
    together = ForceUncertainty(
        atom_spread=np.concatenate([found.atom_spread for found in every]),
        atom_error=np.concatenate([found.atom_error for found in every]),
    )
    table = Table("", COLUMNS, (*rows, row("all", together, scale)))
    print_tables([table])
    notes = f"{options.members} members, {len(train)} labels, {options.steps:,} steps; single run."
    write_record(options.json, [table], notes)


if __name__ == "__main__":
    main()
