"""Correct a learned potential by quantum chemistry: ML + QM - ML.

A Hamiltonian is a list of terms with coefficients. The coefficients of a region add up to one. With the terms ML, QM
and -ML the region has the QM energy, and the correction QM - ML is small and smooth. A multiple time step integrator
evaluates it rarely (04_multiple_time_steps.py). The script shows that the three terms are QM/MM.
"""

import sys
from pathlib import Path

import numpy as np
import openmm
from openmm import unit

EXAMPLES = Path(__file__).resolve().parent
sys.path.insert(0, str(EXAMPLES.parent))

from qmmlmm import Hamiltonian, MixedSystem, MLPotential, PySCFPotential, Region, Term, create_mixed_system
from systems.water import build

ENERGY, FORCE = unit.kilojoule_per_mole, unit.kilojoule_per_mole / unit.nanometer

structure = build()
water = Region("water", range(3))
ml = MLPotential.load(EXAMPLES / "models" / "water.pt")
qm = PySCFPotential("hf", "6-31g*")


def create(*terms: tuple[object, float]) -> tuple[MixedSystem, openmm.Context]:
    """Return a System of potentials with coefficients, and a Context with positions."""
    hamiltonian = Hamiltonian([Term(p, water, embedding="electrostatic", coefficient=c) for p, c in terms])
    mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(mixed.system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(structure.positions)
    return mixed, context


corrected, context = create((ml, 1.0), (qm, 1.0), (ml, -1.0))
energies = corrected.term_energies(context)
for name, energy in energies.items():
    print(f"{name:<10} {energy.value_in_unit(ENERGY):16.4f} kJ/mol")
difference = energies["water/QM"] + energies["water/-ML"]
print(f"QM - ML    {difference.value_in_unit(ENERGY):16.4f} kJ/mol")

# The same region with QM only.
_, reference = create((qm, 1.0))
states = [c.getState(energy=True, forces=True) for c in (context, reference)]
total, qmmm = (state.getPotentialEnergy().value_in_unit(ENERGY) for state in states)
forces, qmmm_forces = (state.getForces(asNumpy=True).value_in_unit(FORCE) for state in states)
print(f"ML + QM - ML: {total:.4f} kJ/mol, QM/MM: {qmmm:.4f} kJ/mol")
print(f"largest difference of the forces: {np.abs(forces - qmmm_forces).max():.1e} kJ/(mol nm)")
