"""Errors of the interaction of acetone with water by a response that is fitted to, or trained on, a few labels.

    python tests/benchmarks/embedded_response.py [--sizes 10 15] [--trained 50] [--steps 1500]
        [--charges so3lr --trust-code] [--json docs/results/data/embedded_response.json]

Labels are B3LYP/6-31G*, of one trajectory for the fit and of another one for the errors. The base is right in a vacuum:
the labels in a vacuum stand for it. Energies are those of the interaction. Labels of a training include those of its
validation. Labels are taken at equal distances in time.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm.commands.potential_input import base_of_name
from qmmlmm.coupling import EvaluatedPotential, Evaluator, ExternalField, RegionSpecification
from qmmlmm.coupling.potential import Evaluation
from qmmlmm.embedding.module_evaluator import ModuleEvaluator
from qmmlmm.geometry import Geometry
from qmmlmm.learning import (
    LabelledFrame,
    ResponseSettings,
    TrainingSettings,
    fit_response,
    read_frames,
    train,
)
from qmmlmm.learning.labels.frame_field import field_of_frame
from qmmlmm.ml import FixedResponse, ResponseModel
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL

DATA = ROOT / "tests" / "benchmarks" / "data" / "acetone_water.xyz.gz"
TEST_FRAMES, SECOND_TRAJECTORY = 40, 50
COLUMNS = (
    "response",
    "labels",
    "energy, MAE, kJ/mol",
    "with its mean error",
    "forces, MAE, kJ/(mol nm)",
    "forces, rms",
    "forces on near charges, rms, kJ/(mol nm)",
)


class Interaction(Evaluator):
    """Energy in the field minus that in a vacuum."""

    def __init__(self, whole: Evaluator) -> None:
        self.whole = whole

    def evaluate(self, geometry: Geometry, field: ExternalField | None) -> Evaluation:
        """Return the difference."""
        found, alone = (self.whole.evaluate(geometry, each) for each in (field, None))
        return replace(found, energy=found.energy - alone.energy, gradient=found.gradient - alone.gradient)


def evaluator_of(response: FixedResponse | ResponseModel | EvaluatedPotential, atomic_numbers: np.ndarray) -> Evaluator:
    """Return an evaluator of the interaction with the field alone."""
    specification = RegionSpecification("acetone", atomic_numbers, 0, 1)
    if isinstance(response, EvaluatedPotential):
        return Interaction(response.create_evaluator(specification))
    return ModuleEvaluator(specification, response)


def errors(
    response: FixedResponse | ResponseModel | EvaluatedPotential | None, frames: list[LabelledFrame]
) -> dict[str, float]:
    """Return errors of a response, or the sizes of the labels without one, in the order of the columns."""
    evaluator = None if response is None else evaluator_of(response, frames[0].atomic_numbers)
    energies, forces, near = [], [], []
    for frame in frames:
        assert frame.near is not None
        assert frame.vacuum_energy is not None
        found = None if evaluator is None else evaluator.evaluate(Geometry(frame.positions), field_of_frame(frame))
        zero = 0.0
        energies.append((zero if found is None else found.energy) - (frame.energy - frame.vacuum_energy))
        forces.append((zero if found is None else found.gradient) + frame.forces - frame.vacuum_forces)
        near.append(((zero if found is None else found.charge_gradient) + frame.near.forces).ravel())
    return {
        "energy_mae": float(np.abs(energies - np.mean(energies)).mean()) * HARTREE_IN_KJ_PER_MOL,
        "energy_mae_with_shift": float(np.abs(energies).mean()) * HARTREE_IN_KJ_PER_MOL,
        "force_mae": float(np.abs(forces).mean()) * FORCE_AU_IN_OPENMM,
        "force_rms": float(np.sqrt(np.mean(np.square(forces)))) * FORCE_AU_IN_OPENMM,
        "near_force_rms": float(np.sqrt(np.mean(np.square(np.concatenate(near))))) * FORCE_AU_IN_OPENMM,
    }


def main() -> None:
    """Fit, train and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10, 15], help="numbers of labels of fits")
    parser.add_argument("--trained", type=int, nargs="*", default=[50], help="numbers of labels of trainings")
    parser.add_argument("--charges", help="a base with charges of its own, as in qmmlmm train --base")
    parser.add_argument("--trust-code", action="store_true", help="read the pickle of so3lr")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--features", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    frames = read_frames(DATA)
    test, others = frames[:TEST_FRAMES], frames[SECOND_TRAJECTORY:]
    rows: list[tuple[str | float | None, ...]] = [("none", None, *errors(None, test).values())]
    if options.charges is not None:
        base = base_of_name("--charges", options.charges, trust_code=options.trust_code)
        rows.append((f"`ModelCharges` of {options.charges.upper()}", None, *errors(base, test).values()))
        print(*rows[-1], flush=True)
    for size in options.sizes:
        fitted = fit_response(others[:: len(others) // size][:size])
        rows.append(("`FixedResponse`", size, *errors(fitted, test).values()))
        print(*rows[-1], flush=True)
    network = ResponseSettings(features=options.features)
    training = TrainingSettings(steps=options.steps, patience=options.steps, seed=options.seed)
    for size in options.trained:
        labels = others[:: len(others) // size][:size]
        trained = ResponseModel(train(labels, network=network, training=training, response_only=True).model)
        rows.append(("`ResponseModel`", size, *errors(trained, test).values()))
        print(*rows[-1], flush=True)
    table = Table("", COLUMNS, tuple(rows))
    print_tables([table])
    write_record(options.json, [table], f"{TEST_FRAMES} test frames; single runs.")


if __name__ == "__main__":
    main()
