"""How many labels a potential of acetone needs without surroundings: the network of qmmlmm and MACE on the same frames.

    python tests/benchmarks/mace_in_vacuum.py --sizes 50 400 [--epochs 100] [--output mace_run] [--json FILE]

Both get energies and forces of the same geometries in vacuum (those of `acetone_in_water.py`) and nothing else. MACE,
by its own program `mace_run_train`, has two layers with 32 scalars and 32 vectors, correlation 2 and a cutoff of 5
angstrom: per evaluation it takes some three times as long as the network (`model_speed.py --mace`). Errors are mean
absolute ones on the same 40 test frames, energies without their common shift. Needs the package mace-torch.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import ase
import ase.io
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm.learning import LabelledFrame, ResponseSettings, TrainingSettings, read_frames
from qmmlmm.learning.training.accuracy import accuracy
from qmmlmm.learning.training.frame_tensors import frame_tensors
from qmmlmm.learning.training.prediction import predict
from qmmlmm.learning.training.trainer import Training, create_model
from qmmlmm.units import ANGSTROM_IN_BOHR, FORCE_AU_IN_OPENMM, HARTREE_IN_EV, HARTREE_IN_KJ_PER_MOL

DATA = Path(__file__).parent / "data" / "acetone_water.xyz.gz"
N_TEST, N_VALIDATION = 40, 4


def in_vacuum(frame: LabelledFrame) -> LabelledFrame:
    """Return the frame as if there were no surroundings."""
    nothing = ("vacuum_energy", "vacuum_forces", "dipole", "vacuum_dipole", "potential", "field", "field_gradient")
    empty = {name: None for name in (*nothing, "near", "charges") if hasattr(frame, name)}
    return replace(frame, energy=frame.vacuum_energy, forces=frame.vacuum_forces, **empty)


def errors_of_network(train: list[LabelledFrame], test: list[LabelledFrame], steps: int) -> tuple[float, float, float]:
    """Return energy error in kJ/mol, force error in kJ/(mol nm) and the processor time of the training in s."""
    settings = TrainingSettings(steps=steps, batch_size=8, validations=10)
    start = time.process_time()
    model = create_model(train[:-N_VALIDATION], ResponseSettings(response=False))
    trained = Training(model, train[:-N_VALIDATION], train[-N_VALIDATION:], settings).run()
    seconds = time.process_time() - start
    data = frame_tensors(test, model.known_conditions())
    found = accuracy(predict(trained.model, data), data)
    return found.energy, found.forces, seconds


def write(path: Path, frames: list[LabelledFrame]) -> None:
    """Write frames as MACE reads them, eV and angstrom."""
    images = []
    for frame in frames:
        image = ase.Atoms(frame.atomic_numbers, np.asarray(frame.positions) / ANGSTROM_IN_BOHR)
        image.info["REF_energy"] = frame.energy * HARTREE_IN_EV
        image.arrays["REF_forces"] = np.asarray(frame.forces) * HARTREE_IN_EV * ANGSTROM_IN_BOHR
        images.append(image)
    ase.io.write(path, images, format="extxyz")


def errors_of_mace(
    train: list[LabelledFrame], test: list[LabelledFrame], epochs: int, folder: Path
) -> tuple[float, float, float]:
    """Return the same of MACE."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "train.xyz", train[:-N_VALIDATION])
    write(folder / "validation.xyz", train[-N_VALIDATION:])
    settings = {
        "name": "acetone", "train_file": "train.xyz", "valid_file": "validation.xyz", "E0s": "average",
        "hidden_irreps": "32x0e + 32x1o", "num_interactions": 2, "correlation": 2, "max_ell": 2, "r_max": 5.0,
        "batch_size": 8, "valid_batch_size": 4, "max_num_epochs": epochs, "start_swa": 3 * epochs // 4,
        "scheduler": "ExponentialLR", "lr_scheduler_gamma": 0.1 ** (1.0 / epochs), "default_dtype": "float32",
        "device": "cpu", "seed": 1, "eval_interval": max(1, epochs // 10), "error_table": "PerAtomMAE",
    }  # fmt: skip
    command = [sys.executable, "-m", "mace.cli.run_train", "--ema", "--swa"]
    command += [f"--{name}={value}" for name, value in settings.items()]
    # MACE reads its own checkpoints as pickles.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    before = os.times().children_user
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, check=True)
    seconds = os.times().children_user - before
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=str(folder / "acetone_stagetwo.model"), device="cpu")
    energies, forces = [], []
    for frame in test:
        atoms = ase.Atoms(frame.atomic_numbers, np.asarray(frame.positions) / ANGSTROM_IN_BOHR)
        atoms.calc = calculator
        energies.append(atoms.get_potential_energy() / HARTREE_IN_EV - frame.energy)
        forces.append(atoms.get_forces() / (HARTREE_IN_EV * ANGSTROM_IN_BOHR) - frame.forces)
    error = np.array(energies) * HARTREE_IN_KJ_PER_MOL
    return (
        float(np.abs(error - error.mean()).mean()),
        float(np.abs(np.array(forces)).mean()) * FORCE_AU_IN_OPENMM,
        seconds,
    )


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 400])
    parser.add_argument("--epochs", type=int, default=100, help="of MACE at the largest size; as many steps at others")
    parser.add_argument("--steps", type=int, default=4000, help="of the network")
    parser.add_argument("--output", type=Path, default=Path("mace_run"))
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    frames = [in_vacuum(frame) for frame in read_frames(options.data)]
    test, rest = frames[:N_TEST], frames[N_TEST:]
    rows = []
    for size in options.sizes:
        train = rest[: size + N_VALIDATION]
        epochs = round(options.epochs * max(options.sizes) / size)
        for name, found in (
            ("network", errors_of_network(train, test, options.steps)),
            ("MACE", errors_of_mace(train, test, epochs, options.output / f"{size}")),
        ):
            rows.append((name, size, *found[:2], round(found[2])))
            print(*rows[-1], flush=True)
    columns = ("model", "labels", "energy, MAE, kJ/mol", "forces, MAE, kJ/(mol nm)", "training, processor time, s")
    table = Table("", columns, tuple(rows))
    print_tables([table])
    write_record(options.json, [table], f"{N_TEST} test frames without surroundings; single runs.")


if __name__ == "__main__":
    main()
