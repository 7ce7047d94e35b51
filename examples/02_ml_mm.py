"""Run ML/MM dynamics: a learned potential in the electric field of its surroundings.

A network that was trained on Hartree-Fock describes one molecule of a water box. With electrostatic embedding it feels
the periodic field of all other molecules and acts back on them. With mechanical embedding it sees the molecule without
surroundings. The script prints the energy of both and then runs dynamics with an ordinary integrator and reporter.
"""

import sys
from pathlib import Path

import openmm
from openmm import app, unit

EXAMPLES = Path(__file__).resolve().parent
sys.path.insert(0, str(EXAMPLES.parent))

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from systems.water import build

structure = build()
water = Region("water", range(3))
ml = MLPotential.load(EXAMPLES / "models" / "water.pt")


def create_simulation(embedding: str) -> tuple[app.Simulation, unit.Quantity]:
    """Return a Simulation and the energy of the network."""
    hamiltonian = Hamiltonian([Term(ml, water, embedding=embedding)])
    mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, 0.5 * unit.femtosecond)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(mixed.topology, mixed.system, integrator)
    simulation.context.setPositions(structure.positions)
    return simulation, mixed.term_energies(simulation.context)["water/ML"]


_, without_field = create_simulation("mechanical")
simulation, in_field = create_simulation("electrostatic")
print(f"ML energy without surroundings {without_field.value_in_unit(unit.kilojoule_per_mole):14.3f} kJ/mol")
print(f"ML energy in the field         {in_field.value_in_unit(unit.kilojoule_per_mole):14.3f} kJ/mol")

simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)
reporter = app.StateDataReporter(sys.stdout, 20, step=True, time=True, potentialEnergy=True, temperature=True)
simulation.reporters.append(reporter)
simulation.step(100)
