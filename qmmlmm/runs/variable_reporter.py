"""A reporter of collective variables, and its table."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TextIO, runtime_checkable

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.durable_files import naming_full_disk
from qmmlmm.errors import NonFiniteError, OutputFileError, SettingError, TableError
from qmmlmm.geometry import Geometry
from qmmlmm.runs.reporters import (
    FIRST_COLUMNS,
    NextReport,
    checked_interval,
    other_columns,
    steps_to_next,
    uses_periodic_box,
)
from qmmlmm.runs.table_rows import csv_row, cut_rows, read_names
from qmmlmm.setting_checks import check_callable, check_flag, check_mapping, check_path, check_text
from qmmlmm.units import FloatArray, IntArray


@runtime_checkable
class HasUnit(Protocol):
    """A variable that knows its unit, as those of `qmmlmm.sampling` do."""

    @property
    def unit(self) -> openmm.unit.Unit | None:
        """The unit, or None."""
        ...


class VariableReporter:
    """Writes the values of collective variables to a CSV file.

    Parameters
    ----------
    file : str, path or text file
        File, which is overwritten unless `append` is set.
    report_interval : int
        Number of steps between reports.
    variables : mapping of str to callable
        Variables by name, such as ``{"transfer": DistanceDifference(4, 9, 12)}``: functions of a `Geometry`, nm. The
        header has the units of those of `qmmlmm.sampling`; angles are in radians.
    append : bool
        Whether to continue the table of an interrupted run, given as a path: rows after the first step of the
        simulation are removed, and a last line that was cut short. A file that does not exist is created.

    Raises
    ------
    SettingError
        If an argument has another type, or there is no variable.
    OutputFileError
        At the first report, if the file to be continued has other columns.
    NonFiniteError
        During the simulation, if a value is not finite; the row is not written.

    Notes
    -----
    The columns are step, time, and one for each variable. Each row is flushed. With a `RunDirectory`, add the reporter
    before ``attach``: then a checkpoint never is ahead of the table.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | TextIO,
        report_interval: int,
        variables: Mapping[str, Callable[[Geometry], float]],
        append: bool = False,
    ) -> None:
        self._interval = checked_interval("report_interval", report_interval)
        self._variables = dict(check_mapping("variables", variables))
        if not self._variables:
            raise SettingError("variables have one name with a variable or more, got none")
        self._functions = {
            check_text("a name of variables", name): check_callable(
                f"variables: {name!r}", variable, "a function of a Geometry, such as Distance(0, 1)"
            )
            for name, variable in variables.items()
        }
        check_flag("append", append)
        self._names = [*FIRST_COLUMNS, *(column_name(name, variable) for name, variable in self._functions.items())]
        self._started = False
        self._continued: Path | None = None
        self._opened = isinstance(file, str | os.PathLike)
        if isinstance(file, str | os.PathLike):
            self._path = check_path("file", file)
            self._continued = self._path if append and self._path.exists() else None
            self._out: TextIO = self._path.open("a", encoding="utf-8", newline="")
            if self._continued is None:
                self._out.truncate(0)
        elif append:
            raise OutputFileError(f"a table to be continued is given as a path, got {file!r}")
        else:
            # What is written to is a file of the caller's, of any class.
            if not hasattr(file, "write"):
                raise SettingError(f"file is a path or an open text file, got {file!r}")
            self._path, self._out = Path("the table of variables"), file

    def describeNextReport(self, simulation: app.Simulation) -> NextReport:
        """Return when the next report is due and what it needs."""
        if self._continued is not None:
            self._continue(simulation)
        # As the reporters of a `RunDirectory` do: OpenMM keeps the order of reporters that ask for the same.
        return {"steps": steps_to_next(self._interval, simulation), "periodic": None, "include": ["positions"]}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Write one row."""
        if not self._started:
            self._out.write(csv_row(self._names, header=True))
            self._started = True
        geometry = Geometry.from_state(state, uses_periodic_box(simulation))
        values = [float(variable(geometry)) for variable in self._functions.values()]
        wrong = [name for name, value in zip(self._functions, values, strict=True) if not math.isfinite(value)]
        if wrong:
            raise NonFiniteError(
                f"not a finite number at step {simulation.currentStep}: {', '.join(wrong)}; "
                "continue from an earlier checkpoint with a smaller step, or minimise first"
            )
        with naming_full_disk(self._path):
            self._out.write(csv_row([simulation.currentStep, state.getTime().value_in_unit(unit.picosecond), *values]))
            self._out.flush()

    def close(self) -> None:
        """Close the file, if the reporter opened it."""
        if self._opened:
            self._out.close()

    def _continue(self, simulation: app.Simulation) -> None:
        path, self._continued = self._continued, None
        assert path is not None
        found = read_names(path)
        if found is not None and found != self._names:
            raise OutputFileError(other_columns(str(path), found, self._names))
        cut_rows(path, simulation.currentStep)
        self._started = found is not None


def read_variable_table(path: str | os.PathLike[str]) -> tuple[IntArray, dict[str, FloatArray]]:
    """Return the steps and the columns after the time of a table of a `VariableReporter`, by their names with units.

    Parameters
    ----------
    path : str or path

    Raises
    ------
    TableError
        If there is no such file, or it is no such table.
    """
    file = check_path("path", path, TableError)
    try:
        names = read_names(file)
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"{file} is no table of variables that can be read: {error}") from error
    if names is None or tuple(names[:2]) != FIRST_COLUMNS:
        raise TableError(f"{file} is no table of variables: its first line is {text[:80]!r}")
    # A last line without its end was cut short by a kill.
    rows = list(csv.reader(text[: text.rfind("\n")].splitlines()[1:]))
    try:
        numbers = np.array(rows, dtype=float).reshape(len(rows), len(names))
    except ValueError as error:
        raise TableError(f"{file} has a damaged row: {error}") from error
    return numbers[:, 0].astype(np.int64), {name: numbers[:, k] for k, name in enumerate(names) if k > 1}


def column_name(name: str, variable: Callable[[Geometry], float]) -> str:
    """Return the name of the column of a variable, with its unit."""
    if not isinstance(variable, HasUnit) or variable.unit is None:
        return name
    return f"{name} ({variable.unit.get_symbol()})"
