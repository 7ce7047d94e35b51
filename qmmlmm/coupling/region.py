"""Regions: sets of atoms that are treated at one level."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from qmmlmm.errors import RegionError, SettingError, listed, nearest
from qmmlmm.setting_checks import check_length, check_text, is_number, is_whole_number
from qmmlmm.units import ANGSTROM_IN_BOHR, NM_IN_BOHR, Scalar

LinkRule = Literal["ratio", "distance"]

LINK_DISTANCES = (0.7 * ANGSTROM_IN_BOHR, 2.0 * ANGSTROM_IN_BOHR)
"""Smallest and largest distance, bohr: a short H-H bond, and a long bond of hydrogen to a heavy element."""

LOWEST_CHARGE, HIGHEST_CHARGE = -4, 9
"""Limits of the charge for each atom of a region: formal charges lie between those of carbon in methanides and of
iridium in its tetroxide."""

MOST_UNPAIRED = 8
"""Largest number of unpaired electrons for each atom of a region: that of gadolinium."""


@dataclass(frozen=True, init=False)
class Region:
    """A set of atoms at one level, with its charge and multiplicity.

    Parameters
    ----------
    name : str
        Name in terms, messages and files, for example ``"ligand"``.
    atoms : iterable of int
        Indices of the atoms in the Topology; stored sorted. Virtual sites may be left out.
    charge : int
        Total charge, in elementary charges.
    multiplicity : int
        2S + 1: one for a singlet.
    link_rule : {"ratio", "distance"}
        Position of link hydrogens on the cut bonds: at a fixed fraction of the bond, or at a fixed distance from the
        region atom, both from covalent radii; see `qmmlmm.coupling.link_atoms`.
    link_ratios : mapping of (int, int) to float, optional
        Position of the link hydrogen on single cut bonds, as a fraction of the way from the region atom to the
        outside atom; keyed by (region atom, outside atom). Bonds that are not named follow `link_rule`.
    link_distances : mapping of (int, int) to Quantity, nm, optional
        Distance of the link hydrogen from the region atom, for single cut bonds, keyed in the same way. Stored in
        bohr.

    Raises
    ------
    RegionError
        If the atoms are empty, duplicate or negative, charge and multiplicity are not integers or impossible for this
        number of atoms, or a link hydrogen has an impossible position.

    Notes
    -----
    A bond in `link_ratios` or `link_distances` is cut even if elements and numbers of neighbours suggest that it is
    more than a single bond, see `qmmlmm.coupling.cut_bonds`.
    """

    name: str
    atoms: tuple[int, ...]
    charge: int
    multiplicity: int
    link_rule: LinkRule
    link_ratios: Mapping[tuple[int, int], float] = field(hash=False)
    link_distances: Mapping[tuple[int, int], float] = field(hash=False)

    def __init__(
        self,
        name: str,
        atoms: Iterable[int],
        charge: int = 0,
        multiplicity: int = 1,
        *,
        link_rule: LinkRule = "ratio",
        link_ratios: Mapping[tuple[int, int], float] | None = None,
        link_distances: Mapping[tuple[int, int], Scalar] | None = None,
    ) -> None:
        if not isinstance(name, str) or not name.strip() or "/" in name or name == "MM":
            raise RegionError(f"the name of a region is a non-empty string without '/' that is not 'MM', got {name!r}")
        check_text("the name of a region", name, RegionError)
        if isinstance(atoms, str | bytes | Mapping) or not isinstance(atoms, Iterable):
            raise RegionError(
                f"atoms of region {name!r} are a list of indices, got {atoms!r}; qmmlmm.select returns one"
            )
        given = list(atoms)
        wrong = [a for a in given if not is_whole_number(a)]
        if wrong:
            raise RegionError(f"atoms of region {name!r} are integer indices, got {listed(map(repr, wrong))}")
        indices = sorted(int(a) for a in given)
        if not indices:
            raise RegionError(f"region {name!r} has no atoms; use qmmlmm.select, which raises for an empty selection")
        if indices[0] < 0:
            raise RegionError(f"region {name!r}: atom indices start at 0, got {indices[0]}")
        duplicates = sorted({a for a, b in itertools.pairwise(indices) if a == b})
        if duplicates:
            raise RegionError(f"region {name!r} lists atoms more than once: {listed(duplicates)}")
        for label, value in (("charge", charge), ("multiplicity", multiplicity)):
            if not is_whole_number(value):
                raise RegionError(f"region {name!r}: {label} is an integer, got {value!r}")
        if multiplicity < 1:
            raise RegionError(
                f"region {name!r}: multiplicity is 2S + 1 and at least 1, got {multiplicity}; "
                "a singlet has multiplicity 1"
            )
        low, high = LOWEST_CHARGE * len(indices), HIGHEST_CHARGE * len(indices)
        if not low <= charge <= high:
            raise RegionError(
                f"region {name!r}: a charge of {len(indices)} atoms lies between {low} and {high}, got {charge}"
            )
        if multiplicity > MOST_UNPAIRED * len(indices) + 1:
            raise RegionError(
                f"region {name!r}: the multiplicity of {len(indices)} atoms is at most "
                f"{MOST_UNPAIRED * len(indices) + 1}, got {multiplicity}"
            )
        ratios = {bond: _ratio(name, bond, g) for bond, g in _by_bond(name, "link_ratios", link_ratios).items()}
        distances = {
            bond: _distance(name, bond, d) for bond, d in _by_bond(name, "link_distances", link_distances).items()
        }
        twice = sorted(set(ratios) & set(distances))
        if twice:
            raise RegionError(
                f"region {name!r}: bonds {listed(twice)} are in link_ratios and in link_distances; give one of the two"
            )
        if not isinstance(link_rule, str) or link_rule not in get_args(LinkRule):
            raise RegionError(
                f"region {name!r}: link_rule is 'ratio' or 'distance', got {link_rule!r}."
                + nearest(str(link_rule), get_args(LinkRule))
            )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "atoms", tuple(indices))
        object.__setattr__(self, "charge", int(charge))
        object.__setattr__(self, "multiplicity", int(multiplicity))
        object.__setattr__(self, "link_rule", link_rule)
        object.__setattr__(self, "link_ratios", ratios)
        object.__setattr__(self, "link_distances", distances)

    def __len__(self) -> int:
        return len(self.atoms)

    def __repr__(self) -> str:
        return f"Region({self.name!r}, {len(self.atoms)} atoms, charge={self.charge}, multiplicity={self.multiplicity})"


def _by_bond(name: str, label: str, given: object) -> dict[tuple[int, int], object]:
    """Return what was given for single bonds, keyed by (region atom, outside atom)."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise RegionError(f"region {name!r}: {label} maps (region atom, outside atom) to a value, got {given!r}")
    for bond in given:
        if not isinstance(bond, tuple) or len(bond) != 2 or not all(is_whole_number(a) and a >= 0 for a in bond):
            raise RegionError(
                f"region {name!r}: a key of {label} is a bond (region atom, outside atom), such as (12, 15), got "
                f"{bond!r}"
            )
    return {(int(inside), int(outside)): value for (inside, outside), value in given.items()}


def _ratio(name: str, bond: tuple[int, int], value: object) -> float:
    """Return a link ratio."""
    if not is_number(value) or not 0.0 < value < 1.0:
        raise RegionError(
            f"region {name!r}: the link ratio of bond {bond} lies between 0 and 1 "
            f"(a C-C bond capped with hydrogen has about 0.71), got {value!r}"
        )
    return float(value)


def _distance(name: str, bond: tuple[int, int], value: object) -> float:
    """Return a link distance in bohr."""
    low, high = LINK_DISTANCES
    try:
        distance = check_length("link distance", value) * NM_IN_BOHR
    except SettingError as error:
        raise RegionError(
            f"region {name!r}: the link distance of bond {bond} is a length, got {value!r}; "
            "write 1.09 * unit.angstrom, or a number in nm"
        ) from error
    if not low <= distance <= high:
        raise RegionError(
            f"region {name!r}: the link distance of bond {bond} lies between {low / ANGSTROM_IN_BOHR:.1f} and "
            f"{high / ANGSTROM_IN_BOHR:.1f} angstrom, got {distance / ANGSTROM_IN_BOHR:.4g} angstrom; "
            "a bare number is in nm"
        )
    return distance
