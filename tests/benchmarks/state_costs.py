"""What a step on an electronic state costs in explicit water, where the time goes, and what guesses save.

    python tests/benchmarks/state_costs.py                                             # the whole table
    python tests/benchmarks/state_costs.py --atoms 6 --methods tda casscf --basis sto-3g --repeats 3 --json FILE

QM/MM under PME, 0.5 fs, velocity Verlet, one thread: methaniminium (6 atoms) in 240 waters, acetone (10) in 700,
alanine dipeptide (22) in 749. Excited states: S1 has the forces, three states for TDA and TDDFT, two for CASSCF. All
seconds are processor time, medians over the steps. Parts are exclusive: what one part calls of another counts there.

At the geometries of the same steps a second System forgets everything before each evaluation: "fresh". Iterations are
cycles of the SCF, then of Delta-SCF's second determinant, products of the response matrix with a vector for TDA and
TDDFT, or macro-iterations of CASSCF, whose fresh guess needs an SCF besides that is in the time and not in the number.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENMM_CPU_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import openmm
import torch
from openmm import unit

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm import Hamiltonian, MixedSystem, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.embedding.evaluator_field import FieldAtGeometry
from qmmlmm.errors import QmmlmmError
from qmmlmm.nonadiabatic import TermSurfaces, VelocityVerletIntegrator
from qmmlmm.qm import CASSCF, TDA, TDDFT, DeltaSCF
from qmmlmm.qm.field.compact_charges import CompactCharges
from qmmlmm.qm.field.smooth_potential import SmoothPotential
from qmmlmm.qm.scf import reference
from qmmlmm.qm.states import casscf_states, delta_scf, response_states, state_solver
from systems import acetone_water, alanine_dipeptide
from systems.solute_in_water import METHANIMINIUM, build, relaxed
from systems.structure import Structure

STEP = 0.0005  # ps

PARTS = ("SCF", "states", "gradient", "couplings", "environment")
FUNCTIONS = {
    "SCF": ((reference, "converge"),),
    "states": (
        (response_states.ResponseStates, "solve"),
        (delta_scf.DeltaScfStates, "solve"),
        (casscf_states.CasscfStates, "solve"),
    ),
    "gradient": (
        (state_solver, "ground_state"),
        (response_states, "ground_state"),
        (response_states, "excited_state"),
        (delta_scf, "ground_state"),
        (casscf_states, "casscf_state"),
    ),
    "couplings": ((casscf_states, "casscf_coupling"),),
    "environment": (
        (EvaluatedTerm, "field_at"),
        (FieldAtGeometry, "external_field"),
        (FieldAtGeometry, "collect"),
        (CompactCharges, "__init__"),
        (CompactCharges, "core_hamiltonian"),
        (CompactCharges, "nuclear_energy"),
        (CompactCharges, "gradients"),
        (SmoothPotential, "__init__"),
        (SmoothPotential, "core_hamiltonian"),
        (SmoothPotential, "nuclear_energy"),
        (SmoothPotential, "gradient_and_charges"),
    ),
}
ITERATIONS = ("scf_cycles", "excited_scf_cycles", "response_products", "casscf_cycles")


@dataclass(frozen=True)
class Solute:
    """A region in water.

    Parameters
    ----------
    build : callable
        Returns structure and positions, (n, 3) nm.
    atoms : tuple of int
    charge : int
    space : CASSCF
        Methaniminium: the pi bond. Acetone and the dipeptide: lone pair and pi bond of a carbonyl group.
    """

    build: Callable[[], tuple[Structure, np.ndarray]]
    atoms: tuple[int, ...]
    charge: int
    space: CASSCF


def methaniminium() -> tuple[Structure, np.ndarray]:
    """Return methaniminium in water that has had half a picosecond to turn."""
    structure = build(METHANIMINIUM)
    return structure, relaxed(structure, len(METHANIMINIUM), picoseconds=0.5, minimise=False)


def as_built(structure: Structure) -> tuple[Structure, np.ndarray]:
    """Return a structure with its positions."""
    return structure, np.array(structure.positions.value_in_unit(unit.nanometer))


SOLUTES = {
    6: Solute(methaniminium, tuple(range(6)), 1, CASSCF(2, 2, 2)),
    10: Solute(
        lambda: as_built(acetone_water.build(constraints=None)), tuple(acetone_water.ACETONE), 0, CASSCF(2, 4, 3)
    ),
    22: Solute(lambda: as_built(alanine_dipeptide.build(constraints=None)), tuple(range(22)), 0, CASSCF(2, 4, 3)),
}


def potential(name: str, basis: str, solute: Solute) -> PySCFPotential:
    """Return the potential of a row of the table."""
    return {
        "hf": lambda: PySCFPotential("hf", basis),
        "b3lyp": lambda: PySCFPotential("b3lyp", basis),
        "tda": lambda: PySCFPotential("b3lyp", basis, excited=TDA(3), state=1),
        "tddft": lambda: PySCFPotential("b3lyp", basis, excited=TDDFT(3), state=1),
        "tda-hf": lambda: PySCFPotential("hf", basis, excited=TDA(3), state=1),
        "delta-scf": lambda: PySCFPotential("b3lyp", basis, excited=DeltaSCF(), state=1),
        "casscf": lambda: PySCFPotential("hf", basis, excited=solute.space, state=1),
    }[name]()


METHODS = ("hf", "b3lyp", "tda", "tddft", "tda-hf", "delta-scf", "casscf")


class Stopwatch:
    """Processor time of parts that call each other: each has the time that it does not spend in another."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._open: list[str] = []
        self._since = 0.0

    def _note(self) -> None:
        now = time.process_time()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def _timed(self, part: str, function: Callable) -> Callable:
        def call(*arguments, **keywords):
            self._note()
            self._open.append(part)
            try:
                return function(*arguments, **keywords)
            finally:
                self._note()
                self._open.pop()

        return call

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Measure all parts."""
        with contextlib.ExitStack() as stack:
            for part, functions in FUNCTIONS.items():
                for owner, name in functions:
                    timed = self._timed(part, getattr(owner, name))
                    stack.enter_context(mock.patch.object(owner, name, timed))
            yield


class Row:
    """Dynamics with one method, and the same geometries from fresh guesses.

    Parameters
    ----------
    solute : Solute
    made : (Structure, (n, 3) float array)
        What its `build` returned.
    qm : PySCFPotential
    """

    def __init__(self, solute: Solute, made: tuple[Structure, np.ndarray], qm: PySCFPotential) -> None:
        self.structure, positions = made
        region = Region("solute", solute.atoms, charge=solute.charge, multiplicity=1)
        self.hamiltonian = Hamiltonian([Term(qm, region, embedding="electrostatic")])
        self.coupled = isinstance(qm.excited, CASSCF)
        self.warm, self.context = self._created()
        self.context.setPositions(positions)
        self.context.applyConstraints(1e-6)
        self.context.setVelocitiesToTemperature(300.0, 1)
        self.surfaces = TermSurfaces(self.warm, "solute/QM", couplings=True) if self.coupled else None

    def _created(self) -> tuple[MixedSystem, openmm.Context]:
        mixed = create_mixed_system(self.structure.topology, self.structure.system, self.hamiltonian)
        integrator = VelocityVerletIntegrator(STEP)
        return mixed, openmm.Context(mixed.system, integrator, openmm.Platform.getPlatform("CPU"))

    def step(self) -> None:
        """Take a step, with the couplings of all states if there are any."""
        self.context.getIntegrator().step(1)
        if self.surfaces is not None:
            self.surfaces.observe(self.context)

    def measure(
        self, warm_up: int, repeats: int
    ) -> tuple[dict[str, float], dict[str, float], list[float], list[float]]:
        """Return medians of seconds, of steps and of fresh evaluations, by part; and mean iterations of both."""
        for _ in range(warm_up):
            self.step()
        warm, fresh, geometries, counts = [], [], [], []
        for _ in range(repeats):
            warm.append(timed(self.step))
            counts.append(iterations(self.warm))
            geometries.append(self.context.getState(positions=True).getPositions(asNumpy=True))
        mixed, context = self._created()
        surfaces = TermSurfaces(mixed, "solute/QM", couplings=True) if self.coupled else None
        fresh_counts = []
        for number, positions in enumerate([geometries[0], *geometries]):

            def evaluate(positions=positions) -> None:
                mixed.forget()
                context.setPositions(positions)
                context.getState(energy=True, forces=True)
                if surfaces is not None:
                    surfaces.observe(context)

            seconds = timed(evaluate)
            if number:  # the first fills tables that stay
                fresh.append(seconds)
                fresh_counts.append(iterations(mixed))
        return median(warm), median(fresh), mean_counts(counts), mean_counts(fresh_counts)


def timed(function: Callable[[], None]) -> dict[str, float]:
    """Return the processor time of each part of a call, with "step" for all of it and "rest" for what is no part."""
    watch = Stopwatch()
    with watch.running():
        start = time.process_time()
        function()
        whole = time.process_time() - start
    return watch.seconds | {"step": whole, "rest": whole - sum(watch.seconds.values())}


def iterations(mixed: MixedSystem) -> list[int]:
    """Return the iterations of the last evaluation, of the SCF first, as far as there are any."""
    results = mixed.results("solute/QM")
    return [int(str(results[name])) for name in ITERATIONS if name in results]


def median(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each part."""
    return {name: float(np.median([row[name] for row in rows])) for name in rows[0]}


def mean_counts(counts: list[list[int]]) -> list[float]:
    """Return means with a decimal."""
    return [round(float(value), 1) for value in np.mean(counts, axis=0)]


def main() -> None:
    """Print the table, each row when it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atoms", type=int, nargs="+", choices=list(SOLUTES), default=list(SOLUTES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--basis", default="6-31g*")
    parser.add_argument("--repeats", type=int, default=10, help="steps that count, after those of the warm-up")
    parser.add_argument("--warm-up", type=int, default=6, help="steps in which guesses collect their history")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts = (*PARTS, "rest")
    columns = (
        "atoms",
        "method",
        "step, s",
        *(f"{part}, %" for part in parts),
        "iterations, reused / fresh guesses",
        "fresh, s",
        "gain",
    )
    rows: list[tuple[str | float | None, ...]] = []
    notes = f"{options.basis}, processor time of one thread, medians of {options.repeats} steps of 0.5 fs."
    for atoms in options.atoms:
        solute = SOLUTES[atoms]
        made = solute.build()
        for name in options.methods:
            start = time.process_time()
            try:
                warm, fresh, counts, more = Row(solute, made, potential(name, options.basis, solute)).measure(
                    options.warm_up, options.repeats
                )
            except (QmmlmmError, openmm.OpenMMException) as error:
                print(f"{atoms} atoms, {name}, failed: {' '.join(str(error).split())[:200]}", flush=True)
                continue
            shares = [round(100 * warm[part] / warm["step"]) for part in parts]
            pairs = ", ".join(f"{a:g} / {b:g}" for a, b in zip(counts, more, strict=True))
            gain = fresh["step"] / warm["step"]
            rows.append((atoms, name, warm["step"], *shares, pairs, fresh["step"], gain))
            print(*rows[-1], f"{time.process_time() - start:.0f} s in all", flush=True)
            # A run that is stopped leaves the record of what is done.
            write_record(options.json, [Table("", columns, tuple(rows))], notes)
    print_tables([Table("", columns, tuple(rows))])


if __name__ == "__main__":
    main()
