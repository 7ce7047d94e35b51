"""A QM step against bare PySCF, along force-field dynamics of 0.5 fs.

    python tests/benchmarks/qm_step.py [--method b3lyp] [--basis 6-31g*] [--site ligand] [--turns 3] [--json FILE]
    python tests/benchmarks/qm_step.py --site dipeptide --states tda

The site is p-xylene in T4 lysozyme, 18 atoms in 23,817; the active site of ketosteroid isomerase with its ligand and
two side chains, cut between CA and CB, 59 atoms with link atoms; or alanine dipeptide in water, 22 atoms.

In each turn, at the next geometry: PySCF's own energy from a fresh guess and its gradient, of the region alone with
the same settings and without the response of the grid, which is PySCF's default; the same gradient with it; a step of
qmmlmm with its surroundings, from the densities of the last steps; a step with ``accelerated=False``. Processor time
of one thread; with ``OMP_NUM_THREADS=2`` in the environment, time on the clock. With ``--states`` the steps are those
of the first excited state of two, and bare PySCF is left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENMM_CPU_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import openmm
import pyscf.lib
from openmm import unit

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system, select, suggest_charge
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.geometry import Geometry
from qmmlmm.qm import TDA, TDDFT
from qmmlmm.qm.evaluator import PySCFEvaluator
from qmmlmm.qm.method import is_hartree_fock
from qmmlmm.units import BOHR_IN_NM
from systems import alanine_dipeptide, ketosteroid_isomerase, t4_lysozyme
from systems.structure import Structure

FIRST_STEPS = 6
"""Steps in which the extrapolation collects densities."""

STATES = {"tda": TDA(3), "tddft": TDDFT(3)}
"""Methods for excited states."""


def seconds_of(call: Callable[[], object]) -> float:
    """Return the processor time of a call, or with several threads its time on the clock."""
    clock = time.process_time if pyscf.lib.num_threads() == 1 else time.perf_counter
    start = clock()
    call()
    return clock() - start


def geometries(structure: Structure, count: int) -> list[Geometry]:
    """Return successive geometries of dynamics by the force field, bohr."""
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.0005)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(structure.system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(structure.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 100)
    context.setVelocitiesToTemperature(300, 1)
    integrator.step(40)
    found = []
    for _ in range(count):
        integrator.step(1)
        state = context.getState(positions=True)
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
        found.append(Geometry(np.array(positions) / BOHR_IN_NM, np.array(box) / BOHR_IN_NM))
    return found


SITES = {
    "ligand": (t4_lysozyme.build, "resname LIG"),
    "enzyme": (
        ketosteroid_isomerase.build,
        "resname EQU and resSeq 263 or resname TYR ASP and resSeq 16 103 and sidechain",
    ),
    "dipeptide": (alanine_dipeptide.build, "resname ACE ALA NME"),
}
"""Systems and the selections of their regions."""


def term_of(structure: Structure, selection: str, potential: PySCFPotential) -> EvaluatedTerm:
    """Return the term of the region at a level."""
    atoms = select(structure.topology, selection)
    region = Region("site", atoms, charge=suggest_charge(structure.system, atoms))
    term = Term(potential, region, embedding="electrostatic")
    mixed = create_mixed_system(structure.topology, structure.system, Hamiltonian([term]))
    (found,) = mixed.terms.values()
    return found.runner.region_term


def bare(evaluator: PySCFEvaluator, sites: np.ndarray, method: str) -> dict[str, float]:
    """Return seconds of PySCF's own energy and gradients of the region alone."""
    field = evaluator.mean_field(Geometry(sites), None)
    row = {"PySCF, SCF": seconds_of(field.kernel)}
    gradient = field.nuc_grad_method()
    gradient.verbose = 0
    row["PySCF, gradient"] = seconds_of(gradient.kernel)
    if not is_hartree_fock(method):
        gradient = field.nuc_grad_method()
        gradient.verbose, gradient.grid_response = 0, True
        row["PySCF, gradient with grid response"] = seconds_of(gradient.kernel)
    return row


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="b3lyp")
    parser.add_argument("--basis", default="6-31g*")
    parser.add_argument("--site", choices=SITES, default="ligand")
    parser.add_argument("--states", choices=STATES, help="steps of the first of two excited states")
    parser.add_argument("--warm-up", type=int, default=FIRST_STEPS, help="steps that do not count")
    parser.add_argument("--turns", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    build, selection = SITES[options.site]
    structure = build()
    walk = geometries(structure, options.warm_up + options.turns)
    state = {} if options.states is None else {"excited": STATES[options.states], "state": 1}
    plain = PySCFPotential(options.method, options.basis, accelerated=False, **state)
    terms = {
        "step": term_of(structure, selection, PySCFPotential(options.method, options.basis, **state)),
        "step, not accelerated": term_of(structure, selection, plain),
    }
    for geometry in walk[: options.warm_up]:
        for term in terms.values():
            term.energy_and_gradient(geometry)
    rows: list[dict[str, float]] = []
    for geometry in walk[options.warm_up :]:
        row = {}
        if not state:
            evaluator = plain.create_evaluator(terms["step"].layout.specification)
            row = bare(evaluator, terms["step"].field_at(geometry).sites, options.method)
        for name, term in terms.items():
            row[name] = seconds_of(lambda term=term, geometry=geometry: term.energy_and_gradient(geometry))
            row[f"SCF cycles, {name}"] = term.last.results["scf_cycles"]
            if state:
                row[f"products with vectors, {name}"] = term.last.results["response_products"]
            else:
                row[f"{name} over PySCF"] = row[name] / (row["PySCF, SCF"] + row["PySCF, gradient"])
        row["step over not accelerated"] = row["step"] / row["step, not accelerated"]
        ours, theirs = (term.last for term in terms.values())
        row["difference of energies, hartree"] = abs(ours.energy - theirs.energy)
        row["difference of gradients, hartree/bohr"] = float(abs(ours.gradient - theirs.gradient).max())
        rows.append(row)
        print({key: float(f"{value:.3g}") for key, value in row.items()}, flush=True)
    title = f"{options.method}/{options.basis}, {options.site}"
    if options.states is not None:
        title = f"{options.states.upper()}, {title}"
    found = []
    for key in rows[0]:
        values = [row[key] for row in rows]
        median = float(np.median(values))
        whole = isinstance(values[0], int) and median.is_integer()
        found.append((key, int(median) if whole else median, min(values), max(values)))
    table = Table(title, ("quantity", "median", "least", "largest"), tuple(found))
    print_tables([table])
    threads = pyscf.lib.num_threads()
    kind = "Processor seconds" if threads == 1 else "Seconds on the clock"
    notes = f"{kind} unless another unit is given; turns: {options.turns}; threads: {threads}."
    write_record(options.json, [table], notes)


if __name__ == "__main__":
    main()
