"""Checks for a simulation that leaves the range of its learned potential."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.elements import covalent_radius
from qmmlmm.learning.loop.reacting_bonds import bonds_among
from qmmlmm.learning.loop.settings import LoopSettings
from qmmlmm.units import BOHR_IN_NM, GAS_CONSTANT, FloatArray


class Guard:
    """Checks the atoms of a region. The reacting bonds of the settings may have any length.

    Parameters
    ----------
    topology : openmm.app.Topology
        Topology with the bonds of the region.
    system : openmm.System
    atoms : sequence of int
        Atoms of the region.
    settings : LoopSettings
    """

    def __init__(
        self, topology: app.Topology, system: openmm.System, atoms: Sequence[int], settings: LoopSettings
    ) -> None:
        self._atoms = np.array(atoms)
        self._settings = settings
        elements = [atom.element for atom in topology.atoms()]
        radii = np.array([covalent_radius(elements[a].atomic_number) if elements[a] else 0.0 for a in atoms])
        self._sums = (radii[:, None] + radii[None]) * BOHR_IN_NM
        np.fill_diagonal(self._sums, 0.0)
        index = {int(a): k for k, a in enumerate(atoms)}
        watched = bonds_among(topology, atoms).difference(settings.reacting_bonds or ())
        bonds = [(index[first], index[second]) for first, second in sorted(watched)]
        self._bonds = np.array(bonds, dtype=int).reshape(-1, 2)
        masses = [system.getParticleMass(int(a)).value_in_unit(unit.dalton) for a in atoms]
        self._masses = np.array(masses)
        self._heat = 1.5 * len(atoms) * GAS_CONSTANT * settings.temperature

    def geometry_fault(self, positions: FloatArray) -> str:
        """Return the fault of the geometry of the region, or an empty text.

        Parameters
        ----------
        positions : (n_particles, 3) float array, nm
        """
        region = positions[self._atoms]
        if not np.isfinite(positions).all():
            return "positions are not numbers"
        distances = np.linalg.norm(region[:, None] - region[None], axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(self._sums > 0, distances / self._sums, np.inf)
        if ratios.min(initial=np.inf) < self._settings.contact_limit:
            a, b = np.unravel_index(int(ratios.argmin()), ratios.shape)
            return f"atoms {self._atoms[a]} and {self._atoms[b]} came within {10 * distances[a, b]:.2f} angstrom"
        if self._settings.bond_limit is not None and len(self._bonds):
            stretch = ratios[self._bonds[:, 0], self._bonds[:, 1]]
            worst = int(stretch.argmax())
            if stretch[worst] > self._settings.bond_limit:
                a, b = self._bonds[worst]
                return (
                    f"the bond between atoms {self._atoms[a]} and {self._atoms[b]} is "
                    f"{10 * distances[a, b]:.2f} angstrom long"
                )
        return ""

    def fault(self, positions: FloatArray, velocities: FloatArray, forces: FloatArray, energy: float) -> str:
        """Return the reason to stop the simulation, or an empty text.

        Parameters
        ----------
        positions : (n_particles, 3) float array, nm
        velocities : (n_particles, 3) float array, nm/ps
        forces : (n_particles, 3) float array, kJ/(mol nm)
        energy : float, kJ/mol
        """
        fault = self.geometry_fault(positions)
        if fault:
            return fault
        if not np.isfinite(energy) or not np.isfinite(forces).all():
            return "energy or forces are not numbers"
        largest = float(np.linalg.norm(forces[self._atoms], axis=1).max())
        if largest > self._settings.force_limit:
            return f"a force of {largest:.0f} kJ/(mol nm) acts on an atom of the region"
        heat = 0.5 * float((self._masses[:, None] * velocities[self._atoms] ** 2).sum())
        if heat > self._settings.heat_limit * self._heat:
            return f"the region has {heat / self._heat:.0f} times the kinetic energy of its temperature"
        return ""

    def uncertainty_fault(self, uncertainty: float) -> str:
        """Return the reason to stop the simulation at an uncertainty, kJ/(mol nm), or an empty text."""
        if not uncertainty <= self._settings.limit:
            return f"the committee expects an error of {uncertainty:.0f} kJ/(mol nm) in a force"
        return ""
