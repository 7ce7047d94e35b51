"""What each residue of a structure is: protein, ligand, ion, water, or a group that is left out or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from qmmlmm.errors import PreparationError, listed, signed
from qmmlmm.preparation import residue_names as names
from qmmlmm.preparation.findings import Findings
from qmmlmm.preparation.ligand import Ligand, pose_in_residue
from qmmlmm.preparation.ligand_xml import templates_in
from qmmlmm.preparation.repair import Segment, parent_residue
from qmmlmm.preparation.settings import PreparationSettings
from qmmlmm.preparation.structure_file import ResidueRecord
from qmmlmm.setting_checks import check_path

SAME_PLACE = 1.0
"""Angstrom; a group of the structure whose atoms are all this near to those of a ligand is the ligand."""

_INTEGER = 1e-3
"""Largest difference, e, between the charge of a force field's residue and an integer."""


@dataclass
class Groups:
    """Residues of a structure by what they are.

    Parameters
    ----------
    all_residues : sequence of ResidueRecord
    protein, ions, waters : list of ResidueRecord
    ligands : list of Ligand
    segments : list of tuple of ResidueRecord
        Protein residues that peptide bonds connect.
    metal_names : set of str
        Names of groups with a metal.
    """

    all_residues: Sequence[ResidueRecord]
    protein: list[ResidueRecord] = field(default_factory=list)
    ions: list[ResidueRecord] = field(default_factory=list)
    waters: list[ResidueRecord] = field(default_factory=list)
    ligands: list[Ligand] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    metal_names: set[str] = field(default_factory=set)


def classify(
    residues: Sequence[ResidueRecord],
    ligands: Sequence[Ligand],
    settings: PreparationSettings,
    smiles: Mapping[str, str],
    ligand_xml: Sequence[str | Path],
    findings: Findings,
) -> Groups:
    """Return the residues by what they are; refuse those of which nothing is known."""
    own = _own_force_fields(ligand_xml)
    groups = Groups(residues)
    groups.ligands = [_with_own(ligand, own) for ligand in ligands]
    present = {residue.name for residue in residues}
    for name in sorted(set(smiles) - present):
        findings.refuse("ligand", f"a SMILES was given for {name}, and the structure has no such residue")
    removed: dict[str, int] = {}
    for residue in residues:
        _classify_one(residue, groups, settings, smiles, own, removed, findings)
    if removed:
        texts = [f"{count} {name}" for name, count in sorted(removed.items())]
        findings.done("left out", f"{listed(texts, 30)}")
    for name in sorted(set(settings.remove) - present):
        findings.decide("left out", f"--remove names {name}, which the structure does not have")
    return groups


def _classify_one(
    residue: ResidueRecord,
    groups: Groups,
    settings: PreparationSettings,
    smiles: Mapping[str, str],
    own: Mapping[str, str],
    removed: dict[str, int],
    findings: Findings,
) -> None:
    name = residue.name
    keep = settings.keep
    if name in settings.remove:
        removed[name] = removed.get(name, 0) + 1
    elif _is_protein(residue):
        groups.protein.append(residue)
    elif any(ligand.residue == residue.key.label or _same_place(ligand, residue) for ligand in groups.ligands):
        findings.done("ligand", f"{residue.label} of the structure is the ligand that was given")
    elif name in smiles:
        _add(groups, findings, residue, lambda: _with_own(pose_in_residue(residue, smiles[name]), own))
    elif name in own and name not in names.AMINO_ACIDS:
        _add(groups, findings, residue, lambda: _ligand_of_xml(residue, own[name]))
    elif name in names.WATERS:
        if not residue.heavy:
            return
        if keep is None or keep_names(keep) & names.WATERS:
            groups.waters.append(residue)
        else:
            removed["waters"] = removed.get("waters", 0) + 1
    elif len(residue.heavy) == 1 and (name in names.METAL_IONS or name in names.SALT_IONS):
        _classify_ion(residue, groups, keep, removed, findings)
    elif name in names.ADDITIVES:
        removed[name] = removed.get(name, 0) + 1
    elif _is_modified(residue):
        _classify_modified(residue, groups, settings, findings)
    else:
        _refuse_unknown(residue, findings)


def keep_names(keep: Sequence[str]) -> frozenset[str]:
    """Return names to keep in upper case."""
    return frozenset(name.upper() for name in keep)


def _is_protein(residue: ResidueRecord) -> bool:
    return residue.name in names.AMINO_ACIDS or residue.name in names.STATE_NAMES or residue.name in names.CAPS


def _is_modified(residue: ResidueRecord) -> bool:
    return {"N", "CA", "C"} <= {atom.name for atom in residue.atoms}


def _add(groups: Groups, findings: Findings, residue: ResidueRecord, make: object) -> None:
    assert callable(make)
    try:
        groups.ligands.append(make())
    except PreparationError as error:
        findings.refuse("ligand", str(error))


def _classify_ion(
    residue: ResidueRecord,
    groups: Groups,
    keep: tuple[str, ...] | None,
    removed: dict[str, int],
    findings: Findings,
) -> None:
    metal = residue.name in names.METAL_IONS
    if metal if keep is None else residue.name in keep_names(keep):
        groups.ions.append(residue)
        kind = "a 12-6 ion without bonds" if metal else "an ion"
        findings.done("ions", f"{residue.label} is kept, {kind}")
    elif metal:
        removed[residue.name] = removed.get(residue.name, 0) + 1
        findings.decide("ions", f"{residue.label} is left out because --keep does not name it")
    else:
        removed[residue.name] = removed.get(residue.name, 0) + 1


def _classify_modified(
    residue: ResidueRecord, groups: Groups, settings: PreparationSettings, findings: Findings
) -> None:
    parent = parent_residue(residue.name)
    if parent is None or (residue.name in names.PHOSPHORYLATED and residue.name not in settings.replace):
        remedy = (
            f"make it {parent} (--replace {residue.name}), which takes its phosphate away"
            if parent
            else "replace it in the file by an amino acid"
        )
        findings.refuse(
            "modified residue", f"{residue.label}: the force fields have no parameters for this residue; {remedy}"
        )
        return
    lost = sorted({a.element for a in residue.heavy} - {"C", "N", "O", "S"})
    if residue.name == "MSE":
        findings.done("modified residue", f"{residue.label} becomes MET")
    else:
        what = f" and loses its {listed(lost)}" if lost else ""
        findings.decide("modified residue", f"{residue.label} becomes {parent}{what}")
    groups.protein.append(residue)


def _refuse_unknown(residue: ResidueRecord, findings: Findings) -> None:
    name, elements = residue.name, {atom.element for atom in residue.heavy}
    if name in names.AMBIGUOUS_IONS:
        findings.refuse(
            "ions",
            f"{residue.label}: iron has two charges, {names.AMBIGUOUS_IONS[name]}, and the file does not say which; "
            f"bring a force field XML with a residue {name} (--ligand-xml), or leave it out (--remove {name})",
        )
    elif name in names.HEMES or name in names.CLUSTERS:
        kind = "a heme or another porphyrin" if name in names.HEMES else "a metal cluster"
        findings.refuse(
            "heme or cluster",
            f"{residue.label} is {kind}, for which no general force field has parameters; bring a force field XML of "
            "your own (--ligand-xml)",
        )
    elif name in names.SUGARS:
        findings.refuse(
            "glycan",
            f"{residue.label} is a sugar. Glycans are not prepared: leave it out (--remove {name}), or, if it is a "
            f"free ligand, give its SMILES (--ligand {name}=SMILES)",
        )
    elif name in names.NUCLEOTIDES:
        findings.refuse("nucleic acid", f"{residue.label}: nucleic acids are not prepared; choose chains (--chains)")
    elif elements - names.LIGAND_ELEMENTS:
        findings.refuse(
            "unknown group",
            f"{residue.label} has {listed(sorted(elements - names.LIGAND_ELEMENTS))}, for which no ligand force field "
            f"has parameters; bring a force field XML of your own (--ligand-xml), or leave it out (--remove {name})",
        )
    else:
        findings.refuse(
            "unknown group",
            f"{residue.label} ({len(residue.heavy)} heavy atoms) is not known: PDB files have no bond orders. Say "
            f"what it is (--ligand {name}=SMILES, or an SDF), or leave it out (--remove {name})",
        )


def _same_place(ligand: Ligand, residue: ResidueRecord) -> bool:
    """Return whether a group's heavy atoms all stand where those of a ligand stand."""
    points = ligand.positions[[element != "H" for element in ligand.elements]]
    heavy = [atom.position for atom in residue.heavy]
    if len(points) != len(heavy):
        return False
    return bool(cKDTree(points).query(np.array(heavy))[0].max() < SAME_PLACE)


def _own_force_fields(paths: Sequence[str | Path]) -> dict[str, str]:
    """Return the text of force field XMLs by the names of their residues."""
    own: dict[str, str] = {}
    for given in paths:
        path = check_path("the force field of a ligand", given, PreparationError)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PreparationError(f"the force field {path} cannot be read: {error}") from error
        for name in templates_in(text, str(path.name)):
            if name in own:
                raise PreparationError(f"two force fields have a residue {name}; give one of them")
            own[name] = text
    return own


def _with_own(ligand: Ligand, own: Mapping[str, str]) -> Ligand:
    if ligand.name in own:
        ligand = ligand.with_parameters(own[ligand.name])
    if ligand.parameters:
        templates = templates_in(ligand.parameters, f"the force field of {ligand.name}")
        if ligand.name not in templates:
            raise PreparationError(
                f"the force field of {ligand.name} has the residues {listed(templates)}; give the ligand the name of "
                "one"
            )
        charge = templates[ligand.name][2]
        if abs(charge - ligand.charge) > _INTEGER:
            raise PreparationError(
                f"the force field gives {ligand.name} the charge {charge:+.3f}, and its formal charges add up to "
                f"{signed(ligand.charge)}"
            )
    return ligand


def _ligand_of_xml(residue: ResidueRecord, xml: str) -> Ligand:
    """Return a group of the structure whose bonds and charges a force field XML has."""
    atom_names, bonds, charge = templates_in(xml, "the force field")[residue.name]
    atoms = {atom.name: atom for atom in residue.atoms}
    missing, extra = sorted(set(atom_names) - set(atoms)), sorted(set(atoms) - set(atom_names))
    if missing or extra:
        raise PreparationError(
            f"{residue.label} and its force field have other atoms: the structure lacks {listed(missing) or 'none'}, "
            "the force "
            f"field lacks {listed(extra) or 'none'}; add hydrogens to the structure with the names of the force field"
        )
    if abs(charge - round(charge)) > _INTEGER:
        raise PreparationError(f"the force field gives {residue.label} the charge {charge:+.3f}, which is no integer")
    positions = np.array([atoms[name].position for name in atom_names])
    elements = tuple(atoms[name].element for name in atom_names)
    ligand = Ligand(
        residue.name, "", atom_names, elements, bonds, positions, round(charge), "", "own force field", "", xml
    )
    return replace(ligand, residue=residue.key.label)
