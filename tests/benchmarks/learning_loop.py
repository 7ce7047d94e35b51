"""The torsion of hydrogen peroxide in water, learned from nothing under umbrellas, against direct QM/MM.

    python tests/benchmarks/learning_loop.py learn      # the loop, with an umbrella for each walker
    python tests/benchmarks/learning_loop.py ml         # profile on the learned surface, the same windows
    python tests/benchmarks/learning_loop.py qm         # profile by direct QM/MM, the same windows; hours
    python tests/benchmarks/learning_loop.py compare    # both profiles, with errors, and the numbers of QM calls

HF/STO-3G, 119 rigid TIP3P waters, PME. Every stage goes on where it was stopped. Profiles come from umbrella
integration: the mean force at the mean angle of a window is the force of its umbrella there (Kaestner and Thiel, J.
Chem. Phys. 123, 144104 (2005), for a window that is nearly normal). Hydrogens of the peroxide have three times their
mass, which changes no average, and all steps are 1 fs.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import openmm
import torch
from openmm import app, unit

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from qmmlmm import Hamiltonian, MLPotential, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.learning import ResponseSettings, TrainingSettings
from qmmlmm.learning.loop import LabelSettings, LearningLoop, LoopSettings, Torsion, Walker
from qmmlmm.learning.loop.store import LoopStore
from systems.solution import Solvent, join_topologies, place_solvent, solution_system

EDGE, WATERS = 1.6, 119  # nm
FORCE_CONSTANT = 80.0  # kJ/(mol rad^2): windows 11 degrees wide, 15 degrees apart
WINDOWS = np.radians(np.arange(0.0, 181.0, 15.0))
TORSION = Torsion(0, 1, 2, 3)
QM = PySCFPotential("hf", "sto-3g", density_fit=False)
REGION = Region("peroxide", [0, 1, 2, 3])
TIME_STEP, TEMPERATURE = 0.001, 300.0
BLOCKS = 5


def peroxide() -> tuple[app.Topology, openmm.System, np.ndarray]:
    """Return H-O-O-H with harmonic bonds and angles, no torsion and OPLS-like non-bonded terms; positions in nm."""
    topology = app.Topology()
    residue = topology.addResidue("HPX", topology.addChain())
    atoms = [topology.addAtom(n, app.Element.getBySymbol(n[0]), residue) for n in ("H1", "O1", "O2", "H2")]
    system = openmm.System()
    bonds, angles, charges = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.NonbondedForce()
    for element, charge in (("H", 0.42), ("O", -0.42), ("O", -0.42), ("H", 0.42)):
        system.addParticle(3.024 if element == "H" else 13.983)
        charges.addParticle(charge, 0.307 if element == "O" else 0.1, 0.71 if element == "O" else 0.0)
    for a, b, length in ((0, 1, 0.100), (1, 2, 0.1396), (2, 3, 0.100)):
        topology.addBond(atoms[a], atoms[b])
        bonds.addBond(a, b, length, 4.0e5 if length < 0.11 else 2.5e5)
    for a, b, c in ((0, 1, 2), (1, 2, 3)):
        angles.addAngle(a, b, c, np.radians(101.0), 500.0)
    for a in range(4):
        for b in range(a):
            charges.addException(a, b, 0.0, 0.1, 0.0)
    for force in (bonds, angles, charges):
        system.addForce(force)
    out = np.array([np.cos(np.radians(101.0)), np.sin(np.radians(101.0))])
    first = np.array([0.100 * out[0], 0.100 * out[1], 0.0])
    turn = np.radians(112.0)
    last = np.array([0.1396 - 0.100 * out[0], 0.100 * out[1] * np.cos(turn), 0.100 * out[1] * np.sin(turn)])
    return topology, system, np.array([first, [0.0, 0.0, 0.0], [0.1396, 0.0, 0.0], last])


def solution() -> tuple[app.Topology, openmm.System, np.ndarray]:
    """Return hydrogen peroxide in water; positions in nm, not equilibrated."""
    solute, system, positions = peroxide()
    box = EDGE * np.eye(3)
    vectors = [openmm.Vec3(*row) for row in box] * unit.nanometer
    solvent = Solvent(WATERS)
    topology = join_topologies(solute, solvent, vectors)
    system = solution_system(
        system, solvent, vectors, nonbonded_method=app.PME, nonbonded_cutoff=0.75 * unit.nanometer,
        constraints=app.HBonds, rigid_water=True, ewald_error_tolerance=5e-4, hydrogen_mass=None,
        remove_cm_motion=True,
    )  # fmt: skip
    placed = place_solvent(
        positions - positions.mean(axis=0) + EDGE / 2, box, solvent, np.random.default_rng(5), clearance=0.24
    )
    return topology, system, placed.positions


def walkers() -> list[Walker]:
    """Return one for each window."""
    return [Walker({"phi_centre": float(c), "phi_k": FORCE_CONSTANT}) for c in WINDOWS]


def learn(options: argparse.Namespace) -> None:
    """Run the loop."""
    topology, system, positions = solution()
    settings = LoopSettings(
        force_error=options.force_error, fresh_labels=13, labels_per_round=options.labels_per_round,
        max_rounds=options.max_rounds, start_labels=26, start_steps=options.start_steps,
        steps_per_round=options.steps_per_round, check_interval=20, temperature=TEMPERATURE, friction=5.0,
        time_step=TIME_STEP, members=3, retrain="continue", seed=1,
    )  # fmt: skip
    loop = LearningLoop(
        options.directory / "loop", topology, system, Term(QM, REGION, embedding="electrostatic"), positions,
        settings=settings, walkers=walkers(), biases=[TORSION.umbrella("phi", True)],
        variables={"torsion, rad": TORSION}, network=ResponseSettings(features=24, layers=2),
        training=TrainingSettings(steps=options.training_steps, batch_size=8, validations=8),
        labelling=LabelSettings(workers=1),
    )  # fmt: skip
    started = time.perf_counter()
    print(loop.run(progress=True))
    print(f"{time.perf_counter() - started:.0f} s in this session")


def sample(options: argparse.Namespace, level: str) -> None:
    """Run all windows on one surface and keep the angle of every step."""
    topology, system, _ = solution()
    potential = MLPotential.load(options.directory / "loop" / "model.pt") if level == "ML" else QM
    term = Term(potential, REGION, embedding="electrostatic")
    mixed = create_mixed_system(topology, system, Hamiltonian([term]))
    mixed.system.addForce(TORSION.umbrella("phi", True))
    store = LoopStore(options.directory / "loop", system.getNumParticles())
    rounds = store.round()[0]
    starts = [store.walker_state(rounds, k) for k in range(len(WINDOWS))]
    store.close()
    steps = round((options.equilibration + options.picoseconds) / TIME_STEP)
    folder = options.directory / level
    folder.mkdir(exist_ok=True)
    for k, walker in enumerate(walkers()):
        path = folder / f"window_{k:02d}.npy"
        if path.exists():
            continue
        integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, TIME_STEP)
        integrator.setRandomNumberSeed(100 + k)
        context = openmm.Context(mixed.system, integrator, openmm.Platform.getPlatform("CPU"))
        context.setPeriodicBoxVectors(*starts[k].box)
        context.setPositions(starts[k].positions)
        for name, value in walker.parameters.items():
            context.setParameter(name, value)
        context.setVelocitiesToTemperature(TEMPERATURE, 200 + k)
        angles = np.empty(steps // 2)
        started = time.perf_counter()
        for step in range(len(angles)):
            integrator.step(2)
            positions = context.getState(positions=True).getPositions(asNumpy=True)._value
            angles[step] = TORSION(positions, np.asarray(starts[k].box))
        np.save(path, angles)
        print(
            f"{level} window {k}, {np.degrees(WINDOWS[k]):.0f} degrees: "
            f"{1000 * (time.perf_counter() - started) / steps:.1f} ms per step",
            flush=True,
        )


def mean_forces(folder: Path, skip: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return mean angles, mean forces, their errors from blocks, and the number of energy evaluations."""
    centres, forces, errors, calls = [], [], [], 0
    for k, centre in enumerate(WINDOWS):
        angles = np.load(folder / f"window_{k:02d}.npy")
        calls += 2 * len(angles)
        away = (angles[skip:] - centre + np.pi) % (2 * np.pi) - np.pi
        blocks = np.array([part.mean() for part in np.array_split(away, BLOCKS)])
        centres.append(centre + away.mean())
        forces.append(-FORCE_CONSTANT * away.mean())  # dA/dphi
        errors.append(FORCE_CONSTANT * blocks.std(ddof=1) / BLOCKS**0.5)
    return np.array(centres), np.array(forces), np.array(errors), calls


def profile(centres: np.ndarray, slopes: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the integral of the mean force, zero at its lowest."""
    fine = np.linspace(grid[0], grid[-1], 721)
    slope = np.interp(fine, centres, slopes)
    area = np.concatenate([[0.0], np.cumsum(0.5 * (slope[1:] + slope[:-1]) * np.diff(fine))])
    values = np.interp(grid, fine, area)
    return values - values.min()


def compare(options: argparse.Namespace) -> None:
    """Print both profiles, their difference, and what they cost."""
    skip = round(options.equilibration / TIME_STEP / 2)
    rng = np.random.default_rng(0)
    profiles, errors, calls = {}, {}, {}
    for level in ("ML", "QM"):
        centres, slopes, deviations, calls[level] = mean_forces(options.directory / level, skip)
        profiles[level] = profile(centres, slopes, WINDOWS)
        draws = [profile(centres, slopes + deviations * rng.normal(size=len(slopes)), WINDOWS) for _ in range(200)]
        errors[level] = np.std(draws, axis=0)
    store = LoopStore(options.directory / "loop", 4 + 3 * WATERS)
    counts = store.counts()
    labels, failed = counts["labelled"], counts["failed"]
    store.close()
    print("| angle, degrees | QM/MM | ML/MM | difference, kJ/mol |\n|---|---|---|---|")
    for k, angle in enumerate(np.degrees(WINDOWS)):
        qm, ml = profiles["QM"][k], profiles["ML"][k]
        print(
            f"| {angle:.0f} | {qm:.1f} ± {errors['QM'][k]:.1f} | {ml:.1f} ± {errors['ML'][k]:.1f} | "
            f"{ml - qm:+.1f} ± {np.hypot(errors['QM'][k], errors['ML'][k]):.1f} |"
        )
    # A label is a calculation in the field and one in a vacuum.
    print(
        f"QM calls: {calls['QM']} for QM/MM, {2 * labels} for the loop ({labels} labels, {failed} set aside): "
        f"{calls['QM'] / (2 * labels):.0f} times fewer; largest difference "
        f"{np.abs(profiles['ML'] - profiles['QM']).max():.1f} kJ/mol"
    )


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=["learn", "ml", "qm", "compare"])
    parser.add_argument("--directory", type=Path, default=Path("learning_loop_run"))
    parser.add_argument("--picoseconds", type=float, default=2.0, help="of each window, after the equilibration")
    parser.add_argument("--equilibration", type=float, default=0.5, help="picoseconds")
    parser.add_argument("--force-error", type=float, default=40.0, help="kJ/(mol nm)")
    parser.add_argument("--labels-per-round", type=int, default=20)
    parser.add_argument("--max-rounds", type=int, default=8)
    parser.add_argument("--start-steps", type=int, default=2000)
    parser.add_argument("--steps-per-round", type=int, default=400)
    parser.add_argument("--training-steps", type=int, default=800)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.directory.mkdir(parents=True, exist_ok=True)
    if options.stage == "learn":
        learn(options)
    elif options.stage == "compare":
        compare(options)
    else:
        sample(options, options.stage.upper())


if __name__ == "__main__":
    main()
