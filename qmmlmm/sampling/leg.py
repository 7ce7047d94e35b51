"""A leg of a thermodynamic cycle: a System of the force field, and the molecule in it that other levels treat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.coupling.region import Region
from qmmlmm.errors import SettingError, listed
from qmmlmm.mm.electrostatics import force_field_charges
from qmmlmm.setting_checks import check_array, check_instance
from qmmlmm.units import FloatArray

SAME_CHARGE = 1e-3
"""Largest difference, e, between charges of the force field that count as equal; files have three digits or more."""

HALF_CHARGE = 0.5
"""Difference, e, between a region's charge and that of its force field from which they are different integers."""


@dataclass(frozen=True, eq=False)
class Leg:
    """A System of the force field with a molecule that other levels treat, such as the solvated complex.

    Parameters
    ----------
    topology : openmm.app.Topology
    system : openmm.System
        System of the force field. Restraints and a barostat belong to it.
    positions : (n_particles, 3) Quantity or float array, nm
        Positions in equilibrium at the level of the force field; stored without the unit.
    region : Region
        The molecule, with its charge.
    box_vectors : (3, 3) Quantity or float array, nm, optional
        Box of the positions; that of the System if not given.

    Raises
    ------
    SettingError
        If the numbers of atoms differ, the region is not in the System, or its charge differs from that of the force
        field.
    """

    topology: app.Topology
    system: openmm.System
    positions: FloatArray
    region: Region
    box_vectors: FloatArray | None = None

    def __post_init__(self) -> None:
        check_instance("Leg: topology", self.topology, app.Topology, "an openmm.app.Topology")
        check_instance("Leg: system", self.system, openmm.System, "an openmm.System")
        check_instance("Leg: region", self.region, Region)
        count = self.system.getNumParticles()
        if self.topology.getNumAtoms() != count:
            raise SettingError(
                f"Leg: topology has {self.topology.getNumAtoms()} atoms and system {count} particles; pass the pair "
                "that belongs together"
            )
        positions = check_array("Leg: positions", self.positions, (count, 3), unit.nanometer)
        object.__setattr__(self, "positions", positions)
        if self.box_vectors is not None:
            box = check_array("Leg: box_vectors", self.box_vectors, (3, 3), unit.nanometer)
            object.__setattr__(self, "box_vectors", box)
        elif self.system.usesPeriodicBoundaryConditions():
            vectors = self.system.getDefaultPeriodicBoxVectors()
            box = np.array([[x.value_in_unit(unit.nanometer) for x in row] for row in vectors])
            object.__setattr__(self, "box_vectors", box)
        if self.region.atoms[-1] >= count:
            raise SettingError(
                f"Leg: region {self.region.name!r} has atom {self.region.atoms[-1]} of a system with {count} particles"
            )
        self._check_charge()

    def _check_charge(self) -> None:
        charges = region_charges(self)
        if charges is None:
            return
        total = float(charges.sum())
        if abs(total - self.region.charge) > HALF_CHARGE:
            raise SettingError(
                f"Leg: region {self.region.name!r} has the charge {self.region.charge}, and the force field gives its "
                f"atoms {total:.2f} e: the net charge would change between the levels. Correct the charge of the "
                "region, or its atoms"
            )


def region_charges(leg: Leg) -> FloatArray | None:
    """Return the charges of a leg's molecule in the force field, e, or None if several Forces could have them."""
    forces = [force for force in leg.system.getForces() if isinstance(force, openmm.NonbondedForce)]
    return force_field_charges(leg.system)[list(leg.region.atoms)] if len(forces) == 1 else None


def check_one_molecule(legs: Mapping[str, Leg]) -> None:
    """Raise if the regions of legs are not one molecule with one force field.

    Parameters
    ----------
    legs : mapping of str to Leg

    Raises
    ------
    SettingError
        If they differ in elements, bonds, charge, multiplicity, or charges of the force field.
    """
    (first, leg), *others = legs.items()
    for second, other in others:
        for what, left, right in (
            ("elements", _formula(leg), _formula(other)),
            ("charge", leg.region.charge, other.region.charge),
            ("multiplicity", leg.region.multiplicity, other.region.multiplicity),
            ("bonds", _bonds(leg), _bonds(other)),
        ):
            if left != right:
                raise SettingError(
                    f"legs: {first!r} and {second!r} have different molecules in their regions: the {what} are {left} "
                    f"and {right}. The cycle closes for one molecule; check the atoms of both regions"
                )
        charges = [region_charges(leg), region_charges(other)]
        if charges[0] is None or charges[1] is None:
            continue
        difference = np.abs(np.sort(charges[0]) - np.sort(charges[1])).max()
        if difference > SAME_CHARGE:
            raise SettingError(
                f"legs: {first!r} and {second!r} have molecules with different charges in the force field, by up to "
                f"{difference:.3f} e; both legs start from one force field"
            )


def _symbols(leg: Leg) -> list[str]:
    atoms = list(leg.topology.atoms())
    return [_symbol(atoms[index]) for index in leg.region.atoms]


def _symbol(atom: app.topology.Atom) -> str:
    return "M" if atom.element is None else str(atom.element.symbol)


def _formula(leg: Leg) -> str:
    return " ".join(f"{symbol}{count}" for symbol, count in sorted(Counter(_symbols(leg)).items()))


def _bonds(leg: Leg) -> str:
    inside = set(leg.region.atoms)
    pairs = [
        "-".join(sorted((_symbol(bond.atom1), _symbol(bond.atom2))))
        for bond in leg.topology.bonds()
        if bond.atom1.index in inside and bond.atom2.index in inside
    ]
    return listed((f"{count} {pair}" for pair, count in sorted(Counter(pairs).items())), 20) or "none"
