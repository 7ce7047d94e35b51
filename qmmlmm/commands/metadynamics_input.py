"""The table [metadynamics] of an input file: hills along variables."""

from __future__ import annotations

from collections.abc import Mapping

from qmmlmm.commands.input_file import Table
from qmmlmm.errors import InputFileError, listed
from qmmlmm.sampling.metadynamics import HillVariable, Metadynamics
from qmmlmm.sampling.variable import Variable


def read_metadynamics(content: Table, variables: Mapping[str, Variable]) -> Metadynamics | None:
    """Return the hills that a file describes; None without [metadynamics].

    Parameters
    ----------
    content : Table
    variables : mapping of str to Variable

    Raises
    ------
    InputFileError
        If a key is unknown or missing, or has a wrong value.
    """
    if "metadynamics" not in content:
        return None
    table = content.table("metadynamics")
    table.check_keys(("along", "height", "bias_factor", "interval", "shared"))
    if "along" not in table:
        raise InputFileError("[metadynamics] lacks [[metadynamics.along]], a table for each variable of the hills")
    along = tuple(_read_hill_variable(entry, variables) for entry in table.tables("along"))
    return table.without("along").build(Metadynamics, {"variables": along})


def variable_of(table: Table, variables: Mapping[str, Variable]) -> Variable:
    """Return the variable that a table names."""
    name = table.text("variable")
    if name not in variables:
        raise InputFileError(f"{table.name}: there is no variable {name!r}; there are {listed(variables) or 'none'}")
    return variables[name]


def _read_hill_variable(table: Table, variables: Mapping[str, Variable]) -> HillVariable:
    table.check_keys(("variable", "width", "low", "high"))
    low, high = (table.number(end) if end in table else None for end in ("low", "high"))
    with table.place():
        return HillVariable(variable_of(table, variables), table.number("width"), low, high)
