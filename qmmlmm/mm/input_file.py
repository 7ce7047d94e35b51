"""What the files that describe a calculation have in common: TOML, its tables, and the System in them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import openmm
from openmm import app, unit

from qmmlmm.errors import InputFileError, listed, nearest


def read_toml(path: Path, known: Iterable[str]) -> dict[str, Any]:
    """Return the content of a file.

    Parameters
    ----------
    path : Path
    known : iterable of str
        Keys that may stand at its top.

    Raises
    ------
    InputFileError
        If it is not TOML or has another key.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise InputFileError(f"{path} is not valid TOML: {error}") from error
    check_keys("", content, known)
    return content


def read_system(table: Mapping[str, Any], folder: Path) -> tuple[app.Topology, openmm.System, Any]:
    """Return topology, System and positions that a table [system] describes.

    Parameters
    ----------
    table : dict
        Either ``prmtop`` and ``coordinates``, or ``pdb`` and ``force_field``, a list; ``cutoff`` in nm, ``constraints``
        as in OpenMM, and ``no_box = true`` for a system without one.
    folder : Path
        Where relative paths begin.

    Raises
    ------
    InputFileError
        If a key is unknown or missing.
    """
    check_keys("system", table, ("prmtop", "coordinates", "pdb", "force_field", "cutoff", "constraints", "no_box"))
    method: dict[str, Any] = {"nonbondedMethod": app.NoCutoff if table.get("no_box") else app.PME}
    if not table.get("no_box"):
        method["nonbondedCutoff"] = table.get("cutoff", 0.9) * unit.nanometer
    constraints = table.get("constraints", "HBonds")
    known = {"none": None, "HBonds": app.HBonds, "AllBonds": app.AllBonds, "HAngles": app.HAngles}
    if constraints not in known:
        raise InputFileError(f"system: constraints is one of {listed(known)}, got {constraints!r}")
    method["constraints"] = known[constraints]
    if "prmtop" in table:
        coordinates = app.AmberInpcrdFile(str(folder / needed("system", table, "coordinates")))
        prmtop = app.AmberPrmtopFile(str(folder / table["prmtop"]), periodicBoxVectors=coordinates.boxVectors)
        return prmtop.topology, prmtop.createSystem(**method), coordinates.positions
    pdb = app.PDBFile(str(folder / needed("system", table, "pdb")))
    force_field = app.ForceField(*needed("system", table, "force_field"))
    return pdb.topology, force_field.createSystem(pdb.topology, **method), pdb.positions


def build_from(name: str, table: Mapping[str, Any], kind: Callable[..., Any]) -> Any:
    """Return a dataclass from the table of its fields."""
    check_keys(name, table, [f.name for f in fields(kind)])  # type: ignore[arg-type]
    try:
        return kind(**table)
    except TypeError as error:
        raise InputFileError(f"[{name}]: {error}") from error


def table_of(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a table that has to be there."""
    found = needed("", content, name)
    if not isinstance(found, dict):
        raise InputFileError(f"{name} is a table: write [{name}] above its keys")
    return found


def needed(where: str, table: Mapping[str, Any], key: str) -> Any:
    """Return a value that has to be there."""
    if key not in table:
        raise InputFileError(f"{f'[{where}] ' if where else 'the file '}lacks {key!r}")
    return table[key]


def check_keys(where: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse keys that are not known, with the nearest that is."""
    names = list(known)
    for key in table:
        if key not in names:
            raise InputFileError(
                f"{f'[{where}] has' if where else 'the file has'} the unknown key {key!r}; known are "
                f"{listed(names, 40)}.{nearest(key, names)}"
            )
