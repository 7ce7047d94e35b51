"""Errors of a network that learns B3LYP minus a base, and of one that learns B3LYP from nothing, with the same labels.

    python tests/benchmarks/delta_learning.py [--sizes 50 100] [--steps 1500] [--output delta_learning.json]
        [--update docs/delta_learning.md]
    python tests/benchmarks/delta_learning.py --method so3lr --trust-code --only-difference [...]
    python tests/benchmarks/delta_learning.py --read delta_learning.json --update docs/delta_learning.md

Acetone in water, B3LYP/6-31G*, tested on frames of another trajectory. Both networks have the same size, labels,
validation frames, steps and seed. Energies are mean absolute errors without their mean error, as everywhere; forces are
root mean square and mean absolute errors of components. The row "base" is the level below by itself. The base so3lr,
of the package so3krates-torch, feels the field by its own charges.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from qmmlmm.commands.potential_input import base_of_name
from qmmlmm.learning import LabelledFrame, ResponseSettings, TrainingSettings, difference_labels, read_frames
from qmmlmm.learning.training.fit import split_frames
from qmmlmm.learning.training.frame_tensors import frame_tensors
from qmmlmm.learning.training.prediction import predict
from qmmlmm.learning.training.trainer import Training, create_model
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL

DATA = ROOT / "tests" / "benchmarks" / "data" / "acetone_water.xyz.gz"
TEST_FRAMES = 50
"""Frames of the first trajectory, for tests alone; labels to learn are of the second."""

XTB = "gfn2-xtb"
COLUMNS = ("learned", "labels", "energy_mae", "force_mae", "force_rms", "interaction_mae", "near_force_rms")


def errors(energy: torch.Tensor, forces: torch.Tensor, interaction: torch.Tensor, near: torch.Tensor) -> dict:
    """Return errors in kJ/mol and kJ/(mol nm) of differences in atomic units."""
    shifted = [part - part.mean() for part in (energy, interaction)]
    return {
        "energy_mae": float(shifted[0].abs().mean()) * HARTREE_IN_KJ_PER_MOL,
        "force_mae": float(forces.abs().mean()) * FORCE_AU_IN_OPENMM,
        "force_rms": float(forces.square().mean().sqrt()) * FORCE_AU_IN_OPENMM,
        "interaction_mae": float(shifted[1].abs().mean()) * HARTREE_IN_KJ_PER_MOL,
        "near_force_rms": float(near.square().mean().sqrt()) * FORCE_AU_IN_OPENMM,
    }


def learned(
    frames: list[LabelledFrame],
    test: list[LabelledFrame],
    network: ResponseSettings,
    settings: TrainingSettings,
    difference=None,
) -> dict:
    """Return the errors of a network, trained on frames, on test frames."""
    train, kept = split_frames(frames, 0.15, settings.seed)
    model = create_model(train, network, 1, settings.seed, difference)
    model = Training(model, train, kept, settings).run().model
    data = frame_tensors(test, model.known_conditions())
    found = predict(model, data)
    assert data.vacuum_energy is not None
    interaction = (found.energy - found.vacuum_energy)[0] - (data.energy - data.vacuum_energy)
    near = (found.near_forces[0] - data.near_forces)[data.near_charges != 0]
    parts = ((found.energy[0] - data.energy), (found.forces[0] - data.forces), interaction, near)
    return errors(*(part.detach() for part in parts))


def update(page: Path, content: dict) -> None:
    """Replace the table between the markers of a page."""
    names = {"base": "nothing: the base alone", "nothing": "the whole energy", "difference": "the difference"}
    lines = [
        f"Written on {content['date']} by `{content['command']}`, single run, {content['training']['steps']} steps.",
        "",
        "| learned | labels | energy, MAE | forces, MAE (rms) | interaction, MAE | forces on near charges, rms |",
        "|---|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        lines.append(
            f"| {names[row['learned']]} | {row['labels'] or '-'} | {row['energy_mae']:.2f} | {row['force_mae']:.1f} "
            f"({row['force_rms']:.1f}) | {row['interaction_mae']:.2f} | {row['near_force_rms']:.2f} |"
        )
    lines += ["", "kJ/mol without the mean error, and kJ/(mol nm)."]
    name = "delta_learning" if content["method"] == XTB else f"delta_learning, {content['method']}"
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    page.write_text("\n".join([before + begin, *lines, end]) + after, encoding="utf-8")


def main() -> None:
    """Train and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--features", type=int, default=24)
    parser.add_argument("--method", default=XTB, help="method of the base, as in qmmlmm train --base")
    parser.add_argument("--trust-code", action="store_true", help="read the pickle of so3lr")
    parser.add_argument("--only-difference", action="store_true", help="leave out the network from nothing")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("delta_learning.json"))
    parser.add_argument("--update", type=Path, help="page whose table between the markers is replaced")
    parser.add_argument("--read", type=Path, help="results of an earlier run, instead of training")
    options = parser.parse_args()
    if options.read is not None:
        update(options.update, json.loads(options.read.read_text(encoding="utf-8")))
        return
    torch.set_num_threads(1)
    frames = read_frames(DATA)
    test, others = frames[:TEST_FRAMES], frames[TEST_FRAMES:]
    # Far apart in time, so that fifty labels are fifty surroundings.
    chosen = others[:: max(1, len(others) // max(options.sizes))][: max(options.sizes)]
    base = base_of_name("--method", options.method, trust_code=options.trust_code)
    labels = difference_labels([*test, *chosen], base)
    test_rest, chosen_rest = labels.frames[:TEST_FRAMES], labels.frames[TEST_FRAMES:]
    network = ResponseSettings(features=options.features)
    settings = TrainingSettings(steps=options.steps, patience=options.steps, seed=options.seed)
    data = frame_tensors(test_rest, [(0, 1, 0)])
    assert data.vacuum_energy is not None
    near = data.near_forces[data.near_charges != 0]
    rows = [
        {"learned": "base", "labels": 0, **errors(data.energy, data.forces, data.energy - data.vacuum_energy, near)}
    ]
    print(rows[-1], flush=True)
    for size in options.sizes:
        # Every n-th of the chosen frames: both sizes cover the whole trajectory.
        at = [round(k * len(chosen) / size) for k in range(size)]
        kinds = [("nothing", chosen, test, None), ("difference", chosen_rest, test_rest, labels.difference)]
        for name, source, tested, difference in kinds[options.only_difference :]:
            part = [source[k] for k in at]
            rows.append({"learned": name, "labels": size, **learned(part, tested, network, settings, difference)})
            print(rows[-1], flush=True)
    content = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.processor() or platform.machine(),
        "command": f"python tests/benchmarks/delta_learning.py --sizes {' '.join(map(str, options.sizes))} "
        f"--steps {options.steps} --features {options.features} --method {options.method} --seed {options.seed}"
        + " --trust-code" * options.trust_code
        + " --only-difference" * options.only_difference,
        "method": options.method,
        "difference": labels.difference.as_json(),
        "test_frames": TEST_FRAMES,
        "network": asdict(network),
        "training": asdict(settings),
        "units": "kJ/mol, kJ/(mol nm)",
        "rows": rows,
    }
    options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    with options.output.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()} for row in rows)
    if options.update is not None:
        update(options.update, content)


if __name__ == "__main__":
    main()
