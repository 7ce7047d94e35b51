"""Make the learned potential of p-xylene that examples/protein_ligand.py uses.

The script has three stages. If it is interrupted, the same command continues, also with more frames:

1. frames.npz: molecular dynamics of the ligand in the protein with the force field;
2. labels.xyz: energy, forces and response of the ligand from PySCF in the field of protein and water, and in vacuum;
3. the model, and report.md with its errors on frames that it was not trained on.

It takes approximately three quarters of an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # one thread for each labelling process
    os.environ.setdefault(variable, "1")

import numpy as np
import openmm
import torch
from openmm import app, unit
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system, select
from qmmlmm.geometry import Geometry
from qmmlmm.learning import (
    LabelledFrame,
    Labeller,
    ResponseSettings,
    TrainingSettings,
    append_frames,
    read_frames,
    region_potential,
    train,
)
from qmmlmm.learning.training.report import write_report
from systems.t4_lysozyme import build

QM = PySCFPotential("hf", "6-31g*", guess="fresh")
METHOD = "hf/6-31g*, density fitting"
MODEL = ROOT / "examples" / "models" / "p_xylene.pt"
TEST_FRAMES = 15
STEPS = 20
STEPS_BETWEEN_TEST_AND_REST = 250


def sample_frames(path: Path, n_frames: int, seed: int) -> None:
    """Run the complex with the force field at 400 K, with constraints only on water, and keep a frame every 40 fs.

    Heavy hydrogens allow longer steps and do not change the distribution of the geometries. A file with fewer frames is
    continued.
    """
    frames: list[np.ndarray] = []
    if path.exists():
        with np.load(path) as kept:
            frames, velocities = list(kept["positions"][:n_frames]), kept["velocities"]
    if len(frames) == n_frames:
        return
    structure = build(constraints=None, hydrogen_mass=3 * unit.dalton)
    integrator = openmm.LangevinMiddleIntegrator(400 * unit.kelvin, 5 / unit.picosecond, 2 * unit.femtosecond)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(structure.topology, structure.system, integrator)
    if frames:
        simulation.context.setPositions(frames[-1])
        simulation.context.setVelocities(velocities)
    else:
        simulation.context.setPositions(structure.positions)
        simulation.minimizeEnergy(maxIterations=50)
        simulation.context.setVelocitiesToTemperature(400 * unit.kelvin, seed)
        simulation.step(300)
    for frame in tqdm(range(len(frames), n_frames), desc="frames", mininterval=10):
        simulation.step(STEPS_BETWEEN_TEST_AND_REST if frame == TEST_FRAMES else STEPS)
        state = simulation.context.getState(positions=True, velocities=True)
        frames.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer).astype(np.float32))
    save = {
        "positions": np.array(frames),
        "velocities": state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond),
        "box": state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer),
    }
    temporary = path.with_name("writing.npz")
    np.savez_compressed(temporary, **save)
    temporary.replace(path)


_labeller: Labeller | None = None


def _start_worker() -> None:
    global _labeller
    torch.set_num_threads(1)
    structure = build()
    ligand = Region("ligand", select(structure.topology, "resname LIG"))
    hamiltonian = Hamiltonian([Term(QM, ligand, embedding="electrostatic")])
    mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)
    _labeller = Labeller(mixed.evaluated_term("ligand/QM"), METHOD)


def _label(geometry: Geometry, name: str) -> LabelledFrame:
    assert _labeller is not None
    return _labeller.label(geometry, name)


def label_frames(frames_path: Path, path: Path, workers: int, n_frames: int) -> None:
    """Label the first frames that have no label yet, and append each label to the file."""
    with np.load(frames_path) as frames:
        positions, box = frames["positions"][:n_frames], frames["box"]
    done = len(read_frames(path)) if path.exists() else 0
    if done >= len(positions):
        return
    geometries = [Geometry(frame.astype(np.float64), box) for frame in positions[done:]]
    names = [f"p_xylene-{k:04d}" for k in range(done, len(positions))]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker) as executor:
        labels = executor.map(_label, geometries, names)
        for label in tqdm(labels, desc="labels", initial=done, total=len(positions), mininterval=10):
            append_frames(path, [label])


def main() -> None:
    """Run the stages that are not finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path("p_xylene_model_run"))
    parser.add_argument("--frames", type=int, default=100, help=f"the first {TEST_FRAMES} are only for the test")
    parser.add_argument("--steps", type=int, default=TrainingSettings.steps, help="steps of the training")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", type=Path, default=MODEL)
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    trajectory, labels = options.directory / "frames.npz", options.directory / "labels.xyz"
    sample_frames(trajectory, options.frames, options.seed)
    label_frames(trajectory, labels, options.workers, options.frames)
    torch.set_num_threads(1)  # the tensors are small
    frames = read_frames(labels)[: options.frames]
    test, kept = frames[:TEST_FRAMES], frames[TEST_FRAMES:]
    network, settings = ResponseSettings(), TrainingSettings(steps=options.steps, seed=options.seed)
    checkpoint = options.directory / "checkpoint.pt"
    trained = train(kept, network=network, training=settings, checkpoint=checkpoint)
    names = [frame.name for frame in kept]
    report = write_report(
        options.directory, trained, test, training_names=names, settings=settings, network=network, unseen=True
    )
    print(report.read_text(encoding="utf-8"))
    options.model.parent.mkdir(exist_ok=True)
    region_potential(trained.model).save(options.model)
    print(f"wrote {options.model} ({options.model.stat().st_size // 1024} KiB)")


if __name__ == "__main__":
    main()
