"""Ligands: all atoms, bonds with orders, formal charges and a pose. The only module that imports RDKit."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from qmmlmm.errors import MissingDependencyError, PreparationError, listed, signed
from qmmlmm.preparation.residue_names import AMINO_ACIDS, CAPS, METAL_IONS, NUCLEOTIDES, SALT_IONS, STATE_NAMES, WATERS
from qmmlmm.preparation.structure_file import ResidueRecord, choose_alternates, read_structure
from qmmlmm.setting_checks import check_choice, check_path, check_text
from qmmlmm.units import FloatArray

if TYPE_CHECKING:
    from rdkit import Chem

INSTALL = 'install them with: pip install "qmmlmm[prepare]"'

FRACTION = 0.05
"""Largest difference, e, between the sum of the partial charges in a MOL2 file and an integer."""

FLAT = 1e-3
"""Extent, angstrom, below which coordinates lie in a plane of a drawing."""

SHORTEST, LONGEST = 0.7, 2.6
"""Limits, angstrom, of bonds in a pose; I-I has 2.67 and no ligand force field."""

RESERVED_NAMES = AMINO_ACIDS | set(STATE_NAMES) | CAPS | NUCLEOTIDES | WATERS | set(METAL_IONS) | set(SALT_IONS)


@dataclass(frozen=True, eq=False)
class Ligand:
    """A molecule in its pose.

    Parameters
    ----------
    name : str
        Name of the residue, one to four letters or digits.
    sdf : str
        Molecule with all hydrogens, bond orders and formal charges, as a MOL block.
    atom_names : tuple of str
        Distinct names, of PDB's four characters.
    elements : tuple of str
    bonds : tuple of (int, int)
    positions : (n_atoms, 3) float array, angstrom
    charge : int
        Sum of the formal charges.
    smiles : str
        Canonical SMILES.
    source : str
        Where it came from, for the report.
    residue : str
        Label such as ``A:325`` of the residue in the structure file that it replaces, or an empty text.
    parameters : str
        OpenMM force field XML of the user's own, or an empty text.

    Notes
    -----
    Make it with `from_file`, `from_residue` or `from_smiles_and_residue`.
    """

    name: str
    sdf: str
    atom_names: tuple[str, ...]
    elements: tuple[str, ...]
    bonds: tuple[tuple[int, int], ...]
    positions: FloatArray
    charge: int
    smiles: str
    source: str
    residue: str = ""
    parameters: str = ""

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        name: str = "LIG",
        *,
        molecule: str | int | None = None,
        hydrogens: str = "refuse",
        parameters: str | Path | None = None,
    ) -> Ligand:
        """Return a ligand from an SDF, MOL or MOL2 file, in the pose of the file.

        Parameters
        ----------
        path : path
        name : str
            Name of the residue.
        molecule : str or int, optional
            Title of a molecule, or its place from 1 on, in a file with several.
        hydrogens : {"refuse", "add"}
            What to do if hydrogens are missing. Those that are added follow the formal charges of the file.
        parameters : path, optional
            OpenMM force field XML with a residue that matches the ligand; made otherwise.

        Raises
        ------
        PreparationError
            If the file cannot be read, or the molecule has no 3D pose, no hydrogens, several parts, an odd number of
            electrons, or charges that do not add up to an integer.
        MissingDependencyError
            If RDKit is not installed.
        """
        path = check_path("the ligand", path, PreparationError)
        check_choice("hydrogens", hydrogens, ("refuse", "add"))
        found = _read_molecules(path)
        chosen = _choose(found, molecule, path)
        where = f"ligand {check_ligand_name(name)} ({path.name})"
        if path.suffix.lower() == ".mol2":
            _check_mol2_charges(path, chosen, where)
        chosen = _with_hydrogens(chosen, hydrogens, where)
        source = path.name if len(found) == 1 else f"{path.name}, molecule {molecule}"
        return _ligand(chosen, name, source, where, parameters)

    @classmethod
    def from_residue(
        cls,
        structure: str | Path,
        name: str,
        smiles: str,
        *,
        residue: str | None = None,
        model: int | None = None,
        parameters: str | Path | None = None,
    ) -> Ligand:
        """Return a ligand whose heavy atoms stand in a structure file and whose bonds, charge and H a SMILES gives.

        Parameters
        ----------
        structure : path
            PDB or mmCIF file.
        name : str
            Name of the residue in it, such as ``"TES"``.
        smiles : str
            The molecule in the wanted state of protonation and tautomer.
        residue : str, optional
            Which of several residues with this name, such as ``"A:325"``.
        model : int, optional
            Model of a file with several.
        parameters : path, optional
            OpenMM force field XML of your own.

        Raises
        ------
        PreparationError
            If there is no such residue or several, if its heavy atoms are not those of the SMILES, or if the pose has
            another stereochemistry than the SMILES states.
        """
        records, _ = choose_alternates(read_structure(structure, model).residues)
        matching = [record for record in records if record.name == name]
        names = sorted({record.name for record in records} - RESERVED_NAMES)
        if not matching:
            raise PreparationError(
                f"{Path(structure).name} has no residue {name}; besides protein, water and ions it has "
                f"{listed(names) or 'nothing'}"
            )
        if residue is not None:
            matching = [record for record in matching if record.key.label == residue]
        if len(matching) != 1:
            labels = listed(record.key.label for record in records if record.name == name)
            raise PreparationError(f"{name} stands at {labels}; choose one with residue=, got {residue!r}")
        return pose_in_residue(matching[0], smiles, parameters)

    def with_parameters(self, xml: str) -> Ligand:
        """Return the ligand with a force field XML of the user's own."""
        return replace(self, parameters=xml)


def check_ligand_name(name: object) -> str:
    """Return the name of a ligand's residue, or raise PreparationError."""
    text = check_text("the name of a ligand", name, PreparationError)
    if not re.fullmatch("[A-Za-z0-9]{1,4}", text):
        raise PreparationError(f"the name of a ligand is one to four letters or digits, got {text!r}")
    if text.upper() in RESERVED_NAMES:
        raise PreparationError(
            f"{text!r} is the name of an amino acid, nucleotide, water or ion; give the ligand another one"
        )
    return text


def pose_in_residue(record: ResidueRecord, smiles: str, parameters: str | Path | None = None) -> Ligand:
    """Return the molecule of a SMILES in the pose of a residue's heavy atoms.

    Raises
    ------
    PreparationError
        If the heavy atoms or the stereochemistry differ.
    """
    chem = _rdkit()
    where = f"ligand {record.label}"
    check_ligand_name(record.name)
    with _quiet():
        template = chem.MolFromSmiles(smiles) if isinstance(smiles, str) and smiles.strip() else None
        if template is None:
            raise PreparationError(f"{where}: {smiles!r} is no valid SMILES")
        if "." in smiles:
            raise PreparationError(f"{where}: the SMILES {smiles!r} has several molecules; give the ligand alone")
        wanted, given = template.GetNumAtoms(), len(record.heavy)
        if wanted != given:
            raise PreparationError(
                f"{where} has {given} heavy atoms in the structure, and the SMILES has {wanted}; give the SMILES of "
                "what stands there, or, if atoms are missing from the structure, an SDF with all of them"
            )
        raw = chem.MolFromPDBBlock(_pdb_block(record), removeHs=True, sanitize=False, proximityBonding=True)
        if raw is None or raw.GetNumAtoms() != given:
            raise PreparationError(f"{where}: its atoms cannot be read as a molecule; give an SDF")
        posed = _assign_orders(template, raw, where, smiles)
        posed = chem.AddHs(posed, addCoords=True)
        chem.AssignStereochemistryFrom3D(posed)
        if not posed.HasSubstructMatch(template, useChirality=True):
            raise PreparationError(
                f"{where}: the pose has the stereochemistry {chem.MolToSmiles(chem.RemoveHs(posed))}, and the SMILES "
                f"states {chem.MolToSmiles(template)}; one of the two is wrong"
            )
    ligand = _ligand(posed, record.name, f"SMILES {smiles} in the pose of {record.label}", where, parameters)
    return replace(ligand, residue=record.key.label)


def molecule_of(ligand: Ligand) -> Chem.Mol:
    """Return the RDKit molecule of a ligand."""
    with _quiet():
        return _rdkit().MolFromMolBlock(ligand.sdf, removeHs=False)


def _assign_orders(template: Chem.Mol, raw: Chem.Mol, where: str, smiles: str) -> Chem.Mol:
    from rdkit.Chem import AllChem

    try:
        return AllChem.AssignBondOrdersFromTemplate(template, raw)
    # RDKit raises ValueError, or its own errors of valences.
    except (ValueError, RuntimeError) as error:
        raise PreparationError(
            f"{where}: the atoms in the structure are not connected as in the SMILES {smiles!r} "
            f"({str(error).splitlines()[0]}); give the SMILES of this residue"
        ) from None


def _pdb_block(record: ResidueRecord) -> str:
    lines = []
    for serial, atom in enumerate(record.heavy, start=1):
        x, y, z = atom.position
        name = atom.name if len(atom.name) == 4 or len(atom.element) == 2 else f" {atom.name}"
        lines.append(
            f"HETATM{serial:5d} {name:<4.4s} {record.name:>3.3s} A{1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00"
            f"          {atom.element.upper():>2s}"
        )
    return "\n".join([*lines, "END", ""])


def _read_molecules(path: Path) -> list[Chem.Mol]:
    chem = _rdkit()
    suffix = path.suffix.lower()
    if suffix not in (".sdf", ".sd", ".mol", ".mol2"):
        raise PreparationError(
            f"a ligand is a file .sdf, .mol or .mol2, got {path.name}; PDB files have no bond orders"
        )
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise PreparationError(f"the ligand {path} cannot be read: {error.strerror}") from error
    with _quiet():
        if suffix == ".mol2":
            blocks = re.split(r"(?=@<TRIPOS>MOLECULE)", text)
            found = [chem.MolFromMol2Block(b, removeHs=False) for b in blocks if b.startswith("@<TRIPOS>MOLECULE")]
        else:
            supplier = chem.SDMolSupplier()
            supplier.SetData(text, removeHs=False)
            found = list(supplier)
    if not found or any(molecule is None for molecule in found):
        bad = next((place for place, molecule in enumerate(found, start=1) if molecule is None), 0)
        raise PreparationError(
            f"{path}: "
            + (f"molecule {bad} is not valid: its bonds, valences or charges are wrong" if bad else "no molecule")
        )
    return found


def _choose(found: Sequence[Chem.Mol], molecule: str | int | None, path: Path) -> Chem.Mol:
    titles = [m.GetProp("_Name") if m.HasProp("_Name") else "" for m in found]
    if molecule is None:
        if len(found) > 1:
            raise PreparationError(
                f"{path.name} has {len(found)} molecules ({listed(titles)}); choose one by its title or its place "
                f"from 1 on: molecule={titles[0]!r}, on the command line {path.name}:{titles[0]}"
            )
        return found[0]
    if molecule in titles and titles.count(str(molecule)) == 1:
        return found[titles.index(str(molecule))]
    if str(molecule).isdigit() and 1 <= int(molecule) <= len(found):
        return found[int(molecule) - 1]
    raise PreparationError(f"{path.name} has no molecule {molecule!r}; its {len(found)} molecules are {listed(titles)}")


def _check_mol2_charges(path: Path, molecule: Chem.Mol, where: str) -> None:
    charges = [
        a.GetDoubleProp("_TriposPartialCharge") for a in molecule.GetAtoms() if a.HasProp("_TriposPartialCharge")
    ]
    if not charges or not any(charges):
        return
    total, formal = sum(charges), sum(atom.GetFormalCharge() for atom in molecule.GetAtoms())
    if abs(total - round(total)) > FRACTION:
        raise PreparationError(
            f"{where}: the partial charges of the MOL2 file add up to {total:+.3f}, which is no integer; the file is "
            "damaged, or is a fragment of a larger molecule"
        )
    if round(total) != formal:
        raise PreparationError(
            f"{where}: the partial charges of the MOL2 file add up to {signed(round(total))}, and its bonds and atom "
            f"types mean {signed(formal)}; give an SDF with the right formal charges"
        )


def _with_hydrogens(molecule: Chem.Mol, hydrogens: str, where: str) -> Chem.Mol:
    chem = _rdkit()
    missing = sum(atom.GetTotalNumHs() for atom in molecule.GetAtoms())
    if not missing:
        return molecule
    if hydrogens == "refuse":
        raise PreparationError(
            f"{where}: {missing} hydrogens are missing. Add them in the state that you mean, or let them follow the "
            "formal charges of the file: --ligand-hydrogens add, or hydrogens='add'"
        )
    with _quiet():
        return chem.AddHs(molecule, addCoords=True)


def _ligand(molecule: Chem.Mol, name: str, source: str, where: str, parameters: str | Path | None) -> Ligand:
    chem = _rdkit()
    if molecule.GetNumConformers() != 1:
        raise PreparationError(f"{where}: it has no coordinates; a pose in 3D is needed")
    positions = np.round(np.array(molecule.GetConformer().GetPositions(), dtype=float), 4)
    # The positions of the MOL block, which has four decimals.
    for index, position in enumerate(positions):
        molecule.GetConformer().SetAtomPosition(index, [float(x) for x in position])
    molecule.GetConformer().Set3D(True)
    with _quiet():
        if len(chem.GetMolFrags(molecule)) > 1:
            raise PreparationError(
                f"{where}: it has {len(chem.GetMolFrags(molecule))} parts that no bond connects (a salt?); give each "
                "molecule its own file"
            )
        _check_pose(molecule, positions, where)
        charge = sum(atom.GetFormalCharge() for atom in molecule.GetAtoms())
        electrons = sum(atom.GetAtomicNum() for atom in molecule.GetAtoms()) - charge
        if electrons % 2 or any(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms()):
            raise PreparationError(
                f"{where}: charge {signed(charge)} and {electrons} electrons mean a radical; a hydrogen or a formal "
                "charge is missing or too many"
            )
        chem.AssignStereochemistryFrom3D(molecule)
        elements = tuple(atom.GetSymbol() for atom in molecule.GetAtoms())
        pairs = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in molecule.GetBonds()]
        bonds = sorted((min(pair), max(pair)) for pair in pairs)
        molecule.SetProp("_Name", name)
        block = chem.MolToMolBlock(molecule, kekulize=True)
        smiles = chem.MolToSmiles(chem.RemoveHs(molecule))
    xml = "" if parameters is None else _read_xml(parameters)
    names = _atom_names(molecule, elements)
    return Ligand(name, block, names, elements, tuple(bonds), positions, charge, smiles, source, "", xml)


def _read_xml(path: str | Path) -> str:
    path = check_path("the force field of a ligand", path, PreparationError)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PreparationError(f"the force field {path} cannot be read: {error}") from error


def _check_pose(molecule: Chem.Mol, positions: FloatArray, where: str) -> None:
    if not np.isfinite(positions).all():
        raise PreparationError(f"{where}: its coordinates are not finite")
    chem = _rdkit()
    tetrahedral = any(
        atom.GetHybridization() == chem.HybridizationType.SP3 and atom.GetDegree() > 2 for atom in molecule.GetAtoms()
    )
    if len(positions) > 3 and np.ptp(positions[:, 2]) < FLAT and tetrahedral:
        raise PreparationError(
            f"{where}: all its atoms lie in one plane, as in a drawing; give a pose in 3D, in the frame of the protein"
        )
    for bond in molecule.GetBonds():
        a, b = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        length = float(np.linalg.norm(positions[a] - positions[b]))
        if not SHORTEST < length < LONGEST:
            raise PreparationError(
                f"{where}: the bond between atoms {a + 1} and {b + 1} is {length:.2f} angstrom long; coordinates are "
                "in angstrom, and the pose is no drawing"
            )


def _atom_names(molecule: Chem.Mol, elements: Sequence[str]) -> tuple[str, ...]:
    """Return the names that a PDB file gave to heavy atoms, and new ones for all others."""
    names: list[str] = []
    given = set()
    for atom in molecule.GetAtoms():
        info = atom.GetPDBResidueInfo()
        text = info.GetName().strip() if info is not None and atom.GetAtomicNum() > 1 else ""
        names.append(text if text and text not in given else "")
        given.add(names[-1])
    counts: dict[str, int] = {}
    for index, (text, element) in enumerate(zip(names, elements, strict=True)):
        while not text or (text in given and names[index] != text):
            counts[element] = counts.get(element, 0) + 1
            text = f"{element.upper()}{counts[element]}"
        names[index] = text
        given.add(text)
    return tuple(names)


def _rdkit() -> ModuleType:
    try:
        from rdkit import Chem, RDLogger  # noqa: F401
        from rdkit.Chem import AllChem  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"ligands are read by RDKit, which cannot be imported ({error}); {INSTALL}"
        ) from error
    return Chem


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence RDKit's log, which says in its words what the errors here say."""
    from rdkit import rdBase

    with rdBase.BlockLogs():
        yield
