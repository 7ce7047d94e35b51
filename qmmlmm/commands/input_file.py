"""Input files of the commands: TOML tables with checked keys and values, and the System that they describe."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TypeVar

import openmm
from openmm import app, unit

from qmmlmm.commands.amber_files import read_amber
from qmmlmm.coupling.region import Region
from qmmlmm.errors import InputFileError, SettingError, listed, nearest
from qmmlmm.mm.selection import select
from qmmlmm.setting_checks import (
    check_choice,
    check_finite_number,
    check_flag,
    check_positive,
    check_whole_number,
    is_whole_number,
)

Record = TypeVar("Record")

CONSTRAINTS = {"none": None, "HBonds": app.HBonds, "AllBonds": app.AllBonds, "HAngles": app.HAngles}


class Table:
    """A table of an input file.

    Parameters
    ----------
    name : str
        Name of the table in messages; empty for the file itself.
    content : mapping of str to object

    Notes
    -----
    Every method raises InputFileError if a key is missing or its value has the wrong type. A key is required unless a
    default is given.
    """

    def __init__(self, name: str, content: Mapping[str, object]) -> None:
        self.name = name
        self._content = content

    def __contains__(self, key: object) -> bool:
        """Return whether the table has a key."""
        return key in self._content

    def __iter__(self) -> Iterator[str]:
        """Return the keys."""
        return iter(self._content)

    def check_keys(self, known: Iterable[str]) -> None:
        """Raise InputFileError for a key that is not known."""
        names = list(known)
        for key in self._content:
            if key not in names:
                raise InputFileError(
                    f"{self._where} has the unknown key {key!r}; known are {listed(names, 40)}.{nearest(key, names)}"
                )

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text."""
        return self._checked_text(key, self._value(key, default))

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number."""
        return check_finite_number(self._label(key), self._value(key, default), error=InputFileError)

    def whole_number(self, key: str, default: int | None = None) -> int:
        """Return a whole number of either sign."""
        value = self._value(key, default)
        if not is_whole_number(value):
            raise InputFileError(f"{self._label(key)} is a whole number, got {value!r}")
        return int(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """Return true or false."""
        return check_flag(self._label(key), self._value(key, default), error=InputFileError)

    def texts(self, key: str, default: list[str] | None = None) -> list[str]:
        """Return a list of texts."""
        return [self._checked_text(key, value) for value in self._list(key, default)]

    def numbers(self, key: str) -> list[float]:
        """Return a list of finite numbers."""
        return [check_finite_number(self._label(key), value, error=InputFileError) for value in self._list(key)]

    def whole_numbers(self, key: str) -> list[int]:
        """Return a list of whole numbers, zero or more."""
        label = self._label(key)
        return [check_whole_number(label, value, at_least=0, error=InputFileError) for value in self._list(key)]

    def table(self, key: str) -> Table:
        """Return a table that is required."""
        return self._checked_table(key, self._value(key, None))

    def optional_table(self, key: str) -> Table:
        """Return a table, empty if it is missing."""
        return self._checked_table(key, self._content.get(key, {}))

    def tables(self, key: str) -> list[Table]:
        """Return the tables of a list, ``[[key]]`` in the file; none if it is missing."""
        return [self._checked_table(key, value) for value in self._list(key, [])]

    def part(self, *keys: str) -> Table:
        """Return the table with some of its keys."""
        return Table(self.name, {key: value for key, value in self._content.items() if key in keys})

    def without(self, *keys: str) -> Table:
        """Return the table without some of its keys."""
        return Table(self.name, {key: value for key, value in self._content.items() if key not in keys})

    def build(self, kind: Callable[..., Record], defaults: Mapping[str, object] | None = None) -> Record:
        """Return a dataclass whose fields are the keys of the table.

        Parameters
        ----------
        kind : type
        defaults : mapping of str to object, optional
            Values of fields that the table does not set.
        """
        known = [field for field in fields(kind) if field.init]  # type: ignore[arg-type]
        self.check_keys(field.name for field in known)
        values = {**(defaults or {}), **self._content}
        for field in known:
            if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
                raise InputFileError(f"{self._where} lacks {field.name!r}")
        try:
            return kind(**values)
        except (TypeError, SettingError) as error:
            raise InputFileError(f"[{self.name}] {error}") from error

    @property
    def _where(self) -> str:
        return f"[{self.name}]" if self.name else "the file"

    def _label(self, key: str) -> str:
        return f"[{self.name}] {key}" if self.name else key

    def _value(self, key: str, default: object) -> object:
        if key in self._content:
            return self._content[key]
        if default is None:
            raise InputFileError(f"{self._where} lacks {key!r}")
        return default

    def _list(self, key: str, default: object = None) -> list[object]:
        value = self._value(key, default)
        if not isinstance(value, list):
            raise InputFileError(f"{self._label(key)} is a list, got {value!r}")
        return value

    def _checked_text(self, key: str, value: object) -> str:
        if not isinstance(value, str):
            raise InputFileError(f"{self._label(key)} is a text in quotes, got {value!r}")
        return value

    def _checked_table(self, key: str, value: object) -> Table:
        name = f"{self.name}.{key}" if self.name else key
        if not isinstance(value, dict):
            raise InputFileError(f"{name} is a table: write [{name}] above its keys")
        return Table(name, value)


def read_toml(path: Path, known: Iterable[str]) -> Table:
    """Return the content of a file.

    Parameters
    ----------
    path : Path
    known : iterable of str
        Keys that the file may have at its top level.

    Raises
    ------
    InputFileError
        If it is not TOML or has another key.
    """
    try:
        with path.open("rb") as file:
            content = Table("", tomllib.load(file))
    except tomllib.TOMLDecodeError as error:
        raise InputFileError(f"{path} is not valid TOML: {error}") from error
    content.check_keys(known)
    return content


def read_system(table: Table, folder: Path) -> tuple[app.Topology, openmm.System, unit.Quantity]:
    """Return topology, System and positions that a table [system] describes.

    Parameters
    ----------
    table : Table
        Either ``prmtop`` and ``coordinates``, or ``pdb`` and ``force_field``, a list; ``cutoff`` in nm, ``constraints``
        as in OpenMM, and ``no_box = true`` for a system without a box.
    folder : Path
        Folder to which paths are relative.

    Raises
    ------
    InputFileError
        If a key is unknown or missing, or has a wrong value, or OpenMM refuses a file.
    """
    table.check_keys(("prmtop", "coordinates", "pdb", "force_field", "cutoff", "constraints", "no_box"))
    constraints = CONSTRAINTS[
        check_choice("[system] constraints", table.text("constraints", "HBonds"), CONSTRAINTS, error=InputFileError)
    ]
    method: dict[str, object] = {"nonbondedMethod": app.NoCutoff, "constraints": constraints}
    if not table.flag("no_box", default=False):
        cutoff = check_positive("[system] cutoff", table.number("cutoff", 0.9), "nm", error=InputFileError)
        method |= {"nonbondedMethod": app.PME, "nonbondedCutoff": cutoff * unit.nanometer}
    if "prmtop" in table:
        return read_amber(folder / table.text("prmtop"), folder / table.text("coordinates"), method)
    pdb = app.PDBFile(str(folder / table.text("pdb")))
    force_field = app.ForceField(*table.texts("force_field"))
    return pdb.topology, force_field.createSystem(pdb.topology, **method), pdb.positions


def read_region(table: Table, topology: app.Topology) -> Region:
    """Return the region that a table [region] describes by ``select``, ``name``, ``charge`` and ``multiplicity``.

    Raises
    ------
    InputFileError
        If a key is unknown, or ``select`` is missing.
    """
    table.check_keys(("name", "select", "charge", "multiplicity"))
    atoms = select(topology, table.text("select"))
    charge, multiplicity = table.whole_number("charge", 0), table.whole_number("multiplicity", 1)
    return Region(table.text("name", "region"), atoms, charge, multiplicity)
