"""The tables [[variable]] of an input file: collective variables by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openmm import app

from qmmlmm.commands.input_file import Table
from qmmlmm.commands.system_input import read_coordinates, read_structures
from qmmlmm.errors import InputFileError, SelectionError, listed, nearest
from qmmlmm.mm.selection import select
from qmmlmm.sampling import (
    RMSD,
    Angle,
    Combination,
    CoordinationNumber,
    Distance,
    DistanceDifference,
    PathDistance,
    PathProgress,
    Torsion,
    Variable,
)
from qmmlmm.setting_checks import check_text, is_number, is_whole_number
from qmmlmm.units import FloatArray


@dataclass(frozen=True)
class PointVariable:
    """A kind of variable that is given by a list of atoms.

    Parameters
    ----------
    count : int
        Number of atoms.
    create : callable
        Its class.
    text : str
        Description for people, with the unit.
    """

    count: int
    create: Callable[..., Variable]
    text: str


POINTS = {
    "distance": PointVariable(2, Distance, "distance between two atoms, nm"),
    "difference": PointVariable(
        3, DistanceDifference, "distance between the first two of three atoms minus that between the last two, nm"
    ),
    "angle": PointVariable(3, Angle, "angle at the second of three atoms, rad"),
    "torsion": PointVariable(4, Torsion, "dihedral angle of four atoms, rad"),
}
"""Kinds by their keys in [[variable]]."""

OTHERS = {
    "combination": (
        "list of lists",
        "Weighted sum: each row is a weight with the 2, 3 or 4 atoms of a distance, an angle or a torsion, such as "
        "[[1.0, 4, 9], [-1.0, 9, 12]].",
    ),
    "coordination": (
        "table",
        "Coordination number of `first` and `second`, lists of atoms, with `distance`, nm, and `exponent`, 6 if not "
        "given.",
    ),
    "rmsd": ("table", "Deviation of `atoms` from a `reference` after the best rotation, nm."),
    "path_progress": ("table", "Progress of `atoms` along the structures of `images`, from 0 to 1."),
    "path_distance": ("table", "Distance of `atoms` from the path of `images`, nm^2."),
}
"""Types and descriptions of the other kinds."""

KINDS = (*POINTS, *OTHERS)

_PATHS: dict[str, type[PathProgress] | type[PathDistance]] = {
    "path_progress": PathProgress,
    "path_distance": PathDistance,
}

_OF_ROW: dict[int, Callable[..., Variable]] = {2: Distance, 3: Angle, 4: Torsion}


def chosen_variable(table: Table, name: str, variables: Mapping[str, Variable]) -> Variable:
    """Return the variable that a table names.

    Raises
    ------
    InputFileError
        If there is none of this name.
    """
    if name not in variables:
        raise InputFileError(
            f"{table.where} names the variable {name!r}; there are {listed(variables) or 'none'}."
            f"{nearest(name, list(variables))}"
        )
    return variables[name]


def read_variables(content: Table, topology: app.Topology, folder: Path) -> dict[str, Variable]:
    """Return the variables of all [[variable]] by name.

    Parameters
    ----------
    content : Table
        Each table has ``name``, and one kind with its atoms: indices from zero, or selections in words of one atom
        each.
    topology : openmm.app.Topology
    folder : Path
        Folder to which paths of structures are relative.

    Raises
    ------
    InputFileError
        If a key is unknown or missing, or atoms or files do not exist.
    """
    found: dict[str, Variable] = {}
    for table in content.tables("variable"):
        table.check_keys(("name", *KINDS))
        kinds = [kind for kind in KINDS if kind in table]
        if len(kinds) != 1:
            raise InputFileError(f"a variable has a name and one of {listed(KINDS, 10)}, got {listed(table)}")
        name = table.text("name")
        if name in found:
            raise InputFileError(f"two variables have the name {name!r}; give each its own")
        with table.place():
            found[check_text("name", name)] = _read_variable(name, table, kinds[0], topology, folder)
    return found


def _read_variable(name: str, table: Table, kind: str, topology: app.Topology, folder: Path) -> Variable:
    if kind == "combination":
        return Combination([_read_term(name, row, topology) for row in table.rows(kind)])
    if kind == "coordination":
        settings = table.table(kind)
        settings.check_keys(("first", "second", "distance", "exponent"))
        return CoordinationNumber(
            [_atom(name, entry, topology) for entry in settings.entries("first")],
            [_atom(name, entry, topology) for entry in settings.entries("second")],
            settings.number("distance"),
            settings.whole_number("exponent", 6),
        )
    if kind == "rmsd":
        settings = table.table(kind)
        settings.check_keys(("atoms", "reference"))
        chosen = _atoms(name, settings, topology)
        file = settings.text("reference")
        frame = read_coordinates(folder, file, f"variable {name!r}: reference:")
        return RMSD(chosen, _of_atoms(name, file, frame, chosen, topology))
    if kind in _PATHS:
        settings = table.table(kind)
        settings.check_keys(("atoms", "images", "sharpness"))
        chosen = _atoms(name, settings, topology)
        images = _structures(name, settings, "images", chosen, topology, folder)
        sharpness = settings.number("sharpness") if "sharpness" in settings else None
        return _PATHS[kind](chosen, images, sharpness)
    wanted = POINTS[kind]
    atoms = [_atom(name, entry, topology) for entry in table.entries(kind)]
    if len(atoms) != wanted.count:
        raise InputFileError(f"variable {name!r}: a {kind} has {wanted.count} atoms, got {atoms}")
    return wanted.create(*atoms)


def _read_term(name: str, row: Sequence[object], topology: app.Topology) -> tuple[float, Variable]:
    """Return weight and variable of a row such as [1.0, 3754, 3756]."""
    weight, *entries = row or [None]
    create = _OF_ROW.get(len(entries))
    if create is None or not is_number(weight):
        raise InputFileError(
            f"variable {name!r}: each row of a combination is a weight with the atoms of a distance (2), an angle (3) "
            f"or a torsion (4), such as [-1.0, 3740, 3761], got {list(row)}"
        )
    return float(weight), create(*(_atom(name, entry, topology) for entry in entries))


def _atoms(name: str, settings: Table, topology: app.Topology) -> tuple[int, ...]:
    """Return the atoms of a structure: a selection in words, or a list of atoms."""
    if not settings.is_text("atoms"):
        return tuple(_atom(name, entry, topology) for entry in settings.entries("atoms"))
    try:
        return tuple(select(topology, settings.text("atoms")))
    except SelectionError as error:
        raise InputFileError(f"variable {name!r}: atoms: {error}") from error


def _structures(
    name: str, settings: Table, key: str, atoms: Sequence[int], topology: app.Topology, folder: Path
) -> list[FloatArray]:
    """Return the positions of atoms in all models of one file or of several, (k, 3) nm each."""
    files = [settings.text(key)] if settings.is_text(key) else settings.texts(key)
    found = [
        _of_atoms(name, file, frame, atoms, topology)
        for file in files
        for frame in read_structures(folder, file, f"variable {name!r}: {key}:")
    ]
    if not found:
        raise InputFileError(f"variable {name!r}: {key} names no file")
    return found


def _of_atoms(name: str, file: str, frame: FloatArray, atoms: Sequence[int], topology: app.Topology) -> FloatArray:
    """Return the positions of atoms in a frame of the whole System, or of these atoms alone."""
    if len(frame) == topology.getNumAtoms():
        return frame[list(atoms)]
    if len(frame) == len(atoms):
        return frame
    raise InputFileError(
        f"variable {name!r}: {file} has {len(frame)} atoms; give those of the whole System, {topology.getNumAtoms()}, "
        f"or only the {len(atoms)} of the variable"
    )


def _atom(name: str, entry: object, topology: app.Topology) -> int:
    return read_atom(f"variable {name!r}", entry, topology)


def read_atom(where: str, entry: object, topology: app.Topology) -> int:
    """Return the index of an atom that is given by it, or by a selection of one atom.

    Parameters
    ----------
    where : str
        Key of the entry, for messages.
    entry : int or str
    topology : openmm.app.Topology

    Raises
    ------
    InputFileError
        If there is no such atom, or more than one.
    """
    count = topology.getNumAtoms()
    if is_whole_number(entry):
        if not 0 <= entry < count:
            raise InputFileError(f"{where}: the System has the particles 0 to {count - 1}, got {int(entry)}")
        return int(entry)
    if not isinstance(entry, str):
        raise InputFileError(f"{where}: an atom is its index or a selection in quotes, got {entry!r}")
    try:
        atoms = select(topology, entry)
    except SelectionError as error:
        raise InputFileError(f"{where}: {error}") from error
    if len(atoms) != 1:
        raise InputFileError(
            f"{where}: the selection {entry!r} matches {len(atoms)} atoms, {listed(atoms)}; make it one"
        )
    return atoms[0]
