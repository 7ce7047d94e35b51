"""Elements of the Topology against the masses of the System.

OpenMM guesses elements from the names of atoms where a file has no atomic numbers: BR1 becomes boron, HG mercury.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import openmm
from openmm import app, unit

from qmmlmm.errors import RegionError, listed

HYDROGEN_MASSES = (0.5, 5.0)
"""Lightest and heaviest mass of a hydrogen, dalton: up to tritium, and mass repartitioning with 4 dalton."""

MASS_ROUNDING = 0.6
"""Largest difference, dalton, between a light element's atomic weight and its mass in a force field."""

MASS_SPREAD = 0.05
"""The same as a share of the mass, which includes the stable isotopes of chlorine to iron."""

ISOTOPES: Mapping[int, tuple[float, ...]] = {6: (13.003, 14.003), 7: (15.0,), 8: (16.999, 17.999)}
"""Masses of isotopes that labelling uses, dalton, by atomic number."""


def check_elements(
    name: str,
    atoms: Iterable[int],
    atomic_numbers: Sequence[int],
    neighbours: Mapping[int, Iterable[int]],
    system: openmm.System,
    labels: Sequence[str],
) -> None:
    """Raise if the mass of an atom is not that of its element.

    Massless atoms, isotopes and repartitioned hydrogen masses are accepted: an atom may be as much lighter as its
    hydrogens are heavier.

    Parameters
    ----------
    name : str
        Name of the region.
    atoms : iterable of int
        Atoms to check.
    atomic_numbers : sequence of int
        Atomic numbers of all particles.
    neighbours : mapping of int to iterable of int
        Bonded atoms of each atom.
    system : openmm.System
    labels : sequence of str
        Names of the particles in messages.

    Raises
    ------
    RegionError
        If elements and masses disagree.
    """

    def mass(atom: int) -> float:
        return float(system.getParticleMass(atom).value_in_unit(unit.dalton))

    wrong = []
    for atom in atoms:
        number, found = atomic_numbers[atom], mass(atom)
        hydrogens = [other for other in neighbours.get(atom, ()) if atomic_numbers[other] == 1]
        moved = sum(max(0.0, mass(other) - _weight(1)) for other in hydrogens)
        if found != 0.0 and not _fits(number, found, moved):
            wrong.append(
                f"{labels[atom]} is {_element(number).name} ({_weight(number):.2f} dalton) in the Topology and has the "
                f"mass {found:.2f} dalton in the System, as {_of_mass(found).name}"
            )
    if wrong:
        raise RegionError(
            f"region {name!r}: elements and masses disagree: {listed(wrong)}. OpenMM guesses elements from names where "
            "a file has no atomic numbers: set atom.element in the Topology, or write the atomic numbers into the file "
            "([ atomtypes ] of GROMACS). Masses that differ on purpose are set in the System that create_mixed_system "
            "returns"
        )


def _fits(number: int, mass: float, moved: float) -> bool:
    """Return whether an atom can have a mass, if `moved` dalton may have gone to its hydrogens."""
    if number == 1:
        return HYDROGEN_MASSES[0] <= mass <= HYDROGEN_MASSES[1]
    weight = _weight(number)
    tolerance = max(MASS_ROUNDING, MASS_SPREAD * weight)
    if weight - moved - tolerance <= mass <= weight + tolerance:
        return True
    return any(abs(mass - isotope) <= 0.1 for isotope in ISOTOPES.get(number, ()))


def _element(number: int) -> app.Element:
    return app.Element.getByAtomicNumber(number)


def _weight(number: int) -> float:
    return float(_element(number).mass.value_in_unit(unit.dalton))


def _of_mass(mass: float) -> app.Element:
    """Return the element whose atomic weight is nearest to a mass."""
    return _element(min(range(1, 104), key=lambda number: abs(_weight(number) - mass)))
