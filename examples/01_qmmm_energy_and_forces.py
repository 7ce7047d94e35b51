"""Compute a QM/MM energy and the forces on all atoms.

An OpenMM System describes acetone and 700 waters. create_mixed_system replaces the force field of acetone by
Hartree-Fock from PySCF and returns another ordinary System. The electrons feel the periodic field of all water, and the
forces are the exact derivatives of the energy, on acetone and on water. The script checks two of them numerically.
"""

import sys
from pathlib import Path

import numpy as np
import openmm
from openmm import unit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from systems.acetone_water import ACETONE, build

STEP = 1e-4  # nm

structure = build()
acetone = Region("acetone", ACETONE, charge=0, multiplicity=1)
qm = PySCFPotential("hf", "sto-3g")
hamiltonian = Hamiltonian([Term(qm, acetone, embedding="electrostatic")])
mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)

# The Reference platform computes in double precision, which numerical derivatives need.
platform = openmm.Platform.getPlatform("Reference")
context = openmm.Context(mixed.system, openmm.VerletIntegrator(0.001), platform)
context.setPositions(structure.positions)

# The energy of the force field and of each term.
total = context.getState(energy=True).getPotentialEnergy()
for name, energy in mixed.term_energies(context).items():
    print(f"{name:<10} {energy.value_in_unit(unit.kilojoule_per_mole):16.4f} kJ/mol")
print(f"{'sum':<10} {total.value_in_unit(unit.kilojoule_per_mole):16.4f} kJ/mol")

# Forces on the oxygen of acetone and on the oxygen of a water, along x.
positions = np.array(structure.positions.value_in_unit(unit.nanometer))
forces = context.getState(forces=True).getForces(asNumpy=True)
for atom, label in ((2, "O of acetone"), (10, "O of a water")):
    energies = []
    for sign in (1, -1):
        moved = positions.copy()
        moved[atom, 0] += sign * STEP
        context.setPositions(moved)
        energies.append(context.getState(energy=True).getPotentialEnergy())
    numerical = -(energies[0] - energies[1]) / (2 * STEP * unit.nanometer)
    for kind, force in (("force", forces[atom, 0]), ("numerical", numerical)):
        value = force.value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        print(f"{label}, {kind:<10} {value:12.3f} kJ/(mol nm)")
