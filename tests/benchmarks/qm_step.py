"""A QM step against bare PySCF, along force-field dynamics of 0.5 fs.

    python tests/benchmarks/qm_step.py [--method b3lyp] [--basis 6-31g*] [--site ligand] [--turns 3] [--json FILE]

The site is p-xylene in T4 lysozyme, 18 atoms in 23,817, or the active site of ketosteroid isomerase with its ligand and
two side chains, cut between CA and CB, 59 atoms with link atoms.

In each turn, at the next geometry: PySCF's own energy from a fresh guess and its gradient, of the region alone with
the same settings and without the response of the grid, which is PySCF's default; the same gradient with it; a step of
qmmlmm with its surroundings, from the densities of the last steps; a step with ``accelerated=False``. Processor time,
one thread.
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
from openmm import unit

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, write_record

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system, select, suggest_charge
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.geometry import Geometry
from qmmlmm.qm.method import is_hartree_fock
from qmmlmm.units import BOHR_IN_NM
from systems import ketosteroid_isomerase, t4_lysozyme
from systems.structure import Structure

FIRST_STEPS = 6
"""Steps in which the extrapolation collects densities."""


def seconds_of(call: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


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


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="b3lyp")
    parser.add_argument("--basis", default="6-31g*")
    parser.add_argument("--site", choices=SITES, default="ligand")
    parser.add_argument("--turns", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    build, selection = SITES[options.site]
    structure = build()
    walk = geometries(structure, FIRST_STEPS + options.turns)
    plain = PySCFPotential(options.method, options.basis, accelerated=False)
    terms = {
        "step": term_of(structure, selection, PySCFPotential(options.method, options.basis)),
        "step, not accelerated": term_of(structure, selection, plain),
    }
    for geometry in walk[:FIRST_STEPS]:
        for term in terms.values():
            term.energy_and_gradient(geometry)
    rows: list[dict[str, float]] = []
    for geometry in walk[FIRST_STEPS:]:
        sites = terms["step"].field_at(geometry).sites
        evaluator = plain.create_evaluator(terms["step"].layout.specification)
        field = evaluator.mean_field(Geometry(sites), None)
        row = {"PySCF, SCF": seconds_of(field.kernel)}
        gradient = field.nuc_grad_method()
        gradient.verbose = 0
        row["PySCF, gradient"] = seconds_of(gradient.kernel)
        if not is_hartree_fock(options.method):
            gradient = field.nuc_grad_method()
            gradient.verbose, gradient.grid_response = 0, True
            row["PySCF, gradient with grid response"] = seconds_of(gradient.kernel)
        for name, term in terms.items():
            row[name] = seconds_of(lambda term=term, geometry=geometry: term.energy_and_gradient(geometry))
        row["SCF cycles"] = terms["step"].last.results["scf_cycles"]
        bare = row["PySCF, SCF"] + row["PySCF, gradient"]
        for name in terms:
            row[f"{name} over PySCF"] = row[name] / bare
        row["step over not accelerated"] = row["step"] / row["step, not accelerated"]
        energies = [term.last.energy for term in terms.values()]
        row["difference of energies, hartree"] = abs(energies[0] - energies[1])
        rows.append(row)
        print({key: float(f"{value:.3g}") for key, value in row.items()}, flush=True)
    print(f"\n{options.method}/{options.basis}, {options.site}\n")
    print("| quantity | median | least | largest |\n|---|---|---|---|")
    found = []
    for key in rows[0]:
        values = [float(row[key]) for row in rows]
        found.append((key, float(np.median(values)), min(values), max(values)))
        print(f"| {key} | {found[-1][1]:.3g} | {found[-1][2]:.3g} | {found[-1][3]:.3g} |")
    title = f"{options.method}/{options.basis}, {options.site}"
    table = Table(title, ("quantity", "median", "least", "largest"), tuple(found))
    notes = f"Processor seconds unless another unit is given; {options.turns} turns, one thread."
    write_record(options.json, [table], notes)


if __name__ == "__main__":
    main()
