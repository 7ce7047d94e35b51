"""QM/ML/MM dynamics of p-xylene bound in T4 lysozyme L99A, in explicit water.

The ligand is an ML potential embedded in the electric field of protein, water and ions; every four steps the
difference to Hartree-Fock from PySCF, in the same field, corrects its forces (multiple time steps). Everything
is one OpenMM System, and what is left behind is a run directory with trajectory, energies, checkpoint and figure.

    python examples/protein_ligand.py                 # a new run
    python examples/protein_ligand.py --resume        # goes on where an interrupted run stopped

The model file was made by examples/protein_ligand_model.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmmlmm import Hamiltonian, MLPotential, PySCFPotential, Region, Term, create_mixed_system, select
from qmmlmm.analysis.plots import save_run_figure
from qmmlmm.analysis.tables import read_energies
from qmmlmm.sampling.run_directory import RunDirectory
from systems.t4_lysozyme import build

MODEL = ROOT / "examples" / "models" / "p_xylene.pt"
TEMPERATURE = 300 * unit.kelvin
INNER_STEPS = 4  # ML/MM steps of 1 fs for each QM correction


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path("protein_ligand_run"))
    parser.add_argument("--relax-steps", type=int, default=200, help="ML/MM steps of 1 fs before the run")
    parser.add_argument("--steps", type=int, default=10, help="outer steps of 4 fs, each with one QM call")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def relax(structure, ligand: Region, ml: MLPotential, steps: int, seed: int):
    """Let the complex, equilibrated with the force field, adapt to the ML potential by a little ML/MM dynamics."""
    hamiltonian = Hamiltonian([Term(ml, ligand, embedding="electrostatic")])
    mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 2 / unit.picosecond, 1 * unit.femtosecond)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(mixed.topology, mixed.system, integrator)
    simulation.context.setPositions(structure.positions)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    start = time.perf_counter()
    simulation.step(steps)
    per_step = (time.perf_counter() - start) / max(steps, 1)
    print(f"ML/MM relaxation: {steps} steps of 1 fs, {1000 * per_step:.0f} ms per step")
    return simulation.context.getState(positions=True, velocities=True)


def main() -> None:
    """Build, relax, run, and say what was done."""
    options = parse_options()
    begin = time.perf_counter()
    structure = build()
    topology = structure.topology
    ligand = Region("ligand", select(topology, "resname LIG"), charge=0, multiplicity=1)
    print(f"T4 lysozyme L99A with p-xylene: {topology.getNumAtoms()} atoms, {len(ligand)} in the ligand")

    qm = PySCFPotential("hf", "6-31g*")
    ml = MLPotential.load(MODEL)
    hamiltonian = Hamiltonian(
        [
            Term(ml, ligand, embedding="electrostatic"),
            Term(qm, ligand, embedding="electrostatic"),
            Term(ml, ligand, embedding="electrostatic", coefficient=-1.0),
        ]
    )
    mixed = create_mixed_system(topology, structure.system, hamiltonian)

    # The difference QM - ML is the slow force, once per outer step; all else is the fast one.
    slow = {mixed.force_groups["ligand/QM"], mixed.force_groups["ligand/-ML"]}
    fast = {force.getForceGroup() for force in mixed.system.getForces()} - slow
    groups = [(group, 1) for group in sorted(slow)] + [(group, INNER_STEPS) for group in sorted(fast)]
    integrator = openmm.MTSLangevinIntegrator(TEMPERATURE, 2 / unit.picosecond, INNER_STEPS * unit.femtosecond, groups)
    integrator.setRandomNumberSeed(options.seed)
    simulation = app.Simulation(mixed.topology, mixed.system, integrator)

    with RunDirectory(options.directory, mixed, seed=options.seed, resume=options.resume) as run:
        if options.resume:
            done = run.resume(simulation)
        else:
            done = 0
            state = relax(structure, ligand, ml, options.relax_steps, options.seed)
            simulation.context.setPositions(state.getPositions(asNumpy=True))
            simulation.context.setVelocities(state.getVelocities(asNumpy=True))
        run.attach(
            simulation,
            trajectory_interval=1,
            energy_interval=1,
            checkpoint_interval=1,
            total_steps=options.steps,
        )
        start = time.perf_counter()
        run.run(simulation, max(options.steps - done, 0))
        elapsed = time.perf_counter() - start
        energies = read_energies(run.energies_path)

    save_run_figure(energies, options.directory / "energies.png")
    summarise(mixed, simulation, energies, elapsed, options.steps - done)
    print(f"everything is in {os.path.relpath(options.directory)}; {time.perf_counter() - begin:.0f} s in all")


def summarise(mixed, simulation, energies, elapsed: float, steps: int) -> None:
    """Print atoms and time per level, and how far ML is from QM."""
    n_ligand = len(mixed.layouts["ligand/QM"].atoms)
    times = {
        name: value.value_in_unit(unit.millisecond)
        for name, value in mixed.evaluation_times(simulation.context).items()
    }
    difference = energies.difference("ligand").value_in_unit(unit.kilojoule_per_mole)
    print()
    print(f"{'level':<28}{'atoms':>8}{'ms per evaluation':>20}")
    print(f"{'MM, OpenMM with PME':<28}{mixed.system.getNumParticles() - n_ligand:>8}{times['MM']:>20.0f}")
    print(f"{'ML, embedded':<28}{n_ligand:>8}{times['ligand/ML']:>20.0f}")
    print(f"{'QM, HF/6-31G* embedded':<28}{n_ligand:>8}{times['ligand/QM']:>20.0f}")
    if steps > 0:
        print(f"outer step of {INNER_STEPS} fs: {elapsed / steps:.2f} s, {steps} steps")
    print(
        f"QM - ML of the ligand: mean {np.mean(difference):.2f} kJ/mol, standard deviation "
        f"{np.std(difference, ddof=1):.2f} kJ/mol over {len(difference)} frames of a single run"
    )


if __name__ == "__main__":
    main()
