"""Bonds that may break while a loop learns a reaction, which the guard of the walkers does not watch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from openmm import app

from qmmlmm.errors import LoopError, listed
from qmmlmm.sampling.variable import Variable

Bonds = tuple[tuple[int, int], ...]


def bonds_along(topology: app.Topology, atoms: Iterable[int], variables: Iterable[Variable]) -> Bonds:
    """Return the bonds among some atoms whose lengths are terms of variables.

    Parameters
    ----------
    topology : openmm.app.Topology
    atoms : iterable of int
    variables : iterable of Variable
        Variables along which a simulation is biased: a bond whose length is driven is meant to break or to form.
    """
    bonds = bonds_among(topology, atoms)
    pairs = (pair for variable in variables for pair in variable.distances)
    return tuple(dict.fromkeys(bond for pair in pairs if (bond := (min(pair), max(pair))) in bonds))


def check_reacting_bonds(topology: app.Topology, atoms: Collection[int], bonds: Sequence[tuple[int, int]]) -> None:
    """Raise LoopError if two atoms are outside the region, or have no bond.

    Parameters
    ----------
    topology : openmm.app.Topology
    atoms : collection of int
        Atoms of the region.
    bonds : sequence of (int, int)
    """
    known = bonds_among(topology, atoms)
    for first, second in bonds:
        outside = [atom for atom in (first, second) if atom not in set(atoms)]
        if outside:
            raise LoopError(
                f"reacting_bonds: {[first, second]} has the atom {outside[0]}, which is not in the region; no bond "
                "outside it is watched"
            )
        if (first, second) not in known:
            of_first = sorted(other for bond in known if first in bond for other in bond if other != first)
            raise LoopError(
                f"reacting_bonds: the atoms {first} and {second} have no bond in the Topology; {first} has bonds with "
                f"{listed(of_first) or 'no atom of the region'}. Atoms between which a bond forms need no entry"
            )


def bonds_among(topology: app.Topology, atoms: Iterable[int]) -> set[tuple[int, int]]:
    """Return the bonds between atoms of a set, each with the lower index first."""
    chosen = {int(atom) for atom in atoms}
    pairs = ((bond[0].index, bond[1].index) for bond in topology.bonds())
    return {(min(pair), max(pair)) for pair in pairs if chosen.issuperset(pair)}
