"""Evaluate QM every fourth step: multiple time steps.

The learned potential and the force field move all atoms in steps of 0.5 fs. The correction QM - ML acts every 2 fs, and
each outer step needs one QM evaluation. MultipleTimeStepIntegrator reads from the Hamiltonian which terms are slow. The
script runs without a thermostat and prints the total energy, which such dynamics conserves.
"""

import sys
from pathlib import Path

import openmm
from openmm import app, unit

EXAMPLES = Path(__file__).resolve().parent
sys.path.insert(0, str(EXAMPLES.parent))

from qmmlmm import Hamiltonian, MLPotential, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.sampling import MultipleTimeStepIntegrator
from systems.water import build

OUTER_STEPS, INNER_STEPS = 10, 4
STEP_SIZE = 2 * unit.femtosecond

# A switching function and a small tolerance, so that the force field itself conserves the energy.
structure = build(switch_distance=0.75 * unit.nanometer, ewald_error_tolerance=1e-5)
water = Region("water", range(3))
ml = MLPotential.load(EXAMPLES / "models" / "water.pt")
qm = PySCFPotential("hf", "6-31g*", embedding_grid_level=1)
hamiltonian = Hamiltonian(
    [
        Term(ml, water, embedding="electrostatic"),
        Term(qm, water, embedding="electrostatic"),
        Term(ml, water, embedding="electrostatic", coefficient=-1.0),
    ]
)
mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)

# Without a temperature there is no thermostat. With 300*kelvin and 1/picosecond it is Langevin dynamics.
integrator = MultipleTimeStepIntegrator(mixed, None, 0.0, STEP_SIZE, inner_steps=INNER_STEPS)
simulation = app.Simulation(mixed.topology, mixed.system, integrator, openmm.Platform.getPlatform("CPU"))
simulation.context.setPositions(structure.positions)
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)

print("time (fs)   total energy (kJ/mol)")
for _ in range(OUTER_STEPS):
    simulation.step(1)
    state = simulation.context.getState(energy=True)
    total = state.getPotentialEnergy() + integrator.kinetic_energy(simulation.context)
    time = state.getTime().value_in_unit(unit.femtosecond)
    print(f"{time:9.1f} {total.value_in_unit(unit.kilojoule_per_mole):23.3f}")
evaluations = mixed.terms["water/QM"].runner.evaluations
print(f"{evaluations} QM evaluations for {OUTER_STEPS * INNER_STEPS} steps of {STEP_SIZE / INNER_STEPS}")
