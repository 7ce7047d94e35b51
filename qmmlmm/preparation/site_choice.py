"""The choice of an active site: residues around a selection, their cut bonds, charge and multiplicity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.errors import SelectionError, listed, nearest, signed
from qmmlmm.mm.electrostatics import force_field_charges
from qmmlmm.mm.selection import select
from qmmlmm.preparation.cofactor_parts import CofactorPart, cofactor_parts
from qmmlmm.preparation.protonation import residue_label
from qmmlmm.preparation.residue_names import METAL_IONS, SALT_IONS, WATERS, is_amino_acid
from qmmlmm.preparation.site import LeftOut, Site, SiteResidue
from qmmlmm.setting_checks import check_array, check_atoms, check_quantity, check_whole_number
from qmmlmm.units import FloatArray, Vectors

BACKBONE = frozenset({"N", "H", "HN", "CA", "HA", "HA2", "HA3", "C", "O", "OXT", "H1", "H2", "H3"})
SHELL = 0.28
"""nm; a ligand atom of a metal ion is nearer."""
HYDROGEN_BOND = 0.32
"""nm; longest distance of N or O to N or O of the centre that is called a hydrogen bond."""
INTEGER = 0.01
"""e; largest difference of a whole residue's charge from an integer."""

OPEN_SHELL = frozenset({"Fe", "Mn", "Co", "Ni", "Cu", "Cr", "V", "Mo", "Ti", "W", "Ru"})
_LIGAND_ELEMENTS = frozenset({"N", "O", "S"})


def pick_site(
    topology: app.Topology,
    system: openmm.System,
    positions: Vectors,
    around: str | Iterable[int],
    within: unit.Quantity | float = 0.4,
    *,
    take: Iterable[str] = (),
    leave: Iterable[str] = (),
    backbone: Iterable[str] = (),
    cut: Iterable[str] = (),
    waters: int = 0,
) -> Site:
    """Return the side chains, ions and cofactors around a selection.

    Parameters
    ----------
    topology : openmm.app.Topology
    system : openmm.System
        System of the force field, for the charges.
    positions : (n_atoms, 3) Quantity or float array, nm
    around : str or iterable of int
        The centre, a selection in words or atoms; their residues are taken whole unless they are amino acids.
    within : Quantity or float, nm
        Largest distance between heavy atoms.
    take : iterable of str
        Residues that are taken in any case, such as ``"A:50"``.
    leave : iterable of str
        Residues that are left out in any case.
    backbone : iterable of str
        Residues whose carbonyl group is taken, with N-H of the next one.
    cut : iterable of str
        Bonds of ligands and cofactors that are cut, such as ``"L:1:C5D-C4D"``. The part with the first atom is taken,
        and the part with the second is left out.
    waters : int
        Number of waters, the nearest ones within the distance, that are taken.

    Returns
    -------
    Site

    Raises
    ------
    SelectionError
        If the centre is empty, a label names no residue or a cut no bond, or the charge of a part is not clear.
    RegionError
        If a named bond cannot be cut: in a ring, of higher order, or of a phosphate, see `qmmlmm.coupling.cut_bonds`.

    Notes
    -----
    - A side chain with an atom within the distance is cut between CA and CB. Alanine and glycine are left out. So is
      proline, whose ring holds its N and CA; ``take`` takes a proline with the carbonyl group before it.
    - A residue that touches with its backbone only is left out and listed, with a note on possible hydrogen bonds.
    - The partner of a disulfide bridge comes in. An ion brings its first shell: side chains, waters, and carbonyl
      groups of the backbone, which are cut between CA and C and between N and CA.
    - Where two cuts would meet at one CA, it comes in too.
    - Waters are whole, and cofactors, unless ``cut`` names a bond of them. The charge of a part is that of a closed
      shell which is nearest to the sum of its charges in the force field. Sodium and chloride ions of the solvent are
      left out.
    """
    everything = _Surroundings(topology, system, positions)
    if isinstance(around, str):
        centre = set(select(topology, around, positions=everything.positions))
    else:
        centre = set(check_atoms("around", around, len(everything.atoms)))
    parts = cofactor_parts(topology, everything.bonds, everything.by_label, cut)
    taken, left = everything.labelled("take", take), everything.labelled("leave", leave)
    both = [_name(residue) for residue in left if residue in taken or residue in parts]
    if both:
        raise SelectionError(f"{listed(both)} is to be left out, and to be taken whole or in part (cut)")
    picker = _Picker(
        everything,
        _without_cut_off(centre, parts),
        check_quantity("within", within, unit.nanometer, above=0.0),
        taken,
        left,
        parts,
        check_whole_number("waters", waters, at_least=0, what="a number of waters"),
    )
    return picker.site(everything.labelled("backbone", backbone))


class _Surroundings:
    """Atoms, bonds and distances of the whole system."""

    def __init__(self, topology: app.Topology, system: openmm.System, positions: Vectors) -> None:
        self.atoms = list(topology.atoms())
        n_atoms = len(self.atoms)
        self.positions = check_array("positions", positions, (n_atoms, 3), unit.nanometer)
        self.charges = force_field_charges(system)
        if len(self.charges) != n_atoms:
            raise SelectionError(f"the Topology has {n_atoms} atoms and the System {len(self.charges)} particles")
        box = topology.getPeriodicBoxVectors()
        self.box = None if box is None else np.array(box.value_in_unit(unit.nanometer), dtype=float)
        self.residues = list(topology.residues())
        labels = [residue_label(residue) for residue in self.residues]
        self.by_label = {label: residue for label, residue in reversed(list(zip(labels, self.residues, strict=True)))}
        self.bonds: dict[int, set[int]] = {index: set() for index in range(n_atoms)}
        for first, second in topology.bonds():
            self.bonds[first.index].add(second.index)
            self.bonds[second.index].add(first.index)
        self.heavy = [a.index for a in self.atoms if a.element is not None and a.element.symbol != "H"]

    def labelled(self, setting: str, labels: Iterable[str]) -> list[app.topology.Residue]:
        """Return the residues of labels such as ``A:50``."""
        found = []
        for label in [labels] if isinstance(labels, str) else labels:
            if label not in self.by_label:
                raise SelectionError(
                    f"{setting} names {label!r}, and the Topology has no such residue; labels are CHAIN:NUMBER."
                    f"{nearest(str(label), list(self.by_label)[:5000])}"
                )
            found.append(self.by_label[label])
        return found

    def distances(self, index: int) -> FloatArray:
        """Return distances of all heavy atoms to the nearest images of an atom, nm."""
        apart = self.positions[self.heavy] - self.positions[index]
        if self.box is not None:
            for axis in (2, 1, 0):
                apart -= np.round(apart[:, axis] / self.box[axis, axis])[:, None] * self.box[axis]
        return np.asarray(np.linalg.norm(apart, axis=1))

    def near(self, centre: set[int], within: float) -> dict[app.topology.Residue, dict[int, float]]:
        """Return heavy atoms within a distance of the centre by residue, with their distances, nm."""
        found: dict[app.topology.Residue, dict[int, float]] = {}
        for index in sorted(set(self.heavy) & centre):
            distances = self.distances(index)
            for k in np.flatnonzero(distances <= within):
                other = self.heavy[k]
                if other not in centre:
                    atoms = found.setdefault(self.atoms[other].residue, {})
                    atoms[other] = min(float(distances[k]), atoms.get(other, np.inf))
        return found


class _Picker:
    """Collects the atoms of one site."""

    def __init__(
        self,
        everything: _Surroundings,
        centre: set[int],
        within: float,
        take: Sequence[app.topology.Residue],
        leave: Sequence[app.topology.Residue],
        parts: Mapping[app.topology.Residue, CofactorPart],
        waters: int,
    ) -> None:
        self.everything = everything
        self.atoms, self.bonds, self.charges = everything.atoms, everything.bonds, everything.charges
        self.centre, self.within, self.take, self.leave, self.waters = centre, within, take, leave, waters
        self.parts = parts
        self.region: set[int] = set()
        self.why: dict[app.topology.Residue, str] = {}
        self.left: list[LeftOut] = []
        self.notes: list[str] = []

    def site(self, backbone: Sequence[app.topology.Residue]) -> Site:
        """Return the site, with the carbonyl groups of some residues."""
        self._add_centre()
        near = self.everything.near(self.centre, self.within)
        for residue in sorted(near, key=lambda r: r.index):
            if residue not in self.why:
                self._consider(residue, near[residue])
        for residue in (*self.take, *self.parts):
            if residue not in self.why:
                self._take(residue, "taken as asked")
        for residue in backbone:
            self._add_carbonyl(residue, "carbonyl group taken as asked")
        self._add_waters(near)
        self._complete()
        return self._result()

    def _add_centre(self) -> None:
        for residue in {self.atoms[index].residue: None for index in sorted(self.centre)}:
            if is_amino_acid(residue.name):
                self._take(residue, "the centre")
            else:
                self._add_whole(residue, "the centre")

    def _consider(self, residue: app.topology.Residue, near: dict[int, float]) -> None:
        """Take a residue that is within the distance, or list it with the reason why not."""
        distance = 10.0 * min(near.values())
        label = _name(residue)
        if residue in self.leave:
            self.left.append(LeftOut(label, distance, "left out as asked"))
        elif residue in self.take:
            self._take(residue, "taken as asked")
        elif residue.name in WATERS:
            return
        elif residue.name in SALT_IONS:
            self.left.append(LeftOut(label, distance, "an ion of the solvent; --take takes it"))
        elif not is_amino_acid(residue.name):
            self._add_whole(residue, f"{distance:.1f} A")
        elif not any(self.atoms[index].name not in BACKBONE for index in near):
            polar = {index: d for index, d in near.items() if self.atoms[index].name in ("N", "O")}
            bond = polar and min(polar.values()) < HYDROGEN_BOND
            why = "touches with its backbone only" + (": a hydrogen bond? --backbone takes its C=O" if bond else "")
            self.left.append(LeftOut(label, distance, why))
        elif residue.name in ("PRO", "HYP"):
            self.left.append(
                LeftOut(label, distance, "its ring holds N and CA; --take takes it with the C=O before it")
            )
        elif residue.name == "ALA":
            self.left.append(LeftOut(label, distance, "its side chain is a methyl group; --take takes it"))
        else:
            self._take(residue, f"{distance:.1f} A")

    def _take(self, residue: app.topology.Residue, why: str) -> None:
        """Take a side chain, or what stands for it, or a whole residue."""
        if not is_amino_acid(residue.name):
            self._add_whole(residue, why)
            return
        if residue.name == "GLY":
            raise SelectionError(
                f"{_name(residue)} has no side chain; take its carbonyl group: backbone=[{residue_label(residue)!r}], "
                f"on the command line --backbone {residue_label(residue)}"
            )
        self.why.setdefault(residue, why)
        if residue.name in ("PRO", "HYP"):
            self._add_proline(residue, why)
            return
        self.region |= {atom.index for atom in residue.atoms() if atom.name not in BACKBONE}
        for atom in residue.atoms():
            if atom.name != "SG":
                continue
            for other in self.bonds[atom.index]:
                partner = self.atoms[other].residue
                if partner is not residue and partner not in self.why:
                    self._take(partner, f"disulfide bridge to {_name(residue)}")

    def _add_proline(self, residue: app.topology.Residue, why: str) -> None:
        """Take the ring of a proline, and the carbonyl group whose amide its N is."""
        self.region |= {atom.index for atom in residue.atoms() if atom.name not in ("C", "O", "OXT")}
        named = {atom.name: atom.index for atom in residue.atoms()}
        for other in self.bonds[named["N"]]:
            before = self.atoms[other].residue
            if before is not residue:
                self.region |= {atom.index for atom in before.atoms() if atom.name in ("C", "O")}
                self.why.setdefault(before, f"its C=O is bonded to {_name(residue)}")

    def _add_whole(self, residue: app.topology.Residue, why: str) -> None:
        self.why.setdefault(residue, why)
        if residue in self.parts:
            self.region |= self.parts[residue].atoms
            return
        self.region |= {atom.index for atom in residue.atoms()}
        atoms = [atom for atom in residue.atoms() if atom.element is not None]
        if (len(atoms) == 1 and residue.name in METAL_IONS) or (len(atoms) == 1 and residue.name not in SALT_IONS):
            self._add_shell(residue, atoms[0].index)

    def _add_shell(self, ion: app.topology.Residue, index: int) -> None:
        """Take what binds an ion."""
        distances = self.everything.distances(index)
        for k in np.argsort(distances, kind="stable"):
            other = self.atoms[self.everything.heavy[k]]
            if distances[k] > SHELL:
                break
            residue, why = other.residue, f"binds {_name(ion)} ({10.0 * distances[k]:.1f} A)"
            if residue is ion or other.element.symbol not in _LIGAND_ELEMENTS or residue in self.leave:
                continue
            if not is_amino_acid(residue.name):
                if residue not in self.why:
                    self._add_whole(residue, why)
            elif other.name == "O":
                self._add_carbonyl(residue, why)
            elif other.name in BACKBONE:
                self.notes.append(f"{_name(residue)} {other.name} of the backbone binds {_name(ion)} and is left in MM")
            else:
                self._take(residue, why)

    def _add_carbonyl(self, residue: app.topology.Residue, why: str) -> None:
        """Take C=O of a residue and N-H of the next one: a peptide group, cut at CA-C and N-CA."""
        named = {atom.name: atom.index for atom in residue.atoms()}
        if not {"C", "O"} <= set(named):
            raise SelectionError(f"{_name(residue)} has no carbonyl group of a backbone")
        self.why.setdefault(residue, why)
        self.region |= {named[name] for name in ("C", "O", "OXT") if name in named}
        for other in self.bonds[named["C"]]:
            following = self.atoms[other].residue
            if following is residue:
                continue
            self.why.setdefault(following, f"its N-H is bonded to C=O of {_name(residue)}")
            if following.name in ("PRO", "HYP"):
                self.region |= {a.index for a in following.atoms() if a.name not in ("C", "O", "OXT")}
            else:
                self.region |= {a.index for a in following.atoms() if a.name in ("N", "H", "HN")}

    def _add_waters(self, near: dict[app.topology.Residue, dict[int, float]]) -> None:
        found = sorted(
            (min(atoms.values()), residue.index)
            for residue, atoms in near.items()
            if residue.name in WATERS and residue not in self.why and residue not in self.leave
        )
        for distance, index in found[: self.waters]:
            self._add_whole(self.everything.residues[index], f"water, {10.0 * distance:.1f} A")
        if len(found) > self.waters:
            self.notes.append(
                f"{len(found) - self.waters} waters are within the distance and left in MM; they exchange places "
                "(--waters)"
            )

    def _complete(self) -> None:
        """Take CA where two of its bonds would be cut: their link hydrogens would touch."""
        changed = True
        while changed:
            changed = False
            for atom in self.atoms:
                if atom.name != "CA" or atom.index in self.region or atom.element is None or atom.element.symbol != "C":
                    continue
                if len(self.bonds[atom.index] & self.region) > 1:
                    hydrogens = {k for k in self.bonds[atom.index] if self.atoms[k].element.symbol == "H"}
                    self.region |= {atom.index} | hydrogens
                    changed = True

    def _result(self) -> Site:
        atoms = tuple(sorted(self.region))
        cuts = tuple(
            (index, other) for index in atoms for other in sorted(self.bonds[index]) if other not in self.region
        )
        residues, total = [], 0
        for residue in sorted({self.atoms[index].residue for index in atoms}, key=lambda r: r.index):
            part, charge = self._part(residue)
            total += charge
            residues.append(SiteResidue(_name(residue), part, charge, self.why.get(residue, "")))
        electrons = sum(
            self.atoms[index].element.atomic_number for index in atoms if self.atoms[index].element is not None
        )
        electrons += len(cuts) - total
        symbols = {self.atoms[index].element.symbol for index in atoms if self.atoms[index].element is not None}
        multiplicity: int | None = 1
        if symbols & OPEN_SHELL:
            multiplicity = None
            self.notes.append(f"{listed(sorted(symbols & OPEN_SHELL))} may be open-shell: give the multiplicity")
        elif electrons % 2:
            multiplicity = None
            self.notes.append(
                f"{electrons} electrons with charge {signed(total)} are no singlet: a state or a charge is not right"
            )
        sum_of_charges = float(self.charges[list(atoms)].sum())
        left, notes = tuple(self.left), tuple(self.notes)
        return Site(atoms, total, multiplicity, electrons, sum_of_charges, cuts, tuple(residues), left, notes)

    def _part(self, residue: app.topology.Residue) -> tuple[str, int]:
        """Return which part of a residue is inside and the formal charge of that part."""
        inside = {atom.name for atom in residue.atoms() if atom.index in self.region}
        everything = {atom.name for atom in residue.atoms()}
        total = float(self.charges[[atom.index for atom in residue.atoms()]].sum())
        if abs(total - round(total)) > INTEGER:
            self.notes.append(f"the force field gives {_name(residue)} the charge {total:+.3f}, which is no integer")
        if residue in self.parts:
            part = self.parts[residue]
            return f"part, cut at {part.shown}", part.charge(residue, self.charges, round(total))
        if not is_amino_acid(residue.name):
            return "whole", round(total)
        start = 1 if {"H2", "H3"} <= everything else 0
        end = -1 if "OXT" in everything else 0
        side, back = inside - BACKBONE, inside & BACKBONE
        charge = 0
        if side:
            charge += round(total) - start - end
        if "N" in inside:
            charge += start
        if "C" in inside:
            charge += end
        if inside == everything:
            return "whole", charge
        return ("side chain and backbone" if side and back else "side chain" if side else "backbone"), charge


def _without_cut_off(centre: set[int], parts: Mapping[app.topology.Residue, CofactorPart]) -> set[int]:
    """Return the centre without atoms that are beyond a cut."""
    for residue, part in parts.items():
        centre = centre - {atom.index for atom in residue.atoms() if atom.index not in part.atoms}
        if not centre:
            raise SelectionError(
                f"the centre is the part of {_name(residue)} that the cut {part.shown} leaves out; the first atom of a "
                "cut is on the side that is taken"
            )
    return centre


def _name(residue: app.topology.Residue) -> str:
    return f"{residue.name} {residue_label(residue)}"
