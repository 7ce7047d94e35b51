"""What a structure file and ligands hold: what is refused, what the user should decide, what is done."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from openmm import app, unit
from scipy.spatial import cKDTree

from qmmlmm.errors import PreparationError, listed, signed
from qmmlmm.preparation.classification import Groups, classify
from qmmlmm.preparation.findings import Findings, Report
from qmmlmm.preparation.ligand import Ligand
from qmmlmm.preparation.ligand_xml import ligand_topology
from qmmlmm.preparation.protein_chains import check_backbone, check_gaps, segments_of, states_in_file
from qmmlmm.preparation.protonation import PkaValue, bridged_cysteines, choose_states, pka_values, residue_label
from qmmlmm.preparation.repair import RepairedProtein, named, repair
from qmmlmm.preparation.residue_names import LIGAND_ELEMENTS, METAL_IONS, STATE_NAMES, UNSUPPORTED_ELEMENTS
from qmmlmm.preparation.settings import PreparationSettings
from qmmlmm.preparation.structure_file import (
    LinkRecord,
    ResidueRecord,
    StructureFile,
    choose_alternates,
    read_structure,
)
from qmmlmm.setting_checks import check_instance
from qmmlmm.units import FloatArray

COVALENT = 2.0
"""Angstrom; heavy atoms of ligand and protein that are closer are bonded."""
CLASH = 1.5
"""Angstrom; heavy atoms that are closer overlap."""
FAR = 5.0
"""Angstrom; a ligand whose nearest heavy atom is farther from the protein is in another frame."""
WATER_CLASH = 2.2
"""Angstrom; a crystal water whose oxygen is nearer to a ligand's heavy atom stands in its place."""
METAL_BOND = 2.7
"""Angstrom; longest bond of a metal ion to N or S of a side chain."""
COINCIDENT = 0.5
"""Angstrom; no two atoms are nearer."""


@dataclass(frozen=True)
class Model:
    """Atoms before hydrogens are added: protein, ligands, ions, crystal waters.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : (n_atoms, 3) float array, nm
    places : mapping of str to str
        Where the file has each ligand, ion and water, by its label in the Topology.
    built : frozenset of (str, str)
        Label of the residue and name of each atom of the protein that the file lacks.
    """

    topology: app.Topology
    positions: FloatArray
    places: Mapping[str, str]
    built: frozenset[tuple[str, str]]


@dataclass
class Examination:
    """Everything that an inspection reads and decides.

    Parameters
    ----------
    settings : PreparationSettings
    findings : Findings
    structure : StructureFile or None
        None if the file could not be read.
    ligands : list of Ligand
    groups : Groups or None
    protein : RepairedProtein or None
        None if something was refused before.
    model : Model or None
    pka : tuple of PkaValue
    states : mapping of str to str
        State of each titratable residue; histidines whose hydrogen bonds decide are left out.
    alternates : list of (str, str, float)
        Residue, letter and occupancy that were chosen.
    """

    settings: PreparationSettings
    findings: Findings
    structure: StructureFile | None = None
    ligands: list[Ligand] = field(default_factory=list)
    groups: Groups | None = None
    protein: RepairedProtein | None = None
    model: Model | None = None
    pka: tuple[PkaValue, ...] = ()
    states: Mapping[str, str] = field(default_factory=dict)
    alternates: list[tuple[str, str, float]] = field(default_factory=list)

    @property
    def report(self) -> Report:
        """All findings."""
        return self.findings.report()


def inspect(
    structure: str | Path,
    ligands: Iterable[Ligand] = (),
    settings: PreparationSettings | None = None,
    *,
    smiles: Mapping[str, str] | None = None,
    ligand_xml: Sequence[str | Path] = (),
) -> Report:
    """Return what a preparation would refuse, leave to decide, and do. Nothing is written.

    Parameters
    ----------
    structure : path
        PDB or mmCIF file.
    ligands : iterable of Ligand
    settings : PreparationSettings, optional
    smiles : mapping of str to str, optional
        SMILES of groups that stand in the structure, by the names of their residues, such as ``{"TES": "..."}``.
    ligand_xml : sequence of path, optional
        Force field XMLs of your own, for ligands or groups with the names of their residues.

    Returns
    -------
    Report
    """
    return examine(structure, ligands, settings, smiles or {}, ligand_xml).report


def examine(
    structure: str | Path,
    ligands: Iterable[Ligand],
    settings: PreparationSettings | None,
    smiles: Mapping[str, str],
    ligand_xml: Sequence[str | Path],
) -> Examination:
    """Return what `inspect` reads and decides, for the preparation to go on with."""
    settings = PreparationSettings() if settings is None else check_instance("settings", settings, PreparationSettings)
    given = [check_instance("a ligand", ligand, Ligand) for ligand in ligands]
    found = Examination(settings, Findings())
    try:
        found.structure = read_structure(structure, settings.model)
        _examine_atoms(found, given, smiles, ligand_xml)
        if not found.findings.stop:
            _examine_protein(found)
    except PreparationError as error:
        found.findings.refuse("structure", str(error))
    return found


def _examine_atoms(
    found: Examination, ligands: Sequence[Ligand], smiles: Mapping[str, str], ligand_xml: Sequence[str | Path]
) -> None:
    """Sort the residues of the file and check distances; nothing is changed yet."""
    structure, findings, settings = found.structure, found.findings, found.settings
    assert structure is not None
    residues = list(structure.residues)
    if len(structure.models) > 1:
        findings.done("model", f"model {settings.model} of {len(structure.models)}")
    if settings.chains:
        chains = sorted({residue.key.chain for residue in residues})
        absent = sorted(set(settings.chains) - set(chains))
        if absent:
            findings.refuse("chains", f"the structure has no chain {listed(absent)}; it has {listed(chains, 20)}")
        residues = [residue for residue in residues if residue.key.chain in settings.chains]
        findings.done("chains", f"{listed(settings.chains, 20)} of {listed(chains, 20)}")
    _check_names(residues, findings)
    residues, found.alternates = choose_alternates(residues)
    if found.alternates:
        texts = [f"{label} {letter} ({occupancy:.2f})" for label, letter, occupancy in found.alternates]
        findings.done("alternates", f"location with the largest occupancy taken: {listed(texts, 20)}")
    groups = classify(residues, ligands, settings, smiles, ligand_xml, findings)
    found.groups, found.ligands = groups, groups.ligands
    if not groups.protein:
        if not findings.stop:
            findings.refuse("protein", "the structure has no protein; a System of a ligand in water needs none of this")
        return
    check_backbone(groups.protein, findings)
    segments = segments_of(groups.protein, findings)
    groups.segments = segments
    check_gaps(segments, structure.sequences, settings.missing, findings)
    _check_links(structure.links, groups, findings)
    _check_distances(groups, findings)
    _check_ligands(groups, settings, findings)


def _check_names(residues: Sequence[ResidueRecord], findings: Findings) -> None:
    seen: dict[object, str] = {}
    for residue in residues:
        names = {atom.residue_name for atom in residue.atoms}
        if len(names) > 1:
            findings.refuse(
                "microheterogeneity",
                f"{residue.key.label} is {' and '.join(sorted(names))} at once; delete the alternate that you do not "
                "mean",
            )
        atoms = [(atom.name, atom.alternate) for atom in residue.atoms]
        twice = sorted({name for name, _ in atoms if atoms.count((name, _)) > 1})
        if twice and residue.name not in ("HOH", "WAT"):
            findings.refuse("atoms", f"{residue.label} has atoms twice: {listed(twice)}")
        if residue.key in seen and "HOH" not in (residue.name, seen[residue.key]):
            findings.refuse(
                "numbers",
                f"{residue.key.label} is the number of {seen[residue.key]} and of {residue.name} in two places; give "
                "chains different letters, or renumber",
            )
        seen[residue.key] = residue.name


def _check_links(links: Iterable[LinkRecord], groups: Groups, findings: Findings) -> None:
    """Refuse covalent bonds that are neither peptide bonds nor disulfide bridges."""
    by_key = {residue.key: residue for residue in groups.all_residues}
    for link in links:
        ends = [(by_key.get(key), name) for key, name in (link.first, link.second)]
        if any(residue is None for residue, _ in ends):
            continue
        (first, first_atom), (second, second_atom) = ends
        assert first is not None
        assert second is not None
        names = {first.name, second.name}
        if names & set(METAL_IONS) or names & groups.metal_names or {first_atom, second_atom} == {"C", "N"}:
            continue
        if {first_atom, second_atom} == {"SG"}:
            continue
        protein = {residue.key for residue in groups.protein}
        if first.key in protein and second.key in protein:
            findings.refuse(
                "link",
                f"{first.label} {first_atom} is bonded to {second.label} {second_atom}, which is neither a peptide "
                "bond nor a disulfide bridge; no force field here has parameters for it",
            )
        elif first.key in protein or second.key in protein:
            ligand = second if first.key in protein else first
            findings.refuse(
                "covalent ligand",
                f"{ligand.label} is bonded to the protein ({first.label} {first_atom} - {second.label} {second_atom}); "
                "covalent ligands and glycans are not prepared",
            )


def _check_distances(groups: Groups, findings: Findings) -> None:
    atoms = [(residue.label, atom) for residue in groups.protein for atom in residue.heavy]
    positions = np.array([atom.position for _, atom in atoms])
    pairs = sorted(cKDTree(positions).query_pairs(COINCIDENT))
    if pairs:
        texts = [f"{atoms[a][0]} {atoms[a][1].name} and {atoms[b][0]} {atoms[b][1].name}" for a, b in pairs]
        findings.refuse("atoms", f"atoms stand at the same place: {listed(texts)}; the file is damaged")


def _check_ligands(groups: Groups, settings: PreparationSettings, findings: Findings) -> None:
    names = [(residue.label, atom.name) for residue in groups.protein for atom in residue.heavy]
    tree = cKDTree(np.array([atom.position for residue in groups.protein for atom in residue.heavy]))
    heavy = [ligand.positions[[e != "H" for e in ligand.elements]] for ligand in groups.ligands]
    for ligand, positions in zip(groups.ligands, heavy, strict=True):
        unknown = sorted(set(ligand.elements) - LIGAND_ELEMENTS)
        if unknown and not ligand.parameters:
            findings.refuse(
                "ligand",
                f"{ligand.name} has {listed(unknown)}, for which neither Sage nor GAFF2 has parameters; bring a force "
                "field XML of your own (--ligand-xml)",
            )
        distances, nearest = tree.query(positions)
        closest = int(np.argmin(distances))
        distance, (label, atom) = float(distances[closest]), names[int(nearest[closest])]
        element = [e for e in ligand.elements if e != "H"][closest]
        metal = element not in LIGAND_ELEMENTS | UNSUPPORTED_ELEMENTS
        if distance < CLASH:
            findings.refuse(
                "ligand",
                f"{ligand.name} overlaps with the protein: {distance:.2f} angstrom to {label} {atom}; dock it again",
            )
        elif distance < COVALENT and not metal:
            findings.refuse(
                "covalent ligand",
                f"{ligand.name} is bonded to {label} {atom} ({distance:.2f} angstrom); covalent ligands are not "
                "prepared",
            )
        elif distance > FAR:
            findings.refuse(
                "ligand",
                f"{ligand.name} is {distance:.1f} angstrom away from the protein: its coordinates are not in the "
                "frame of the structure; superpose it, or dock it",
            )
        else:
            findings.done("ligand", f"{ligand.name}: charge {signed(ligand.charge)}, {ligand.smiles} ({ligand.source})")
    for (a, first), (b, second) in itertools.combinations(enumerate(groups.ligands), 2):
        distance = float(cKDTree(heavy[a]).query(heavy[b])[0].min())
        if distance < CLASH:
            findings.refuse("ligand", f"{first.name} and {second.name} overlap: {distance:.2f} angstrom")
    if settings.ligand_force_field == "gaff2" and any(len(ligand.elements) > 60 for ligand in groups.ligands):
        findings.done("ligand", "AM1-BCC charges of more than 60 atoms take many minutes")


def _examine_protein(found: Examination) -> None:
    """Complete the protein and choose the states of its residues."""
    groups, findings, settings, structure = found.groups, found.findings, found.settings, found.structure
    assert groups is not None
    assert structure is not None
    protein = repair(groups.segments, structure.sequences, settings.missing, settings.seed)
    found.protein = protein
    if protein.added:
        findings.done("missing atoms", f"added: {named(protein.added)}")
    if protein.built:
        findings.decide("missing residues", f"built: {named(protein.built)}; loops by PDBFixer are guesses")
    if protein.ends:
        findings.decide(
            "chain ends",
            f"the sequence goes on where the structure ends, and charged ends stand there now: {named(protein.ends)}",
        )
    bridges = bridged_cysteines(protein.topology)
    if bridges:
        findings.done("disulfides", f"{len(bridges) // 2}: {listed(sorted(bridges), 20)}")
    _drop_waters(groups, protein, findings)
    found.model = assemble(protein, found.ligands, groups.ions, ())
    found.pka = pka_values(found.model.topology, found.model.positions)
    read = states_in_file(groups.protein) if settings.hydrogens == "keep" else {}
    found.states = choose_states(
        protein.topology,
        found.pka,
        ph=settings.ph,
        given=settings.states,
        read=read,
        metal=_metal_states(groups),
        findings=findings,
    )
    found.model = assemble(protein, found.ligands, groups.ions, groups.waters)


def _drop_waters(groups: Groups, completed: RepairedProtein, findings: Findings) -> None:
    """Leave out crystal waters that stand where a ligand or the completed protein is."""
    if not groups.waters:
        return
    others = [ligand.positions[[e != "H" for e in ligand.elements]] for ligand in groups.ligands]
    new = [a.index for a in completed.topology.atoms() if (residue_label(a.residue), a.name) in completed.new_atoms]
    others += [10.0 * completed.positions[new]] if new else []
    protein = cKDTree(np.array([atom.position for residue in groups.protein for atom in residue.heavy]))
    kept = []
    for water in groups.waters:
        oxygen = np.array(water.heavy[0].position)
        in_the_way = any(np.linalg.norm(points - oxygen, axis=1).min() < WATER_CLASH for points in others)
        if not in_the_way and protein.query(oxygen)[0] > CLASH:
            kept.append(water)
    if len(kept) < len(groups.waters):
        findings.done(
            "water", f"{len(groups.waters) - len(kept)} crystal waters stand where a ligand or the protein is"
        )
    findings.done("water", f"{len(kept)} crystal waters are kept")
    groups.waters = kept


def _metal_states(groups: Groups) -> dict[str, str]:
    """Return the states of cysteines and histidines that bind a metal ion."""
    metals = [np.array(ion.atoms[0].position) for ion in groups.ions if ion.name in METAL_IONS]
    nearest: dict[str, tuple[float, str]] = {}
    for residue in groups.protein:
        for name, state in (("SG", "CYM"), ("ND1", "HIE"), ("NE2", "HID")):
            place = residue.position(name)
            if place is None or not metals or STATE_NAMES.get(residue.name, residue.name) not in ("CYS", "HIS"):
                continue
            found = (min(float(np.linalg.norm(place - metal)) for metal in metals), state)
            nearest[residue.key.label] = min(found, nearest.get(residue.key.label, found))
    return {label: state for label, (distance, state) in nearest.items() if distance < METAL_BOND}


def assemble(
    protein: RepairedProtein, ligands: Sequence[Ligand], ions: Sequence[ResidueRecord], waters: Sequence[ResidueRecord]
) -> Model:
    """Return protein, ligands, ions and waters as one model; each ligand has a chain of its own."""
    modeller = app.Modeller(protein.topology, protein.positions * unit.nanometer)
    used = {chain.id for chain in protein.topology.chains()}
    letters = (letter for letter in "LMNOPQRSTUVXYZABCDEFGHIJK" if letter not in used)
    topology, positions = app.Topology(), []
    places: dict[str, str] = {}
    for number, ligand in enumerate(ligands, start=1):
        chain = topology.addChain(next(letters, f"L{number}"))
        residue = topology.addResidue(ligand.name, chain, str(number))
        atoms = [topology.addAtom(a.name, a.element, residue) for a in ligand_topology(ligand).atoms()]
        for first, second in ligand.bonds:
            topology.addBond(atoms[first], atoms[second])
        positions += [ligand.positions / 10.0]
        places[f"{chain.id}:{number}"] = ligand.residue or ligand.source
    for letter, records, name in (("I", ions, ""), ("W", waters, "HOH")):
        if not records:
            continue
        chain = topology.addChain(letter if letter not in used else next(letters, f"{letter}1"))
        for number, record in enumerate(records, start=1):
            atom = record.heavy[0]
            residue = topology.addResidue(name or record.name, chain, str(number))
            topology.addAtom("O" if name else record.name, app.Element.getBySymbol(atom.element), residue)
            positions.append(np.array([atom.position]) / 10.0)
            places[f"{chain.id}:{number}"] = record.key.label
    if positions:
        modeller.add(topology, np.concatenate(positions) * unit.nanometer)
    bare = np.array(modeller.positions.value_in_unit(unit.nanometer), dtype=float)
    return Model(modeller.topology, bare, places, protein.new_atoms)
