"""QM/ML/MM dynamics of p-xylene bound in T4 lysozyme L99A, in explicit water.

An ML potential, embedded in the electric field of protein, water and ions, treats the ligand. Every four steps the
difference between Hartree-Fock from PySCF, in the same field, and the ML potential corrects its forces (multiple time
steps). Everything is one OpenMM System. The script writes a run directory with trajectory, energies, checkpoint and
figure.

    python examples/protein_ligand.py                 # a new run
    python examples/protein_ligand.py --resume        # continues an interrupted run

The script examples/protein_ligand_model.py makes the model file.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

# Threads of PySCF that wait leave the cores to others; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import openmm
from openmm import app, unit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmmlmm import Hamiltonian, MixedSystem, MLPotential, PySCFPotential, Region, Term, create_mixed_system, select
from qmmlmm.analysis.plots import save_run_figure
from qmmlmm.analysis.tables import EnergyTable, read_energies
from qmmlmm.runs import RunDirectory
from qmmlmm.sampling import MultipleTimeStepIntegrator
from systems.structure import Structure
from systems.t4_lysozyme import build

MODEL = ROOT / "examples" / "models" / "p_xylene.pt"
TEMPERATURE = 300 * unit.kelvin
FRICTION = 2 / unit.picosecond
INNER_STEPS = 4  # ML/MM steps of 1 fs for each QM correction


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=Path("protein_ligand_run"))
    parser.add_argument("--basis", default="6-31g*", help="basis set; the model was trained with 6-31g*")
    parser.add_argument("--relax-steps", type=int, default=200, help="ML/MM steps of 1 fs before the run")
    parser.add_argument("--steps", type=int, default=10, help="outer steps of 4 fs, each with one QM call")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args(arguments)


def relax(structure: Structure, ligand: Region, ml: MLPotential, steps: int, seed: int) -> openmm.State:
    """Run a little ML/MM dynamics, so that the complex adapts from the force field to the ML potential."""
    hamiltonian = Hamiltonian([Term(ml, ligand, embedding="electrostatic")])
    mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, 1 * unit.femtosecond)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(mixed.topology, mixed.system, integrator)
    simulation.context.setPositions(structure.positions)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    start = time.perf_counter()
    simulation.step(steps)
    per_step = (time.perf_counter() - start) / max(steps, 1)
    print(f"ML/MM relaxation: {steps} steps of 1 fs, {1000 * per_step:.0f} ms per step")
    return simulation.context.getState(positions=True, velocities=True)


def main(arguments: list[str] | None = None) -> None:
    """Build, relax, run and summarise."""
    options = parse_options(arguments)
    begin = time.perf_counter()
    structure = build()
    topology = structure.topology
    ligand = Region("ligand", select(topology, "resname LIG"), charge=0, multiplicity=1)
    print(f"T4 lysozyme L99A with p-xylene: {topology.getNumAtoms()} atoms, {len(ligand)} in the ligand")

    qm = PySCFPotential("hf", options.basis)
    ml = MLPotential.load(MODEL)
    hamiltonian = Hamiltonian(
        [
            Term(ml, ligand, embedding="electrostatic"),
            Term(qm, ligand, embedding="electrostatic"),
            Term(ml, ligand, embedding="electrostatic", coefficient=-1.0),
        ]
    )
    mixed = create_mixed_system(topology, structure.system, hamiltonian)

    # The slow force, once per outer step, is QM - ML; the integrator reads that from the Hamiltonian.
    integrator = MultipleTimeStepIntegrator(
        mixed, TEMPERATURE, FRICTION, INNER_STEPS * unit.femtosecond, inner_steps=INNER_STEPS
    )
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
    summarise(mixed, simulation, energies, options.basis)
    if options.steps > done:
        print(f"outer step of {INNER_STEPS} fs: {elapsed / (options.steps - done):.2f} s, {options.steps - done} steps")
    print(f"everything is in {os.path.relpath(options.directory)}; {time.perf_counter() - begin:.0f} s in all")


def summarise(mixed: MixedSystem, simulation: app.Simulation, energies: EnergyTable, basis: str) -> None:
    """Print atoms and time per level, and how far ML is from QM."""
    n_ligand = len(mixed.term("ligand/QM").layout.atoms)
    times = {
        name: value.value_in_unit(unit.millisecond)
        for name, value in mixed.evaluation_times(simulation.context).items()
    }
    difference = energies.difference("ligand").value_in_unit(unit.kilojoule_per_mole)
    print()
    print(f"{'level':<28}{'atoms':>8}{'ms per evaluation':>20}")
    print(f"{'MM, OpenMM with PME':<28}{mixed.system.getNumParticles() - n_ligand:>8}{times['MM']:>20.0f}")
    print(f"{'ML, embedded':<28}{n_ligand:>8}{times['ligand/ML']:>20.0f}")
    print(f"{f'QM, HF/{basis.upper()} embedded':<28}{n_ligand:>8}{times['ligand/QM']:>20.0f}")
    print(
        f"QM - ML of the ligand: mean {np.mean(difference):.2f} kJ/mol, standard deviation "
        f"{np.std(difference, ddof=1):.2f} kJ/mol over {len(difference)} frames of a single run"
    )


if __name__ == "__main__":
    main()
