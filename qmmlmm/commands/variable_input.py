"""The tables [[variable]] of an input file: collective variables by name."""

from __future__ import annotations

from dataclasses import dataclass, fields

from openmm import app, unit

from qmmlmm.commands.input_file import Table
from qmmlmm.errors import InputFileError, SelectionError, listed
from qmmlmm.mm.selection import select
from qmmlmm.sampling.collective_variables import Distance, DistanceDifference, Torsion
from qmmlmm.setting_checks import check_text, is_whole_number

Variable = Distance | DistanceDifference | Torsion


@dataclass(frozen=True)
class VariableKind:
    """A kind of variable.

    Parameters
    ----------
    variable : type
        Its class, whose fields are the particles.
    unit : openmm.unit.Unit
    text : str
        Description for people.
    """

    variable: type[Variable]
    unit: unit.Unit
    text: str


KINDS: dict[str, VariableKind] = {
    "distance": VariableKind(Distance, unit.nanometer, "distance between two atoms"),
    "difference": VariableKind(
        DistanceDifference, unit.nanometer, "distance of the first two atoms minus that of the last two of three"
    ),
    "torsion": VariableKind(Torsion, unit.radian, "dihedral angle of four atoms"),
}
"""Kinds by their keys in [[variable]]."""


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
            raise InputFileError(f"a variable has a name and one of {listed(KINDS)}, got {listed(table)}")
        name, kind = table.text("name"), KINDS[kinds[0]].variable
        atoms = [_atom(name, entry, topology) for entry in table.entries(kinds[0])]
        count = len(fields(kind))
        if len(atoms) != count:
            raise InputFileError(f"variable {name!r}: a {kinds[0]} has {count} atoms, got {atoms}")
        if name in found:
            raise InputFileError(f"two variables have the name {name!r}; give each its own")
        with table.place():
            found[check_text("name", name)] = kind(*atoms)
    return found


def unit_of(variable: Variable) -> unit.Unit:
    """Return the unit of a variable's value."""
    return next(kind.unit for kind in KINDS.values() if isinstance(variable, kind.variable))


def column_of(name: str, variable: Variable) -> str:
    """Return the heading of a variable's column, with its unit."""
    return f"{name} ({unit_of(variable).get_symbol()})"


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
