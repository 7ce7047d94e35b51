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
    parent: dict[int, int] = {anchor: anchor}
    order = [anchor]

    def grow(start: int) -> None:
        frontier = [start]
        while frontier:
            reached = []
            for atom in frontier:
                for other in sorted(neighbours[atom]):
                    if other not in parent:
                        parent[other] = atom
                        reached.append(other)
            order.extend(reached)
            frontier = reached

    centres = []
    grow(anchor)
    while len(parent) < n_atoms:
        left = [atom for atom in range(n_atoms) if atom not in parent]
        centre = left[topological_center(left, pairs)]
        parent[centre] = anchor
        order.append(centre)
        centres.append(centre)
        grow(centre)
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
