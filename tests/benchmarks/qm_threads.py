"""What threads of different libraries do to each other: QM/MM of p-xylene in T4 lysozyme on all cores of the machine.

    python tests/benchmarks/qm_threads.py [--method hf] [--repeats 3] [--busy 0 1] [--json FILE]

PySCF and torch have threads of OpenMP, NumPy and SciPy have threads of OpenBLAS; all wait by spinning. Each row is a
process: with one BLAS thread during a QM evaluation, as qmmlmm has it, or with as many as NumPy chose; with waiting
threads that spin or sleep (OMP_WAIT_POLICY); beside so many other processes that compute. Nothing else may run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENMM_CPU_THREADS")
COUNTING = "while True: pass"


def measure(method: str, repeats: int, blas: str) -> list[float]:
    """Return the seconds of evaluations of all forces."""
    import numpy as np
    import openmm
    from openmm import unit

    from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system, select
    from qmmlmm.qm import blas_threads
    from systems.t4_lysozyme import build

    structure = build()
    ligand = Region("ligand", select(structure.topology, "resname LIG"))
    term = Term(PySCFPotential(method, "6-31g*"), ligand, embedding="electrostatic")
    mixed = create_mixed_system(structure.topology, structure.system, Hamiltonian([term]))
    context = openmm.Context(mixed.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("CPU"))
    positions = structure.positions.value_in_unit(unit.nanometer)
    rng = np.random.default_rng(1)
    untouched = mock.Mock(limit=lambda **_: contextlib.nullcontext())
    seconds = []
    with contextlib.ExitStack() as stack:
        if blas == "all":
            stack.enter_context(mock.patch.object(blas_threads, "_libraries", return_value=untouched))
        for turn in range(-2, repeats):
            context.setPositions(positions + 2e-4 * rng.standard_normal(np.shape(positions)))
            start = time.perf_counter()
            context.getState(forces=True)
            if turn >= 0:
                seconds.append(time.perf_counter() - start)
    return seconds


def row(options: argparse.Namespace, blas: str, policy: str, busy: int) -> tuple[str, str, int, list[float]]:
    """Return the row of one process."""
    from record import quartiles

    environment = {name: value for name, value in os.environ.items() if name not in THREADS}
    if policy == "sleep":
        environment["OMP_WAIT_POLICY"] = "passive"
    command = [sys.executable, __file__, "--method", options.method, "--repeats", str(options.repeats), "--blas", blas]
    others = [subprocess.Popen([sys.executable, "-c", COUNTING]) for _ in range(busy)]
    try:
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    finally:
        for other in others:
            other.kill()
            other.wait()
    return blas, policy, busy, quartiles(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure in processes of their own and print."""
    from record import Table, add_option, print_tables, write_record

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="hf", help="in 6-31g*")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1], help="other processes that compute")
    parser.add_argument("--blas", choices=["one", "all"], help="measure in this process")
    add_option(parser)
    options = parser.parse_args()
    if options.blas:
        print(json.dumps(measure(options.method, options.repeats, options.blas)))
        return
    rows = []
    for busy in options.busy:
        for blas in ("all", "one"):
            for policy in ("spin", "sleep"):
                rows.append(row(options, blas, policy, busy))
                print(*rows[-1], flush=True)
    columns = ("threads of BLAS", "waiting threads", "other processes", "QM/MM evaluation, s")
    table = Table("", columns, tuple(rows))
    print_tables([table])
    notes = f"{options.method}/6-31g*, 18 atoms in 23,817; wall time, medians with quartiles; {os.cpu_count()} cores."
    write_record(options.json, [table], notes)


if __name__ == "__main__":
    main()
