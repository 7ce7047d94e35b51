"""The proton between Asp103 of ketosteroid isomerase and its inhibitor equilenin: an energy profile and its residues.

GFN2-xTB computes the ligand and the side chains of Asp103 and Tyr16, cut between CA and CB, in the field of the enzyme
in water. What is farther than 8 angstrom from the ligand is held, the rest is relaxed at every step.

    python examples/enzyme_barrier.py                      # ten minutes on one core; writes enzyme_barrier_run/
    python examples/enzyme_barrier.py --qm b3lyp/6-31g*    # also corrects the energies, many minutes a point

A run that was stopped continues when the same command is given again, also between two points of --qm.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from openmm import unit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from qmmlmm import (
    Hamiltonian,
    MixedSystem,
    PySCFPotential,
    Region,
    Term,
    XTBPotential,
    create_mixed_system,
    select,
    suggest_charge,
)
from qmmlmm.analysis.barrier_residues import BarrierTable, plot_barrier_residues
from qmmlmm.analysis.path_figure import plot_path
from qmmlmm.reactions import Scan, Thresholds, barrier_residues, scan
from qmmlmm.sampling import Combination, Distance
from systems.ketosteroid_isomerase import build

LIGAND = "resname EQU and resSeq 263"
SITE = f"{LIGAND} or resname TYR ASP and resSeq 16 103 and sidechain"
HOLD = f"not within 8 angstrom of ({LIGAND})"
KJ = unit.kilojoule_per_mole
# Looser than for a minimum: energies along the profile change by some tenths of a kJ/mol.
LOOSE = Thresholds(1e-5, 1e-3, 1.5e-3, 6e-3, 9e-3)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path("enzyme_barrier_run"))
    parser.add_argument("--centres", type=float, nargs="+", default=[-0.06, -0.04, -0.02, 0.0, 0.02, 0.04], help="nm")
    parser.add_argument("--max-steps", type=int, default=200, help="steps of each point at most")
    parser.add_argument("--one-way", action="store_true", help="do not scan back")
    parser.add_argument("--qm", metavar="METHOD/BASIS", help="single points of PySCF, such as b3lyp/6-31g*")
    return parser.parse_args()


def build_site() -> tuple[MixedSystem, unit.Quantity]:
    """Return the enzyme with its site in GFN2-xTB, and its positions."""
    # Flexible water and smooth Lennard-Jones interactions: relaxed faster, and without steps.
    enzyme = build(relaxed=True, rigid_water=False, constraints=None, switch_distance=0.8)
    atoms = select(enzyme.topology, SITE)
    site = Region("site", atoms, charge=suggest_charge(enzyme.system, atoms))
    hamiltonian = Hamiltonian([Term(XTBPotential("gfn2-xtb"), site, embedding="electrostatic")])
    return create_mixed_system(enzyme.topology, enzyme.system, hamiltonian), enzyme.positions


def proton_transfer(mixed: MixedSystem) -> Combination:
    """Return the distance of the proton from Asp103 less that from the ligand."""
    donor, proton, acceptor = (
        select(mixed.topology, text)[0]
        for text in ("resSeq 103 and name OD2", "resSeq 103 and name HD2", f"{LIGAND} and name O1")
    )
    return Combination([(1.0, Distance(donor, proton)), (-1.0, Distance(proton, acceptor))])


def save_figure(path: Scan, energies: dict[str, np.ndarray], table: BarrierTable, file: Path) -> None:
    """Write the profile beside the residues that shape it."""
    figure = Figure(figsize=(12.0, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_path(10.0 * path.progress, energies, "d(O Asp103, H) - d(H, O ligand) (angstrom)", ax=left)
    left.set_title("proton between Asp103 and equilenin")
    plot_barrier_residues(table, ax=right, count=10)
    right.set_title(f"residues: negative favours the {table.names[1]}")
    right.set_xlabel(f"interaction with the site, {table.comparison} (kJ/mol)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)


def main() -> None:
    """Run everything."""
    options = parse_options()
    mixed, positions = build_site()
    print(f"{len(mixed.regions[0].atoms)} atoms in GFN2-xTB of {mixed.topology.getNumAtoms()}", flush=True)
    path = scan(
        mixed, proton_transfer(mixed), positions, centres=options.centres, both_ways=not options.one_way, hold=HOLD,
        thresholds=LOOSE, max_steps=options.max_steps, directory=options.directory,
    )  # fmt: skip
    hysteresis = "" if path.hysteresis is None else f", hysteresis {path.hysteresis / KJ:.1f} kJ/mol"
    print(f"{path.evaluations} QM calls{hysteresis}")
    print("value (nm), energy (kJ/mol)")
    for value, energy in zip(path.progress, path.relative_energies, strict=True):
        print(f"{value:>10.3f}{energy:>10.1f}")

    if path.has_barrier:
        after, name = path.highest, "top"
        print(f"barrier {path.barrier / KJ:.1f} kJ/mol, reaction energy {path.reaction_energy / KJ:.1f} kJ/mol")
    else:
        after, name = path.structures[-1], "last point"
        print(f"no barrier: from the first point to the last {path.relative_energies[-1]:.1f} kJ/mol, without a top")
    energies = {"GFN2-xTB/MM": path.relative_energies}
    if options.qm is not None:
        method, _, basis = options.qm.partition("/")
        folder = options.directory / "single_points" / options.qm.replace("/", "_")
        better = path.single_points(PySCFPotential(method, basis), directory=folder)
        energies[f"{options.qm} single points"] = better.relative_energies
        print(better)
        better.write_csv(options.directory / "two_levels.csv")

    table = barrier_residues(mixed, path.structures[0], after, names=("first point", name))
    print(f"interaction of each residue with the site, {table.comparison} (kJ/mol):")
    for k in table.strongest(10):
        print(f"{table.labels[k]:<28}{table.total[k] / KJ:>8.1f}")
    table.write_csv(options.directory / "residues.csv")
    save_figure(path, energies, table, options.directory / "enzyme_barrier.png")
    print(f"everything is in {options.directory}")


if __name__ == "__main__":
    main()
