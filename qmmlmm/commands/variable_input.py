"""The tables [[variable]] of an input file: collective variables by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openmm import app

from qmmlmm.commands.input_file import Table
from qmmlmm.errors import InputFileError, SelectionError, listed
from qmmlmm.mm.selection import select
from qmmlmm.sampling import (
    Angle,
    Combination,
    CoordinationNumber,
    Distance,
    DistanceDifference,
    Torsion,
    Variable,
)
from qmmlmm.setting_checks import check_text, is_number, is_whole_number


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
        3, DistanceDifference, "distance of the first two atoms minus that of the last two of three, nm"
    ),
    "angle": PointVariable(3, Angle, "angle at the second of three atoms, rad"),
    "torsion": PointVariable(4, Torsion, "dihedral angle of four atoms, rad"),
}
"""Kinds by their keys in [[variable]]."""

OTHERS = {
    "combination": (
        "list of lists",
        "Sum of terms, each a weight with 2, 3 or 4 atoms, such as [[1.0, 4, 9], [-1.0, 9, 12]].",
    ),
    "coordination": (
        "table",
        "Coordination number: `first` and `second`, lists of atoms, `distance`, nm, and `exponent`, 6 if not given.",
    ),
}
"""Types and descriptions of the other kinds."""

KINDS = (*POINTS, *OTHERS)

_OF_ROW: dict[int, Callable[..., Variable]] = {2: Distance, 3: Angle, 4: Torsion}


def read_variables(content: Table, topology: app.Topology) -> dict[str, Variable]:
    """Return the variables of all [[variable]] by name.

    Parameters
    ----------
    content : Table
        Each table has ``name``, and one kind with its atoms: indices from zero, or selections in words of one atom
        each.
    topology : openmm.app.Topology

    Raises
    ------
    InputFileError
        If a key is unknown or missing, or atoms do not exist.
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
            found[check_text("name", name)] = _read_variable(name, table, kinds[0], topology)
    return found


def _read_variable(name: str, table: Table, kind: str, topology: app.Topology) -> Variable:
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


def _atom(name: str, entry: object, topology: app.Topology) -> int:
    count = topology.getNumAtoms()
    if is_whole_number(entry):
        if not 0 <= entry < count:
            raise InputFileError(f"variable {name!r}: the System has the particles 0 to {count - 1}, got {int(entry)}")
        return int(entry)
    if not isinstance(entry, str):
        raise InputFileError(f"variable {name!r}: an atom is its index or a selection in quotes, got {entry!r}")
    try:
        atoms = select(topology, entry)
    except SelectionError as error:
        raise InputFileError(f"variable {name!r}: {error}") from error
    if len(atoms) != 1:
        raise InputFileError(
            f"variable {name!r}: the selection {entry!r} matches {len(atoms)} atoms, {listed(atoms)}; make it one"
        )
    return atoms[0]
