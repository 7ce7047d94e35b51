"""A ligand's System, from any source, as a force field XML that plain OpenMM reads."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

import openmm
from openmm import app, unit

from qmmlmm.errors import PreparationError, UnsupportedSystemError
from qmmlmm.preparation.ligand import Ligand

COULOMB_14, LENNARD_JONES_14 = "0.8333333333333334", "0.5"
"""Scales of the interactions between atoms three bonds apart, written as in OpenMM's Amber files."""

_SUPPORTED = ("NonbondedForce", "HarmonicBondForce", "HarmonicAngleForce", "PeriodicTorsionForce", "CMMotionRemover")


def ligand_topology(ligand: Ligand) -> app.Topology:
    """Return a Topology of one residue."""
    topology = app.Topology()
    residue = topology.addResidue(ligand.name, topology.addChain("L"), "1")
    atoms = [
        topology.addAtom(name, app.Element.getBySymbol(element), residue)
        for name, element in zip(ligand.atom_names, ligand.elements, strict=True)
    ]
    for first, second in ligand.bonds:
        topology.addBond(atoms[first], atoms[second])
    return topology


def system_as_xml(ligand: Ligand, system: openmm.System) -> str:
    """Return a force field XML with one residue and its own atom types.

    Parameters
    ----------
    ligand : Ligand
    system : openmm.System
        System of the ligand alone, without constraints and virtual sites, its atoms in the order of the ligand.

    Raises
    ------
    UnsupportedSystemError
        If it has Forces other than harmonic bonds, harmonic angles, periodic torsions and a NonbondedForce.

    Notes
    -----
    Every atom has its own type, so that each parameter belongs to one set of atoms. Impropers of Amber have the central
    atom third, those of OpenFF first, in three cyclic permutations; both orders are in the XML.
    """
    if system.getNumParticles() != len(ligand.elements) or system.getNumConstraints():
        raise UnsupportedSystemError("the System of a ligand has its atoms, no virtual sites and no constraints")
    forces = {type(force).__name__: force for force in system.getForces()}
    unknown = sorted(set(forces) - set(_SUPPORTED))
    if unknown:
        raise UnsupportedSystemError(f"a force field XML of a ligand is not written for {', '.join(unknown)}")
    types = [f"{ligand.name}-{name}" for name in ligand.atom_names]
    root = ElementTree.Element("ForceField")
    table = ElementTree.SubElement(root, "AtomTypes")
    for index, (kind, element) in enumerate(zip(types, ligand.elements, strict=True)):
        mass = system.getParticleMass(index).value_in_unit(unit.dalton)
        ElementTree.SubElement(
            table, "Type", {"name": kind, "class": kind, "element": element, "mass": repr(float(mass))}
        )
    _add_residue(root, ligand, types, forces["NonbondedForce"])
    _add_bonds(root, types, forces["HarmonicBondForce"])
    _add_angles(root, types, forces.get("HarmonicAngleForce"))
    _add_torsions(root, ligand, types, forces.get("PeriodicTorsionForce"))
    _add_nonbonded(root, types, forces["NonbondedForce"])
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _add_residue(root: ElementTree.Element, ligand: Ligand, types: Sequence[str], force: openmm.NonbondedForce) -> None:
    residue = ElementTree.SubElement(ElementTree.SubElement(root, "Residues"), "Residue", name=ligand.name)
    for index, (name, kind) in enumerate(zip(ligand.atom_names, types, strict=True)):
        charge = force.getParticleParameters(index)[0].value_in_unit(unit.elementary_charge)
        ElementTree.SubElement(residue, "Atom", name=name, type=kind, charge=repr(float(charge)))
    for first, second in ligand.bonds:
        ElementTree.SubElement(residue, "Bond", atomName1=ligand.atom_names[first], atomName2=ligand.atom_names[second])


def _add_bonds(root: ElementTree.Element, types: Sequence[str], force: openmm.HarmonicBondForce) -> None:
    table = ElementTree.SubElement(root, "HarmonicBondForce")
    for index in range(force.getNumBonds()):
        first, second, length, constant = force.getBondParameters(index)
        ElementTree.SubElement(
            table,
            "Bond",
            class1=types[first],
            class2=types[second],
            length=repr(float(length.value_in_unit(unit.nanometer))),
            k=repr(float(constant.value_in_unit(unit.kilojoule_per_mole / unit.nanometer**2))),
        )


def _add_angles(root: ElementTree.Element, types: Sequence[str], force: openmm.HarmonicAngleForce | None) -> None:
    if force is None or not force.getNumAngles():
        return
    table = ElementTree.SubElement(root, "HarmonicAngleForce")
    for index in range(force.getNumAngles()):
        *atoms, angle, constant = force.getAngleParameters(index)
        attributes = {f"class{k}": types[atom] for k, atom in enumerate(atoms, start=1)}
        attributes["angle"] = repr(float(angle.value_in_unit(unit.radian)))
        attributes["k"] = repr(float(constant.value_in_unit(unit.kilojoule_per_mole / unit.radian**2)))
        ElementTree.SubElement(table, "Angle", attributes)


def _add_torsions(
    root: ElementTree.Element, ligand: Ligand, types: Sequence[str], force: openmm.PeriodicTorsionForce | None
) -> None:
    if force is None or not force.getNumTorsions():
        return
    bonded = {frozenset(bond) for bond in ligand.bonds}
    found: dict[tuple[int, ...], list[tuple[int, float, float]]] = {}
    for index in range(force.getNumTorsions()):
        *atoms, periodicity, phase, constant = force.getTorsionParameters(index)
        term = (
            int(periodicity),
            float(phase.value_in_unit(unit.radian)),
            float(constant.value_in_unit(unit.kilojoule_per_mole)),
        )
        found.setdefault(tuple(int(atom) for atom in atoms), []).append(term)
    amber: list[tuple[str, dict[str, str]]] = []
    trefoils: dict[frozenset[int], list[tuple[int, ...]]] = {}
    for atoms, terms in found.items():
        if all(frozenset(pair) in bonded for pair in itertools.pairwise(atoms)):
            amber.append(("Proper", _torsion(types, atoms, terms)))
            continue
        central = _central(ligand, atoms, bonded)
        place = atoms.index(central)
        if place == 0:
            trefoils.setdefault(frozenset(atoms), []).append(atoms)
            continue
        ordered = atoms if place == 2 else atoms[::-1]
        if ordered[2] != central:
            raise UnsupportedSystemError(f"an improper of {ligand.name} has its central atom last: atoms {atoms}")
        amber.append(("Improper", _torsion(types, (central, ordered[0], ordered[1], ordered[3]), terms)))
    table = ElementTree.SubElement(root, "PeriodicTorsionForce", ordering="amber")
    for kind, attributes in amber:
        ElementTree.SubElement(table, kind, attributes)
    if trefoils:
        table = ElementTree.SubElement(root, "PeriodicTorsionForce", ordering="smirnoff")
        for permutations in trefoils.values():
            first = permutations[0]
            centre, a, b, c = first
            if sorted(permutations) != sorted([first, (centre, b, c, a), (centre, c, a, b)]) or any(
                found[p] != found[first] for p in permutations
            ):
                raise UnsupportedSystemError(f"an improper of {ligand.name} is none of OpenFF's: atoms {permutations}")
            ElementTree.SubElement(table, "Improper", _torsion(types, first, found[first]))


def _central(ligand: Ligand, atoms: Sequence[int], bonded: set[frozenset[int]]) -> int:
    central = [a for a in atoms if all(frozenset((a, other)) in bonded for other in atoms if other != a)]
    if len(central) != 1:
        raise UnsupportedSystemError(f"a torsion of {ligand.name} is neither proper nor improper: atoms {tuple(atoms)}")
    return central[0]


def _torsion(types: Sequence[str], atoms: Sequence[int], terms: Sequence[tuple[int, float, float]]) -> dict[str, str]:
    attributes = {f"class{k}": types[atom] for k, atom in enumerate(atoms, start=1)}
    for k, (periodicity, phase, constant) in enumerate(terms, start=1):
        attributes |= {f"periodicity{k}": str(periodicity), f"phase{k}": repr(phase), f"k{k}": repr(constant)}
    return attributes


def _add_nonbonded(root: ElementTree.Element, types: Sequence[str], force: openmm.NonbondedForce) -> None:
    table = ElementTree.SubElement(root, "NonbondedForce", coulomb14scale=COULOMB_14, lj14scale=LENNARD_JONES_14)
    ElementTree.SubElement(table, "UseAttributeFromResidue", name="charge")
    for index, kind in enumerate(types):
        _, sigma, epsilon = force.getParticleParameters(index)
        ElementTree.SubElement(
            table,
            "Atom",
            type=kind,
            sigma=repr(float(sigma.value_in_unit(unit.nanometer))),
            epsilon=repr(float(epsilon.value_in_unit(unit.kilojoule_per_mole))),
        )


def templates_in(xml: str, where: str) -> dict[str, tuple[tuple[str, ...], tuple[tuple[int, int], ...], float]]:
    """Return the residues of a force field XML: names of their atoms, bonds, and charge, e.

    Raises
    ------
    PreparationError
        If it is no valid force field XML.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise PreparationError(f"{where} is no valid XML: {error}") from None
    found = {}
    charges = {
        atom.get("type"): float(atom.get("charge", "nan")) for atom in root.iterfind("./NonbondedForce/Atom[@charge]")
    }
    for residue in root.iterfind("./Residues/Residue"):
        atoms = residue.findall("Atom")
        names = tuple(atom.get("name", "") for atom in atoms)
        try:
            pairs = tuple(_template_bond(bond, names) for bond in residue.findall("Bond"))
            charge = sum(float(a.get("charge", charges.get(a.get("type"), "nan"))) for a in atoms)
        except (ValueError, IndexError) as error:
            raise PreparationError(f"{where}: the residue {residue.get('name')} is not valid: {error}") from None
        found[residue.get("name", "")] = (names, pairs, charge)
    if not found:
        raise PreparationError(f"{where} has no residue: an OpenMM force field XML with <Residues> is needed")
    return found


def _template_bond(bond: ElementTree.Element, names: Sequence[str]) -> tuple[int, int]:
    if bond.get("atomName1") is not None:
        return names.index(bond.get("atomName1", "")), names.index(bond.get("atomName2", ""))
    return int(bond.get("from", "")), int(bond.get("to", ""))
