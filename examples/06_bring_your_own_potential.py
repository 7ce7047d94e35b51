"""Bring your own potential.

A potential declares what it can do and makes an Evaluator, which returns energy and gradient of a region in atomic
units. Here springs connect the atoms of a water molecule. check_potential tests everything that the package expects.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from openmm import unit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from qmmlmm import Hamiltonian, Region, Term, check_potential, create_mixed_system
from qmmlmm.coupling import Capabilities, EvaluatedPotential, Evaluation, Evaluator
from systems.water import build

SPRINGS, STIFFNESS = {(0, 1): 1.81, (0, 2): 1.81, (1, 2): 2.86}, 0.4  # bohr, hartree/bohr^2


class SpringEvaluator(Evaluator):
    """Computes springs between the atoms of a region."""

    def evaluate(self, geometry, field):
        """Return the energy, hartree, and its gradient, hartree/bohr."""
        energy, gradient = 0.0, np.zeros((3, 3))
        for (first, second), length in SPRINGS.items():
            vector = geometry.positions[first] - geometry.positions[second]
            stretch = np.linalg.norm(vector) - length
            energy += 0.5 * STIFFNESS * stretch**2
            slope = STIFFNESS * stretch * vector / np.linalg.norm(vector)
            gradient[[first, second]] += slope, -slope
        return Evaluation(energy, gradient)


@dataclass(frozen=True)
class SpringPotential(EvaluatedPotential):
    """Declares what the springs can do."""

    level = "ML"
    capabilities = Capabilities(frozenset({"mechanical"}))

    def create_evaluator(self, specification):
        """Return an evaluator for one region."""
        return SpringEvaluator()


structure = build()
check_potential(SpringPotential(), [8, 1, 1], structure.positions[:3])
hamiltonian = Hamiltonian([Term(SpringPotential(), Region("water", range(3)), embedding="mechanical")])
mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)
context = openmm.Context(mixed.system, openmm.LangevinMiddleIntegrator(300, 1, 0.0005))
context.setPositions(structure.positions)
context.setVelocitiesToTemperature(300, 1)
context.getIntegrator().step(100)
for name, energy in mixed.term_energies(context).items():
    print(f"{name:<10} {energy.value_in_unit(unit.kilojoule_per_mole):14.3f} kJ/mol")
