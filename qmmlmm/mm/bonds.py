"""Bonds that the Topology lists and bonds that the System has, brought together.

A Topology from another file than the System, or from GROMACS files, may lack bonds that the force field has. Cut bonds
are found in the union of both, and a bond across the border of a region that only one of them has is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.elements import COVALENT_RADII
from qmmlmm.errors import UnsupportedSystemError, listed
from qmmlmm.units import in_unit

BOND_REACH = 1.3
"""Longest equilibrium length of a bond, in sums of covalent radii. Bonds to metals have up to 1.1. Atoms that are two
bonds apart, which constraints and Urey-Bradley terms also hold, have at least 1.34 (a carbon next to a nitrogen at
iron), and pairs in restraints have more."""

_TRIAL_LENGTHS = np.linspace(0.05, 0.35, 121)
"""Lengths at which the energy of a custom bond is compared, nm."""

Pair = tuple[int, int]
OrderedBond = tuple[int, int, float | None]


@dataclass(frozen=True)
class KnownBonds:
    """Bonds of a Topology and of a System.

    Parameters
    ----------
    bonds : tuple of (int, int, float or None)
        All bonds with their orders; None where the Topology does not know it.
    only_topology : frozenset of (int, int)
        Bonds that no bond term and no constraint of the System holds, lower index first.
    only_system : frozenset of (int, int)
        Bonds of the System that the Topology lacks, lower index first.
    """

    bonds: tuple[OrderedBond, ...]
    only_topology: frozenset[Pair]
    only_system: frozenset[Pair]

    def check_border(self, name: str, inside: Iterable[int], labels: Sequence[str]) -> None:
        """Raise if a bond across the border of a region is known to only one of the two.

        Parameters
        ----------
        name : str
            Name of the region.
        inside : iterable of int
            Atoms of the region.
        labels : sequence of str
            Names of the particles in messages.

        Raises
        ------
        UnsupportedSystemError
            If there is such a bond.
        """
        atoms = set(inside)
        missing = _across(self.only_system, atoms)
        if missing:
            raise UnsupportedSystemError(
                f"region {name!r}: the System bonds {_shown(missing, labels)} across the border of the region, and the "
                "Topology has no such bond. Add the bonds with topology.addBond, or read a file that has them (CONECT "
                "records, prmtop, PSF)"
            )
        missing = _across(self.only_topology, atoms)
        if missing:
            raise UnsupportedSystemError(
                f"region {name!r}: the Topology bonds {_shown(missing, labels)} across the border of the region, and "
                "the System has neither a bond term nor a constraint for it. Pass the Topology and the System that "
                "belong together, or take both atoms into the region"
            )


def known_bonds(topology: app.Topology, system: openmm.System, atomic_numbers: Sequence[int]) -> KnownBonds:
    """Return the bonds of a Topology and of a System.

    Parameters
    ----------
    topology : openmm.app.Topology
    system : openmm.System
        System with the same particles.
    atomic_numbers : sequence of int
        Atomic numbers of all particles, zero for virtual sites.

    Notes
    -----
    Bonds of the System are harmonic and custom bonds and constraints, SETTLE's included, whose equilibrium length is
    that of a bond between the two elements (`BOND_REACH`). The equilibrium length of a custom bond is where its energy
    is lowest.
    """
    listed_bonds = [(bond[0].index, bond[1].index, _order(bond)) for bond in topology.bonds()]
    of_topology = {_pair(a, b) for a, b, _ in listed_bonds}
    held: set[Pair] = set()
    found: set[Pair] = set()
    for a, b, length in _lengths(system, of_topology):
        pair = _pair(a, b)
        held.add(pair)
        if pair not in of_topology and length is not None and length <= _reach(atomic_numbers, pair):
            found.add(pair)
    real = {pair for pair in of_topology if atomic_numbers[pair[0]] and atomic_numbers[pair[1]]}
    return KnownBonds(
        tuple(listed_bonds) + tuple((a, b, None) for a, b in sorted(found)),
        frozenset(real - held),
        frozenset(found),
    )


def _pair(a: int, b: int) -> Pair:
    return (min(a, b), max(a, b))


def _across(pairs: Iterable[Pair], inside: set[int]) -> list[Pair]:
    return sorted(pair for pair in pairs if (pair[0] in inside) != (pair[1] in inside))


def _shown(pairs: Iterable[Pair], labels: Sequence[str]) -> str:
    return listed(f"{labels[a]} - {labels[b]}" for a, b in pairs)


def _reach(atomic_numbers: Sequence[int], pair: Pair) -> float:
    """Return the longest equilibrium length of a bond between two atoms, nm; zero for virtual sites."""
    numbers = [atomic_numbers[atom] for atom in pair]
    if 0 in numbers:
        return 0.0
    heaviest = len(COVALENT_RADII)
    return 0.1 * BOND_REACH * sum(COVALENT_RADII[min(number, heaviest) - 1] for number in numbers)


def _order(bond: app.topology.Bond) -> float | None:
    """Return the order of a bond in a Topology, or None; the type may imply a higher order than the stated one."""
    by_type = {app.Single: 1.0, app.Amide: 1.25, app.Aromatic: 1.5, app.Double: 2.0, app.Triple: 3.0}.get(bond.type)
    by_order = None if bond.order is None else float(bond.order)
    return max((order for order in (by_type, by_order) if order is not None), default=None)


def _lengths(system: openmm.System, of_topology: set[Pair]) -> Iterator[tuple[int, int, float | None]]:
    """Yield all pairs in constraints and bonded terms of two particles, with their equilibrium lengths, nm.

    The length of a custom bond that the Topology has is not computed and is None.
    """
    for index in range(system.getNumConstraints()):
        a, b, length = system.getConstraintParameters(index)
        yield a, b, float(in_unit(length, unit.nanometer))
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            for index in range(force.getNumBonds()):
                a, b, length, _ = force.getBondParameters(index)
                yield a, b, float(in_unit(length, unit.nanometer))
        elif isinstance(force, openmm.CustomBondForce):
            minima = _Minima(force)
            for index in range(force.getNumBonds()):
                a, b, values = force.getBondParameters(index)
                yield a, b, None if _pair(a, b) in of_topology else minima.length(tuple(values))
        elif isinstance(force, openmm.CustomCompoundBondForce) and force.getNumParticlesPerBond() == 2:
            for index in range(force.getNumBonds()):
                (a, b), _ = force.getBondParameters(index)
                yield a, b, None


class _Minima:
    """Finds the lengths at which bonds of a CustomBondForce have the lowest energy."""

    def __init__(self, force: openmm.CustomBondForce) -> None:
        self._force = force
        self._known: dict[tuple[float, ...], float | None] = {}
        self._context: openmm.Context | None = None

    def length(self, values: tuple[float, ...]) -> float | None:
        """Return the length in nm, None if the energy has no minimum at the length of a bond."""
        if values not in self._known:
            context = self._context_of(values)
            energies = []
            for r in _TRIAL_LENGTHS:
                context.setPositions([[0.0, 0.0, 0.0], [r, 0.0, 0.0]])
                energies.append(context.getState(energy=True).getPotentialEnergy()._value)
            lowest = int(np.argmin(energies))
            inner = 0 < lowest < len(energies) - 1
            self._known[values] = float(_TRIAL_LENGTHS[lowest]) if inner else None
        return self._known[values]

    def _context_of(self, values: tuple[float, ...]) -> openmm.Context:
        """Return a Context of two particles and a bond with these parameters."""
        if self._context is None:
            self._bond, self._integrator = self._alone(values), openmm.VerletIntegrator(0.001)
            system = openmm.System()
            for _ in range(2):
                system.addParticle(1.0)
            system.addForce(self._bond)
            self._context = openmm.Context(system, self._integrator, openmm.Platform.getPlatform("Reference"))
        else:
            self._bond.setBondParameters(0, 0, 1, values)
            self._bond.updateParametersInContext(self._context)
        return self._context

    def _alone(self, values: tuple[float, ...]) -> openmm.CustomBondForce:
        """Return a Force with one bond between the first two particles."""
        force = self._force
        alone = openmm.CustomBondForce(force.getEnergyFunction())
        for index in range(force.getNumPerBondParameters()):
            alone.addPerBondParameter(force.getPerBondParameterName(index))
        for index in range(force.getNumGlobalParameters()):
            alone.addGlobalParameter(force.getGlobalParameterName(index), force.getGlobalParameterDefaultValue(index))
        alone.addBond(0, 1, values)
        return alone
