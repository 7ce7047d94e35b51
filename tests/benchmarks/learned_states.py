"""Three electronic states of methaniminium in water by one learned model, and Landau-Zener populations from it and QM.

    python tests/benchmarks/learned_states.py label        # QM trajectories, and labels of S0, S1 and S2 along them
    python tests/benchmarks/learned_states.py train        # one model of the three states
    python tests/benchmarks/learned_states.py snapshots    # labels of the ground state at 300 K, run by the model
    python tests/benchmarks/learned_states.py test         # its errors on what it was not trained on
    python tests/benchmarks/learned_states.py populations --level ml
    python tests/benchmarks/learned_states.py populations --level qm --workers 2
    python tests/benchmarks/learned_states.py compare      # both populations, with bands of 95 %

`test` and `compare` take --json FILE.

CH2NH2+ in 115 TIP3P waters with a chloride, PME, TDA on Hartree-Fock (CIS). It is excited to S2, the bright pi -> pi*
state, whose C-N bond stretches through the crossing with the dark sigma -> pi* state within 10 fs: hops happen, between
two excited states, where TDA is right. It is not where S1 meets S0, so that trajectories end after 16 fs; `test` prints
the smallest gap. All start from Wigner samples of the ground state's normal modes, each with water at 300 K around it;
those of the labels, of the test and of the populations are different samples, and both levels have the same ones of the
latter. Both hop by the same rule, Landau-Zener from energies alone.

Every stage goes on where it was stopped. Processor time in STO-3G on a busy core: label 30 minutes (0.18 s for a step,
1.0 s for the three states of a geometry with and without water), populations with QM 4 minutes, train 15 minutes,
populations with the model 3 minutes, snapshots and test 2.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENMM_CPU_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import openmm
import torch
from openmm import app

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm import Hamiltonian, MixedSystem, MLPotential, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.analysis.hopping_figure import energy_drift, plot_state_populations
from qmmlmm.durable_files import replace_file
from qmmlmm.geometry import Geometry
from qmmlmm.learning import (
    LabelledFrame,
    Labeller,
    ResponseSettings,
    TrainingSettings,
    append_frames,
    load_network,
    read_frames,
    region_potential,
    save_network,
    train,
)
from qmmlmm.learning.training.frame_tensors import frame_tensors
from qmmlmm.learning.training.prediction import predict
from qmmlmm.nonadiabatic import (
    CoefficientSurfaces,
    Ensemble,
    InitialCondition,
    LandauZener,
    NormalModes,
    Populations,
    SurfaceHopping,
    SurfacePoint,
    TermSurfaces,
    TrajectoryRecord,
    VelocityVerletIntegrator,
    normal_modes,
)
from qmmlmm.qm import TDA
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_EV, KJ_PER_MOL_IN_EV
from systems.solute_in_water import METHANIMINIUM, build, surrounded
from systems.structure import Structure

REGION = Region("dye", range(len(METHANIMINIUM)), charge=1, multiplicity=1)
STATES = (0, 1, 2)
START = 2
TIME_STEP = 0.00025  # ps; the gap closes by up to 1 eV/fs
BOX = np.eye(3) * 1.6  # nm
WATERS = 115
SEEDS = {"label": 100, "test": 5000, "populations": 10000, "snapshot": 20000}
SNAPSHOTS, SNAPSHOT_INTERVAL, SNAPSHOT_EQUILIBRATION = 50, 100, 1000  # steps of 0.5 fs
TEST_SHARE = 5
"""One trajectory for the test to this many for the training."""
GAP_BINS = (0.0, 0.3, 1.0, np.inf)  # eV


def quantum(basis: str) -> PySCFPotential:
    """Return QM with three states."""
    return PySCFPotential("hf", basis, excited=TDA(n_states=3), state=START, embedding_grid_level=1)


def solution() -> Structure:
    """Return the solute in water."""
    return build(METHANIMINIUM, edge=BOX[0, 0], n_water=WATERS, splitting=5.2)


def quantum_system(basis: str) -> MixedSystem:
    """Return the System with QM states."""
    structure = solution()
    hamiltonian = Hamiltonian([Term(quantum(basis), REGION, embedding="electrostatic")])
    return create_mixed_system(structure.topology, structure.system, hamiltonian)


def learned_system(model: Path) -> MixedSystem:
    """Return the System in which parameters choose between the learned states."""
    structure = solution()
    weights = {0: "1-s1-s2", 1: "s1", 2: "s2"}
    terms = [
        Term(
            MLPotential.load(model, state=k), REGION, embedding="electrostatic", coefficient=weights[k],
            name=f"dye/S{k}",
        )
        for k in STATES
    ]  # fmt: skip
    return create_mixed_system(
        structure.topology, structure.system, Hamiltonian(terms, parameters={"s1": 0.0, "s2": 1.0})
    )


class EnergiesAlone:
    """QM states without their overlaps, so that both levels hop by one rule: learned states have none."""

    def __init__(self, surfaces: TermSurfaces) -> None:
        self._surfaces = surfaces
        self.n_states, self.atoms = surfaces.n_states, surfaces.atoms
        self.select, self.memory, self.recall = surfaces.select, surfaces.memory, surfaces.recall

    def observe(self, context: openmm.Context) -> SurfacePoint:
        """Return the energies."""
        return SurfacePoint(self._surfaces.observe(context).energies)


@functools.lru_cache(maxsize=1)
def create_hopping(level: str, basis: str, model: Path) -> SurfaceHopping:
    """Return Landau-Zener hopping on one of the levels; the next trajectory of a process has the same one, set anew.

    TorchScript takes seconds to compile a model at its first calls.
    """
    torch.set_num_threads(1)
    mixed = quantum_system(basis) if level == "qm" else learned_system(model)
    if level == "qm":
        surfaces = EnergiesAlone(TermSurfaces(mixed, "dye/QM"))
    else:
        surfaces = CoefficientSurfaces(mixed, ["s1", "s2"])
    simulation = app.Simulation(
        mixed.topology, mixed.system, VelocityVerletIntegrator(TIME_STEP), openmm.Platform.getPlatform("CPU")
    )
    return SurfaceHopping(simulation, surfaces, START, method=LandauZener())


# --- initial conditions ---


def ground_state_modes(basis: str) -> NormalModes:
    """Return the normal modes of the solute alone at its minimum on S0."""
    alone = build(METHANIMINIUM, n_water=0)
    term = Term(PySCFPotential("hf", basis, density_fit=False), REGION, embedding="mechanical")
    mixed = create_mixed_system(alone.topology, alone.system, Hamiltonian([term]))
    context = openmm.Context(mixed.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(alone.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0)
    return normal_modes(context, REGION.atoms)


def conditions(options: argparse.Namespace, purpose: str, count: int) -> list[InitialCondition]:
    """Return the first `count` initial conditions of a purpose; those that are on disk are not made again."""
    folder = options.directory / "conditions"
    folder.mkdir(parents=True, exist_ok=True)
    structure, modes, found = None, None, []
    for number in range(count):
        path, seed = folder / f"{purpose}_{number:03d}.npz", SEEDS[purpose] + number
        if not path.exists():
            modes = saved_modes(options) if modes is None else modes
            structure = solution() if structure is None else structure
            sample = modes.wigner_sample(np.random.default_rng(seed))
            positions, velocities = surrounded(structure, *sample, picoseconds=options.relax, seed=seed)
            save(path, positions=positions, velocities=velocities)
        with np.load(path) as file:
            found.append(InitialCondition(file["positions"], file["velocities"], START, seed, BOX))
    return found


def saved_modes(options: argparse.Namespace) -> NormalModes:
    """Return the normal modes, computed once."""
    path = options.directory / "modes.npz"
    names = ("atoms", "masses", "positions", "wave_numbers", "vectors")
    if not path.exists():
        modes = ground_state_modes(options.basis)
        save(path, **{name: getattr(modes, name) for name in names})
    with np.load(path) as file:
        return NormalModes(**{name: file[name] for name in names})


def save(path: Path, **arrays: np.ndarray) -> None:
    """Write an npz file as a whole or not at all."""
    temporary = path.with_name(f"part_{path.name}")
    np.savez(temporary, **arrays)
    replace_file(path, temporary.read_bytes())
    temporary.unlink()


# --- labels ---


def label(options: argparse.Namespace) -> None:
    """Run QM trajectories of the training and the test, and label geometries of them."""
    label_all(options, geometries(options))


def snapshots(options: argparse.Namespace) -> None:
    """Run the ground state by the model at 300 K, and label snapshots of it."""
    label_all(options, thermal_geometries(options))


def label_all(options: argparse.Namespace, named: Iterable[tuple[str, np.ndarray]]) -> None:
    """Compute the labels of geometries, nm, that are not in the file yet."""
    labels = options.directory / "labels.xyz"
    done = {frame.name for frame in read_frames(labels)} if labels.exists() else set()
    term = quantum_system(options.basis).evaluated_term("dye/QM")
    labeller = Labeller(term, f"TDA, hf/{options.basis}")
    made, seconds = 0, 0.0
    for name, positions in named:
        if f"{name}-s{STATES[-1]}" in done:
            continue
        start = time.process_time()
        labeller.forget()
        frames = labeller.label_states(Geometry(positions, BOX), STATES, name)
        # Three frames of one geometry are written together; a torn one is labelled again.
        append_frames(labels, [frame for frame in frames if frame.name not in done])
        made, seconds = made + 1, seconds + time.process_time() - start
        print(f"{name}: {seconds / made:.2f} s of processor time per geometry", flush=True)


def thermal_geometries(options: argparse.Namespace) -> Iterator[tuple[str, np.ndarray]]:
    """Yield a name and positions, nm, of snapshots of the learned ground state at 300 K in water."""
    structure = solution()
    model = MLPotential.load(options.directory / "model.pt", state=0)
    terms = [Term(model, REGION, embedding="electrostatic")]
    mixed = create_mixed_system(structure.topology, structure.system, Hamiltonian(terms))
    integrator = openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.0005)
    integrator.setRandomNumberSeed(SEEDS["snapshot"])
    context = openmm.Context(mixed.system, integrator, openmm.Platform.getPlatform("CPU"))
    context.setPositions(conditions(options, "populations", 1)[0].positions)
    context.setVelocitiesToTemperature(300.0, SEEDS["snapshot"])
    integrator.step(SNAPSHOT_EQUILIBRATION)
    for number in range(SNAPSHOTS):
        integrator.step(SNAPSHOT_INTERVAL)
        state = context.getState(positions=True)
        yield f"snapshot{number:03d}-0000", np.array(state.getPositions(asNumpy=True)._value)


def geometries(options: argparse.Namespace) -> Iterator[tuple[str, np.ndarray]]:
    """Yield a name and positions, nm, of every geometry to be labelled; trajectories are run once."""
    test = max(1, options.label_trajectories // TEST_SHARE)
    sets = {"label": options.label_trajectories, "test": test}
    folder = options.directory / "geometries"
    folder.mkdir(parents=True, exist_ok=True)
    hopping = None
    for purpose, count in sets.items():
        for number, condition in enumerate(conditions(options, purpose, count)):
            path = folder / f"{purpose}_{number:03d}.npz"
            if not path.exists():
                if hopping is None:
                    hopping = create_hopping("qm", options.basis, options.directory / "model.pt")
                begin = time.process_time()
                save(path, positions=np.array(list(along(hopping, condition, options))), every=np.array(options.every))
                print(f"trajectory {path.stem}: {time.process_time() - begin:.0f} s of processor time", flush=True)
            with np.load(path) as file:
                frames, every = file["positions"], int(file["every"])
            for index, positions in enumerate(frames):
                yield f"{purpose}{number:03d}-{index * every:04d}", positions
    for number, condition in enumerate(conditions(options, "populations", options.trajectories)):
        yield f"start{number:03d}-0000", condition.positions


def along(hopping: SurfaceHopping, condition: InitialCondition, options: argparse.Namespace) -> Iterator[np.ndarray]:
    """Yield positions, nm, of every so many steps of a trajectory."""
    context = hopping.simulation.context
    hopping.reset(condition.state, condition.seed)
    context.setTime(0.0)
    context.setStepCount(0)
    context.setPeriodicBoxVectors(*condition.box_vectors)
    context.setPositions(condition.positions)
    context.setVelocities(condition.velocities)
    yield condition.positions
    for _ in range(options.steps // options.every):
        hopping.step(options.every)
        yield np.array(context.getState(positions=True).getPositions(asNumpy=True)._value)


# --- the model ---


def split(options: argparse.Namespace) -> tuple[list[LabelledFrame], list[LabelledFrame], list[LabelledFrame]]:
    """Return frames for training, validation and test; each has whole trajectories."""
    frames = read_frames(options.directory / "labels.xyz")
    by_trajectory: dict[str, list[LabelledFrame]] = {}
    for frame in frames:
        by_trajectory.setdefault(frame.name.split("-")[0], []).append(frame)
    names = sorted(name for name in by_trajectory if name.startswith("label"))
    n_kept = max(1, len(names) // 8)
    chosen = (names[:-n_kept], names[-n_kept:], sorted(set(by_trajectory) - set(names)))
    training, kept, held_out = ([frame for name in part for frame in by_trajectory[name]] for part in chosen)
    return training, kept, held_out


def learn(options: argparse.Namespace) -> None:
    """Train one model of the three states."""
    frames, kept, _ = split(options)
    # Energies of 10 eV and forces to match: the gap is a small difference, and needs energies more than usual.
    settings = TrainingSettings(steps=options.training_steps, batch_size=12, energy_weight=1.0)
    start = time.process_time()
    trained = train(
        frames,
        network=ResponseSettings(features=96),
        training=settings,
        validation=kept,
        members=1,
        checkpoint=options.directory / "training.ckpt",
    )
    save_network(trained.model, options.directory / "network.pt")
    region_potential(trained.model).save(options.directory / "model.pt")
    print(f"{len(frames)} frames, {time.process_time() - start:.0f} s of processor time; {trained.validation}")


def test(options: argparse.Namespace) -> None:
    """Print the errors on what was held out."""
    model = load_network(options.directory / "network.pt")
    frames = split(options)[2]
    groups = {
        "ground state, ML/MM at 300 K": [frame for frame in frames if frame.name.startswith("snapshot")],
        "ground state, Wigner samples": [
            frame for frame in frames if frame.name.startswith(("start", "test")) and "-0000-" in frame.name
        ],
        "trajectories": [frame for frame in frames if frame.name.startswith("test")],
    }
    energies, of_states, of_gaps = {}, [], []
    groups = {name: group for name, group in groups.items() if group}
    for name, group in groups.items():
        for k in STATES:
            data = frame_tensors([frame for frame in group if frame.electronic_state == k], model.known_conditions())
            predicted = predict(model, data)
            true = data.energy.numpy() * HARTREE_IN_EV
            found = predicted.energy.detach().mean(0).numpy() * HARTREE_IN_EV
            energies[name, k] = true, found
            forces = (predicted.forces.detach().mean(0) - data.forces).abs().mean() * FORCE_AU_IN_OPENMM
            spread = data.forces.std() * FORCE_AU_IN_OPENMM
            error = float(np.abs(found - true).mean())
            of_states.append((name, f"S{k}", len(true), error, float(forces), float(spread)))
    for name in groups:
        for lower, upper in ((0, 1), (1, 2)):
            true, found = (energies[name, upper][k] - energies[name, lower][k] for k in range(2))
            error = np.abs(found - true)
            cells = []
            for k in range(3):
                inside = (true >= GAP_BINS[k]) & (true < GAP_BINS[k + 1])
                cells.append(f"{error[inside].mean():.3f} ({inside.sum()})" if inside.any() else "-")
            rms = float(np.sqrt((error**2).mean()))
            of_gaps.append((name, f"S{upper} - S{lower}", float(error.mean()), rms, float(true.min()), *cells))
    forces_columns = ("forces, kJ/(mol nm)", "spread of the forces")
    gap_columns = ("root mean square", "smallest gap", *(interval(k) for k in range(3)))
    tables = [
        Table("States", ("frames", "state", "number", "energy, eV", *forces_columns), tuple(of_states)),
        Table("Gaps, eV", ("frames", "gap", "all", *gap_columns), tuple(of_gaps)),
    ]
    print_tables(tables)
    notes = "Held out, in water; mean absolute errors, of energies with their shift. In brackets the number of frames."
    write_record(options.json, tables, notes)


def interval(index: int) -> str:
    """Return the name of a bin of gaps."""
    low, high = GAP_BINS[index : index + 2]
    return f"above {low} eV" if np.isinf(high) else f"{low} to {high} eV"


# --- populations ---


def ensemble(options: argparse.Namespace, level: str) -> Ensemble:
    """Return the trajectories of a level."""
    create = functools.partial(create_hopping, level, options.basis, options.directory / "model.pt")
    begin = conditions(options, "populations", options.trajectories)
    return Ensemble(options.directory / level, create, begin, options.steps, checkpoint_interval=20)


def run(options: argparse.Namespace) -> None:
    """Run the trajectories of a level."""
    start = time.perf_counter()
    trajectories = ensemble(options, options.level)
    if options.workers > 1:
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as executor:
            found = trajectories.run(executor)
    else:
        found = trajectories.run()
    shares = ", ".join(f"S{k} {share:.2f}" for k, share in enumerate(found.shares[-1]))
    print(f"{options.level}: {shares} at the end; {time.perf_counter() - start:.0f} s in this session")


def compare(options: argparse.Namespace) -> None:
    """Print the populations of both levels and draw them."""
    from matplotlib.figure import Figure

    both: dict[str, tuple[Populations, list[TrajectoryRecord]]] = {}
    courses = []
    for level in ("qm", "ml"):
        trajectories = ensemble(options, level)
        found = trajectories.populations()
        both[level] = found, [trajectories.trajectory_record(k) for k in range(options.trajectories)]
        found.write_csv(options.directory / f"populations_{level}.csv")
        gap = min(float((course.energies[:, 1] - course.energies[:, 0]).min()) for course in both[level][1])
        drift = max(abs(energy_drift(course)) for course in both[level][1])
        first = [first_change(course) for course in both[level][1]]
        changed = np.array([t for t in first if np.isfinite(t)])
        middle = float(np.median(changed)) if len(changed) else None
        courses.append((level.upper(), f"{len(changed)} of {len(first)}", middle, drift, gap * KJ_PER_MOL_IN_EV))
    qm, ml = both["qm"][0], both["ml"][0]
    rows = np.unique(np.linspace(0, len(qm.times) - 1, 11).round().astype(int))
    shares = []
    for row in rows:
        cells = [
            [float(p.lower[row, k]), float(p.shares[row, k]), float(p.upper[row, k])] for k in STATES for p in (qm, ml)
        ]
        shares.append((1000.0 * float(qm.times[row]), *cells))
    apart = ~((qm.lower <= ml.upper) & (ml.lower <= qm.upper)).all(axis=1)
    inside = (qm.lower <= ml.shares) & (ml.shares <= qm.upper)
    columns = ("level", "trajectories that leave S2", "after, fs, median", "largest energy drift, eV")
    tables = [
        Table("Trajectories", (*columns, "smallest S1 - S0 gap, eV"), tuple(courses)),
        Table("Populations", ("time, fs", *(f"S{k}, {name}" for k in STATES for name in ("QM", "ML"))), tuple(shares)),
    ]
    print_tables(tables)
    notes = (
        f"Populations with bands of 95 %, which overlap at {100 * (1 - apart.mean()):.0f} % of the times; the share by "
        f"ML lies in the band of QM at {100 * inside.all(axis=1).mean():.0f} %. Below a gap of 1 eV do not trust TDA."
    )
    print(notes)
    write_record(options.json, tables, notes)
    figure = Figure(figsize=(6.0, 4.5), layout="constrained")
    ax = plot_state_populations(qm, figure.subplots(), label="QM")
    plot_state_populations(ml, ax, dashed=True, label="ML")
    figure.savefig(options.directory / "populations.png", dpi=110)


def first_change(course: TrajectoryRecord) -> float:
    """Return when the active state changes first, fs."""
    changes = 1 + np.flatnonzero(np.diff(course.states))
    return 1000.0 * float(course.times[changes[0]]) if len(changes) else np.inf


STAGES = {
    "label": label,
    "train": learn,
    "snapshots": snapshots,
    "test": test,
    "populations": run,
    "compare": compare,
}


RECORDED = ("test", "compare")
"""Stages whose results are a record."""


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--directory", type=Path, default=Path("learned_states_run"))
    parser.add_argument("--basis", default="sto-3g")
    parser.add_argument("--steps", type=int, default=64, help="of 0.25 fs, of each trajectory")
    parser.add_argument("--label-trajectories", type=int, default=55, help="a fifth as many more are for the test")
    parser.add_argument("--every", type=int, default=8, help="steps between two labelled geometries")
    parser.add_argument("--relax", type=float, default=1.0, help="ps of water around each sample")
    parser.add_argument("--training-steps", type=int, default=12000)
    parser.add_argument("--level", choices=["qm", "ml"], default="ml")
    parser.add_argument("--trajectories", type=int, default=24, help="of the populations")
    parser.add_argument("--workers", type=int, default=1, help="processes for the populations")
    add_option(parser)
    options = parser.parse_args()
    if options.json and options.stage not in RECORDED:
        parser.error(f"--json goes with {' and '.join(RECORDED)}")
    torch.set_num_threads(1)
    options.directory.mkdir(parents=True, exist_ok=True)
    STAGES[options.stage](options)


if __name__ == "__main__":
    main()
