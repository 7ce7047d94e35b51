"""Train one response for many molecules, and compare it on molecules and functional groups that it has not seen.

    python tests/benchmarks/label_droplets.py --molecules 1000 --labels 5 --output droplet_labels
    python tests/benchmarks/label_molecules.py --set learned --labels 4 --output molecule_labels
    python tests/benchmarks/label_molecules.py --set unseen --labels 4 --output molecule_labels
    python tests/benchmarks/general_response.py --labels molecule_labels [--first droplet_labels] [--steps 4000]
        [--features 48] [--output general_response.pt] [--json docs/results/data/general_response.json]

Labels are B3LYP/6-31G*. With --first the training begins with a response that learned labels of GFN2-xTB. The last
label of each fifth molecule, and each twentieth of those with one label, say when a training stops. Errors of the
interaction are means over all labels of a set; a training that was stopped goes on. For comparison: no response, and
charges of a force field (AM1-BCC by NAGL). Acetone in water is that of the repository, which no label of the training
is.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from dataclasses import replace
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
from qmmlmm.learning.training.interaction_errors import InteractionErrors, interaction_errors
from qmmlmm.ml import GeneralResponse
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL
from systems import small_molecules

ACETONE, ACETONE_LABELS = "CC(C)=O", ROOT / "tests" / "benchmarks" / "data" / "acetone_water.xyz.gz"
TEST_FRAMES = 40
FINE_TUNING = 1e-3
"""Learning rate where a training goes on."""
VALIDATION_EVERY, SINGLE_EVERY = 5, 20

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


def acetone_charges(frame: LabelledFrame) -> np.ndarray:
    """Return the charges of a force field for acetone, whose labels have another order of the atoms."""
    from rdkit import Chem

    charges = force_field_charges(ACETONE)
    atoms = list(Chem.AddHs(Chem.MolFromSmiles(ACETONE)).GetAtoms())
    of_kind = {(atom.GetSymbol(), atom.GetDegree()): q for atom, q in zip(atoms, charges, strict=True)}
    oxygen = frame.positions[frame.atomic_numbers == 8]
    distances = np.linalg.norm(frame.positions - oxygen, axis=1)
    carbonyl = min(np.flatnonzero(frame.atomic_numbers == 6), key=distances.__getitem__)
    kinds = {1: ("H", 1), 6: ("C", 4), 8: ("O", 1)}
    found = np.array([of_kind[kinds[int(z)]] for z in frame.atomic_numbers])
    found[carbonyl] = of_kind["C", 3]
    return found


def rows_of(name: str, labels: Labels, response: GeneralResponse) -> list[tuple[str | float, ...]]:
    """Return the rows of a table for a set of labels."""
    frames = [frame for each in labels.values() for frame in each]
    zero = {smiles: np.zeros(len(each[0].atomic_numbers)) for smiles, each in labels.items()}
    charges = {
        smiles: acetone_charges(each[0]) if name.startswith("acetone") else force_field_charges(smiles)
        for smiles, each in labels.items()
    }
    compared = {
        "nothing": of_charges(labels, zero),
        "charges of a force field": of_charges(labels, charges),
        "`GeneralResponse`": interaction_errors(response, frames),
    }
    title = f"{name}: {len(frames)} labels of {len(labels)}" if len(labels) > 1 else f"{name}: {len(frames)} labels"
    found = [(title, kind, e.energy, e.forces, e.near_forces) for kind, e in compared.items()]
    for row in found:
        print("| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else cell for cell in row) + " |", flush=True)
    return found


def trained_on(
    labels: Labels, steps: int, options: argparse.Namespace, path: Path, start: GeneralResponse | None
) -> tuple[GeneralResponse, str]:
    """Return a response, which is in a file as well, and of how much it was made; an existing file is read."""
    train, kept = [], []
    for number, frames in enumerate(labels.values()):
        held = number % (VALIDATION_EVERY if len(frames) > 1 else SINGLE_EVERY) == 0
        train += frames[: len(frames) - held]
        kept += frames[len(frames) - held :]
    counts = f"{len(train)} labels of {len(labels)} molecules, and {len(kept)} for the validation"
    print(counts, flush=True)
    if path.exists():
        return GeneralResponse.load(path), counts
    training = TrainingSettings(steps=steps, patience=steps, seed=options.seed)
    trained = train_general_response(
        train,
        kept,
        network=ResponseSettings(features=options.features),
        training=training if start is None else replace(training, learning_rate=FINE_TUNING),
        start=start,
        checkpoint=path.with_suffix(".checkpoint.pt"),
    )
    trained.response.save(path)
    return trained.response, counts


def main() -> None:
    """Train, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="folder of label_molecules.py")
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--first", type=Path, help="folder of label_droplets.py, to begin with")
    parser.add_argument("--first-steps", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("general_response.pt"), help="file of the response")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start, notes = None, ""
    if options.first is not None:
        droplets = {path.stem: read_frames(path) for path in sorted(options.first.glob("*.xyz"))}
        start, counts = trained_on(
            droplets, options.first_steps, options, options.output.with_suffix(".first.pt"), None
        )
        notes = f"First trained on GFN2-xTB: {counts}. "
    learned = labels_of(options.labels / "learned", small_molecules.learned_from())
    response, counts = trained_on(learned, options.steps, options, options.output, start)
    notes += f"Trained on B3LYP/6-31G*: {counts}. Mean absolute errors, without anything removed; rms on near charges."
    groups = small_molecules.unseen()
    unseen = labels_of(options.labels / "unseen", groups)
    sets: dict[str, Labels] = {}
    for smiles, frames in unseen.items():
        kind = "ions" if frames[0].charge else "neutral"
        name = "unseen molecules" if groups[smiles] == "molecules" else "unseen functional groups"
        sets.setdefault(f"{name}, {kind}", {})[smiles] = frames
    sets["acetone in water"] = {ACETONE: read_frames(ACETONE_LABELS)[:TEST_FRAMES]}
    rows = [row for name, labels in sets.items() for row in rows_of(name, labels, response)]
    columns = ("set", "response", "energy, kJ/mol", "forces, kJ/(mol nm)", "forces on near charges, kJ/(mol nm)")
    write_record(options.json, [Table("Interaction with the surroundings", columns, tuple(rows))], notes)


if __name__ == "__main__":
    main()
