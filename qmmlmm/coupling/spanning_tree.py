"""A tree over the atoms of a region, along which its molecules are made whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qmmlmm.coupling.link_atoms import topological_center
from qmmlmm.units import FloatArray, IntArray


@dataclass(frozen=True)
class SpanningTree:
    """Steps from each atom of a region to the next one, and the steps that lead to each atom.

    Parameters
    ----------
    children, parents : (n_atoms - 1,) int arrays
        Each step leads from a parent to a child; steps along bonds are first.
    paths : (n_atoms, n_atoms - 1) float array
        One for the steps on the way from the first atom to each atom, zero for others.
    n_bonds : int
        Number of steps along bonds.
    """

    children: IntArray
    parents: IntArray
    paths: FloatArray
    n_bonds: int


def spanning_tree(n_atoms: int, bonds: IntArray, anchor: int) -> SpanningTree:
    """Return a tree along the bonds, from the anchor on; the centre of each further molecule follows the anchor.

    Parameters
    ----------
    n_atoms : int
    bonds : (n_bonds, 2) int array
        Positions of the bonded atoms in the region.
    anchor : int
        Position of the first atom.
    """
    pairs = [(int(a), int(b)) for a, b in bonds]
    neighbours: list[list[int]] = [[] for _ in range(n_atoms)]
    for a, b in pairs:
        neighbours[a].append(b)
        neighbours[b].append(a)
    parent = {anchor: anchor}
    order = _grow(anchor, neighbours, parent)
    centres = []
    for first in range(n_atoms):
        if first in parent:
            continue
        molecule = sorted(_grow(first, neighbours, {first: first}))
        inside = set(molecule)
        centre = molecule[topological_center(molecule, [bond for bond in pairs if bond[0] in inside])]
        parent[centre] = anchor
        centres.append(centre)
        order += _grow(centre, neighbours, parent)
    steps = [atom for atom in order[1:] if atom not in centres] + centres
    number = {child: k for k, child in enumerate(steps)}
    paths = np.zeros((n_atoms, len(steps)))
    for child in order[1:]:
        paths[child] = paths[parent[child]]
        paths[child, number[child]] = 1.0
    return SpanningTree(
        np.array(steps, dtype=np.int64),
        np.array([parent[child] for child in steps], dtype=np.int64),
        paths,
        len(steps) - len(centres),
    )


def _grow(start: int, neighbours: list[list[int]], parent: dict[int, int]) -> list[int]:
    """Return the molecule of an atom, nearest atoms first, and enter the parent of each atom."""
    found = [start]
    for atom in found:
        for other in sorted(neighbours[atom]):
            if other not in parent:
                parent[other] = atom
                found.append(other)
    return found
