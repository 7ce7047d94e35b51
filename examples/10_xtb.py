"""Simulate a molecule in water with GFN2-xTB, without training, and correct it by Hartree-Fock.

XTBPotential is a semiempirical level in the same electric field as PySCF, some hundred times faster. First there are
GFN2-xTB/MM dynamics of acetone in 700 waters, 0.2 ps or the first argument; 10 ps take a few minutes. Then there are
multiple time steps: GFN2-xTB moves the atoms every 0.5 fs, and the correction HF - GFN2-xTB acts every 2 fs.
"""

import sys
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, XTBPotential, create_mixed_system
from qmmlmm.sampling import MultipleTimeStepIntegrator
from systems.acetone_water import build

PICOSECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 0.2
OUTER_STEPS, CARBON, OXYGEN = 8, 1, 2
structure = build(switch_distance=0.75 * unit.nanometer, ewald_error_tolerance=1e-5, constraints=None)
acetone = Region("acetone", range(10))
xtb, hf = XTBPotential("gfn2-xtb"), PySCFPotential("hf", "6-31g*", embedding_grid_level=1)


def simulate(integrator: openmm.Integrator, mixed, state: openmm.State | None = None) -> app.Simulation:
    """Return a Simulation, at the positions and velocities of a State."""
    platform = openmm.Platform.getPlatform("CPU")
    simulation = app.Simulation(mixed.topology, mixed.system, integrator, platform)
    simulation.context.setPositions(structure.positions if state is None else state.getPositions())
    if state is not None:
        simulation.context.setVelocities(state.getVelocities())
    return simulation


term = Term(xtb, acetone, embedding="electrostatic")
mixed = create_mixed_system(structure.topology, structure.system, Hamiltonian([term]))
simulation = simulate(openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 5 / unit.picosecond, 0.001), mixed)
bonds = []
for _ in range(round(PICOSECONDS / 0.01)):
    simulation.step(10)
    positions = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    bonds.append(np.linalg.norm(positions[CARBON] - positions[OXYGEN]))
charges = mixed.results("acetone/XTB")["mulliken_charges"]
print(f"GFN2-xTB/MM, {PICOSECONDS} ps: C=O {np.mean(bonds):.4f} nm, charge of O {charges[OXYGEN]:.3f} e")

state = simulation.context.getState(positions=True, velocities=True)
corrections = [Term(p, acetone, embedding="electrostatic", coefficient=c) for p, c in ((hf, 1.0), (xtb, -1.0))]
mixed = create_mixed_system(structure.topology, structure.system, Hamiltonian([term, *corrections]))
integrator = MultipleTimeStepIntegrator(mixed, None, 0.0, 2 * unit.femtosecond, inner_steps=4)
simulation = simulate(integrator, mixed, state)
print("time (fs)   total energy (kJ/mol)")
for outer in range(OUTER_STEPS):
    simulation.step(1)
    total = simulation.context.getState(energy=True).getPotentialEnergy() + integrator.kinetic_energy(
        simulation.context
    )
    print(f"{2.0 * (outer + 1):9.1f} {total.value_in_unit(unit.kilojoule_per_mole):23.3f}")
