"""Whether a learned potential holds its molecule together: acetone in water, ML/MM, bonds watched all the time.

    python tests/benchmarks/long_run.py model_run/model.pt [--ps 100] [--output long_run] [--json FILE]

Langevin dynamics at 300 K with 1 fs, rigid water. Every 10 fs all bonds of the solute are compared with their length
in the force field, and all other pairs of its atoms with the sum of their covalent radii. Prints the extremes, the mean
temperature, and ends with status 1 at the first bond that is shorter than 0.7 or longer than 1.35 of its length, or two
atoms that are not bonded within 1.25 times the radii. The extremes are written as they come; a run that was stopped
goes on from the last picosecond when it is started again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import openmm
import torch
from openmm import unit
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from record import Table, add_option, print_tables, write_record

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.elements import covalent_radius
from qmmlmm.units import NM_IN_BOHR
from systems.acetone_water import ACETONE, build

BOLTZMANN = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)
HEADER = "ps,shortest bond,longest bond (of the force field's),closest others (of the radii),kelvin"
SHORTEST, LONGEST, CLOSEST = 0.7, 1.35, 1.25


def main() -> int:
    """Run and watch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--ps", type=float, default=100.0)
    parser.add_argument("--step", type=float, default=1.0, help="fs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--platform", default="CPU")
    parser.add_argument("--output", type=Path, default=Path("long_run"))
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    structure = build(constraints=None)
    atoms = list(ACETONE)
    region = Region("acetone", atoms, charge=0)
    hamiltonian = Hamiltonian([Term(MLPotential.load(options.model), region, embedding="electrostatic")])
    mixed = create_mixed_system(structure.topology, structure.system, hamiltonian, ml_precision="mixed")
    lengths = bond_lengths(structure.system, set(atoms))
    bonds = np.array(sorted(lengths))
    reference = np.array([lengths[tuple(pair)] for pair in bonds])
    numbers = [atom.element.atomic_number for atom in structure.topology.atoms()]
    others = np.array([(i, j) for i in atoms for j in atoms if i < j and (i, j) not in lengths])
    radii = np.array([covalent_radius(numbers[i]) + covalent_radius(numbers[j]) for i, j in others])

    integrator = openmm.LangevinMiddleIntegrator(
        300 * unit.kelvin, 1 / unit.picosecond, options.step * unit.femtosecond
    )
    integrator.setRandomNumberSeed(options.seed)
    context = openmm.Context(mixed.system, integrator, openmm.Platform.getPlatform(options.platform))
    every = round(10.0 / options.step)
    samples = round(options.ps * 1000.0 / options.step / every)
    freedoms = 3 * mixed.system.getNumParticles() - mixed.system.getNumConstraints() - 3
    record, saved = options.output / "bonds.csv", options.output / "state.xml"
    lines = [HEADER]
    if saved.exists():
        context.setState(openmm.XmlSerializer.deserialize(saved.read_text(encoding="utf-8")))
        done = round(context.getTime().value_in_unit(unit.femtosecond) / options.step / every)
        lines = record.read_text(encoding="utf-8").splitlines()[: done + 1]
    else:
        done = 0
        context.setPositions(structure.positions)
        openmm.LocalEnergyMinimizer.minimize(context, maxIterations=50)
        context.setVelocitiesToTemperature(300 * unit.kelvin, options.seed)
        context.setTime(0.0)
    start = time.perf_counter()
    with record.open("w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
        for sample in tqdm(range(done + 1, samples + 1), disable=not sys.stderr.isatty()):
            integrator.step(every)
            state = context.getState(positions=True, energy=True)
            x = state.getPositions(asNumpy=True)._value
            ratio = np.linalg.norm(x[bonds[:, 0]] - x[bonds[:, 1]], axis=1) / reference
            apart = np.linalg.norm(x[others[:, 0]] - x[others[:, 1]], axis=1) * NM_IN_BOHR / radii
            kelvin = 2.0 * state.getKineticEnergy()._value / (freedoms * BOLTZMANN)
            ps = sample * every * options.step / 1000.0
            file.write(f"{ps:.3f},{ratio.min():.4f},{ratio.max():.4f},{apart.min():.4f},{kelvin:.2f}\n")
            if not (ratio.min() > SHORTEST and ratio.max() < LONGEST and apart.min() > CLOSEST):
                print(f"unphysical after {ps:.2f} ps: bonds {ratio}, closest others {apart.min()}")
                return 1
            if sample % 100 == 0:
                file.flush()
                whole = context.getState(positions=True, velocities=True)
                part = saved.with_suffix(".part")
                part.write_text(openmm.XmlSerializer.serialize(whole), encoding="utf-8")
                part.replace(saved)
    table = np.loadtxt(record, delimiter=",", skiprows=1)
    seconds = time.perf_counter() - start
    print(f"{table[-1, 0]:g} ps, the last {samples - done} samples in {seconds:.0f} s; {table[:, 4].mean():.1f} K")
    extremes = (
        ("shortest bond, of the force field's length", float(table[:, 1].min())),
        ("longest bond", float(table[:, 2].max())),
        ("closest other pair, of the sum of the covalent radii", float(table[:, 3].min())),
        ("mean temperature, K", float(table[:, 4].mean())),
    )
    found = Table("", ("quantity", f"in {table[-1, 0]:g} ps"), extremes)
    print_tables([found])
    write_record(options.json, [found], f"Acetone in 700 waters, 300 K, steps of {options.step:g} fs; single run.")
    return 0


def bond_lengths(system: openmm.System, atoms: set[int]) -> dict[tuple[int, int], float]:
    """Return the lengths of the force field's bonds between atoms, nm."""
    found = {}
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            for k in range(force.getNumBonds()):
                i, j, length, _ = force.getBondParameters(k)
                if i in atoms and j in atoms:
                    found[min(i, j), max(i, j)] = length._value
    return found


if __name__ == "__main__":
    sys.exit(main())
