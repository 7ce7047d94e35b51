"""SCF cycles of acetone in water along dynamics: extrapolated densities against a fresh guess at the same geometries.

    python tests/benchmarks/scf_cycles.py [--steps 40] [--method b3lyp] [--basis 6-31g*] [--json FILE]

QM/MM under PME with 0.5 fs; the first steps, in which the extrapolation collects densities, are left out.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import openmm
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm import Hamiltonian, MixedSystem, PySCFPotential, Region, Term, create_mixed_system
from systems.acetone_water import builder

FIRST = 10
"""Steps that are left out."""

GUESSES = {"extrapolated": "extrapolated from the last steps", "fresh": "a fresh guess"}


def cycles_of(mixed: MixedSystem) -> int:
    """Return the SCF cycles so far."""
    return int(str(mixed.summary()["acetone/QM"]["scf_cycles"]))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--method", default="b3lyp")
    parser.add_argument("--basis", default="6-31g*")
    parser.add_argument("--conv-tol", type=float, default=1e-9)
    add_option(parser)
    options = parser.parse_args()
    made = builder.build(constraints=None)
    runs = {}
    for guess in ("extrapolated", "fresh"):
        qm = PySCFPotential(options.method, options.basis, conv_tol=options.conv_tol, guess=guess)
        term = Term(qm, Region("acetone", builder.ACETONE), embedding="electrostatic")
        mixed = create_mixed_system(made.topology, made.system, Hamiltonian([term]))
        integrator = openmm.VerletIntegrator(0.0005)
        context = openmm.Context(mixed.system, integrator, openmm.Platform.getPlatform("CPU"))
        runs[guess] = (mixed, context, integrator)
    context, integrator = runs["extrapolated"][1:]
    context.setPositions(made.positions)
    context.setVelocitiesToTemperature(300.0, 1)
    counts: dict[str, list[int]] = {guess: [] for guess in runs}
    for _ in tqdm(range(options.steps), disable=not sys.stderr.isatty()):
        before = {guess: cycles_of(run[0]) for guess, run in runs.items()}
        integrator.step(1)
        positions = context.getState(positions=True, energy=True).getPositions(asNumpy=True)
        runs["fresh"][1].setPositions(positions)
        runs["fresh"][1].getState(energy=True)
        for guess, run in runs.items():
            counts[guess].append(cycles_of(run[0]) - before[guess])
    rows = []
    for guess, values in counts.items():
        used = values[FIRST:]
        rows.append((GUESSES[guess], float(np.mean(used)), min(used), max(used)))
    table = Table("", ("densities to start from", "SCF cycles, mean", "least", "most"), tuple(rows))
    print_tables([table])
    notes = f"Acetone in 700 waters, {options.method}/{options.basis}, {options.steps - FIRST} steps of 0.5 fs."
    write_record(options.json, [table], notes)


if __name__ == "__main__":
    main()
