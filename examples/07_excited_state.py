"""Compute an excited state in water: its energy, and the forces that act in it.

PySCF computes the two lowest excited singlet states of methanimine by TDA, in the periodic field of water and in a
vacuum. The states share one term of the Hamiltonian. MixedSystem.select_state chooses the state that gives the energy
and forces of a Context. Any integrator then runs dynamics on it.
"""

import sys
from pathlib import Path

import numpy as np
import openmm
from openmm import unit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.geometry import Geometry
from qmmlmm.qm import TDA
from qmmlmm.spectra.transitions import compute_transitions
from systems.methanimine_water import SOLUTE, build

topology, system, positions = build()
qm = PySCFPotential("hf", "sto-3g", excited=TDA(n_states=3))
hamiltonian = Hamiltonian([Term(qm, Region("dye", SOLUTE), embedding="electrostatic")])
mixed = create_mixed_system(topology, system, hamiltonian)
context = openmm.Context(mixed.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
context.setPositions(positions)

# Excitations, in water and in vacuum.
found = compute_transitions(mixed.evaluated_term("dye/QM"), [Geometry.from_context(context)])
for state, energies in enumerate(zip(found.energies[0], found.vacuum_energies[0], found.strengths[0], strict=True), 1):
    print("S{}: {:.3f} eV in water, {:.3f} eV in vacuum, oscillator strength {:.4f}".format(state, *energies))

# Energy and forces of the ground state and of the first excited state.
bond = positions[1] - positions[0]
bond /= np.linalg.norm(bond)
potential_energies = []
for state in (0, 1):
    mixed.select_state(context, "dye/QM", state)
    result = context.getState(energy=True, forces=True)
    forces = result.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    potential_energies.append(result.getPotentialEnergy())
    stretching = 0.5 * (forces[1] - forces[0]) @ bond
    print(f"S{state}: force that stretches the C=N bond {stretching:10.1f} kJ/(mol nm)")
gap = (potential_energies[1] - potential_energies[0]) / unit.AVOGADRO_CONSTANT_NA
print(f"S1 - S0 of the Contexts: {gap.value_in_unit(unit.elementary_charge * unit.volt):.3f} eV")
