"""Errors of the interaction of acetone with its surroundings by responses that are fitted, or trained, on some labels.

    python tests/benchmarks/embedded_response.py [--sizes 10 15] [--trained 25 50] [--steps 1500]
        [--charges so3lr --trust-code] [--json docs/results/data/embedded_response.json]

Labels are B3LYP/6-31G*, of one trajectory in water for the fit, and for the errors of another one, of frames with ions
close to acetone, and of liquid acetone. The base is right in a vacuum: the labels in a vacuum stand for
it. Energies are those of the interaction. Labels of a training include those of its validation. Labels are taken at
equal distances in time. The response that comes with qmmlmm has seen no acetone.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from acetone_sets import SETS, test_sets
from record import Table, add_option, write_record

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
    train,
)
from qmmlmm.learning.labels.frame_field import field_of_frame
from qmmlmm.ml import FixedResponse, GeneralResponse, ResponseModel
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL

Response = FixedResponse | ResponseModel | EvaluatedPotential


class Interaction(Evaluator):
    """Energy in the field minus that in a vacuum."""

    def __init__(self, whole: Evaluator) -> None:
        self.whole = whole

    def evaluate(self, geometry: Geometry, field: ExternalField | None) -> Evaluation:
        """Return the difference."""
        found, alone = (self.whole.evaluate(geometry, each) for each in (field, None))
        return replace(found, energy=found.energy - alone.energy, gradient=found.gradient - alone.gradient)


def evaluator_of(response: Response, atomic_numbers: np.ndarray) -> Evaluator:
    """Return an evaluator of the interaction with the field alone."""
    specification = RegionSpecification("acetone", atomic_numbers, 0, 1)
    if isinstance(response, EvaluatedPotential):
        return Interaction(response.create_evaluator(specification))
    return ModuleEvaluator(specification, response)


def errors(response: Response | None, frames: list[LabelledFrame]) -> dict[str, float]:
    """Return errors of a response, or the sizes of the labels without one."""
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
        "force_mae": float(np.abs(forces).mean()) * FORCE_AU_IN_OPENMM,
        "near_force_rms": float(np.sqrt(np.mean(np.square(np.concatenate(near))))) * FORCE_AU_IN_OPENMM,
    }


def main() -> None:
    """Fit, train and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10, 15], help="numbers of labels of fits")
    parser.add_argument("--trained", type=int, nargs="*", default=[25, 50], help="numbers of labels of trainings")
    parser.add_argument("--charges", help="a base with charges of its own, as in qmmlmm train --base")
    parser.add_argument("--trust-code", action="store_true", help="read the pickle of so3lr")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--features", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tests, others = test_sets()
    rows = []

    def add(response: Response | None, name: str, labels: int | None) -> None:
        found = {each: errors(response, frames) for each, frames in tests.items()}
        of_sets = [found[each][key] for each in SETS for key in ("energy_mae", "force_mae")]
        rows.append((name, labels, *of_sets, found["water"]["near_force_rms"]))
        print(*(f"{cell:.2f}" if isinstance(cell, float) else cell for cell in rows[-1]), sep=" | ", flush=True)

    add(None, "none", None)
    if options.charges is not None:
        base = base_of_name("--charges", options.charges, trust_code=options.trust_code)
        add(base, f"`ModelCharges` of {options.charges.upper()}", None)
    add(GeneralResponse.load().of_molecule(others[0].atomic_numbers), "`GeneralResponse`", None)
    for size in options.sizes:
        add(fit_response(others[:: len(others) // size][:size]), "`FixedResponse`", size)
    network = ResponseSettings(features=options.features)
    training = TrainingSettings(steps=options.steps, patience=options.steps, seed=options.seed)
    for size in options.trained:
        labels = others[:: len(others) // size][:size]
        trained = train(labels, network=network, training=training, response_only=True)
        add(ResponseModel(trained.model), "`ResponseModel`", size)
    columns = ["response", "labels"]
    columns += [f"{name}: {what}" for name in SETS for what in ("energy", "forces")]
    columns += ["water: forces on near charges, rms"]
    sizes = ", ".join(f"{len(frames)} {name}" for name, frames in tests.items())
    notes = (
        f"Single run. Test frames: {sizes}. Mean absolute errors in kJ/mol, without the mean error, and kJ/(mol nm)."
    )
    table = Table("Interaction of acetone with its surroundings", tuple(columns), tuple(rows))
    write_record(options.json, [table], notes)


if __name__ == "__main__":
    main()
