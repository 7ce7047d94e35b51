"""What the surroundings add to one QM energy and gradient: ketosteroid isomerase in water, 58,553 atoms.

    python tests/benchmarks/qm_environment.py [--method b3lyp] [--repeats 1] [--direct] [--json FILE]

For regions of about 10 and 20 atoms, prints the time of PySCF alone (the same region, method, threads and guess,
without surroundings), the time with the surroundings, and the share of each part. `--direct` adds what `pyscf.qmmm`
takes for the same with all charges of the box as bare point charges, without images. Set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from openmm import app
from pyscf import lib, qmmm

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.embedding.evaluator_field import FieldAtGeometry
from qmmlmm.geometry import Geometry
from qmmlmm.qm.field.compact_charges import CompactCharges
from qmmlmm.qm.field.smooth_potential import SmoothPotential
from systems.ketosteroid_isomerase import SITE_A, build

BACKBONE = {"N", "H", "CA", "HA", "C", "O"}

PARTS = {
    "meshes, near charges": (EvaluatedTerm, "field_at"),
    "near charges: operator": (CompactCharges, "core_hamiltonian"),
    "near charges: gradient": (CompactCharges, "gradients"),
    "smooth part: potential": (SmoothPotential, "__init__"),
    "smooth part: operator": (SmoothPotential, "core_hamiltonian"),
    "smooth part: gradient": (SmoothPotential, "gradient_and_charges"),
    "forces on all atoms": (FieldAtGeometry, "collect"),
}


@contextlib.contextmanager
def timed(seconds: dict[str, float]) -> Iterator[None]:
    """Add up the CPU time of each part."""
    with contextlib.ExitStack() as stack:
        for name, (owner, method) in PARTS.items():
            stack.enter_context(mock.patch.object(owner, method, _timer(getattr(owner, method), name, seconds)))
        yield


def _timer(function, name, seconds):
    def call(*arguments, **keywords):
        start = time.process_time()
        try:
            return function(*arguments, **keywords)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.process_time() - start

    return call


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="b3lyp", help="in 6-31g*")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--direct", action="store_true", help="also pyscf.qmmm with all charges")
    add_option(parser)
    options = parser.parse_args()
    structure = build()
    geometry = Geometry.from_quantities(structure.positions, structure.topology.getPeriodicBoxVectors()).in_bohr()
    qm = PySCFPotential(options.method, "6-31g*")
    print(f"{options.method}/6-31g*, fresh guess, {lib.num_threads()} thread(s), seconds of CPU time")
    tables = []
    for name, atoms in regions(structure.topology).items():
        hamiltonian = Hamiltonian([Term(qm, Region(name, atoms), embedding="electrostatic")])
        mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)
        tables.append(measure(name, qm, mixed.evaluated_term(f"{name}/QM"), geometry, options))
    notes = (
        f"{options.method}/6-31g*, 58,553 atoms, fresh guess; threads: {lib.num_threads()}, runs: {options.repeats}."
    )
    write_record(options.json, tables, notes)


def regions(topology: app.Topology) -> dict[str, list[int]]:
    """Return about 10 and 20 atoms, with the link atom where the side chain is cut off."""
    residues = list(topology.residues())
    tyrosine = side_chain(residues[SITE_A[0]])
    asparagine = side_chain(next(residue for residue in residues if residue.name == "ASN"))
    tryptophan = side_chain(next(residue for residue in residues if residue.name == "TRP"))
    return {"Asn side chain": asparagine, "Tyr16 side chain": tyrosine, "Trp side chain": tryptophan}


def side_chain(residue: app.topology.Residue) -> list[int]:
    """Return the atoms from CB on."""
    return [atom.index for atom in residue.atoms() if atom.name not in BACKBONE]


def measure(name, qm, term, geometry, options) -> Table:
    """Print and return the table of one region."""
    alone, embedded, rows = [], [], []
    region = Geometry(term.field_at(geometry).sites)
    for _ in range(options.repeats):
        evaluator = qm.create_evaluator(term.layout.specification)
        alone.append(seconds_of(lambda evaluator=evaluator: evaluator.evaluate(region, None)))
        # From a fresh guess; the meshes' constant tables are there, as from the second step on.
        term.evaluator.forget()
        seconds: dict[str, float] = {}
        with timed(seconds):
            embedded.append(seconds_of(lambda: term.energy_and_gradient(geometry)))
        rows.append(seconds)
    bare = float(np.median(alone))
    charges = len(term.last.charge_gradient)
    seconds_of_parts = {part: float(np.median([row[part] for row in rows])) for part in PARTS}
    total = sum(seconds_of_parts.values())
    seconds = {"PySCF alone": bare, "in its surroundings": float(np.median(embedded)), **seconds_of_parts}
    seconds["surroundings, together"] = total
    if options.direct:
        seconds["`pyscf.qmmm`, all charges"] = direct_seconds(qm, term, geometry.positions, region)
    title = f"{name}: {len(region.positions)} atoms, {charges} compact charges, {len(term.last.smooth_points)} points"
    found = tuple((label, value, 100.0 * value / bare) for label, value in seconds.items())
    table = Table(title, ("part", "processor time, s", "of PySCF alone, %"), found)
    print_tables([table])
    return table


def direct_seconds(qm, term, positions, region) -> float:
    """Return what pyscf.qmmm takes for the operator, the gradient and the forces on all charges of the box."""
    evaluator = qm.create_evaluator(term.layout.specification)
    mean_field = evaluator.mean_field(region, None)
    charges = term.layout.surroundings.source_charges
    chosen = np.flatnonzero(charges)
    chosen = np.setdiff1d(chosen, term.layout.atoms)
    chosen = chosen[chosen < len(positions)]
    density = np.eye(mean_field.mol.nao)
    plain = mean_field.nuc_grad_method()
    without = seconds_of(mean_field.get_hcore) + seconds_of(plain.get_hcore)
    embedded = qmmm.mm_charge(mean_field, positions[chosen], charges[chosen], unit="Bohr")
    gradient = embedded.nuc_grad_method()
    parts = (embedded.get_hcore, gradient.get_hcore, gradient.grad_nuc_mm, lambda: gradient.grad_hcore_mm(density))
    return sum(seconds_of(part) for part in parts) - without


def seconds_of(function) -> float:
    """Return the CPU time of a call: the wall time of an undisturbed run on one thread."""
    start = time.process_time()
    function()
    return time.process_time() - start


if __name__ == "__main__":
    main()
