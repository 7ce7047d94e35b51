"""The share of time that is not QM, ML or OpenMM: in a QM/ML/MM run with reporters, and in a learning loop.

    python tests/benchmarks/overhead.py run [--smoke] [--json FILE]
    python tests/benchmarks/overhead.py loop --output DIRECTORY [--smoke] [--json FILE]

`run` is acetone in 700 waters with ML + QM - ML, B3LYP/6-31G* unless another method is given, and a line of energies
and a frame of the trajectory for every second step. Each block of steps is followed by one of the same length from the
same place without the QM term, which is ML and OpenMM; the time of QM and of its embedding is taken inside the term.
What is left is Python around it: hand-over of positions and forces, checks, reporters. Everything runs on one thread,
and processor time counts, so that a busy machine changes little. Shares are of sums over blocks in alternation; the
range is that of single blocks. `loop` is the loop of learning_loop.py in small, which books its wall time by itself and
wants a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENMM_CPU_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import openmm
import torch
from openmm import app

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import learning_loop
from record import Table, add_option, print_tables, write_record

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.embedding.evaluator_field import FieldAtGeometry
from qmmlmm.learning import ResponseSettings, TrainingSettings, region_potential
from qmmlmm.learning.loop import LabelSettings, LearningLoop, LoopSettings
from qmmlmm.learning.loop.store import LoopStore
from qmmlmm.learning.loop.timer import overhead
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.qm.evaluator import PySCFEvaluator
from systems.acetone_water import builder

REGION = Region("acetone", builder.ACETONE)
INTEGRALS = "QM: PySCF and integrals"
EMBEDDING = "QM: embedding in the mesh"
OPENMM = "ML and OpenMM"
OTHER = "all else"


class Watch:
    """Processor time spent in functions that were replaced by timed ones."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, owner: Any, name: str) -> None:
        """Time a method of a class."""
        inside: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.process_time()
            try:
                return inside(*arguments, **options)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - began

        setattr(owner, name, timed)

    def take(self) -> dict[str, float]:
        """Return what was spent since the last call."""
        spent, self.seconds = self.seconds, {}
        return spent


def watched() -> Watch:
    """Return a watch on the QM term as a whole, on its evaluator, and on the potential that this asks for."""
    watch = Watch()
    watch.time(EvaluatedTerm, "compute")
    watch.time(PySCFEvaluator, "evaluate")
    watch.time(FieldAtGeometry, "smooth_potential")
    return watch


def run(options: argparse.Namespace) -> tuple[Table, str]:
    """Return the shares of a run, and a note."""
    made = builder.build(constraints=None, rigid_water=True, remove_cm_motion=False)
    numbers = [atom.element.atomic_number for atom in made.topology.atoms()][: len(builder.ACETONE)]
    bonds = [(b[0].index, b[1].index) for b in made.topology.bonds() if b[0].index in builder.ACETONE]
    torch.manual_seed(1)
    # It need not know anything: what it adds it takes away again.
    model = region_potential(ResponseNetwork(numbers, bonds, ResponseSettings(), members=1).eval())
    qm = PySCFPotential(options.method, options.basis)
    terms = [
        Term(model, REGION, embedding="electrostatic"),
        Term(qm, REGION, embedding="electrostatic"),
        Term(model, REGION, embedding="electrostatic", coefficient=-1.0),
    ]
    mixed = create_mixed_system(made.topology, made.system, Hamiltonian(terms))
    platform = openmm.Platform.getPlatform(options.platform)
    simulation = app.Simulation(
        mixed.topology, mixed.system, openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005), platform
    )
    bare = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005)
    groups = {force.getForceGroup() for force in mixed.system.getForces()} - {mixed.force_group("acetone/QM")}
    bare.setIntegrationForceGroups(groups)
    without = openmm.Context(mixed.system, bare, platform)
    start = openmm.Context(made.system, openmm.VerletIntegrator(0.001), platform)
    start.setPositions(made.positions)
    openmm.LocalEnergyMinimizer.minimize(start, 10.0, 100)
    simulation.context.setPositions(start.getState(positions=True).getPositions(asNumpy=True))
    simulation.context.setVelocitiesToTemperature(300.0, 1)
    watch = watched()
    parts: dict[str, list[float]] = {name: [] for name in (INTEGRALS, EMBEDDING, OPENMM, OTHER)}
    with tempfile.TemporaryDirectory() as folder:
        simulation.reporters += [
            app.StateDataReporter(f"{folder}/log.csv", 2, step=True, potentialEnergy=True, temperature=True),
            app.DCDReporter(f"{folder}/run.dcd", 2),
        ]
        for block in range(options.blocks + 1):
            state = simulation.context.getState(positions=True, velocities=True)
            without.setPositions(state.getPositions(asNumpy=True))
            without.setVelocities(state.getVelocities(asNumpy=True))
            watch.take()
            began = time.process_time()
            simulation.step(options.steps)
            whole = time.process_time() - began
            spent = watch.take()
            began = time.process_time()
            bare.step(options.steps)
            plain = time.process_time() - began
            if block:  # the first sets up what later ones have
                parts[INTEGRALS].append(spent["evaluate"] - spent["smooth_potential"])
                parts[EMBEDDING].append(spent["compute"] - spent["evaluate"] + spent["smooth_potential"])
                parts[OPENMM].append(plain)
                parts[OTHER].append(whole - spent["compute"] - plain)
    totals = np.sum(list(parts.values()), axis=0)
    each = totals.sum() / options.blocks / options.steps
    rows = []
    for name, values in parts.items():
        shares = 100.0 * np.array(values) / totals
        share = float(100.0 * np.sum(values) / totals.sum())
        rows.append((name, share, float(shares.min()), float(shares.max())))
    columns = ("part", "share of processor time, %", "least of a block", "largest of a block")
    notes = f"{options.method}/{options.basis}, {options.blocks} blocks of {options.steps} steps, {each:.3g} s a step."
    return Table("", columns, tuple(rows)), notes


def loop(options: argparse.Namespace) -> tuple[Table, str]:
    """Return the shares of a loop, and a note."""
    topology, system, positions = learning_loop.solution()
    small = options.smoke
    made = LearningLoop(
        options.output, topology, system, Term(learning_loop.QM, learning_loop.REGION, embedding="electrostatic"),
        positions,
        settings=LoopSettings(
            force_error=1.0, fresh_labels=2 if small else 8, labels_per_round=2 if small else 12,
            max_rounds=1 if small else 3, start_labels=8 if small else 24, start_steps=20 if small else 1000,
            steps_per_round=20 if small else 400, check_interval=10, temperature=300.0, friction=5.0, time_step=0.001,
            members=2 if small else 4, seed=1,
        ),
        walkers=learning_loop.walkers()[: 2 if small else 6],
        biases=[learning_loop.TORSION.umbrella("phi", True)],
        variables={"torsion, rad": learning_loop.TORSION},
        network=ResponseSettings(features=6, layers=1) if small else ResponseSettings(features=24, layers=2),
        training=TrainingSettings(steps=4 if small else 800, batch_size=8, validations=2),
        labelling=LabelSettings(workers=1),
    )  # fmt: skip
    result = made.run(progress=False)
    store = LoopStore(options.output, system.getNumParticles())
    times = store.times()
    store.close()
    total = sum(times.values())
    rows = [(kind, 100.0 * seconds / total) for kind, seconds in times.items()]
    rows.append(("not QM, ML or OpenMM", 100.0 * overhead(times)))
    notes = f"{result.rounds} rounds, {result.labels} labels, {total:.0f} s."
    return Table("", ("part", "share of the wall time, %"), tuple(rows)), notes


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["run", "loop"])
    parser.add_argument("--output", type=Path, default=Path("overhead_run"))
    parser.add_argument("--method", default="b3lyp")
    parser.add_argument("--basis", default="6-31g*")
    parser.add_argument("--platform", default="CPU")
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--steps", type=int, default=4, help="in a block")
    parser.add_argument("--smoke", action="store_true", help="as little as shows that it runs")
    add_option(parser)
    options = parser.parse_args()
    if options.smoke:
        options.blocks, options.steps, options.method, options.basis = 1, 2, "hf", "sto-3g"
    torch.set_num_threads(1)
    table, notes = {"run": run, "loop": loop}[options.part](options)
    print_tables([table])
    write_record(options.json, [table], notes)


if __name__ == "__main__":
    main()
