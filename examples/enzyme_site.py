"""QM/MM of the active site of ketosteroid isomerase with its inhibitor equilenin, in water and salt.

The QM region is the ligand and the side chains of Tyr16 and Asp103, which form two hydrogen bonds with its oxygen. The
side chains are cut between CA and CB. The script prints the charges at the cut bonds, decomposes the interaction of the
site with protein, water and ions by residue, runs a few steps of QM/MM dynamics, and writes a run directory.

    python examples/enzyme_site.py                    # a new run
    python examples/enzyme_site.py --resume           # continues an interrupted run

With this functional, its coarse grid and the small basis set the demonstration takes minutes. For results take, for
example, --method b3lyp --basis def2-svp --grid-level 3.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import openmm
from openmm import app, unit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmmlmm import (
    Hamiltonian,
    MixedSystem,
    PySCFPotential,
    Region,
    Term,
    create_mixed_system,
    select,
    suggest_charge,
)
from qmmlmm.analysis.interaction import (
    InteractionTable,
    boundary_charges,
    residue_interactions,
    save_interaction_figure,
)
from qmmlmm.analysis.tables import read_energies
from qmmlmm.runs import RunDirectory
from systems.ketosteroid_isomerase import build
from systems.structure import Structure

SITE = "resname EQU and resSeq 263 or resname TYR ASP and resSeq 16 103 and sidechain"
TEMPERATURE = 300 * unit.kelvin
STRONGEST = 12  # rows that are printed


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path("enzyme_site_run"))
    parser.add_argument("--method", default="pbe", help="PySCF method: hf or a density functional")
    parser.add_argument("--basis", default="sto-3g")
    parser.add_argument("--grid-level", type=int, default=0, help="grid of the functional, 0 to 9")
    parser.add_argument("--settle-steps", type=int, default=50, help="force field steps of 1 fs before the run")
    parser.add_argument("--steps", type=int, default=2, help="QM/MM steps of 0.5 fs")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args(arguments)


def make_site(structure: Structure, selection: str, options: argparse.Namespace) -> MixedSystem:
    """Replace the force field of a region by PySCF; charge and cut bonds follow from the structure."""
    atoms = select(structure.topology, selection)
    site = Region("site", atoms, charge=suggest_charge(structure.system, atoms))
    qm = PySCFPotential(
        options.method, options.basis, grid_level=options.grid_level, embedding_grid_level=1, conv_tol=1e-7
    )
    hamiltonian = Hamiltonian([Term(qm, site, embedding="electrostatic")])
    return create_mixed_system(structure.topology, structure.system, hamiltonian)


def print_site(mixed: MixedSystem, structure: Structure) -> None:
    """Print the region, its cut bonds, and the charges before and after redistribution."""
    description = mixed.describe()["regions"][0]
    n_site, n_links = len(description["atoms"]), len(description["link_bonds"])
    print(f"{structure.topology.getNumAtoms()} atoms, {n_site} in the region, charge {description['charge']:+d}")
    print(f"\n{n_links} cut bonds, each capped with a hydrogen instead of the outside atom:")
    for bond in description["link_bonds"]:
        print(f"  {bond['region_atom']} - {bond['outside_atom']}, hydrogen at {bond['ratio']:.2f} of the bond")
    rows = boundary_charges(mixed, structure.system)
    print(f"\n{'charges that change (e)':<32}{'force field':>14}{'as QM feels it':>16}")
    for row in rows:
        print(f"{row.label:<32}{row.before:>14.4f}{row.after:>16.4f}")
    print(f"{'sum':<32}{sum(r.before for r in rows):>14.4f}{sum(r.after for r in rows):>16.4f}")


def settle(structure: Structure, steps: int, seed: int) -> openmm.State:
    """Run a little force field dynamics, for velocities and water that fits them."""
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 2 / unit.picosecond, 1 * unit.femtosecond)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(structure.topology, structure.system, integrator)
    simulation.context.setPositions(structure.positions)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    simulation.step(steps)
    return simulation.context.getState(positions=True, velocities=True)


def print_interactions(table: InteractionTable, level: str) -> None:
    """Print the strongest residues, solvent and ions, and the energies that belong to no residue."""

    def number(quantity: unit.Quantity) -> float:
        return quantity.value_in_unit(unit.kilojoule_per_mole)

    groups = [k for k in range(len(table)) if table.residues[k] > 1]
    shown = [*table.strongest(STRONGEST), *groups]
    print(f"\nInteraction of the site with its surroundings, {level}, one frame (kJ/mol)")
    print(f"{'':<28}{'electrostatic':>14}{'Lennard-Jones':>15}{'total':>9}{'closest (nm)':>14}")
    for k in shown:
        label = table.labels[k] if table.residues[k] == 1 else f"{table.labels[k]} ({table.residues[k]})"
        energies = f"{number(table.electrostatic[k]):>14.1f}{number(table.lennard_jones[k]):>15.1f}"
        print(f"{label:<28}{energies}{number(table.total[k]):>9.1f}{table.distance[k]._value:>14.2f}")
    rest = [k for k in range(len(table)) if k not in shown]
    energies = [
        number(sum((e[k] for k in rest), 0 * unit.kilojoule_per_mole))
        for e in (table.electrostatic, table.lennard_jones)
    ]
    print(f"{f'{len(rest)} other residues':<28}{energies[0]:>14.1f}{energies[1]:>15.1f}{sum(energies):>9.1f}")
    print(f"{'own periodic images':<28}{number(table.images):>14.1f}")
    print(f"{'all electrostatic':<28}{number(table.interaction_energy):>14.1f}")
    print(f"{'polarisation of the site':<28}{number(table.polarisation):>14.1f}")
    print(f"{'bonded terms across cuts':<28}{number(table.bonded):>14.1f}")


def run_site(structure: Structure, selection: str, options: argparse.Namespace) -> None:
    """Run everything that the script does, for any structure and region."""
    begin = time.perf_counter()
    mixed = make_site(structure, selection, options)
    print_site(mixed, structure)
    integrator = openmm.VerletIntegrator(0.5 * unit.femtosecond)
    simulation = app.Simulation(mixed.topology, mixed.system, integrator)
    with RunDirectory(options.directory, mixed, seed=options.seed, resume=options.resume) as run:
        if options.resume:
            done = run.resume(simulation)
        else:
            done = 0
            state = settle(structure, options.settle_steps, options.seed)
            simulation.context.setPositions(state.getPositions(asNumpy=True))
            simulation.context.setVelocities(state.getVelocities(asNumpy=True))
            start = time.perf_counter()
            table = residue_interactions(mixed, simulation.context)
            print_interactions(table, f"{options.method.upper()}/{options.basis.upper()}")
            print(f"({time.perf_counter() - start:.0f} s; the small basis set is for the demonstration)")
            table.write_csv(options.directory / "interactions.csv")
            save_interaction_figure(table, options.directory / "interactions.png")
        run.attach(
            simulation, trajectory_interval=1, energy_interval=1, checkpoint_interval=1, total_steps=options.steps
        )
        start = time.perf_counter()
        run.run(simulation, max(options.steps - done, 0))
        elapsed = time.perf_counter() - start
        energies = read_energies(run.energies_path)
    total = (energies.potential_energy + energies.kinetic_energy).value_in_unit(unit.kilojoule_per_mole)
    print(f"\nQM/MM dynamics, 0.5 fs, constant energy: {elapsed / max(options.steps - done, 1):.1f} s per step")
    print(f"{'step':>6}{'temperature (K)':>18}{'QM/MM (kJ/mol)':>18}{'total - first (kJ/mol)':>25}")
    qm = energies.terms["site/QM"].value_in_unit(unit.kilojoule_per_mole)
    for k, step in enumerate(energies.steps):
        temperature = energies.temperature[k].value_in_unit(unit.kelvin)
        print(f"{step:>6}{temperature:>18.1f}{qm[k]:>18.1f}{total[k] - total[0]:>25.2f}")
    print(f"everything is in {os.path.relpath(options.directory)}; {time.perf_counter() - begin:.0f} s in all")


def main() -> None:
    """Build the enzyme and run the site."""
    options = parse_options()
    print("ketosteroid isomerase with equilenin; region: the ligand and the side chains of Tyr16 and Asp103")
    run_site(build(relaxed=True), SITE, options)


if __name__ == "__main__":
    main()
