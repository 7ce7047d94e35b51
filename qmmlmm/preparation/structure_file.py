"""Structure files, PDB or mmCIF: their atoms as they stand, before anything is decided."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from openmm.app import Element
from openmm.app.internal.pdbx.reader.PdbxReader import PdbxReader

from qmmlmm.durable_files import checksum
from qmmlmm.errors import PreparationError, listed
from qmmlmm.setting_checks import check_path, check_whole_number
from qmmlmm.units import FloatArray

LARGEST_FILE = 500_000_000
"""Bytes; a larger file is no structure that this package could prepare."""

_SAME_CELL = ("", "1555", "1_555")


class ResidueKey(NamedTuple):
    """Chain, number and insertion code of a residue."""

    chain: str
    number: int
    insertion: str = ""

    @property
    def label(self) -> str:
        """Text such as ``A:25`` or ``A:184B``."""
        return f"{self.chain}:{self.number}{self.insertion}"


@dataclass(frozen=True)
class AtomRecord:
    """One atom of a file.

    Parameters
    ----------
    name : str
    alternate : str
        Letter of the alternate location, or an empty text.
    residue_name : str
    key : ResidueKey
    position : (float, float, float), angstrom
    occupancy : float
    element : str
        Symbol, such as ``"Zn"``.
    hetero : bool
        Whether the file calls it a HETATM.
    line : int
        Line of the file, or row of its table of atoms.
    """

    name: str
    alternate: str
    residue_name: str
    key: ResidueKey
    position: tuple[float, float, float]
    occupancy: float
    element: str
    hetero: bool
    line: int


@dataclass(frozen=True)
class ResidueRecord:
    """One residue of a file, with the atoms that stand together.

    Parameters
    ----------
    name : str
    key : ResidueKey
    atoms : tuple of AtomRecord
    ends_chain : bool
        Whether the file ends a chain behind it (TER).
    """

    name: str
    key: ResidueKey
    atoms: tuple[AtomRecord, ...]
    ends_chain: bool = False

    @property
    def label(self) -> str:
        """Text such as ``HIS A:57``."""
        return f"{self.name} {self.key.label}"

    def position(self, name: str) -> FloatArray | None:
        """Return the position of an atom, angstrom, or None if there is no such atom."""
        for atom in self.atoms:
            if atom.name == name:
                return np.array(atom.position)
        return None

    @property
    def heavy(self) -> tuple[AtomRecord, ...]:
        """Atoms other than hydrogen."""
        return tuple(atom for atom in self.atoms if atom.element != "H")


@dataclass(frozen=True)
class LinkRecord:
    """A bond between two residues that the file names.

    Parameters
    ----------
    first, second : (ResidueKey, str)
        Residue and name of the atom.
    """

    first: tuple[ResidueKey, str]
    second: tuple[ResidueKey, str]


@dataclass(frozen=True)
class StructureFile:
    """What a structure file holds.

    Parameters
    ----------
    path : Path
    content : bytes
    residues : tuple of ResidueRecord
        In the order of the file, with all alternate locations.
    links : tuple of LinkRecord
        Without those to atoms of neighbouring unit cells.
    sequences : tuple of str
        Lines SEQRES of a PDB file.
    models : tuple of int
        Numbers of all models in the file; the residues are of one of them.
    """

    path: Path
    content: bytes
    residues: tuple[ResidueRecord, ...]
    links: tuple[LinkRecord, ...]
    sequences: tuple[str, ...]
    models: tuple[int, ...]

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return checksum(self.content)


def read_structure(path: str | Path, model: int | None = None) -> StructureFile:
    """Return the atoms of a PDB or mmCIF file.

    Parameters
    ----------
    path : path
        A name that ends in .cif, .mmcif or .pdbx is mmCIF, any other is PDB.
    model : int, optional
        Number of the model to read. Without it the file has one model.

    Raises
    ------
    PreparationError
        If the file cannot be read, has no atoms, an atom without a position or element, or several models.
    """
    path = check_path("the structure", path, PreparationError)
    if model is not None:
        check_whole_number("model", model, at_least=0)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise PreparationError(f"{path} has more than {LARGEST_FILE:,} bytes, which is no structure file")
        content = path.read_bytes()
    except OSError as error:
        raise PreparationError(f"the structure {path} cannot be read: {error.strerror}") from error
    if b"\0" in content:
        raise PreparationError(f"{path} has bytes of zero: it is no text. Unpack it first if it is compressed")
    text = content.decode("utf-8", errors="replace")
    if path.suffix.lower() in (".cif", ".mmcif", ".pdbx"):
        return _read_mmcif(path, content, text, model)
    return _read_pdb(path, content, text, model)


def _read_pdb(path: Path, content: bytes, text: str, model: int | None) -> StructureFile:
    atoms: list[AtomRecord] = []
    ends: set[int] = set()
    links: list[LinkRecord] = []
    sequences: list[str] = []
    models: list[int] = []
    current = 1
    for number, line in enumerate(text.splitlines(), start=1):
        kind = line[:6].strip()
        if kind == "MODEL":
            current = _whole_number(line[6:20], path, number, "the number of a model")
            models.append(current)
        elif kind in ("ATOM", "HETATM"):
            if model is None or not models or current == model:
                atoms.append(_pdb_atom(line, path, number))
        elif kind == "TER" and (model is None or not models or current == model):
            ends.add(len(atoms) - 1)
        elif kind == "LINK":
            link = _pdb_link(line)
            if link is not None:
                links.append(link)
        elif kind == "SEQRES":
            sequences.append(line)
    _check_models(path, models, model)
    residues = _residues(path, atoms, ends)
    return StructureFile(path, content, residues, tuple(links), tuple(sequences), tuple(models) or (1,))


def _pdb_atom(line: str, path: Path, number: int) -> AtomRecord:
    if len(line) < 54:
        raise PreparationError(
            f"{path}, line {number}: the record of an atom ends before its coordinates ({len(line)} characters, 54 "
            "are needed); the file is damaged"
        )
    key = ResidueKey(
        line[21].strip() or "_",
        _whole_number(line[22:26], path, number, "the number of a residue"),
        line[26].strip(),
    )
    name, residue = line[12:16].strip(), line[17:20].strip()
    if line[20].strip():
        residue = line[17:21].strip()
    if not name or not residue:
        raise PreparationError(f"{path}, line {number}: an atom without a name, or without a name of its residue")
    x, y, z = (_coordinate(line[start : start + 8], path, number) for start in (30, 38, 46))
    occupancy = _occupancy(line[54:60])
    element = _element(line[76:78].strip(), line[12:16], residue, path, number)
    return AtomRecord(
        name, line[16].strip(), residue, key, (x, y, z), occupancy, element, line.startswith("HETATM"), number
    )


def _pdb_link(line: str) -> LinkRecord | None:
    """Return a LINK, or None if it goes to another cell or is incomplete: the distances of atoms decide then."""
    if line[59:65].strip() not in _SAME_CELL or line[66:72].strip() not in _SAME_CELL:
        return None
    try:
        first = (ResidueKey(line[21].strip() or "_", int(line[22:26]), line[26].strip()), line[12:16].strip())
        second = (ResidueKey(line[51].strip() or "_", int(line[52:56]), line[56].strip()), line[42:46].strip())
    except (ValueError, IndexError):
        return None
    return LinkRecord(first, second)


def _read_mmcif(path: Path, content: bytes, text: str, model: int | None) -> StructureFile:
    blocks: list = []
    try:
        PdbxReader(io.StringIO(text)).read(blocks)
    # The reader raises exceptions of many classes for damaged text.
    except Exception as error:  # noqa: BLE001
        raise PreparationError(f"{path} is no valid mmCIF file: {error}") from None
    table = blocks[0].getObj("atom_site") if blocks else None
    if table is None:
        raise PreparationError(f"{path} has no table _atom_site, so that it holds no structure")
    column = _columns(table, path)
    atoms: list[AtomRecord] = []
    models: list[int] = []
    for row in range(table.getRowCount()):
        number = row + 1
        current = _whole_number(column("pdbx_PDB_model_num", "1")(row), path, number, "the number of a model")
        if current not in models:
            models.append(current)
        if model is not None and current != model:
            continue
        name = column("auth_atom_id", "label_atom_id")(row)
        residue = column("auth_comp_id", "label_comp_id")(row)
        key = ResidueKey(
            column("auth_asym_id", "label_asym_id")(row) or "_",
            _whole_number(column("auth_seq_id", "label_seq_id")(row), path, number, "the number of a residue"),
            column("pdbx_PDB_ins_code", "")(row),
        )
        x, y, z = (_coordinate(column(f"Cartn_{axis}")(row), path, number) for axis in "xyz")
        element = _element(column("type_symbol", "")(row), name, residue, path, number)
        hetero = column("group_PDB", "ATOM")(row) == "HETATM"
        alternate, occupancy = column("label_alt_id", "")(row), _occupancy(column("occupancy", "")(row))
        atoms.append(AtomRecord(name, alternate, residue, key, (x, y, z), occupancy, element, hetero, number))
    _check_models(path, models, model)
    links = _mmcif_links(blocks[0])
    return StructureFile(path, content, _residues(path, atoms, set()), links, (), tuple(models))


def _columns(table: object, path: Path) -> Callable[..., Callable[[int], str]]:
    """Return a function that finds a column by name, or by its second name, or gives a default text."""
    # The reader's table has these methods; it has no types.
    names, value = table.getAttributeList(), table.getValue  # type: ignore[attr-defined]

    def column(name: str, other: str | None = None) -> Callable[[int], str]:
        chosen = name if name in names else other
        if chosen in names:

            def read(row: int) -> str:
                try:
                    text = str(value(chosen, row))
                except (IndexError, KeyError, TypeError):
                    raise PreparationError(f"{path}: row {row + 1} of _atom_site is not complete") from None
                return "" if text in (".", "?") else text

            return read
        if chosen is None:
            raise PreparationError(f"{path}: the table _atom_site lacks {name}")
        return lambda row: chosen

    return column


def _mmcif_links(block: object) -> tuple[LinkRecord, ...]:
    """Return the covalent bonds and metal bonds of the table _struct_conn."""
    table = block.getObj("struct_conn")  # type: ignore[attr-defined]
    if table is None:
        return ()
    links = []
    for row in range(table.getRowCount()):

        def value(name: str, row: int = row) -> str:
            text = str(table.getValue(name, row)) if table.hasAttribute(name) else ""
            return "" if text in (".", "?") else text

        if value("conn_type_id") not in ("covale", "metalc"):
            continue
        if any(value(f"ptnr{k}_symmetry") not in _SAME_CELL for k in (1, 2)):
            continue
        try:
            ends = [
                (
                    ResidueKey(value(f"ptnr{k}_auth_asym_id"), int(value(f"ptnr{k}_auth_seq_id")), insertion),
                    value(f"ptnr{k}_label_atom_id"),
                )
                for k, insertion in ((1, value("pdbx_ptnr1_PDB_ins_code")), (2, value("pdbx_ptnr2_PDB_ins_code")))
            ]
        except ValueError:
            continue
        links.append(LinkRecord(ends[0], ends[1]))
    return tuple(links)


def _check_models(path: Path, models: Sequence[int], model: int | None) -> None:
    if model is not None and models and model not in models:
        raise PreparationError(f"{path} has no model {model}; it has {listed(models)}")
    if model is None and len(models) > 1:
        raise PreparationError(
            f"{path} has {len(models)} models (NMR structures have): choose one, --model {models[0]} or "
            f"model={models[0]}"
        )


def _residues(path: Path, atoms: Sequence[AtomRecord], ends: set[int]) -> tuple[ResidueRecord, ...]:
    """Return runs of atoms with the same chain, number and insertion code; alternates may have other names."""
    if not atoms:
        raise PreparationError(f"{path} has no atoms: no record ATOM or HETATM")
    found: list[ResidueRecord] = []
    run: list[AtomRecord] = []
    for index, atom in enumerate(atoms):
        ended = index - 1 in ends
        same = run and run[-1].key == atom.key and not ended
        # Other names of one residue are alternates; without that mark another residue begins.
        if same and atom.residue_name != run[-1].residue_name and not (atom.alternate and run[-1].alternate):
            same = False
        if run and not same:
            found.append(ResidueRecord(run[0].residue_name, run[0].key, tuple(run), ended))
            run = []
        run.append(atom)
    found.append(ResidueRecord(run[0].residue_name, run[0].key, tuple(run), True))
    return tuple(found)


def _whole_number(text: str, path: Path, number: int, what: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise PreparationError(
            f"{path}, line {number}: {what} is a whole number, got {text.strip()!r}; large structures are mmCIF files"
        ) from None


def _coordinate(text: str, path: Path, number: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > 1e5:
        raise PreparationError(
            f"{path}, line {number}: a coordinate is a finite number, angstrom, got {text.strip()!r}"
        )
    return value


def _occupancy(text: str) -> float:
    """Return an occupancy; programs that write none mean one."""
    try:
        value = float(text)
    except ValueError:
        return 1.0
    return value if math.isfinite(value) else 1.0


def _element(symbol: str, name: str, residue: str, path: Path, number: int) -> str:
    """Return the symbol of an element, from its column or, without it, from the name of the atom."""
    wanted = "".join(letter for letter in symbol if letter.isalpha()).capitalize()
    if not wanted:
        letters = "".join(letter for letter in name if letter.isalpha())
        # A name that starts in the first of its four columns has an element of two letters, or is a hydrogen.
        two_letters = name[:2].isalpha() and letters.upper() == residue.upper()
        wanted = letters[:2].capitalize() if two_letters else letters[:1].upper()
    if wanted == "D":
        wanted = "H"
    try:
        Element.getBySymbol(wanted)
    except KeyError:
        raise PreparationError(
            f"{path}, line {number}: the atom {name.strip()!r} of {residue} has no known element, got "
            f"{symbol or 'none'!r}; write it into columns 77 and 78"
        ) from None
    return wanted


def choose_alternates(residues: Iterable[ResidueRecord]) -> tuple[list[ResidueRecord], list[tuple[str, str, float]]]:
    """Return residues with one location of each atom, and what was chosen.

    Parameters
    ----------
    residues : iterable of ResidueRecord

    Returns
    -------
    residues : list of ResidueRecord
        Atoms without a letter, and those of the letter with the largest summed occupancy; of equals the first letter.
    chosen : list of (str, str, float)
        Label of the residue, the letter, and its mean occupancy.
    """
    kept: list[ResidueRecord] = []
    chosen: list[tuple[str, str, float]] = []
    for residue in residues:
        letters = sorted({atom.alternate for atom in residue.atoms} - {""})
        if not letters:
            kept.append(residue)
            continue
        sums = {letter: [a.occupancy for a in residue.atoms if a.alternate == letter] for letter in letters}
        best = max(letters, key=lambda letter: (sum(sums[letter]), -letters.index(letter)))
        atoms = [atom for atom in residue.atoms if atom.alternate in ("", best)]
        # An atom that only another location has would be missing otherwise.
        names = {atom.name for atom in atoms}
        for atom in residue.atoms:
            if atom.name not in names:
                atoms.append(atom)
                names.add(atom.name)
        if len(letters) > 1:
            chosen.append((residue.label, best, sum(sums[best]) / len(sums[best])))
        kept.append(ResidueRecord(residue.name, residue.key, tuple(atoms), residue.ends_chain))
    return kept, chosen
