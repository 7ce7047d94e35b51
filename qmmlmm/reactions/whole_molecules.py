"""Molecules made whole, so that distances between their atoms are no longer cut by the box."""

from __future__ import annotations

from collections import deque

import numpy as np
from openmm import app

from qmmlmm.embedding.region_geometry import nearest_displacements
from qmmlmm.geometry import Geometry
from qmmlmm.units import FloatArray, IntArray

SMALL = 1e-6
"""Shifts below it are rounding and not box vectors, nm."""


def made_whole(topology: app.Topology, geometry: Geometry, atoms: IntArray) -> FloatArray:
    """Return positions, (n, 3) nm, in which the molecules of some atoms are whole and next to one another.

    Parameters
    ----------
    topology : openmm.app.Topology
        Topology with the bonds.
    geometry : Geometry, nm
    atoms : (n_atoms,) int array
    """
    positions = geometry.positions.copy()
    if geometry.box is None:
        return positions
    neighbours: dict[int, list[int]] = {}
    for bond in topology.bonds():
        first, second = bond[0].index, bond[1].index
        neighbours.setdefault(first, []).append(second)
        neighbours.setdefault(second, []).append(first)
    placed: set[int] = set()
    anchor: FloatArray | None = None
    chosen = set(atoms.tolist())
    for start in atoms.tolist():
        if start in placed:
            continue
        molecule = [start]
        placed.add(start)
        queue = deque(molecule)
        while queue:
            atom = queue.popleft()
            for other in neighbours.get(atom, ()):
                if other in placed:
                    continue
                step = nearest_displacements((positions[other] - positions[atom])[None], geometry.box)[0]
                positions[other] = positions[atom] + step
                placed.add(other)
                molecule.append(other)
                queue.append(other)
        centre = positions[[k for k in molecule if k in chosen]].mean(axis=0)
        if anchor is None:
            anchor = centre
        shift = nearest_displacements((centre - anchor)[None], geometry.box)[0] - (centre - anchor)
        if np.abs(shift).max() > SMALL:
            positions[molecule] += shift
    return positions
