"""How long the outer step of QM - ML may be: energy drift, averages and cost against plain QM/MM.

    python tests/benchmarks/multiple_time_steps.py prepare --output DIRECTORY   # labels and a model at the QM level
    python tests/benchmarks/multiple_time_steps.py drift   --output DIRECTORY --outer 1 2 4 6 8 10 --ps 1
    python tests/benchmarks/multiple_time_steps.py sample  --output DIRECTORY --outer 0 --ps 3 --seed 1   # plain QM/MM
    python tests/benchmarks/multiple_time_steps.py sample  --output DIRECTORY --outer 4 --ps 3 --seed 1
    python tests/benchmarks/multiple_time_steps.py sample  --output DIRECTORY --outer 8 --ps 20 --isokinetic
    python tests/benchmarks/multiple_time_steps.py learned --output DIRECTORY --ps 20   # ML/MM, and QM of a few frames
    python tests/benchmarks/multiple_time_steps.py compare --output DIRECTORY
    python tests/benchmarks/multiple_time_steps.py cost    --output DIRECTORY --outer 8

`drift`, `compare` and `cost` take --json FILE.

Acetone in 700 waters under PME, 300 K, Hartree-Fock unless another method is given; inner step 0.5 fs, hydrogens of
acetone with their own mass, rigid water. `sample` goes on where it was stopped; runs of one seed start from the same
place, and several seeds say what the solvent remembers longer than a run. What keeps the reference affordable: a small
basis set, an embedding grid of level 1, an Ewald splitting that needs no second mesh, and for the plain run hydrogens
of acetone of 3 dalton and steps of 2 fs; averages over positions do not depend on masses. Both ways sample the same
Hamiltonian. `learned` samples ML/MM alone and computes QM - ML of a frame in every 0.1 ps, by which `compare` reweights
it to QM/MM. `compare` prints averages and distributions with errors and draws `distributions.png`. `drift` and `cost`
count plain steps of 0.5 fs with hydrogen's own mass. The basis set is STO-3G unless each part is given --basis 6-31g*.
With `--low gfn2-xtb` xTB is the level that QM corrects, and no model has to be prepared.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import openmm
import torch
from openmm import unit
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm import (
    Hamiltonian,
    MixedSystem,
    MLPotential,
    PySCFPotential,
    Region,
    Term,
    XTBPotential,
    create_mixed_system,
)
from qmmlmm.free_energy.reweighting import reweight
from qmmlmm.geometry import Geometry
from qmmlmm.learning import Labeller, TrainingSettings, append_frames, read_frames, region_potential, train
from qmmlmm.sampling.multiple_time_step import MultipleTimeStepIntegrator
from qmmlmm.time_series import statistical_inefficiency
from qmmlmm.units import FloatArray
from systems.acetone_water import builder
from systems.structure import Structure

INNER = 0.0005  # ps
PLAIN, HEAVY = 0.002, 3.0  # ps, dalton: of the plain run for averages
TEMPERATURE = 300.0  # K
# 1/ps. Energy of a stretch is then forgotten within 0.1 ps, so that a few ps give the width of its distribution.
FRICTION = 10.0
# Of the plain run, whose averages it does not change: a step of it costs most, and should tell something new.
PLAIN_FRICTION = 30.0
REGION = Region("acetone", builder.ACETONE)
BONDS = {
    "C-O": [(1, 2)],
    "C-C": [(0, 1), (3, 1)],
    "C-H": [(0, 4), (0, 5), (0, 6), (3, 7), (3, 8), (3, 9)],
}
TORSIONS = [(h, c, 1, 2) for c, h in BONDS["C-H"]]
COLUMNS = [f"{name} {k}" for name, pairs in BONDS.items() for k in range(1, len(pairs) + 1)]
TURNS = [f"H-C-C-O {k}, degrees" for k in range(1, len(TORSIONS) + 1)]
HEADER = ("time, ps", "MM, kJ/mol", "region, kJ/mol", "QM - ML, kJ/mol", *COLUMNS, *TURNS)
BETWEEN_ROWS = 0.004  # ps
BLOCK = 0.5  # ps, of a run's averages for their errors
N_BINS = 8
BETWEEN_LABELS = 250  # steps of 1 fs
BETWEEN_FRAMES = 0.1  # ps, of ML/MM that is reweighted
FORCE_FIELD_STEPS = 20000  # of 1 fs with the force field, before those with ML/MM


def structure(heavy: bool = False) -> Structure:
    """Return acetone in water with an Ewald splitting that suits the QM integrals; `heavy` are its hydrogens."""
    mass = HEAVY * unit.dalton if heavy else None
    made = builder.build(constraints=None, rigid_water=True, remove_cm_motion=False, hydrogen_mass=mass)
    for force in made.system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setPMEParameters(5.2, 48, 48, 48)
    return made


def qm_potential(options: argparse.Namespace) -> PySCFPotential:
    """Return the QM level, the same for labels and dynamics."""
    return PySCFPotential(
        options.method, options.basis, embedding_grid_level=1, conv_tol=1e-9, auxiliary_basis="cc-pvdz-jkfit"
    )


def low_potential(options: argparse.Namespace) -> MLPotential | XTBPotential:
    """Return the level that QM corrects."""
    return MLPotential.load(options.output / "model.pt") if options.low == "model" else XTBPotential(options.low)


def platform_of(options: argparse.Namespace) -> openmm.Platform:
    """Return the platform of the dynamics."""
    return openmm.Platform.getPlatform(options.platform)


def prepare(options: argparse.Namespace) -> None:
    """Label frames of the force field at 400 K and train a model on them."""
    made = structure()
    qm = create_mixed_system(
        made.topology, made.system, Hamiltonian([Term(qm_potential(options), REGION, embedding="electrostatic")])
    )
    labeller = Labeller(qm.evaluated_term("acetone/QM"), f"{options.method}/{options.basis}")
    path = options.output / "labels.xyz"
    done = len(read_frames(path)) if path.exists() else 0
    integrator = openmm.LangevinMiddleIntegrator(400.0, 2.0, 0.001)
    integrator.setRandomNumberSeed(1 + done)
    context = openmm.Context(made.system, integrator, platform_of(options))
    context.setPositions(made.positions)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=100)
    context.setVelocitiesToTemperature(400.0, 1 + done)
    integrator.step(5000)
    for frame in tqdm(range(done, options.labels), desc="labels", disable=not sys.stderr.isatty()):
        integrator.step(BETWEEN_LABELS)
        state = context.getState(positions=True)
        label = labeller.label(Geometry.from_state(state, True), f"acetone-{frame:04d}")
        append_frames(path, [label])
    torch.set_num_threads(1)
    trained = train(read_frames(path), training=TrainingSettings(steps=options.steps, batch_size=8))
    print(
        f"model: {trained.validation.energy:.2f} kJ/mol, {trained.validation.forces:.1f} kJ/(mol nm), mean absolute "
        "errors of validation frames"
    )
    region_potential(trained.model).save(options.output / "model.pt")


def mixed_system(options: argparse.Namespace, made: Structure, corrected: bool) -> MixedSystem:
    """Return QM/MM as ML + QM - ML, or plain."""
    qm = qm_potential(options)
    terms = [Term(qm, REGION, embedding="electrostatic", name="QM")]
    if corrected:
        ml = low_potential(options)
        terms = [
            Term(ml, REGION, embedding="electrostatic", name="ML"),
            *terms,
            Term(ml, REGION, embedding="electrostatic", coefficient=-1.0, name="-ML"),
        ]
    return create_mixed_system(made.topology, made.system, Hamiltonian(terms))


def integrator_of(
    mixed: MixedSystem, outer: int, thermostat: bool, isokinetic: bool = False, plain: float = INNER
) -> openmm.Integrator:
    """Return the integrator for an outer step in fs; zero is plain QM/MM."""
    temperature = TEMPERATURE if thermostat else None
    if outer:
        inner_steps = round(outer * 0.001 / INNER)
        return MultipleTimeStepIntegrator(
            mixed, temperature, FRICTION, outer * 0.001, inner_steps, isokinetic=isokinetic and thermostat
        )
    if thermostat:
        return openmm.LangevinMiddleIntegrator(TEMPERATURE, PLAIN_FRICTION, plain)
    return openmm.VerletIntegrator(INNER)


def qm_calls(mixed: MixedSystem) -> int:
    """Return how often QM was computed so far."""
    return mixed.term("QM").runner.evaluations


def learned_system(options: argparse.Namespace, made: Structure) -> MixedSystem:
    """Return ML/MM."""
    ml = low_potential(options)
    return create_mixed_system(
        made.topology, made.system, Hamiltonian([Term(ml, REGION, embedding="electrostatic", name="ML")])
    )


def start(options: argparse.Namespace, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return positions and velocities at 300 K, from the force field and then ML/MM, and keep them."""
    kept = options.output / f"start_{seed}_{options.equilibration}.npz"
    if kept.exists():
        found = np.load(kept)
        return found["positions"], found["velocities"]
    made = structure()
    positions, velocities = made.positions, None
    for system, step, n_steps in (
        (made.system, 0.001, FORCE_FIELD_STEPS),
        (learned_system(options, made).system, INNER, options.equilibration),
    ):
        integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, step)
        integrator.setRandomNumberSeed(seed)
        context = openmm.Context(system, integrator, platform_of(options))
        context.setPositions(positions)
        if velocities is None:
            openmm.LocalEnergyMinimizer.minimize(context, maxIterations=50)
            context.setVelocitiesToTemperature(TEMPERATURE, seed)
        else:
            context.setVelocities(velocities)
        integrator.step(n_steps)
        state = context.getState(positions=True, velocities=True)
        positions, velocities = (
            state.getPositions(asNumpy=True)._value,
            state.getVelocities(asNumpy=True)._value,
        )
    partial = kept.with_suffix(".partial.npz")
    np.savez(partial, positions=positions, velocities=velocities)
    partial.replace(kept)
    return positions, velocities


def drift(options: argparse.Namespace) -> None:
    """Print the drift of the total energy without a thermostat for each outer step."""
    made = structure()
    positions, velocities = start(options, options.seed)
    freedoms = 3 * made.system.getNumParticles() - made.system.getNumConstraints()
    kt = 0.00831446 * TEMPERATURE
    rows = []
    for outer in options.outer:
        mixed = mixed_system(options, made, corrected=outer > 0)
        integrator = integrator_of(mixed, outer, thermostat=False)
        context = openmm.Context(mixed.system, integrator, platform_of(options))
        context.setPositions(positions)
        context.setVelocities(velocities)
        length = outer * 0.001 or INNER
        times, totals = [], []
        n_steps = round(options.ps / length)
        for step in tqdm(range(n_steps + 1), desc=f"{outer} fs", disable=not sys.stderr.isatty()):
            if step:
                integrator.step(1)
            state = context.getState(energy=True)
            kinetic = state.getKineticEnergy()
            if isinstance(integrator, MultipleTimeStepIntegrator):
                kinetic = integrator.kinetic_energy(context)
            times.append(step * length)
            totals.append((state.getPotentialEnergy() + kinetic)._value)
        (slope, _), covariance = np.polyfit(times, totals, 1, cov=True)
        scale = 1000.0 / (kt * freedoms)
        error = float(np.sqrt(covariance[0, 0] * statistical_inefficiency(np.array(totals) - slope * np.array(times))))
        drifts = [float(slope), error], [float(slope * scale), error * scale]
        rows.append((outer or "plain 0.5", float(np.std(totals)), *drifts, qm_calls(mixed)))
        print(*rows[-1], flush=True)
    columns = ("outer step, fs", "fluctuation, kJ/mol", "drift, kJ/(mol ps)", "drift, kT/(ns dof)", "QM calls")
    table = Table("", columns, tuple(rows))
    print_tables([table])
    notes = f"{options.method}/{options.basis}, {options.ps:g} ps without a thermostat; single trajectories."
    write_record(options.json, [table], notes)


def observables(positions: FloatArray) -> list[float]:
    """Return all bond lengths, angstrom, and the torsions H-C-C-O, degrees."""
    found = [10.0 * float(np.linalg.norm(positions[i] - positions[j])) for pairs in BONDS.values() for i, j in pairs]
    for torsion in TORSIONS:
        a, b, c, d = (positions[k] for k in torsion)
        first, second = np.cross(b - a, c - b), np.cross(c - b, d - c)
        angle = np.arctan2(np.linalg.norm(c - b) * (b - a) @ second, first @ second)
        found.append(float(np.degrees(angle)))
    return found


def sample(options: argparse.Namespace) -> None:
    """Run at 300 K and write energies and geometry of acetone at each outer step, or step of the plain run."""
    for outer in options.outer:
        made = structure(heavy=not outer)
        mixed = mixed_system(options, made, corrected=outer > 0)
        isokinetic = options.isokinetic and outer > 0
        integrator = integrator_of(mixed, outer, True, isokinetic, PLAIN)
        integrator.setRandomNumberSeed(options.seed)
        context = openmm.Context(mixed.system, integrator, platform_of(options))
        learned = None
        if not outer:  # whose QM - ML is looked at as well
            ml = learned_system(options, made)
            learned = ml, openmm.Context(ml.system, openmm.VerletIntegrator(PLAIN), platform_of(options))
        length = outer * 0.001 or PLAIN
        between = max(1, round(BETWEEN_ROWS / length))
        path = options.output / f"sample_{outer}{'i' if isokinetic else ''}_{options.seed}.csv"
        saved = path.with_suffix(".state.xml")
        rows = sum(1 for _ in path.open()) - 1 if saved.exists() else 0
        if rows:
            context.setState(openmm.XmlSerializer.deserialize(saved.read_text()))
        else:
            positions, velocities = start(options, options.seed)
            context.setPositions(positions)
            context.setVelocities(velocities)
            if not outer:  # the masses are others
                context.setVelocitiesToTemperature(TEMPERATURE, options.seed)
        began, calls = time.perf_counter(), qm_calls(mixed)
        with path.open("a" if rows else "w", newline="") as file:
            writer = csv.writer(file)
            if not rows:
                writer.writerow(HEADER)
            n_rows = round(options.ps / (length * between))
            for row in tqdm(range(rows, n_rows), initial=rows, total=n_rows, disable=not sys.stderr.isatty()):
                integrator.step(between)
                terms = mixed.term_energies(context)
                positions = context.getState(positions=True).getPositions(asNumpy=True)._value
                if learned is not None:
                    learned[1].setPositions(positions)
                    terms["-ML"] = -learned[0].term_energies(learned[1])["ML"]
                qm = terms["QM"]._value
                energies = [terms["MM"]._value, qm, qm + terms["-ML"]._value]
                values = [(row + 1) * between * length, *energies, *observables(positions)]
                writer.writerow([f"{value:.6f}" for value in values])
                if row % 50 == 49 or row == n_rows - 1:
                    file.flush()
                    state = context.getState(positions=True, velocities=True, parameters=True)
                    saved.write_text(openmm.XmlSerializer.serialize(state))
        seconds = time.perf_counter() - began
        print(f"outer {outer} fs: {seconds:.0f} s, {qm_calls(mixed) - calls} QM calls", flush=True)


def learned(options: argparse.Namespace) -> None:
    """Run ML/MM at 300 K and write what `sample` does, and QM less ML, of a frame in every 0.1 ps."""
    made = structure(heavy=True)
    systems = {"ML": learned_system(options, made), "QM": mixed_system(options, made, corrected=False)}
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, PLAIN)
    integrator.setRandomNumberSeed(options.seed)
    contexts = {}
    for level, mixed in systems.items():
        moved = integrator if level == "ML" else openmm.VerletIntegrator(PLAIN)
        contexts[level] = mixed, openmm.Context(mixed.system, moved, platform_of(options))
    _, context = contexts["ML"]
    context.setPositions(start(options, options.seed)[0])
    context.setVelocitiesToTemperature(TEMPERATURE, options.seed)
    between = round(BETWEEN_FRAMES / PLAIN)
    with (options.output / f"learned_{options.seed}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for row in tqdm(range(round(options.ps / BETWEEN_FRAMES)), disable=not sys.stderr.isatty()):
            integrator.step(between)
            positions = context.getState(positions=True).getPositions(asNumpy=True)._value
            contexts["QM"][1].setPositions(positions)
            terms = {level: mixed.term_energies(its) for level, (mixed, its) in contexts.items()}
            qm, ml = (terms[level][level]._value for level in ("QM", "ML"))
            values = [(row + 1) * BETWEEN_FRAMES, terms["ML"]["MM"]._value, qm, qm - ml, *observables(positions)]
            writer.writerow([f"{value:.6f}" for value in values])
            file.flush()


@dataclass(frozen=True)
class Runs:
    """Runs that sample one ensemble, as tables of the columns of HEADER; `reweighted` weighs ML/MM to QM/MM."""

    name: str
    tables: list[FloatArray]
    reweighted: bool = False

    def column(self, name: str) -> list[FloatArray]:
        """Return that column of each run."""
        return [table[:, HEADER.index(name)] for table in self.tables]

    def bonds(self, name: str) -> list[FloatArray]:
        """Return the lengths of all bonds of a kind, (frames, bonds) for each run."""
        first = HEADER.index(f"{name} 1")
        return [table[:, first : first + len(BONDS[name])] for table in self.tables]

    def turns(self) -> list[FloatArray]:
        """Return all torsions, (frames, 6) for each run."""
        first = HEADER.index(TURNS[0])
        return [table[:, first : first + len(TURNS)] for table in self.tables]

    def mean(self, columns: list[FloatArray]) -> tuple[float, float]:
        """Return the mean of a series of each run and its standard error.

        The error is the larger one of two: from blocks of all runs, and with three runs or more from their scatter.
        """
        if self.reweighted:
            weighed = reweight(np.concatenate(self.column("QM - ML, kJ/mol")), TEMPERATURE)
            return weighed.mean(np.concatenate(columns))
        blocks: list[float] = []
        for table, column in zip(self.tables, columns, strict=True):
            n_blocks = max(2, round((table[-1, 0] - table[0, 0]) / BLOCK))
            blocks += [block.mean() for block in np.array_split(column, n_blocks)]
        error = np.std(blocks, ddof=1) / np.sqrt(len(blocks))
        if len(columns) >= 3:
            means = [column.mean() for column in columns]
            error = max(error, np.std(means, ddof=1) / np.sqrt(len(means)))
        return float(np.concatenate(columns).mean()), float(error)

    def histogram(self, values: list[FloatArray], edges: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the share of each bin and its standard error; values are (frames, any) for each run."""
        found = []
        for low, high in itertools.pairwise(edges):
            inside = [((one >= low) & (one < high)).reshape(len(one), -1).mean(axis=1) for one in values]
            found.append(self.mean(inside))
        shares, errors = np.array(found).T
        return shares, errors

    def averages(self) -> dict[str, tuple[float, float]]:
        """Return mean and standard error by name."""
        found = {
            "region, kJ/mol": self.mean(self.column("region, kJ/mol")),
            "QM - ML, kJ/mol": self.mean(self.column("QM - ML, kJ/mol")),
        }
        for name in BONDS:
            lengths = self.bonds(name)
            value, error = self.mean([one.mean(axis=1) for one in lengths])
            found[f"{name}, angstrom"] = value, error
            square, its_error = self.mean([((one - value) ** 2).mean(axis=1) for one in lengths])
            found[f"width of {name}"] = float(np.sqrt(square)), float(its_error / (2 * np.sqrt(square)))
        waves = [np.cos(np.radians(3.0 * one)).mean(axis=1) for one in self.turns()]
        found["cos 3 phi"] = self.mean(waves)
        return found


def runs_of(options: argparse.Namespace) -> list[Runs]:
    """Return what is in the directory; plain QM/MM first."""

    def used(path: Path) -> FloatArray:
        with path.open(newline="") as file:
            if tuple(next(csv.reader(file), ())) != HEADER:
                raise SystemExit(f"{path} has other columns than runs of this version; remove it and sample again")
            rows = [[float(value) for value in row] for row in csv.reader(file)]
        table = np.array([row for row in rows if row[0] > options.discard])
        if len(table) < 2:
            raise SystemExit(f"{path} has no two rows after {options.discard} ps; sample longer or give --discard")
        return table

    found: dict[str, list[FloatArray]] = {}

    def place(path: Path) -> tuple[int, int]:
        _, outer, seed = path.stem.split("_")
        return int(outer.rstrip("i")), int(seed)

    for path in sorted(options.output.glob("sample_*.csv"), key=place):
        outer = path.stem.split("_")[1]
        found.setdefault("plain" if outer == "0" else f"{outer} fs", []).append(used(path))
    runs = [Runs(name, tables) for name, tables in found.items()]
    if tables := [used(path) for path in sorted(options.output.glob("learned_*.csv"))]:
        learned = [table.copy() for table in tables]
        for table in learned:
            table[:, HEADER.index("region, kJ/mol")] -= table[:, HEADER.index("QM - ML, kJ/mol")]
        runs += [Runs("ML/MM", learned), Runs(f"reweighted, {sum(map(len, tables))} QM calls", tables, True)]
    if not runs:
        raise SystemExit(f"{options.output} has no runs; make some with `sample`")
    return runs


def folded(turns: list[FloatArray]) -> list[FloatArray]:
    """Return degrees between a methyl's C-H and the C=O that it eclipses most, 0 to 60."""
    return [np.abs((one + 60.0) % 120.0 - 60.0) for one in turns]


def compare(options: argparse.Namespace) -> None:
    """Print averages and distributions of all runs with standard errors, and draw the distributions."""
    runs = runs_of(options)
    singles = [
        Runs(f"{one.name}, run {k}", [table])
        for one in runs
        if not one.reweighted and len(one.tables) > 1
        for k, table in enumerate(one.tables, 1)
    ]
    first = runs[0].averages()
    rows = []
    for one in [*runs, *singles]:
        cells = [[value, error] for value, error in one.averages().values()]
        rows.append((one.name, float(sum(table[-1, 0] for table in one.tables)), *cells))
    averages = Table("", ("run", "ps", *first), tuple(rows))
    print_tables([averages])
    write_record(options.json, [averages], f"{options.method}/{options.basis}, {TEMPERATURE:g} K.")
    for one in runs[1:]:
        away = {
            name: (value - first[name][0]) / np.hypot(error, first[name][1])
            for name, (value, error) in one.averages().items()
        }
        text = ", ".join(f"{name} {value:+.1f}" for name, value in away.items())
        print(f"{one.name} less {runs[0].name}, in standard errors: {text}")
    quantities = {
        **{name: [one.bonds(name) for one in runs] for name in BONDS},
        "H-C-C-O, degrees from eclipsed": [folded(one.turns()) for one in runs],
        "QM - ML, kJ/mol": [one.column("QM - ML, kJ/mol") for one in runs],
        "region less its plain mean, kJ/mol": [
            [column - first["region, kJ/mol"][0] for column in one.column("region, kJ/mol")] for one in runs
        ],
    }
    figure, axes = plt.subplots(2, 3, figsize=(11, 6), constrained_layout=True)
    print("\nshares in percent, of bins that the first row fills alike; deviation from it per bin, in standard errors")
    for (name, values), axis in zip(quantities.items(), axes.flat, strict=True):
        reference = np.concatenate([one.ravel() for one in values[0]])
        edges = np.quantile(reference, np.linspace(0.0, 1.0, N_BINS + 1))
        if name.startswith("H-C-C-O"):
            edges = np.linspace(0.0, 60.0, N_BINS + 1)
        inner = [f"{edge:.4g}" for edge in edges[1:-1]]
        print(f"\n| {name}: bins end at {', '.join(inner)} | shares | root mean square deviation; largest |")
        print("|---|---|---|")
        widths = np.diff(edges)
        outer_edges = edges.copy()
        outer_edges[0], outer_edges[-1] = -np.inf, np.inf
        plain_shares, plain_errors = runs[0].histogram(values[0], outer_edges)
        for k, (one, its) in enumerate(zip(runs, values, strict=True)):
            shares, errors = one.histogram(its, outer_edges)
            text = " ".join(
                f"{100 * share:.1f}({100 * error:.1f})" for share, error in zip(shares, errors, strict=True)
            )
            both = np.hypot(errors, plain_errors)
            away = np.divide(shares - plain_shares, both, out=np.zeros_like(both), where=both > 0)
            deviation = f"{np.sqrt(np.mean(away**2)):.1f}; {np.abs(away).max():.1f}" if k else ""
            print(f"| {one.name} | {text} | {deviation} |")
            middles = (edges[:-1] + edges[1:]) / 2 + (k - (len(runs) - 1) / 2) * 0.08 * widths
            axis.errorbar(middles, shares / widths, errors / widths, fmt="o", ms=3, capsize=2, label=one.name)
        axis.set_xlabel(name if name not in BONDS else f"{name}, angstrom")
        axis.set_ylabel("density")
    axes.flat[0].legend()
    figure.savefig(options.output / "distributions.png", dpi=150)
    for one in runs:
        if one.reweighted:
            differences = np.concatenate(one.column("QM - ML, kJ/mol"))
            samples = reweight(differences, TEMPERATURE).effective_samples
            print(f"QM - ML of ML/MM scatters by {differences.std():.2f} kJ/mol; {samples:.0f} effective samples")


def cost(options: argparse.Namespace) -> None:
    """Print the wall time of a femtosecond, plain and with each outer step, in alternation."""
    made = structure()
    positions, velocities = start(options, options.seed)
    runs = {}
    for outer in (0, *(outer for outer in options.outer if outer)):
        mixed = mixed_system(options, made, corrected=outer > 0)
        integrator = integrator_of(mixed, outer, thermostat=True)
        context = openmm.Context(mixed.system, integrator, platform_of(options))
        context.setPositions(positions)
        context.setVelocities(velocities)
        integrator.step(4)
        runs[outer] = (integrator, context, mixed)
    spent: dict[int, list[float]] = {outer: [] for outer in runs}
    for _ in range(options.repeats):
        for outer, (integrator, _, _) in runs.items():
            steps = 4 if outer else 8
            began = time.perf_counter()
            integrator.step(steps)
            spent[outer].append((time.perf_counter() - began) / (steps * (outer or 0.5)))
    plain = np.array(spent[0])
    rows = []
    for outer, values in spent.items():
        ratios = plain / np.array(values)
        median, least, largest = (float(value) for value in (np.median(ratios), ratios.min(), ratios.max()))
        rows.append((outer or "plain 0.5", float(np.median(values)), median, least, largest))
    columns = ("outer step, fs", "s per fs, median", "times faster than plain, median", "least", "largest")
    table = Table("", columns, tuple(rows))
    print_tables([table])
    notes = f"{options.method}/{options.basis}; wall time, ratios within each of {options.repeats} blocks."
    write_record(options.json, [table], notes)


RECORDED = ("drift", "compare", "cost")
"""Parts whose results are a record."""


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"prepare": prepare, "drift": drift, "sample": sample, "learned": learned, "compare": compare, "cost": cost}
    parser.add_argument("part", choices=list(parts))
    parser.add_argument("--output", type=Path, default=Path("multiple_time_steps_run"))
    parser.add_argument("--outer", type=int, nargs="+", default=[1, 2, 4, 6, 8, 10], help="fs; 0 is plain QM/MM")
    parser.add_argument("--ps", type=float, default=1.0)
    parser.add_argument("--method", default="hf")
    parser.add_argument("--basis", default="sto-3g")
    parser.add_argument("--low", default="model", choices=["model", "gfn2-xtb", "gfn1-xtb"], help="level under QM")
    parser.add_argument("--platform", default="CPU")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6000, help="of training")
    parser.add_argument("--labels", type=int, default=300, help="of `prepare`")
    parser.add_argument("--equilibration", type=int, default=4000, help="ML/MM steps of 0.5 fs before a run")
    parser.add_argument("--discard", type=float, default=0.3, help="ps at the beginning of a run")
    parser.add_argument("--isokinetic", action="store_true", help="bounded velocities of acetone in `sample`")
    parser.add_argument("--repeats", type=int, default=10)
    add_option(parser)
    options = parser.parse_args()
    if options.json and options.part not in RECORDED:
        parser.error(f"--json goes with {', '.join(RECORDED)}")
    options.output.mkdir(parents=True, exist_ok=True)
    parts[options.part](options)


if __name__ == "__main__":
    main()
