"""The n -> pi* band of acetone in water: how the solvent's field shifts an excitation, with an error bar.

Molecular dynamics with the force field gives snapshots of acetone in 700 waters. PySCF computes the lowest excited
state (TDA) of each snapshot in the periodic field of all water, and of the same geometry in vacuum. The script writes
report.md, spectrum.csv, spectrum.png and transitions.csv to the folder spectrum_run/. If it is interrupted, the same
command continues.

    python examples/absorption_spectrum.py                                 # 8 snapshots, some minutes
    python examples/absorption_spectrum.py --frames 60 --workers 2         # error bars to publish

The command `qmmlmm spectrum` does the same for an existing trajectory.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # one thread for each process
    os.environ.setdefault(variable, "1")

import numpy as np
import openmm
from openmm import app, unit
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.geometry import Geometry
from qmmlmm.qm import TDA
from qmmlmm.spectra.absorption import write_spectrum_report
from qmmlmm.spectra.transitions import compute_transitions
from systems.acetone_water import ACETONE, build
from systems.structure import Structure

SEED = 1


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path("spectrum_run"))
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--every", type=float, default=1.0, help="ps between snapshots")
    parser.add_argument("--method", default="b3lyp")
    parser.add_argument("--basis", default="6-31g*")
    parser.add_argument("--states", type=int, default=2, help="with the ground state; 3 for the next band too")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    return parser.parse_args(arguments)


def sample(structure: Structure, n: int, every: float, path: Path) -> np.ndarray:
    """Return snapshots of dynamics with the force field, (n, atoms, 3) nm; read them if the file has enough."""
    if path.exists():
        snapshots = np.load(path)
        if len(snapshots) >= n:
            return snapshots[:n]
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 2 * unit.femtosecond)
    integrator.setRandomNumberSeed(SEED)
    platform = openmm.Platform.getPlatform("CPU")
    simulation = app.Simulation(structure.topology, structure.system, integrator, platform)
    simulation.context.setPositions(structure.positions)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, SEED)
    found = []
    for _ in tqdm(range(n), desc="dynamics"):
        simulation.step(round(every / 0.002))
        found.append(Geometry.from_context(simulation.context).positions)
    np.save(path, np.array(found))
    return np.array(found)


def main(arguments: list[str] | None = None) -> None:
    """Sample, compute, report."""
    options = parse_options(arguments)
    options.directory.mkdir(parents=True, exist_ok=True)
    structure = build()
    name = f"snapshots_{options.frames}_{options.every:g}ps.npy"
    snapshots = sample(structure, options.frames, options.every, options.directory / name)
    potential = PySCFPotential(options.method, options.basis, excited=TDA(options.states), guess="fresh")
    region = Region("acetone", list(ACETONE), charge=0)
    hamiltonian = Hamiltonian([Term(potential, region, embedding="electrostatic")])
    mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)
    box = structure.topology.getPeriodicBoxVectors()
    frames = [Geometry.from_quantities(positions, box) for positions in snapshots]
    with (
        ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as executor,
        tqdm(total=len(frames), desc="excited states") as bar,
    ):
        transitions = compute_transitions(
            mixed.evaluated_term("acetone/QM"),
            frames,
            executor=executor,
            record=options.directory / "transitions.csv",
            progress=lambda done: bar.update(done - bar.n),
        )
    title = f"Acetone in water: TDA, {options.method}/{options.basis}"
    report = write_spectrum_report(options.directory, transitions, title=title)
    print(report.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
