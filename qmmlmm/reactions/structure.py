"""Structures: positions with a box and an energy, as results and as starts."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from openmm import app, unit

from qmmlmm.errors import SettingError
from qmmlmm.geometry import Geometry
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.setting_checks import check_atoms, check_path
from qmmlmm.units import KJ_PER_MOL_IN_EV, Vectors


@dataclass(frozen=True, eq=False)
class Structure:
    """Positions of all particles with their energy.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : (n_particles, 3) Quantity, nm
    box_vectors : (3, 3) Quantity or None, nm
    energy : Quantity, kJ/mol
        Potential energy of the whole mixed System.
    atoms : tuple of int
        Atoms that moved in internal coordinates; a calculation that starts here moves them too unless told otherwise.
    hold : tuple of int
        Atoms that were held, with the same use.
    """

    topology: app.Topology
    positions: unit.Quantity
    box_vectors: unit.Quantity | None
    energy: unit.Quantity
    atoms: tuple[int, ...] = ()
    hold: tuple[int, ...] = ()

    def write_pdb(self, path: str | os.PathLike[str]) -> None:
        """Write the structure as a PDB file."""
        topology = self.topology
        with check_path("path", path).open("w", encoding="utf-8") as file:
            app.PDBFile.writeFile(topology, self.positions, file, keepIds=True)

    def write_xyz(self, path: str | os.PathLike[str], atoms: Collection[int] | None = None) -> None:
        """Write atoms as extended XYZ, with the energy in eV; all atoms if none are given."""
        lines = xyz_frame(self, atoms)
        check_path("path", path).write_text(lines, encoding="utf-8")


Start: TypeAlias = "Structure | unit.Quantity | npt.ArrayLike"
"""Positions from which something starts: those of a `Structure`, a Quantity, or an array in nm."""


def xyz_frame(structure: Structure, atoms: Collection[int] | None = None) -> str:
    """Return one frame of an extended XYZ file."""
    energy = structure.energy.value_in_unit(unit.kilojoule_per_mole) * KJ_PER_MOL_IN_EV
    facts = {"energy": f"{energy:.10f}"}
    return xyz_text(structure.topology, structure.positions, structure.box_vectors, atoms, facts)


def xyz_text(
    topology: app.Topology,
    positions: unit.Quantity,
    box_vectors: unit.Quantity | None,
    atoms: Collection[int] | None,
    facts: Mapping[str, str],
) -> str:
    """Return one frame of an extended XYZ file.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : (n_particles, 3) Quantity, nm
    box_vectors : (3, 3) Quantity or None, nm
    atoms : collection of int or None
        All atoms if None.
    facts : mapping of str to str
        What else the second line says; values without blanks.
    """
    elements = [atom.element for atom in topology.atoms()]
    chosen = range(len(elements)) if atoms is None else check_atoms("atoms", atoms, len(elements))
    places = positions.value_in_unit(unit.angstrom)
    lattice = ""
    if box_vectors is not None:
        flat = np.ravel(box_vectors.value_in_unit(unit.angstrom))
        lattice = 'Lattice="' + " ".join(f"{x:.8f}" for x in flat) + '" '
    kept = [k for k in chosen if elements[k] is not None]
    said = " ".join(f"{name}={value}" for name, value in facts.items())
    lines = [str(len(kept)), f"{lattice}Properties=species:S:1:pos:R:3 {said}"]
    for k in kept:
        x, y, z = places[k]
        lines.append(f"{elements[k].symbol:<2} {x:15.8f} {y:15.8f} {z:15.8f}")
    return "\n".join(lines) + "\n"


def start_geometry(mixed: MixedSystem, positions: Start, box_vectors: Vectors | None = None) -> Geometry:
    """Return the geometry, nm, from which a calculation starts.

    Parameters
    ----------
    mixed : MixedSystem
    positions : Structure, (n_particles, 3) Quantity or array, nm
    box_vectors : (3, 3) Quantity or array, nm, optional
        Box; that of the Structure, or the default of the System, if not given.

    Raises
    ------
    SettingError
        If the positions have another shape, or a box is given to a System without one.
    """
    system = mixed.system
    if isinstance(positions, Structure):
        box_vectors = positions.box_vectors if box_vectors is None else box_vectors
        positions = positions.positions
    periodic = system.usesPeriodicBoundaryConditions()
    if box_vectors is not None and not periodic:
        raise SettingError("box_vectors are for a periodic System, and this one has no box; leave them out")
    if periodic and box_vectors is None:
        default = system.getDefaultPeriodicBoxVectors()
        box_vectors = np.array([vector.value_in_unit(unit.nanometer) for vector in default])
    geometry = Geometry.from_quantities(positions, box_vectors)
    if len(geometry.positions) != system.getNumParticles():
        raise SettingError(
            f"positions are those of all {system.getNumParticles()} particles, got {len(geometry.positions)}"
        )
    return geometry
