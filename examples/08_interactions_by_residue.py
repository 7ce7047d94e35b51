"""Decompose the interaction of a QM region with its surroundings by residue.

The QM region is the side chain of alanine dipeptide in water, cut between CA and CB; a hydrogen caps the cut bond. The
electrostatic interaction of a residue is that of its charges with the polarised density of the region. The interactions
of all residues, and of the region with its own periodic images, add up to the interaction energy.
"""

import sys
from pathlib import Path

import openmm
from openmm import unit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system, select, suggest_charge
from qmmlmm.analysis.interaction import residue_interactions
from systems.alanine_dipeptide import build

structure = build()
atoms = select(structure.topology, "resname ALA and sidechain")
side_chain = Region("side chain", atoms, charge=suggest_charge(structure.system, atoms))
qm = PySCFPotential("hf", "sto-3g")
hamiltonian = Hamiltonian([Term(qm, side_chain, embedding="electrostatic")])
mixed = create_mixed_system(structure.topology, structure.system, hamiltonian)
context = openmm.Context(mixed.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("CPU"))
context.setPositions(structure.positions)

table = residue_interactions(mixed, context)


def number(energy: unit.Quantity) -> str:
    """Return an energy in kJ/mol as text."""
    return f"{energy.value_in_unit(unit.kilojoule_per_mole):15.3f}"


print(f"{'kJ/mol':<28}{'electrostatic':>15}{'Lennard-Jones':>15}{'total':>15}")
for label, *energies in zip(table.labels, table.electrostatic, table.lennard_jones, table.total, strict=True):
    print(f"{label:<28}" + "".join(number(energy) for energy in energies))
print(f"{'own periodic images':<28}{number(table.images)}")
print(f"{'interaction energy':<28}{number(table.interaction_energy)}")
print(f"{'polarisation of the region':<28}{number(table.polarisation)}")
