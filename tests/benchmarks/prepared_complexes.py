"""Complexes from raw files to QM/MM: built, minimised, 1 ps by the force field, a QM/MM step on the picked site.

    pip install "qmmlmm[prepare,xtb]"
    python tests/benchmarks/prepared_complexes.py [NAME ...] [--json FILE]

One thread, processor time. The site, side chains within 4 angstrom of the ligand, is computed by GFN2-xTB,
electrostatically embedded and cut between CA and CB; of NADP+ it has nicotinamide and its ribose, cut at C5D-O5D.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENMM_CPU_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import openmm
from openmm import unit

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples"), str(Path(__file__).parent)]

from prepare_t4_lysozyme import write_complex
from record import Table, add_option, print_tables, write_record

from qmmlmm import Hamiltonian, Term, XTBPotential, create_mixed_system
from qmmlmm.preparation import Ligand, PreparationSettings, pick_site, prepare
from systems.raw_structures import raw_structure

TESTOSTERONE = "C[C@]12CC[C@H]3[C@H]([C@@H]1CC[C@@H]2O)CCC4=CC(=O)CC[C@]34C"
NADP = (
    "NC(=O)c1ccc[n+](c1)[C@@H]1O[C@H](COP(=O)([O-])OP(=O)([O-])OC[C@H]2O[C@H]([C@H](OP(=O)([O-])[O-])[C@@H]2O)"
    "n2cnc3c(N)ncnc32)[C@@H](O)[C@H]1O"
)
COLUMNS = (
    "complex",
    "particles",
    "charge, e",
    "built, s",
    "temperature after 1 ps, K",
    "site, atoms",
    "site, charge, e",
    "site, cuts",
    "largest force on the site, kJ/(mol nm)",
    "QM/MM set-up and step, s",
)
TEMPERATURE = 300.0
STEP = 0.002
"""ps."""


def t4_lysozyme() -> Path:
    """Return the raw file with the carbons of p-xylene as a residue PXY."""
    path = Path("4w51_xylene.pdb")
    write_complex(path)
    return path


@dataclass(frozen=True)
class Complex:
    """A raw structure and what a person has to say about it.

    Parameters
    ----------
    structure : callable
        Function that returns the path of the file.
    ligands : callable
        Function that returns ligands with files of their own.
    smiles : dict of str to str
        Groups of the structure.
    settings : dict
        Arguments of `PreparationSettings`.
    around : str
        The centre of the site.
    cut : tuple of str
        Bonds of cofactors that the site cuts.
    """

    structure: Callable[[], Path]
    around: str
    ligands: Callable[[], list[Ligand]] = list
    smiles: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    cut: tuple[str, ...] = ()


COMPLEXES = {
    "T4 lysozyme, p-xylene": Complex(
        t4_lysozyme, "resname PXY", smiles={"PXY": "Cc1ccc(C)cc1"}, settings={"states": {"A:31": "HIE"}}
    ),
    "HIV protease, DMP323": Complex(
        lambda: raw_structure("1QBS.pdb"),
        "resname DMP",
        lambda: [Ligand.from_file(raw_structure("1QBS-ligand.mol2"), "DMP")],
        settings={"states": {"A:25": "ASH", "B:125": "ASH"}},
    ),
    "3-alpha-HSD, NADP+, testosterone": Complex(
        lambda: raw_structure("1AFS.pdb"),
        "resname TES",
        smiles={"NAP": NADP, "TES": TESTOSTERONE},
        settings={"chains": ("A",)},
        cut=("L:1:C5D-O5D",),
    ),
    "TYK2, ejm_31": Complex(
        lambda: raw_structure("Tyk2_protein.pdb"),
        "resname LIG",
        lambda: [Ligand.from_file(raw_structure("Tyk2_ligands_shifted.sdf"), "LIG", molecule="ejm_31")],
    ),
    "thrombin, 1b": Complex(
        lambda: raw_structure("Thrombin_protein.pdb"),
        "resname LIG",
        lambda: [Ligand.from_file(raw_structure("Thrombin_ligands.sdf"), "LIG", molecule="1b")],
        settings={"missing": "cap"},
    ),
}


def measured(name: str, one: Complex, minimise: int) -> dict[str, Any]:
    """Build one complex, run it, and return what was found."""
    row: dict[str, Any] = {"complex": name}
    begin = time.process_time()
    settings = PreparationSettings(minimise=minimise, **one.settings)
    prepared = prepare(one.structure(), one.ligands(), settings, smiles=one.smiles)
    row["particles"] = prepared.system.getNumParticles()
    row["charge, e"] = round(prepared.solvated.charges["all"])
    row["built, s"] = time.process_time() - begin
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1.0, STEP)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(prepared.system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setState(prepared.solvated.state)
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    integrator.step(round(1.0 / STEP))
    state = context.getState(positions=True, energy=True)
    kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
    row["energy after 1 ps, kJ/mol"] = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    freedom = 3 * row["particles"] - prepared.system.getNumConstraints()
    row["temperature after 1 ps, K"] = 2.0 * kinetic / (freedom * unit.MOLAR_GAS_CONSTANT_R._value * 1e-3)
    site = pick_site(prepared.topology, prepared.system, prepared.positions, one.around, cut=one.cut)
    row["site, atoms"], row["site, charge, e"], row["site, cuts"] = len(site.atoms), site.charge, len(site.cuts)
    term = Term(XTBPotential("gfn2-xtb"), site.region("site"), embedding="electrostatic")
    mixed = create_mixed_system(prepared.topology, prepared.system, Hamiltonian([term]))
    begin = time.process_time()
    mixing = openmm.VerletIntegrator(0.0005)
    context = openmm.Context(mixed.system, mixing, openmm.Platform.getPlatformByName("CPU"))
    context.setState(prepared.solvated.state)
    mixing.step(1)
    state = context.getState(forces=True, energy=True)
    forces = np.array(state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer))
    row["QM/MM energy, kJ/mol"] = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    row["largest force on the site, kJ/(mol nm)"] = float(np.linalg.norm(forces[list(site.atoms)], axis=1).max())
    row["QM/MM set-up and step, s"] = time.process_time() - begin
    return row


def main() -> None:
    """Build what was asked for and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", default=[], help=f"beginnings of names; all of {list(COMPLEXES)} if not given"
    )
    parser.add_argument("--minimise", type=int, default=150, help="iterations of each stage")
    add_option(parser)
    options = parser.parse_args()
    rows = []
    for name, one in COMPLEXES.items():
        if options.names and not any(name.startswith(wanted) for wanted in options.names):
            continue
        found = measured(name, one, options.minimise)
        for key, value in found.items():
            print(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}", flush=True)
        print(flush=True)
        rows.append(tuple(found[key] for key in COLUMNS))
        # A run that is stopped leaves the record of what is done.
        write_record(options.json, [Table("", COLUMNS, tuple(rows))], "Processor seconds of one thread; single runs.")
    print_tables([Table("", COLUMNS, tuple(rows))])


if __name__ == "__main__":
    main()
