"""Errors of the learned potential of acetone in water: what each part of it and each label brings.

    python tests/benchmarks/acetone_in_water.py full "no near charges"   # rows of the table
    python tests/benchmarks/acetone_in_water.py --sizes 50 100 200 full

    python tests/benchmarks/acetone_in_water.py full --sizes 400 --other tests/benchmarks/data/acetone_ions.xyz.gz

The labels are those of label_acetone.py. The first 40 frames are test frames, which lie 2.5 ps before all others of
their trajectory; with --test-first 0 every fourth frame is one, for small sets. Energies are compared without their
common shift, which is printed: the boxes with ions have a net charge of +1, and the uniform background that neutralises
it acts on the extent of the electrons (`background_shift.py`), which a model of charges and dipoles does not know.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm.learning import LabelledFrame, ResponseSettings, TrainingSettings, read_frames, region_potential
from qmmlmm.learning.training.accuracy import Accuracy, accuracy
from qmmlmm.learning.training.frame_tensors import frame_tensors
from qmmlmm.learning.training.prediction import predict
from qmmlmm.learning.training.trainer import Training, create_model
from qmmlmm.learning.training.uncertainty import force_uncertainty

DATA = Path(__file__).parent / "data" / "acetone_water.xyz.gz"
VALIDATION = 4
SETS = {"acetone_ions": "among ions", "acetone_liquid": "liquid acetone"}
"""Files of other test frames, and what the table calls them."""

# Name: network, training.
ROWS = {
    "full": (ResponseSettings(), TrainingSettings()),
    "no near charges": (ResponseSettings(near_cutoff=0.0), TrainingSettings()),
    "no second rank": (ResponseSettings(tensor_features=0), TrainingSettings()),
    "mechanical": (ResponseSettings(response=False), TrainingSettings(near_weight=0.0)),
    "labels E and F only": (
        ResponseSettings(),
        TrainingSettings(near_weight=0.0, vacuum_weight=0.0, dipole_weight=0.0),
    ),
    "no vacuum labels": (ResponseSettings(), TrainingSettings(vacuum_weight=0.0)),
    "no forces on charges": (ResponseSettings(), TrainingSettings(near_weight=0.0)),
    "committee of 4": (ResponseSettings(), TrainingSettings()),
}


def columns(sets: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns, two for each set of test frames."""
    errors = [f"{name}: {text}" for name in sets for text in ("energy, kJ/mol", "forces, kJ/(mol nm)")]
    return ("model", "labels", *errors, "forces on near charges, rms", "training, processor time, s")


def row(name: str, size: int, found: Mapping[str, Accuracy], seconds: float) -> tuple[str | float | None, ...]:
    """Return a row of the table."""
    errors = [value for errors in found.values() for value in (errors.energy, errors.forces)]
    near = next(iter(found.values())).near_forces
    return name, size, *errors, near, round(seconds)


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="+", choices=list(ROWS))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--other", type=Path, nargs="*", default=[], help="frames of other environments, tests only")
    parser.add_argument("--sizes", type=int, nargs="*", help="frames to train on; all by default")
    parser.add_argument("--test-first", type=int, default=40)
    parser.add_argument("--steps", type=int, default=TrainingSettings.steps)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save", type=Path, help="folder for each row's model")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.save:
        options.save.mkdir(parents=True, exist_ok=True)
    frames = read_frames(options.data)
    if options.test_first:
        test, rest = frames[: options.test_first], frames[options.test_first :]
    else:
        test, rest = frames[::4], [frame for k, frame in enumerate(frames) if k % 4]
    tests: dict[str, list[LabelledFrame]] = {"water": test}
    tests |= {SETS.get(path.name.split(".")[0], path.name): read_frames(path) for path in options.other}
    rows = []
    counts = ", ".join(f"{len(frames)} {name}" for name, frames in tests.items())
    notes = (
        f"{options.steps:,} steps of training; mean absolute errors, energies without their common shift; test frames: "
        f"{counts}; single runs. The first set has the forces on near charges."
    )
    for name in options.rows:
        network, settings = ROWS[name]
        settings = replace(settings, steps=options.steps, seed=options.seed, batch_size=8, validations=10)
        for size in options.sizes or [len(rest)]:
            members = 4 if "committee" in name else 1
            chosen = rest[:size]
            model = create_model(chosen[:-VALIDATION], network, members, options.seed)
            started = time.process_time()
            trained = Training(model, chosen[:-VALIDATION], chosen[-VALIDATION:], settings).run()
            seconds = time.process_time() - started
            if options.save:
                region_potential(trained.model).save(options.save / f"{name.replace(' ', '_')}_{size}.pt")
            found = {}
            for label, tested in tests.items():
                data = frame_tensors(tested, [(0, 1, 0)])
                predicted = predict(trained.model, data)
                found[label] = accuracy(predicted, data)
                print(
                    f"{name}, {size} labels, {label}: common shift of the energy {found[label].energy_shift:.2f}; in a "
                    f"vacuum {found[label].vacuum_energy}, {found[label].vacuum_forces}",
                    flush=True,
                )
                if members > 1:
                    spread = force_uncertainty(predicted, data)
                    print(
                        f"  spread times {float(trained.model.uncertainty_scale):.2f} (here {spread.scale():.2f}); "
                        f"correlation {spread.correlation('frame'):.2f} per frame, {spread.correlation('atom'):.2f} "
                        "per atom"
                    )
            rows.append(row(name, size, found, seconds))
            # A run that is stopped leaves the record of what is done.
            write_record(options.json, [Table("", columns(list(tests)), tuple(rows))], notes)
    print_tables([Table("", columns(list(tests)), tuple(rows))])


if __name__ == "__main__":
    main()
