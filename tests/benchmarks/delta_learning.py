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
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

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
NAMES = {"base": "nothing: the base alone", "nothing": "the whole energy", "difference": "the difference"}
COLUMNS = (
    "learned",
    "labels",
    "energy, MAE, kJ/mol",
    "forces, MAE, kJ/(mol nm)",
    "forces, rms",
    "interaction, MAE, kJ/mol",
    "forces on near charges, rms, kJ/(mol nm)",
)


def errors(
    energy: torch.Tensor, forces: torch.Tensor, interaction: torch.Tensor, near: torch.Tensor
) -> dict[str, float]:
    """Return errors in kJ/mol and kJ/(mol nm) of differences in atomic units, in the order of the columns."""
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
) -> dict[str, float]:
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
    add_option(parser)
    options = parser.parse_args()
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
    of_base = errors(data.energy, data.forces, data.energy - data.vacuum_energy, near)
    rows: list[tuple[str | float | None, ...]] = [(NAMES["base"], None, *of_base.values())]
    print(*rows[-1], flush=True)
    for size in options.sizes:
        # Every n-th of the chosen frames: both sizes cover the whole trajectory.
        at = [round(k * len(chosen) / size) for k in range(size)]
        kinds = [("nothing", chosen, test, None), ("difference", chosen_rest, test_rest, labels.difference)]
        for name, source, tested, difference in kinds[options.only_difference :]:
            part = [source[k] for k in at]
            rows.append((NAMES[name], size, *learned(part, tested, network, settings, difference).values()))
            print(*rows[-1], flush=True)
    notes = (
        f"Base {options.method}; {options.steps:,} steps, {TEST_FRAMES} test frames; single runs, energies without "
        "their mean error."
    )
    table = Table("", COLUMNS, tuple(rows))
    print_tables([table])
    write_record(options.json, [table], notes)


if __name__ == "__main__":
    main()
