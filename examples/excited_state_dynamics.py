"""Surface hopping of a photoexcited molecule in explicit water: methaniminium, from S2 to S1.

The solute is CH2NH2+ in 115 TIP3P waters with a chloride, under PME. PySCF computes its states by TDA in the field of
its surroundings, and the forces of the active state act on every atom. The trajectories start on S2, the bright pi ->
pi* state. The C-N bond stretches, S2 approaches the dark sigma -> pi* state, and within approximately five to ten
femtoseconds most molecules are on S1. The method is fewest switches with overlaps of the states and energy-based
decoherence.

    python examples/excited_state_dynamics.py                    # 4 trajectories of 15 fs
    python examples/excited_state_dynamics.py --trajectories 50 --workers 8

The initial conditions are Wigner samples of the solute's normal modes, each in water at 300 K. The script writes
trajectory_0.csv, ..., populations.csv and states.png. If it is interrupted, the same command continues. TDA is wrong
where S1 meets S0, and the energy jumps there. The trajectories are therefore short, and the output names one that comes
close (with --fs 20 one of the four). To continue to S0 use CASSCF.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENMM_CPU_THREADS"):  # one thread for each process
    os.environ.setdefault(variable, "1")

import numpy as np
import openmm
from openmm import app, unit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.analysis.hopping_figure import energy_drift, save_hopping_figure
from qmmlmm.nonadiabatic import (
    Ensemble,
    FewestSwitches,
    InitialCondition,
    NormalModes,
    SurfaceHopping,
    TermSurfaces,
    TrajectoryRecord,
    VelocityVerletIntegrator,
    normal_modes,
)
from qmmlmm.qm import TDA
from qmmlmm.units import KJ_PER_MOL_IN_EV
from systems.solute_in_water import METHANIMINIUM, build, surrounded
from systems.structure import Structure

REGION = Region("dye", range(len(METHANIMINIUM)), charge=1, multiplicity=1)
START = 2  # S2
CLOSEST_TO_S0 = 1.0
"""eV: where the active state comes closer to S0, one determinant does not describe S0, and TDA is wrong."""


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path("excited_state_run"))
    parser.add_argument("--trajectories", type=int, default=4)
    parser.add_argument("--fs", type=float, default=15.0, help="length of each trajectory")
    parser.add_argument("--time-step", type=float, default=0.25, help="fs")
    parser.add_argument("--basis", default="6-31g")
    parser.add_argument("--relax", type=float, default=1.0, help="ps of water around each sample")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="processes; 1 runs all in this one")
    return parser.parse_args(arguments)


def solution() -> Structure:
    """Return the solute in a small box of water."""
    return build(METHANIMINIUM, edge=1.6, n_water=115, splitting=5.2)


def create_hopping(basis: str, time_step: float) -> SurfaceHopping:
    """Return surface hopping on the states of the solute in water; each process calls this once."""
    structure = solution()
    # Level 1 of the embedding grid is enough for dynamics of a small molecule: see PySCFPotential.
    qm = PySCFPotential("hf", basis, excited=TDA(n_states=3), state=START, embedding_grid_level=1)
    hamiltonian = Hamiltonian([Term(qm, REGION, embedding="electrostatic")])
    mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)
    integrator = VelocityVerletIntegrator(time_step * unit.femtosecond)
    platform = openmm.Platform.getPlatform("CPU")
    simulation = app.Simulation(mixed.topology, mixed.system, integrator, platform)
    return SurfaceHopping(simulation, TermSurfaces(mixed, "dye/QM"), START, method=FewestSwitches())


def ground_state_modes(basis: str) -> NormalModes:
    """Return the normal modes of the solute in vacuum, at its minimum on S0."""
    in_vacuum = build(METHANIMINIUM, n_water=0)
    term = Term(PySCFPotential("hf", basis, density_fit=False), REGION, embedding="mechanical")
    mixed = create_mixed_system(in_vacuum.topology, in_vacuum.system, Hamiltonian([term]))
    context = openmm.Context(mixed.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(in_vacuum.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0)
    return normal_modes(context, REGION.atoms)


def initial_conditions(options: argparse.Namespace, path: Path) -> list[InitialCondition]:
    """Return the first positions and velocities of all trajectories; read them if the file exists."""
    settings = f"{options.trajectories} trajectories, {options.basis}, seed {options.seed}, {options.time_step:g} fs"
    if path.exists():
        with np.load(path) as file:
            positions, velocities, found = file["positions"], file["velocities"], str(file["settings"])
        if found != settings:
            sys.exit(f"{path.parent} holds a run of {found}, not of {settings}: take another --directory")
    else:
        modes, structure = ground_state_modes(options.basis), solution()
        random = np.random.default_rng(options.seed)
        samples = [modes.wigner_sample(random) for _ in range(options.trajectories)]
        placed = [
            surrounded(structure, *sample, picoseconds=options.relax, seed=options.seed + number)
            for number, sample in enumerate(samples)
        ]
        positions, velocities = (np.array(part) for part in zip(*placed, strict=True))
        np.savez(path, positions=positions, velocities=velocities, settings=settings)
    return [
        InitialCondition(*start, START, options.seed + number)
        for number, start in enumerate(zip(positions, velocities, strict=True))
    ]


def describe(number: int, record: TrajectoryRecord) -> str:
    """Return a line of the table: time and gap of the first hop, and drift of the total energy."""
    changes = 1 + np.flatnonzero(np.diff(record.states))
    if len(changes):
        row = changes[0]
        first, second = record.states[row - 1 : row + 1]
        gap = abs(record.energies[row, first] - record.energies[row, second]) * KJ_PER_MOL_IN_EV
        hop = f"S{first} -> S{second} after {1000 * record.times[row]:5.2f} fs, gap {gap:.2f} eV"
    else:
        hop = f"stays on S{record.states[0]}"
    last = (record.total_energies[-1] - record.total_energies[0]) * KJ_PER_MOL_IN_EV
    ends = ""
    excited = record.states > 0
    rows = np.arange(len(record.times))
    gaps = (record.energies[rows, record.states] - record.energies[:, 0]) * KJ_PER_MOL_IN_EV
    if not excited.all() or gaps.min() < CLOSEST_TO_S0:
        row = np.argmax(~excited | (gaps < CLOSEST_TO_S0))
        ends = f"; COMES TO S0 after {1000 * record.times[row]:.2f} fs, and TDA is wrong from there on"
    return (
        f"trajectory {number}: {hop:<44}{len(changes)} changes; total energy: largest drift "
        f"{energy_drift(record):+.4f} eV, at the end {last:+.4f} eV{ends}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Sample, run and summarise."""
    options = parse_options(arguments)
    begin = time.perf_counter()
    options.directory.mkdir(parents=True, exist_ok=True)
    conditions = initial_conditions(options, options.directory / "initial_conditions.npz")
    steps = round(options.fs / options.time_step)
    create = functools.partial(create_hopping, options.basis, options.time_step)
    ensemble = Ensemble(options.directory / "trajectories", create, conditions, steps, checkpoint_interval=20)
    if options.workers > 1:
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as executor:
            populations = ensemble.run(executor)
    else:
        populations = ensemble.run()

    records = [ensemble.trajectory_record(number) for number in range(len(conditions))]
    for number, record in enumerate(records):
        record.write_csv(options.directory / f"trajectory_{number}.csv")
        print(describe(number, record))
    populations.write_csv(options.directory / "populations.csv")
    title = f"Methaniminium in water after excitation to S2: TDA, HF/{options.basis.upper()}, surface hopping"
    save_hopping_figure(records, populations, options.directory / "states.png", title=title)
    shares = ", ".join(f"S{k} {share:.2f}" for k, share in enumerate(populations.shares[-1]))
    print(f"share of the {len(records)} trajectories after {options.fs:g} fs: {shares}")
    print(f"everything is in {os.path.relpath(options.directory)}; {time.perf_counter() - begin:.0f} s in all")


if __name__ == "__main__":
    main()
