"""Collective variables of input files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from qmmlmm.commands.input_file import Table
from qmmlmm.errors import InputFileError, listed
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

POINTS: Mapping[str, tuple[int, Callable[..., Variable]]] = {
    "distance": (2, Distance),
    "difference": (3, DistanceDifference),
    "angle": (3, Angle),
    "torsion": (4, Torsion),
}
"""Variables that are a list of atoms, with their number."""

KINDS = (*POINTS, "combination", "coordination")

OF_ROW: Mapping[int, Callable[..., Variable]] = {2: Distance, 3: Angle, 4: Torsion}
"""Variables of the rows of a combination, by the number of atoms."""


def read_variables(content: Table, n_particles: int) -> dict[str, Variable]:
    """Return the variables of all [[variable]] by name.

    Parameters
    ----------
    content : Table
    n_particles : int
        Number of particles of the System.

    Raises
    ------
    InputFileError
        If a variable has no name or one of another, not exactly one kind, or atoms that are not there.
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
            variable = _read_variable(table, kinds[0])
            found[check_text("name", name)] = variable
        beyond = [atom for atom in variable.particles if atom >= n_particles]
        if beyond:
            raise InputFileError(
                f"variable {name!r}: the System has the particles 0 to {n_particles - 1}, got {listed(beyond)}"
            )
    return found


def _read_variable(table: Table, kind: str) -> Variable:
    if kind == "combination":
        rows = table.rows(kind)
        return Combination([_read_term(row) for row in rows])
    if kind == "coordination":
        settings = table.table(kind)
        settings.check_keys(("first", "second", "distance", "exponent"))
        return CoordinationNumber(
            settings.whole_numbers("first"),
            settings.whole_numbers("second"),
            settings.number("distance"),
            settings.whole_number("exponent", 6),
        )
    count, create = POINTS[kind]
    atoms = table.whole_numbers(kind)
    if len(atoms) != count:
        raise InputFileError(f"variable: a {kind} has {count} atoms, got {atoms}")
    return create(*atoms)


def _read_term(row: Sequence[object]) -> tuple[float, Variable]:
    """Return weight and variable of a row such as [1.0, 3754, 3756]."""
    weight, *atoms = row or [None]
    create = OF_ROW.get(len(atoms))
    if create is None or not is_number(weight) or not all(is_whole_number(atom) for atom in atoms):
        raise InputFileError(
            "each row of a combination is a weight with the atoms of a distance (2), an angle (3) or a torsion (4), "
            f"such as [-1.0, 3740, 3761], got {list(row)}"
        )
    return float(weight), create(*atoms)
