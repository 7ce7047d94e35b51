"""What a step with xTB costs: T4 lysozyme with p-xylene, 23,817 atoms, against the force field alone.

    python tests/benchmarks/xtb_step.py [--rounds 15] [--atoms 60] [--json FILE]

The levels take turns within one run, and the ratios are taken within each turn, so that they hold on a busy machine.
Everything runs on one thread, on the CPU platform, and processor time counts. The larger region is the ligand with the
waters nearest to it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENMM_CPU_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import openmm
from openmm import unit

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from ml_embedding import region_of
from record import Table, add_option, quartiles, write_record

from qmmlmm import Hamiltonian, Region, Term, XTBPotential, create_mixed_system, suggest_charge
from qmmlmm.units import FloatArray
from systems.t4_lysozyme import build

FORCE_FIELD = "force field"
STEPS = 2
WARM_UP = 2


def systems(more_atoms: int) -> tuple[dict[str, openmm.System], FloatArray]:
    """Return the levels to compare and the positions in nm."""
    structure = build()
    positions = np.array(structure.positions.value_in_unit(unit.nanometer))
    found = {FORCE_FIELD: structure.system}
    for method, count in (("gfn2-xtb", 18), ("gfn1-xtb", 18), ("gfn2-xtb", more_atoms)):
        atoms = region_of(structure.topology, positions, count)
        region = Region("region", atoms, charge=suggest_charge(structure.system, atoms))
        term = Term(XTBPotential(method), region, embedding="electrostatic")
        mixed = create_mixed_system(structure.topology, structure.system, Hamiltonian([term]))
        found[f"{method}, {count} atoms"] = mixed.system
    return found, positions


def table(title: str, seconds: dict[str, list[float]]) -> Table:
    """Print and return medians, and the ratios to the force field within the same turn."""
    print(f"\n{title}\n\n| level | ms | times the force field (quartiles) | turns |\n|---|---|---|---|")
    rows = []
    for label, values in seconds.items():
        ratio = quartiles(np.array(values) / np.array(seconds[FORCE_FIELD]))
        print(
            f"| {label} | {1000.0 * np.median(values):.0f} | {ratio[1]:.2f} ({ratio[0]:.2f}-{ratio[2]:.2f}) | "
            f"{len(values)} |"
        )
        rows.append((label, 1000.0 * float(np.median(values)), ratio, len(values)))
    return Table(title, ("level", "ms", "times the force field", "turns"), tuple(rows))


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--atoms", type=int, default=60, help="size of the larger region")
    add_option(parser)
    options = parser.parse_args()
    levels, positions = systems(options.atoms)
    platform = openmm.Platform.getPlatform("CPU")
    contexts = {}
    for label, system in levels.items():
        contexts[label] = openmm.Context(system, openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005), platform)
    start = contexts[FORCE_FIELD]
    start.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(start, 10.0, 20)
    positions = np.array(start.getState(positions=True).getPositions(asNumpy=True)._value)
    random = np.random.default_rng(1)
    evaluations: dict[str, list[float]] = {label: [] for label in levels}
    steps: dict[str, list[float]] = {label: [] for label in levels}
    for turn in range(-WARM_UP, options.rounds):
        moved = positions + 2e-4 * random.standard_normal(positions.shape)
        for label, context in contexts.items():
            context.setPositions(moved)
            began = time.process_time()
            context.getState(forces=True)
            evaluation = time.process_time() - began
            context.setVelocitiesToTemperature(300.0, 1)
            # The first step has the forces of the evaluation.
            context.getIntegrator().step(1)
            began = time.process_time()
            context.getIntegrator().step(STEPS)
            if turn >= 0:
                evaluations[label].append(evaluation)
                steps[label].append((time.process_time() - began) / STEPS)
    tables = [
        table("Evaluation of all forces", evaluations),
        table("Step of LangevinMiddleIntegrator", steps),
    ]
    write_record(options.json, tables, "23,817 atoms; processor time, ratios within each turn.")


if __name__ == "__main__":
    main()
