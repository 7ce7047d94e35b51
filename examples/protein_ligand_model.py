"""Make the learned potential of p-xylene that examples/protein_ligand.py uses.

Three stages, each of which is skipped if its file is there, so that the script can be stopped and started again:

1. frames.npz: molecular dynamics of the ligand in the protein with the force field;
2. labels.npz: energy and forces of the ligand from PySCF in the field of protein and water;
3. the model, trained on the labels, and parity.png, its errors on frames that it was not trained on.

Takes about an hour on two cores.
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

from qmmlmm import Hamiltonian, MLPotential, PySCFPotential, Region, Term, create_mixed_system, select
from qmmlmm.ml.embedded_network import EmbeddedNetwork
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, NM_IN_BOHR
from systems.t4_lysozyme import build

QM = PySCFPotential("hf", "6-31g*")
MODEL = ROOT / "examples" / "models" / "p_xylene.pt"


def sample_frames(path: Path, n_frames: int, seed: int) -> None:
    """Run the complex with the force field at 400 K, no constraints but on water, and keep a frame every 40 fs."""
    structure = build(constraints=None)
    integrator = openmm.LangevinMiddleIntegrator(400 * unit.kelvin, 5 / unit.picosecond, 1 * unit.femtosecond)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(structure.topology, structure.system, integrator)
    simulation.context.setPositions(structure.positions)
    simulation.minimizeEnergy(maxIterations=50)
    simulation.context.setVelocitiesToTemperature(400 * unit.kelvin, seed)
    simulation.step(500)
    frames = []
    for _ in tqdm(range(n_frames), desc="frames", disable=not sys.stderr.isatty()):
        simulation.step(40)
        state = simulation.context.getState(positions=True)
        frames.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer).astype(np.float32))
    vectors = simulation.context.getState().getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
    save(path, positions=np.array(frames), box=np.array(vectors))


_term = None


def _start_worker() -> None:
    global _term
    torch.set_num_threads(1)
    structure = build()
    ligand = Region("ligand", select(structure.topology, "resname LIG"))
    mixed = create_mixed_system(
        structure.topology, structure.system, Hamiltonian([Term(QM, ligand, embedding="electrostatic")])
    )
    _term = mixed.evaluated_term("ligand/QM")


def _label(frame: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    assert _term is not None
    positions, box = frame
    label = _term.label(positions.astype(np.float64) * NM_IN_BOHR, box * NM_IN_BOHR)
    return {
        "positions": label.positions,
        "potential": label.potential,
        "potential_gradient": label.potential_gradient,
        "potential_curvature": label.potential_curvature,
        "energy": np.array(label.energy),
        "gradient": label.gradient,
        "dipole": np.asarray(label.results["dipole"]),
    }


def label_frames(frames_path: Path, directory: Path, path: Path, workers: int) -> None:
    """Label all frames with PySCF in the field of their surroundings; each label is kept as soon as it is made."""
    directory.mkdir(exist_ok=True)
    with np.load(frames_path) as frames:
        positions, box = frames["positions"], frames["box"]
    files = [directory / f"{k:04d}.npz" for k in range(len(positions))]
    missing = [k for k, file in enumerate(files) if not file.exists()]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker) as executor:
        jobs = executor.map(_label, [(positions[k], box) for k in missing])
        for k, label in zip(missing, tqdm(jobs, total=len(missing), desc="labels", mininterval=10), strict=True):
            save(files[k], **label)
    labels = [dict(np.load(file)) for file in files]
    save(path, **{key: np.array([label[key] for label in labels]) for key in labels[0]})


def save(path: Path, **arrays: np.ndarray) -> None:
    """Write an npz file that is there as a whole or not at all."""
    temporary = path.with_name("writing.npz")
    np.savez_compressed(temporary, **arrays)
    temporary.replace(path)


def load_labels(path: Path) -> dict[str, torch.Tensor]:
    """Return the labels as float64 tensors in atomic units."""
    with np.load(path) as labels:
        return {key: torch.tensor(labels[key]) for key in labels.files}


def predict(model: EmbeddedNetwork, batch: dict[str, torch.Tensor], train: bool) -> tuple[torch.Tensor, ...]:
    """Return energies and their total gradients: the atoms also move in the potential of the surroundings."""
    fixed = batch["positions"]
    moving = fixed.clone().requires_grad_(True)
    shift = moving - fixed
    potential = batch["potential"] + (batch["potential_gradient"] * shift).sum(-1)
    slope = batch["potential_gradient"] + torch.einsum("bnij,bnj->bni", batch["potential_curvature"], shift)
    energy = model.energy(moving, torch.zeros((), dtype=torch.float64), potential, -slope)
    (gradient,) = torch.autograd.grad(energy.sum(), moving, create_graph=train)
    return energy, gradient


def dipole(model: EmbeddedNetwork, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the dipoles of the embedded molecule, (batch, 3) e bohr; the molecule is neutral."""
    positions = batch["positions"]
    _, charges, dipoles, alpha = model.atom_properties(positions, torch.zeros((), dtype=torch.float64))
    induced = -alpha[..., None] * batch["potential_gradient"]
    return (charges[..., None] * positions + dipoles + induced).sum(1)


def train(labels: dict[str, torch.Tensor], numbers: list[int], bonds: list[tuple[int, int]], epochs: int, seed: int):
    """Fit the bonded polynomial, then train the network; return it with the indices of the test frames."""
    torch.manual_seed(seed)
    n = len(labels["energy"])
    order = torch.randperm(n)
    n_test = n // 6
    test, kept = order[:n_test], order[n_test:]
    data = {key: value[kept] for key, value in labels.items()}
    model = EmbeddedNetwork(numbers, bonds)
    model.fit_bonded(data["positions"], data["energy"], data["gradient"])
    batch_size, steps_per_epoch = 16, max(1, len(kept) // 16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-6)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=4e-3, total_steps=epochs * steps_per_epoch, pct_start=0.05
    )
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    with torch.no_grad():
        spread = {key: data[key].std() for key in ("energy", "gradient", "dipole")}
    progress = tqdm(range(epochs), desc="training", mininterval=10)
    for _ in progress:
        for chosen in torch.randperm(len(kept)).split(batch_size)[:steps_per_epoch]:
            batch = {key: value[chosen] for key, value in data.items()}
            energy, gradient = predict(model, batch, train=True)
            loss = (
                ((gradient - batch["gradient"]) / spread["gradient"]).square().mean()
                + 0.02 * ((energy - batch["energy"]) / spread["energy"]).square().mean()
                + 0.02 * ((dipole(model, batch) - batch["dipole"]) / spread["dipole"]).square().mean()
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
        progress.set_postfix(loss=f"{loss.item():.2e}")
    return average.module.eval(), test


def report(model: EmbeddedNetwork, labels: dict[str, torch.Tensor], test: torch.Tensor, path: Path) -> None:
    """Print the errors on frames that were not trained on and draw predicted against computed values."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    batch = {key: value[test] for key, value in labels.items()}
    energy, gradient = predict(model, batch, train=False)
    pairs = {
        "energy, kJ/mol": ((batch["energy"] - batch["energy"].mean()), (energy - batch["energy"].mean())),
        "force, kJ/(mol nm)": (-batch["gradient"], -gradient),
    }
    factors = {"energy, kJ/mol": HARTREE_IN_KJ_PER_MOL, "force, kJ/(mol nm)": FORCE_AU_IN_OPENMM}
    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (label, (computed, predicted)) in zip(figure.subplots(1, 2), pairs.items(), strict=True):
        x = computed.detach().numpy().ravel() * factors[label]
        y = predicted.detach().numpy().ravel() * factors[label]
        error = np.abs(x - y).mean()
        print(f"{label}: mean absolute error {error:.2f} on {len(test)} frames, spread of the labels {x.std():.1f}")
        axes.plot(x, y, ".", markersize=3)
        axes.axline((0, 0), slope=1, color="black", linewidth=0.7)
        axes.set_xlabel(f"HF/6-31G* {label}")
        axes.set_ylabel(f"model {label}")
        axes.set_title(f"mean absolute error {error:.2f}, {len(test)} held-out frames", fontsize=10)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run the stages that are not done yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path("p_xylene_model_run"))
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", type=Path, default=MODEL)
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    frames, labels = options.directory / "frames.npz", options.directory / "labels.npz"
    if not frames.exists():
        sample_frames(frames, options.frames, options.seed)
    if not labels.exists():
        label_frames(frames, options.directory / "labels", labels, options.workers)
    topology = build().topology
    ligand = select(topology, "resname LIG")
    atoms = [atom for atom in topology.atoms() if atom.index in set(ligand)]
    position = {index: k for k, index in enumerate(ligand)}
    bonds = [(position[a.index], position[b.index]) for a, b in topology.bonds() if a.index in position]
    numbers = [atom.element.atomic_number for atom in atoms]
    torch.set_num_threads(1)  # the tensors are small
    data = load_labels(labels)
    model, test = train(data, numbers, bonds, options.epochs, options.seed)
    report(model, data, test, options.directory / "parity.png")
    options.model.parent.mkdir(exist_ok=True)
    MLPotential(model, atomic_numbers=numbers, embeddings=["electrostatic", "mechanical"]).save(options.model)
    print(f"wrote {options.model} ({options.model.stat().st_size // 1024} KiB)")


if __name__ == "__main__":
    main()
