"""Errors of a network that learns B3LYP minus a base, and of one that learns B3LYP from nothing, with the same labels.

    python tests/benchmarks/delta_learning.py [--sizes 50 100] [--steps 1500]
        [--json docs/results/data/delta_learning.json]
    python tests/benchmarks/delta_learning.py --method so3lr --trust-code --only-difference [...]

Acetone, B3LYP/6-31G*: learned from one trajectory in water, and tested on frames of another one, on frames with sodium
and chloride close to it, and in liquid acetone. Both networks have the same size, labels, validation frames, steps and
seed. The row "nothing" is the base by itself; so3lr, of the package so3krates-torch, feels the field by its charges.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from acetone_sets import SETS, test_sets
from record import Table, add_option, write_record

from qmmlmm.commands.potential_input import base_of_name
from qmmlmm.coupling.level_of_theory import Difference
from qmmlmm.learning import LabelledFrame, ResponseSettings, TrainingSettings, difference_labels
from qmmlmm.learning.training.fit import split_frames
from qmmlmm.learning.training.frame_tensors import frame_tensors
from qmmlmm.learning.training.prediction import predict
from qmmlmm.learning.training.trainer import Training, create_model
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL

Errors = dict[str, float]


def errors(energy: torch.Tensor, forces: torch.Tensor, interaction: torch.Tensor, near: torch.Tensor) -> Errors:
    """Return errors in kJ/mol and kJ/(mol nm) of differences in atomic units."""
    shifted = [part - part.mean() for part in (energy, interaction)]
    return {
        "energy_mae": float(shifted[0].abs().mean()) * HARTREE_IN_KJ_PER_MOL,
        "force_mae": float(forces.abs().mean()) * FORCE_AU_IN_OPENMM,
        "force_rms": float(forces.square().mean().sqrt()) * FORCE_AU_IN_OPENMM,
        "interaction_mae": float(shifted[1].abs().mean()) * HARTREE_IN_KJ_PER_MOL,
        "near_force_rms": float(near.square().mean().sqrt()) * FORCE_AU_IN_OPENMM,
    }


def base_errors(test: list[LabelledFrame]) -> Errors:
    """Return the errors of the base, of which frames have what it lacks of the labels."""
    data = frame_tensors(test, [(0, 1, 0)])
    assert data.vacuum_energy is not None
    near = data.near_forces[data.near_charges != 0]
    return errors(data.energy, data.forces, data.energy - data.vacuum_energy, near)


def learned(
    frames: list[LabelledFrame],
    tests: dict[str, list[LabelledFrame]],
    network: ResponseSettings,
    settings: TrainingSettings,
    difference: Difference | None = None,
) -> dict[str, Errors]:
    """Return the errors of a network, trained on frames, on each set of test frames."""
    train, kept = split_frames(frames, 0.15, settings.seed)
    model = create_model(train, network, 1, settings.seed, difference)
    model = Training(model, train, kept, settings).run().model
    result = {}
    for name, test in tests.items():
        data = frame_tensors(test, model.known_conditions())
        found = predict(model, data)
        assert data.vacuum_energy is not None
        interaction = (found.energy - found.vacuum_energy)[0] - (data.energy - data.vacuum_energy)
        near = (found.near_forces[0] - data.near_forces)[data.near_charges != 0]
        parts = ((found.energy[0] - data.energy), (found.forces[0] - data.forces), interaction, near)
        result[name] = errors(*(part.detach() for part in parts))
    return result


def row(what: str, labels: int | None, found: dict[str, Errors]) -> tuple[str | int | float | None, ...]:
    """Return a row of the table, and print it."""
    water = found["water"]
    of_sets = [found[name][key] for name in SETS for key in ("energy_mae", "force_mae")]
    result = (what, labels, *of_sets, water["interaction_mae"], water["near_force_rms"])
    print(*(f"{cell:.2f}" if isinstance(cell, float) else cell for cell in result), sep=" | ", flush=True)
    return result


def main() -> None:
    """Train, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--features", type=int, default=24)
    parser.add_argument("--method", default="gfn2-xtb", help="method of the base, as in qmmlmm train --base")
    parser.add_argument("--trust-code", action="store_true", help="read the pickle of so3lr")
    parser.add_argument("--only-difference", action="store_true", help="leave out the network from nothing")
    parser.add_argument("--seed", type=int, default=1)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tests, others = test_sets()
    # Far apart in time, so that fifty labels are fifty surroundings.
    chosen = others[:: max(1, len(others) // max(options.sizes))][: max(options.sizes)]
    base = base_of_name("--method", options.method, trust_code=options.trust_code)
    labels = difference_labels([*chosen, *(frame for test in tests.values() for frame in test)], base)
    chosen_rest, rest = labels.frames[: len(chosen)], iter(labels.frames[len(chosen) :])
    tests_rest = {name: [next(rest) for _ in test] for name, test in tests.items()}
    network = ResponseSettings(features=options.features)
    settings = TrainingSettings(steps=options.steps, patience=options.steps, seed=options.seed)
    rows = [row("nothing: the base alone", None, {name: base_errors(test) for name, test in tests_rest.items()})]
    for size in options.sizes:
        # Every n-th of the chosen frames: both sizes cover the whole trajectory.
        at = [round(k * len(chosen) / size) for k in range(size)]
        kinds = [
            ("the whole energy", chosen, tests, None),
            ("the difference", chosen_rest, tests_rest, labels.difference),
        ]
        for name, source, tested, difference in kinds[options.only_difference :]:
            part = [source[k] for k in at]
            rows.append(row(name, size, learned(part, tested, network, settings, difference)))
    columns = ["learned", "labels"]
    columns += [f"{name}: {what}" for name in SETS for what in ("energy", "forces")]
    columns += ["water: interaction", "water: forces on near charges, rms"]
    sizes = ", ".join(f"{len(test)} {name}" for name, test in tests.items())
    notes = (
        f"Single run. Test frames: {sizes}. Mean absolute errors in kJ/mol, without the mean error, and kJ/(mol nm)."
    )
    title = f"Acetone, B3LYP/6-31G*, over {options.method}"
    write_record(options.json, [Table(title, tuple(columns), tuple(rows))], notes)


if __name__ == "__main__":
    main()
