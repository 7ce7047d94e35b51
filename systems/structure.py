"""The type that every builder in this folder returns."""

from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app, unit


@dataclass(frozen=True)
class Structure:
    """A molecular system that is ready for a Simulation.

    Attributes
    ----------
    topology : openmm.app.Topology
        Chains, residues, atoms and all bonds; its periodic box vectors equal those of the System.
    system : openmm.System
        Force field; carries the default periodic box vectors of a periodic structure.
    positions : (n_atoms, 3) Quantity, nm
        float64 array with whole molecules.
    """

    topology: app.Topology
    system: openmm.System
    positions: unit.Quantity

    def __post_init__(self) -> None:
        n_topology = self.topology.getNumAtoms()
        n_system = self.system.getNumParticles()
        n_positions = len(self.positions)
        if not n_topology == n_system == n_positions:
            raise ValueError(
                f"a Structure needs as many atoms in its Topology ({n_topology}) as particles in its System "
                f"({n_system}) and rows in its positions ({n_positions})"
            )

    def select(self, residue_name: str) -> list[int]:
        """Atom indices of all residues with a name.

        Parameters
        ----------
        residue_name : str
            For example "LIG" or "HOH".

        Returns
        -------
        list of int
            In ascending order.

        Raises
        ------
        KeyError
            No residue has that name.
        """
        atoms = [atom.index for atom in self.topology.atoms() if atom.residue.name == residue_name]
        if not atoms:
            names = sorted({residue.name for residue in self.topology.residues()})
            raise KeyError(f"no residue is named {residue_name!r}; the residue names are {', '.join(names)}")
        return atoms

    def charges(self) -> np.ndarray:
        """Force-field charges of all atoms.

        Returns
        -------
        (n_atoms,) float array, elementary charge
            Charges of the only NonbondedForce.

        Raises
        ------
        ValueError
            The System has no NonbondedForce, or several.
        """
        forces = [force for force in self.system.getForces() if isinstance(force, openmm.NonbondedForce)]
        if len(forces) != 1:
            raise ValueError(
                f"charges are read from the only NonbondedForce, and this System has {len(forces)}; "
                "read them from the force you mean"
            )
        return np.array(
            [
                forces[0].getParticleParameters(i)[0].value_in_unit(unit.elementary_charge)
                for i in range(forces[0].getNumParticles())
            ]
        )
