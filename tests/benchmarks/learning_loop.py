"""The torsion of hydrogen peroxide in water, learned from nothing under umbrellas, against direct QM/MM.

    python tests/benchmarks/learning_loop.py learn      # the loop, with an umbrella for each walker
    python tests/benchmarks/learning_loop.py ml         # profile on the learned surface, the same windows
    python tests/benchmarks/learning_loop.py reweight   # the QM/MM profile from QM energies of some of its frames
    python tests/benchmarks/learning_loop.py qm         # profile by direct QM/MM, the same windows, or some of them
    python tests/benchmarks/learning_loop.py compare    # the profiles, with errors, and the numbers of QM calls
    python tests/benchmarks/learning_loop.py compare --json FILE

HF/STO-3G, 119 rigid TIP3P waters, PME. Every stage goes on where it was stopped. Profiles come from umbrella
integration: the mean force at the mean angle of a window is the force of its umbrella there (Kaestner and Thiel, J.
Chem. Phys. 123, 144104 (2005), for a window that is nearly normal). Hydrogens of the peroxide have three times their
mass, which changes no average, and all steps are 2 fs, a seventh of the fastest period.

What keeps a QM call cheap: the Ewald splitting lies so high that the integrals need no second mesh, and the density
meets the smooth potential on a grid of level 1 (level 0 is wrong by 2.5e-4 hartree), for labels and dynamics alike.
What keeps their number low: `reweight` gives frames of the learned surface their QM/MM weights, and since the profile
differs little, so does its error; `qm --windows 0 4 8 12` shows independently that these are right.
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

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm import Hamiltonian, MixedSystem, MLPotential, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.free_energy.reweighting import reweight
from qmmlmm.geometry import Geometry
from qmmlmm.learning import ResponseSettings, TrainingSettings
from qmmlmm.learning.loop import LabelSettings, LearningLoop, LoopSettings, Torsion, Walker
from qmmlmm.learning.loop.store import LoopStore
from systems.solution import Solvent, join_topologies, place_solvent, solution_system

EDGE, WATERS = 1.6, 119  # nm
FORCE_CONSTANT = 80.0  # kJ/(mol rad^2): windows 11 degrees wide, 15 degrees apart
WINDOWS = np.radians(np.arange(0.0, 181.0, 15.0))
TORSION = Torsion(0, 1, 2, 3)
QM = PySCFPotential("hf", "sto-3g", density_fit=False, embedding_grid_level=1)
REGION = Region("peroxide", [0, 1, 2, 3])
TIME_STEP, TEMPERATURE = 0.002, 300.0
BLOCKS = 5
FRAMES_EVERY = 25  # steps of ML dynamics; more than the correlation of the energy difference


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
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setPMEParameters(5.2, 40, 40, 40)
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


def mixed_at(options: argparse.Namespace, level: str) -> MixedSystem:
    """Return the System on one surface, with the umbrella."""
    topology, system, _ = solution()
    potential = MLPotential.load(options.directory / "loop" / "model.pt") if level == "ML" else QM
    term = Term(potential, REGION, embedding="electrostatic", name="peroxide")
    mixed = create_mixed_system(topology, system, Hamiltonian([term]))
    mixed.system.addForce(TORSION.umbrella("phi", True))
    return mixed


def sample(options: argparse.Namespace, level: str) -> None:
    """Run windows on one surface; keep the angle of every second step, and frames of ML dynamics."""
    mixed = mixed_at(options, level)
    store = LoopStore(options.directory / "loop", mixed.system.getNumParticles())
    rounds = store.round()[0]
    starts = [store.walker_state(rounds, k).geometry for k in range(len(WINDOWS))]
    store.close()
    picoseconds = options.picoseconds or (10.0 if level == "ML" else 2.0)
    steps = round((options.equilibration + picoseconds) / TIME_STEP)
    folder = options.directory / level
    folder.mkdir(exist_ok=True)
    for k in options.windows if level == "QM" else range(len(WINDOWS)):
        path = folder / f"window_{k:02d}.npz"
        if path.exists():
            continue
        integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, TIME_STEP)
        integrator.setRandomNumberSeed(100 + k)
        context = openmm.Context(mixed.system, integrator, openmm.Platform.getPlatform("CPU"))
        context.setPeriodicBoxVectors(*starts[k].box)
        context.setPositions(starts[k].positions)
        for name, value in walkers()[k].parameters.items():
            context.setParameter(name, value)
        context.setVelocitiesToTemperature(TEMPERATURE, 200 + k)
        angles, frames = np.empty(steps // 2), []
        started, skip = time.perf_counter(), round(options.equilibration / TIME_STEP)
        for step in range(len(angles)):
            integrator.step(2)
            positions = context.getState(positions=True).getPositions(asNumpy=True)._value
            angles[step] = TORSION(Geometry(positions, starts[k].box))
            if level == "ML" and 2 * step >= skip and step % FRAMES_EVERY == 0:
                frames.append(positions)
        skipped = skip // 2
        np.savez(path, angles=angles[skipped:], calls=2 * len(angles), frames=np.array(frames), box=starts[k].box)
        print(
            f"{level} window {k}, {np.degrees(WINDOWS[k]):.0f} degrees: "
            f"{1000 * (time.perf_counter() - started) / steps:.1f} ms per step",
            flush=True,
        )


def weigh(options: argparse.Namespace) -> None:
    """Keep QM less ML energies of frames of each ML window."""
    contexts = {}
    for level in ("ML", "QM"):
        mixed = mixed_at(options, level)
        integrator = openmm.VerletIntegrator(0.001)
        contexts[level] = mixed, openmm.Context(mixed.system, integrator, openmm.Platform.getPlatform("CPU"))
    for k in range(len(WINDOWS)):
        path = options.directory / "ML" / f"difference_{k:02d}.npz"
        if path.exists():
            continue
        with np.load(options.directory / "ML" / f"window_{k:02d}.npz") as window:
            frames, box = window["frames"], window["box"]
        chosen = frames[np.unique(np.linspace(0, len(frames) - 1, options.frames).astype(int))]
        differences, angles = [], []
        for positions in chosen:
            energies = {}
            for level, (mixed, context) in contexts.items():
                context.setPeriodicBoxVectors(*box)
                context.setPositions(positions)
                energies[level] = mixed.term_energies(context)["peroxide"]._value
            differences.append(energies["QM"] - energies["ML"])
            angles.append(TORSION(Geometry(positions, box)))
        np.savez(path, differences=differences, angles=angles)
        print(f"window {k}: QM - ML scatters by {np.std(differences):.2f} kJ/mol", flush=True)


def away_from(centre: float, angles: np.ndarray) -> np.ndarray:
    """Return angles less the centre of a window, the shorter way round."""
    return (angles - centre + np.pi) % (2 * np.pi) - np.pi


def mean_forces(folder: Path, windows: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return mean angles, mean forces, their errors from blocks, and the number of energy evaluations."""
    centres, forces, errors, calls = [], [], [], 0
    for k in windows:
        with np.load(folder / f"window_{k:02d}.npz") as window:
            away, calls = away_from(WINDOWS[k], window["angles"]), calls + int(window["calls"])
        blocks = np.array([part.mean() for part in np.array_split(away, BLOCKS)])
        centres.append(WINDOWS[k] + away.mean())
        forces.append(-FORCE_CONSTANT * away.mean())  # dA/dphi
        errors.append(FORCE_CONSTANT * blocks.std(ddof=1) / BLOCKS**0.5)
    return np.array(centres), np.array(forces), np.array(errors), calls


def weighed_forces(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return the QM less the ML mean force of all windows, at the QM mean angle, errors, and the fewest samples.

    Both means are of the same frames, so that most of the scatter of the angle drops out of the difference, whose
    error is that of a jackknife over blocks.
    """
    shifts, errors, fewest = [], [], np.inf
    for k, centre in enumerate(WINDOWS):
        with np.load(folder / f"difference_{k:02d}.npz") as found:
            away, differences = away_from(centre, found["angles"]), found["differences"]
        weighed = reweight(differences, TEMPERATURE)
        fewest = min(fewest, weighed.effective_samples)
        parts = np.array_split(np.arange(len(away)), 2 * BLOCKS)

        def shift(left: np.ndarray, away: np.ndarray = away, weights: np.ndarray = weighed.weights) -> float:
            return float(weights[left] @ away[left] / weights[left].sum() - away[left].mean())

        without = [shift(np.setdiff1d(np.arange(len(away)), part)) for part in parts]
        shifts.append(shift(np.arange(len(away))))
        errors.append(np.sqrt((len(parts) - 1) * np.var(without)))
    return np.array(shifts), -FORCE_CONSTANT * np.array(shifts), FORCE_CONSTANT * np.array(errors), float(fewest)


def profile(centres: np.ndarray, slopes: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the integral of the mean force, zero at its lowest."""
    fine = np.linspace(grid[0], grid[-1], 721)
    slope = np.interp(fine, centres, slopes)
    area = np.concatenate([[0.0], np.cumsum(0.5 * (slope[1:] + slope[:-1]) * np.diff(fine))])
    values = np.interp(grid, fine, area)
    return values - values.min()


def with_error(centres: np.ndarray, slopes: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a profile and its standard error."""
    rng = np.random.default_rng(0)
    draws = [profile(centres, slopes + errors * rng.normal(size=len(slopes)), WINDOWS) for _ in range(200)]
    return profile(centres, slopes, WINDOWS), np.std(draws, axis=0)


def compare(options: argparse.Namespace) -> None:
    """Print the profiles, their differences, and what they cost."""
    every = list(range(len(WINDOWS)))
    centres, slopes, errors, _ = mean_forces(options.directory / "ML", every)
    ml, ml_error = with_error(centres, slopes, errors)
    columns = {"ML/MM": (ml, ml_error)}
    tables: list[Table] = []
    notes = []
    shift = weighed = None
    if all((options.directory / "ML" / f"difference_{k:02d}.npz").exists() for k in every):
        shift, weighed, weighed_error, fewest = weighed_forces(options.directory / "ML")
        qm, _ = with_error(centres + shift, slopes + weighed, weighed_error)
        difference = with_error(centres, weighed, weighed_error)[1]
        columns["QM/MM, reweighted"] = (qm, np.hypot(ml_error, difference))
        largest = np.abs(ml - qm).max()
        notes.append(
            f"ML less QM by reweighting: {largest:.2f} kJ/mol at most, standard error {difference.max():.2f}; "
            f"{fewest:.0f} effective samples or more in each window."
        )
    done = [k for k in every if (options.directory / "QM" / f"window_{k:02d}.npz").exists()]
    calls = 0
    if done:
        where, direct, direct_error, calls = mean_forces(options.directory / "QM", done)
        forces = []
        for k, force, error in zip(done, direct, direct_error, strict=True):
            there = None
            if weighed is not None:
                there = [float(slopes[k] + weighed[k]), float(np.hypot(errors[k], weighed_error[k]))]
            pairs = [float(force), float(error)], [float(slopes[k]), float(errors[k])]
            forces.append((round(float(np.degrees(WINDOWS[k]))), *pairs, there))
        names = ("torsion, degrees", "direct QM/MM", "ML/MM", "QM/MM, reweighted")
        tables.append(Table("Mean forces, kJ/(mol rad)", names, tuple(forces)))
        if done == every:
            columns["QM/MM"] = with_error(where, direct, direct_error)
    rows = []
    for k, angle in enumerate(np.degrees(WINDOWS)):
        cells = [[float(values[k]), float(error[k])] for values, error in columns.values()]
        rows.append((round(float(angle)), *cells))
    tables.insert(0, Table("Free energy, kJ/mol", ("torsion, degrees", *columns), tuple(rows)))
    store = LoopStore(options.directory / "loop", 4 + 3 * WATERS)
    counts = store.counts()
    labels, failed = counts["labelled"], counts["failed"]
    store.close()
    # A label is a calculation in the field and one in a vacuum.
    whole = (
        round(calls * len(every) / len(done)) if done else round((2.0 + options.equilibration) / TIME_STEP) * len(every)
    )
    notes.append(
        f"QM calls: {2 * labels:,} for the loop ({labels} labels, {failed} set aside); direct QM/MM {calls:,}, for all "
        f"windows {whole:,}: {whole / (2 * labels):.0f} times as many."
    )
    print_tables(tables)
    print(*notes)
    write_record(options.json, tables, " ".join(notes))


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=["learn", "ml", "reweight", "qm", "compare"])
    parser.add_argument("--directory", type=Path, default=Path("learning_loop_run"))
    parser.add_argument("--picoseconds", type=float, help="of each window, after the equilibration; 10 (ml), 2 (qm)")
    parser.add_argument("--windows", type=int, nargs="+", default=list(range(len(WINDOWS))), help="of direct QM/MM")
    parser.add_argument("--frames", type=int, default=80, help="of each window, for reweighting")
    parser.add_argument("--equilibration", type=float, default=0.5, help="picoseconds")
    parser.add_argument("--force-error", type=float, default=40.0, help="kJ/(mol nm)")
    parser.add_argument("--labels-per-round", type=int, default=20)
    parser.add_argument("--max-rounds", type=int, default=8)
    parser.add_argument("--start-steps", type=int, default=2000)
    parser.add_argument("--steps-per-round", type=int, default=400)
    parser.add_argument("--training-steps", type=int, default=800)
    add_option(parser)
    options = parser.parse_args()
    if options.json and options.stage != "compare":
        parser.error("--json goes with compare")
    torch.set_num_threads(1)
    options.directory.mkdir(parents=True, exist_ok=True)
    if options.stage == "learn":
        learn(options)
    elif options.stage == "reweight":
        weigh(options)
    elif options.stage == "compare":
        compare(options)
    else:
        sample(options, options.stage.upper())


if __name__ == "__main__":
    main()
