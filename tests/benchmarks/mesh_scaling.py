"""Time and memory of the long-range field for growing numbers of MM atoms.

    python tests/benchmarks/mesh_scaling.py [--sizes 10000 100000 1000000] [--precision double] [--device cpu]
        [--json FILE]

For each size, in a process of its own: the potential with its derivatives at 100 sites, and the forces of 100 charges
and dipoles on all atoms, through the module that runs in the TorchForce. Atoms have the density of water (100 per
nm^3); splitting and mesh follow from OpenMM's default tolerance and a cutoff of 1 nm.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, write_record

from qmmlmm.coupling.layout import Surroundings, TermLayout
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.embedding.surroundings_field import SurroundingsField
from qmmlmm.units import NM_IN_BOHR

SITES = 100
DENSITY, CUTOFF, TOLERANCE = 100.0, 1.0, 5e-4


def measure(n: int, precision: str, repeats: int, device: str) -> list[float]:
    """Return atoms, points along an edge of the mesh, times of both parts in ms, and memory in MiB."""
    rng = np.random.default_rng(1)
    edge = (n / DENSITY) ** (1.0 / 3.0)
    alpha = math.sqrt(-math.log(2.0 * TOLERANCE)) / CUTOFF
    size = math.ceil(2.0 * alpha * edge / (3.0 * TOLERANCE**0.2))
    side = math.ceil(SITES ** (1.0 / 3.0))
    lattice = np.stack(np.meshgrid(*3 * [np.arange(side)]), axis=-1).reshape(-1, 3)[:SITES] * 0.15
    positions = np.concatenate([lattice, rng.uniform(0.0, edge, (n - SITES, 3))])
    charges = rng.uniform(-0.8, 0.8, n)
    layout = TermLayout(
        specification=RegionSpecification("site/ML", np.full(SITES, 6), 0, 1),
        coefficient=1.0,
        n_particles=n,
        atoms=np.arange(SITES),
        anchor=SITES // 2,
        link_bonds=np.zeros((0, 2), dtype=np.int64),
        link_ratios=np.zeros(0),
        link_distances=np.zeros(0),
        periodic=True,
        surroundings=Surroundings(
            source_charges=charges,
            derived_bonds=np.zeros((0, 2), dtype=np.int64),
            derived_fractions=np.zeros(0),
            reference_charges=np.where(np.arange(n) < SITES, charges, 0.0),
            splitting=alpha / NM_IN_BOHR,
            grid=(size, size, size),
            short_range_cutoff=4.5 / alpha * NM_IN_BOHR,
        ),
    )
    dtype = torch.float32 if precision == "mixed" else torch.float64
    places = torch.tensor(positions * NM_IN_BOHR).to(device)
    box = (torch.eye(3, dtype=torch.float64) * edge * NM_IN_BOHR).to(device)
    on_gpu = places.is_cuda
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    field = torch.jit.script(SurroundingsField(layout, dtype).eval().to(device))
    w, d = torch.tensor(rng.normal(size=SITES)).to(device), torch.tensor(rng.normal(size=(SITES, 3))).to(device)

    def now() -> float:
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    forward, backward = [], []
    with torch.no_grad():
        for _ in range(repeats + 1):
            start = now()
            prepared = field.prepare(places, box)
            potential = field.potential(prepared)
            middle = now()
            field.adjoint(prepared, potential, w, d)
            forward.append(middle - start)
            backward.append(now() - middle)
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024.0
    if on_gpu:
        memory = torch.cuda.max_memory_allocated() / 2**20
    return [n, size, 1000.0 * min(forward[1:]), 1000.0 * min(backward[1:]), memory]


def main() -> None:
    """Start a process for each size, so that peaks of memory do not mix."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--precision", choices=["double", "mixed"], default="double")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="of torch; on cuda the memory is that of the device")
    parser.add_argument("--alone", action="store_true", help="measure the one size in this process")
    add_option(parser)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measure(options.sizes[0], options.precision, options.repeats, options.device)))
        return
    where = f"{options.device}, {torch.get_num_threads()} threads"
    print(f"{where}, {options.precision} precision, {SITES} sites, best of {options.repeats}")
    columns = f"{'atoms':>9}{'mesh':>8}{'potential, ms':>15}{'forces, ms':>12}{'us per atom':>15}"
    print(columns + f"{'the same / ln n':>20}{'peak, MiB':>12}", flush=True)
    rows = []
    for n in options.sizes:
        command = [sys.executable, __file__, "--alone", "--sizes", str(n), "--precision", options.precision]
        command += ["--repeats", str(options.repeats), "--device", options.device]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        _, size, potential, forces, memory = json.loads(done.stdout.splitlines()[-1])
        per = 1e3 * (potential + forces) / n
        print(
            f"{n:>9}{size:>6}^3{potential:>15.1f}{forces:>12.1f}{per:>15.2f}{per / math.log(n):>20.3f}{memory:>12.0f}",
            flush=True,
        )
        rows.append((n, f"{size}^3", potential, forces, memory))
    names = ("atoms", "mesh", "potential, ms", "forces, ms", "peak of memory, MiB")
    notes = f"{SITES} sites, {where}, {options.precision} precision; best of {options.repeats}."
    write_record(options.json, [Table("Field of the surroundings", names, tuple(rows))], notes)


if __name__ == "__main__":
    main()
