"""Get QM/MM averages from ML/MM frames by reweighting.

The parameter lambda_qm of the Hamiltonian switches from ML to QM. The dynamics runs at lambda_qm = 0, where QM is never
evaluated. The derivative of the energy with respect to lambda_qm is E(QM) - E(ML), one QM evaluation per frame. The
differences give the weights of the frames in the QM/MM ensemble, and the weights give QM/MM averages.
"""

import sys
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

EXAMPLES = Path(__file__).resolve().parent
sys.path.insert(0, str(EXAMPLES.parent))

from qmmlmm import Hamiltonian, MLPotential, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.free_energy import reweight
from systems.water import build

FRAMES, STEPS_BETWEEN = 30, 10
TEMPERATURE = 300 * unit.kelvin

structure = build()
water = Region("water", range(3))
ml = MLPotential.load(EXAMPLES / "models" / "water.pt")
qm = PySCFPotential("hf", "6-31g*", embedding_grid_level=1)
terms = [
    Term(ml, water, embedding="electrostatic", coefficient="1-lambda_qm"),
    Term(qm, water, embedding="electrostatic", coefficient="lambda_qm"),
]
hamiltonian = Hamiltonian(terms, parameters={"lambda_qm": 0.0})
mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)
integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5 / unit.picosecond, 0.5 * unit.femtosecond)
integrator.setRandomNumberSeed(1)
simulation = app.Simulation(mixed.topology, mixed.system, integrator)
simulation.context.setPositions(structure.positions)
simulation.context.setVelocitiesToTemperature(TEMPERATURE, 1)

differences, bonds = [], []
for _ in range(FRAMES):
    simulation.step(STEPS_BETWEEN)
    derivative = mixed.parameter_derivatives(simulation.context)["lambda_qm"]
    differences.append(derivative.value_in_unit(unit.kilojoule_per_mole))
    positions = simulation.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    bonds.append(np.linalg.norm(positions[1:3] - positions[0], axis=1).mean())

# The function warns if there are too few independent frames, as here. Take hundreds that are further apart.
weights = reweight(differences, TEMPERATURE)
free_energy = weights.free_energy.value_in_unit(unit.kilojoule_per_mole)
error = weights.free_energy_error.value_in_unit(unit.kilojoule_per_mole)
print(f"QM - ML: mean {np.mean(differences):.3f} kJ/mol, standard deviation {np.std(differences):.3f} kJ/mol")
print(f"free energy of QM/MM relative to ML/MM: {free_energy:.3f} +- {error:.3f} kJ/mol")
print(f"sum of the weights: {weights.weights.sum():.6f}, effective samples: {weights.effective_samples:.1f}")
mean, error = weights.mean(np.array(bonds))
print(f"mean O-H distance: ML/MM {np.mean(bonds):.5f} nm, QM/MM {mean:.5f} +- {error:.5f} nm")
