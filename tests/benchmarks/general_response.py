"""Train one response for many molecules, and compare it on molecules and functional groups that it has not seen.

    python tests/benchmarks/label_molecules.py --set learned --labels 4 --output molecule_labels
    python tests/benchmarks/label_molecules.py --set unseen --labels 4 --output molecule_labels
    python tests/benchmarks/general_response.py --labels molecule_labels [--steps 20000] [--features 48]
        [--output general_response.pt] [--json docs/results/data/general_response.json]

Labels are B3LYP/6-31G*. The last label of each fifth molecule says when the training stops. Errors of the interaction
are means over all labels of a set; a training that was stopped goes on. For comparison: no response, and charges of a
force field (AM1-BCC by NAGL). Acetone in water is that of the repository, which no label of the training is.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from label_molecules import name_of
from record import Table, add_option, write_record

from qmmlmm.learning import LabelledFrame, ResponseSettings, TrainingSettings, read_frames, train_general_response
from qmmlmm.learning.training.general_training import InteractionErrors, interaction_errors
from qmmlmm.ml import GeneralResponse
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL
from systems import small_molecules

ACETONE = ROOT / "tests" / "benchmarks" / "data" / "acetone_water.xyz.gz"
TEST_FRAMES = 40
VALIDATION_EVERY = 5

Labels = dict[str, list[LabelledFrame]]


def labels_of(folder: Path, molecules: dict[str, str]) -> Labels:
    """Return the labels of each molecule that has some."""
    paths = {smiles: folder / f"{name_of(smiles)}.xyz" for smiles in molecules}
    return {smiles: read_frames(path) for smiles, path in paths.items() if path.exists()}


def of_charges(labels: Labels, charges: dict[str, np.ndarray]) -> InteractionErrors:
    """Return the errors of charges that do not depend on the geometry."""
    energies, forces, near = [], [], []
    for smiles, frames in labels.items():
        q = charges[smiles]
        for frame in frames:
            assert frame.near is not None
            assert frame.potential is not None
            assert frame.field is not None
            assert frame.vacuum_energy is not None
            energies.append(q @ frame.potential - (frame.energy - frame.vacuum_energy))
            forces.append((q[:, None] * frame.field - frame.forces + frame.vacuum_forces).ravel())
            delta = frame.near.positions[:, None] - frame.positions
            towards = delta / np.linalg.norm(delta, axis=-1, keepdims=True) ** 3
            on_near = frame.near.charges[:, None] * np.einsum("kac,a->kc", towards, q)
            near.append((on_near - frame.near.forces).ravel())
    return InteractionErrors(
        float(np.abs(energies).mean()) * HARTREE_IN_KJ_PER_MOL,
        float(np.abs(np.concatenate(forces)).mean()) * FORCE_AU_IN_OPENMM,
        float(np.sqrt(np.mean(np.concatenate(near) ** 2))) * FORCE_AU_IN_OPENMM,
    )


def force_field_charges(smiles: str) -> np.ndarray:
    """Return the charges of a force field for a molecule, in the order of its labels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from openff.toolkit import Molecule
        from openff.toolkit.utils.nagl_wrapper import NAGLToolkitWrapper
        from rdkit import Chem

        from qmmlmm.preparation.open_force_field import CHARGE_MODEL

        rdkit = Chem.AddHs(Chem.MolFromSmiles(smiles))
        molecule = Molecule.from_rdkit(rdkit, allow_undefined_stereo=True, hydrogens_are_explicit=True)
        molecule.assign_partial_charges(CHARGE_MODEL, toolkit_registry=NAGLToolkitWrapper())
        return np.array(molecule.partial_charges.m_as("elementary_charge"), dtype=float)


def rows_of(name: str, labels: Labels, response: GeneralResponse, known_charges: bool) -> list[tuple[str | float, ...]]:
    """Return the rows of a table for a set of labels."""
    frames = [frame for each in labels.values() for frame in each]
    zero = {smiles: np.zeros(len(each[0].atomic_numbers)) for smiles, each in labels.items()}
    compared = {"nothing": of_charges(labels, zero)}
    if known_charges:
        charges = {smiles: force_field_charges(smiles) for smiles in labels}
        compared["charges of a force field"] = of_charges(labels, charges)
    compared["`GeneralResponse`"] = interaction_errors(response, frames)
    title = f"{name}: {len(labels)} molecules, {len(frames)} labels"
    found = [(title, kind, e.energy, e.forces, e.near_forces) for kind, e in compared.items()]
    for row in found:
        print("| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else cell for cell in row) + " |", flush=True)
    return found


def main() -> None:
    """Train, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="folder of label_molecules.py")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--features", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("general_response.pt"), help="file of the response")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    learned = labels_of(options.labels / "learned", small_molecules.learned_from())
    groups = small_molecules.unseen()
    unseen = labels_of(options.labels / "unseen", groups)
    train, kept = [], []
    for number, frames in enumerate(learned.values()):
        last = len(frames) - 1 if number % VALIDATION_EVERY == 0 and len(frames) > 1 else len(frames)
        train += frames[:last]
        kept += frames[last:]
    kept = kept or train[:: VALIDATION_EVERY * 2]
    print(f"{len(learned)} molecules, {len(train)} labels of the training, {len(kept)} of the validation", flush=True)
    settings = TrainingSettings(steps=options.steps, patience=options.steps, seed=options.seed)
    checkpoint = options.output.with_suffix(".checkpoint.pt")
    network = ResponseSettings(features=options.features)
    trained = train_general_response(train, kept, network=network, training=settings, checkpoint=checkpoint)
    trained.response.save(options.output)
    sets = {
        "unseen molecules": {smiles: frames for smiles, frames in unseen.items() if groups[smiles] == "molecules"},
        "unseen functional groups": {
            smiles: frames for smiles, frames in unseen.items() if groups[smiles] != "molecules"
        },
    }
    rows = []
    for name, labels in sets.items():
        for kind, charged in (("neutral", False), ("ions", True)):
            part = {smiles: frames for smiles, frames in labels.items() if (frames[0].charge != 0) == charged}
            if part:
                rows += rows_of(f"{name}, {kind}", part, trained.response, True)
    rows += rows_of("acetone in water", {"CC(C)=O": read_frames(ACETONE)[:TEST_FRAMES]}, trained.response, False)
    columns = (
        "set",
        "response",
        "energy, MAE, kJ/mol",
        "forces, MAE, kJ/(mol nm)",
        "forces on near charges, rms, kJ/(mol nm)",
    )
    notes = f"{len(learned)} molecules and {len(train)} labels in the training, {len(kept)} in the validation."
    write_record(options.json, [Table("Interaction with the surroundings", columns, tuple(rows))], notes)


if __name__ == "__main__":
    main()
