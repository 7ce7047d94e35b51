"""Parts of ligands and cofactors that named cuts leave in a site."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from openmm import app

from qmmlmm.coupling.cut_bonds import BondGraph, check_inferred, check_known
from qmmlmm.errors import SelectionError, listed, nearest, signed
from qmmlmm.mm.term_layouts import particle_labels
from qmmlmm.preparation.protonation import residue_label
from qmmlmm.preparation.residue_names import WATERS, is_amino_acid
from qmmlmm.units import FloatArray

CLOSED_SHELL = 0.75
"""e; largest difference of the charge of a part in the force field from that of a closed shell.

Parts of NADP+ differ by 0.04 to 0.61 with the charges of AM1-BCC, and the next closed shell is 2 e away.
"""

_CUT = re.compile(r"(?P<label>.+):(?P<first>[^:-]+)-(?P<second>[^:-]+)")


@dataclass(frozen=True)
class CofactorPart:
    """The part of a residue that is taken.

    Parameters
    ----------
    atoms : frozenset of int
    cuts : tuple of (int, int)
        Atom inside and atom outside of each cut bond.
    shown : str
        The cuts as text, such as ``C5D-C4D``.
    """

    atoms: frozenset[int]
    cuts: tuple[tuple[int, int], ...]
    shown: str

    def charge(self, residue: app.topology.Residue, charges: FloatArray, whole: int) -> int:
        """Return the charge with which the part is a closed shell, nearest to its charge in the force field.

        Charges of closed shells differ by two, so that what the force field spreads over a cut bond changes nothing.

        Parameters
        ----------
        residue : openmm.app.topology.Residue
        charges : (n_particles,) float array, e
        whole : int
            Charge of the residue.

        Raises
        ------
        SelectionError
            If the residue is no closed shell, or its charges do not show that of the part.
        """
        name = f"{residue.name} {residue_label(residue)}"
        numbers = {a.index: 0 if a.element is None else a.element.atomic_number for a in residue.atoms()}
        if (sum(numbers.values()) - whole) % 2:
            raise SelectionError(
                f"{name} has an odd number of electrons with its charge {signed(whole)}, so that the charge of a part "
                "of it is not clear; take it whole"
            )
        total = float(charges[sorted(self.atoms)].sum())
        # Each cut bond gets a hydrogen.
        odd = (sum(numbers[index] for index in self.atoms) + len(self.cuts)) % 2
        charge = 2 * round((total - odd) / 2) + odd
        if abs(total - charge) > CLOSED_SHELL:
            raise SelectionError(
                f"the charge of the part of {name} behind the cut {self.shown} is not clear: it is {total:+.2f} in the "
                f"force field, and {signed(charge)} would be a closed shell; cut farther from charged groups"
            )
        return charge


def cofactor_parts(
    topology: app.Topology,
    bonds: Mapping[int, set[int]],
    residues: Mapping[str, app.topology.Residue],
    cut: Iterable[str],
) -> dict[app.topology.Residue, CofactorPart]:
    """Return the parts of residues that named cuts leave.

    Parameters
    ----------
    topology : openmm.app.Topology
    bonds : mapping of int to set of int
        Neighbours of each atom.
    residues : mapping of str to Residue
        By their labels, such as ``L:1``.
    cut : iterable of str
        Such as ``L:1:C5D-C4D``; the part with the first atom is taken.

    Raises
    ------
    SelectionError
        If a text names no bond of a ligand or cofactor, or the cuts leave it in one piece.
    RegionError
        If a bond cannot be cut, see `qmmlmm.coupling.cut_bonds`.
    """
    found: dict[app.topology.Residue, list[tuple[int, int]]] = {}
    for text in [cut] if isinstance(cut, str) else cut:
        residue, bond = _bond(str(text), bonds, residues)
        if bond not in found.setdefault(residue, []):
            found[residue].append(bond)
    if not found:
        return {}
    numbers = [0 if atom.element is None else atom.element.atomic_number for atom in topology.atoms()]
    graph = BondGraph.of(((a, b, None) for a, near in bonds.items() for b in near if a < b), numbers)
    labels = particle_labels(topology)
    for bond in (bond for several in found.values() for bond in several):
        check_known(graph, bond, {bond[0]}, labels, "site")
        check_inferred(graph, bond, labels, "site")
    return {residue: _part(residue, bonds, several) for residue, several in found.items()}


def _bond(
    text: str, bonds: Mapping[int, set[int]], residues: Mapping[str, app.topology.Residue]
) -> tuple[app.topology.Residue, tuple[int, int]]:
    """Return the residue and the two atoms of a bond such as ``L:1:C5D-C4D``."""
    found = _CUT.fullmatch(text)
    if found is None:
        raise SelectionError(f"cut names a bond as CHAIN:NUMBER:ATOM-ATOM, such as 'L:1:C5D-C4D', got {text!r}")
    if found["label"] not in residues:
        raise SelectionError(
            f"cut names {found['label']!r}, and the Topology has no such residue; labels are CHAIN:NUMBER."
            f"{nearest(found['label'], list(residues)[:5000])}"
        )
    residue = residues[found["label"]]
    name = f"{residue.name} {residue_label(residue)}"
    if is_amino_acid(residue.name) or residue.name in WATERS:
        raise SelectionError(
            f"cut names {name}; it is for bonds of ligands and cofactors. Side chains are cut between CA and CB, and "
            "waters are whole"
        )
    atoms = {atom.name: atom for atom in residue.atoms()}
    for atom in (found["first"], found["second"]):
        if atom not in atoms:
            raise SelectionError(f"cut names {text!r}, and {name} has no atom {atom}.{nearest(atom, list(atoms))}")
    first, second = atoms[found["first"]].index, atoms[found["second"]].index
    if second not in bonds[first]:
        neighbours = listed(name for name, atom in atoms.items() if atom.index in bonds[first])
        raise SelectionError(
            f"cut names {text!r}, which is no bond of {name}; {found['first']} is bonded to {neighbours}"
        )
    return residue, (first, second)


def _part(
    residue: app.topology.Residue, bonds: Mapping[int, set[int]], cuts: Sequence[tuple[int, int]]
) -> CofactorPart:
    """Return the atoms that stay connected to the first atoms of the cuts."""
    broken = {frozenset(bond) for bond in cuts}
    names = {atom.index: atom.name for atom in residue.atoms()}
    inside: set[int] = set()
    frontier = {first for first, _ in cuts}
    while frontier:
        inside |= frontier
        frontier = {b for a in frontier for b in (bonds[a] & set(names)) - inside if frozenset((a, b)) not in broken}
    shown = listed(f"{names[first]}-{names[second]}" for first, second in cuts)
    if any(second in inside for _, second in cuts):
        raise SelectionError(
            f"the cuts {shown} leave both sides of {residue.name} {residue_label(residue)} connected; the first atom "
            "of each bond is on the side that is taken"
        )
    return CofactorPart(frozenset(inside), tuple(cuts), shown)
