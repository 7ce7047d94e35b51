"""A reporter of collective variables, and other functions of the geometry."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import openmm
from openmm import app, unit

from qmmlmm.durable_files import naming_full_disk
from qmmlmm.errors import NonFiniteError, OutputFileError
from qmmlmm.geometry import Geometry
from qmmlmm.runs.reporters import (
    FIRST_COLUMNS,
    NextReport,
    checked_interval,
    cut_rows,
    steps_to_next,
    uses_periodic_box,
)
from qmmlmm.setting_checks import check_callable, check_mapping


class VariableReporter:
    """Writes values of functions of the geometry to a CSV file.

    Parameters
    ----------
    path : str or path
        File, which is overwritten unless `append` is set.
    report_interval : int
        Number of steps between reports.
    variables : mapping of str to callable
        Functions of a `Geometry` in nm, such as ``{"contact (nm)": Distance(0, 12)}``; the names, with the units, are
        those of the columns.
    append : bool
        Whether to continue the table of an interrupted run: rows after the first step of the simulation are removed,
        and a last line that was cut short.

    Raises
    ------
    OutputFileError
        If the file to be continued has other columns.
    NonFiniteError
        During the simulation, if a value is not finite; the row is not written.

    Notes
    -----
    The first columns are step and time. Each row is flushed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        report_interval: int,
        variables: Mapping[str, Callable[[Geometry], float]],
        append: bool = False,
    ) -> None:
        self._interval = checked_interval("report_interval", report_interval)
        check_mapping("variables", variables)
        self._variables = {name: check_callable(f"variable {name!r}", found) for name, found in variables.items()}
        self._path = Path(path)
        self._header = _line([*FIRST_COLUMNS, *self._variables], csv.QUOTE_ALL, "#")
        self._continued = append
        if append:
            self._check_header()
        self._out = self._path.open("r+" if append else "w", encoding="utf-8", newline="")

    def describeNextReport(self, simulation: app.Simulation) -> NextReport:
        """Return when the next report is due and what it needs."""
        if self._continued:
            self._continued = False
            cut_rows(self._path, simulation.currentStep)
            self._out.seek(0, os.SEEK_END)
        return {"steps": steps_to_next(self._interval, simulation), "periodic": None, "include": ["positions"]}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Write one row."""
        geometry = Geometry.from_state(state, uses_periodic_box(simulation))
        values = {name: float(variable(geometry)) for name, variable in self._variables.items()}
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            raise NonFiniteError(f"not a finite number at step {simulation.currentStep}: {', '.join(wrong)}")
        time = state.getTime().value_in_unit(unit.picosecond)
        with naming_full_disk(self._path):
            if self._out.tell() == 0:
                self._out.write(self._header)
            self._out.write(_line([simulation.currentStep, time, *values.values()], csv.QUOTE_MINIMAL))
            self._out.flush()

    def close(self) -> None:
        """Close the file."""
        self._out.close()

    def _check_header(self) -> None:
        with self._path.open("rb") as file:
            found = file.readline().decode("utf-8", errors="replace")
        if found.endswith("\n") and found != self._header:
            raise OutputFileError(
                f"{self._path} has the columns {found.strip()[:200]}, and these variables give "
                f"{self._header.strip()[:200]}; continue with the same variables, or start a new run"
            )


def _line(values: list[object], quoting: int, before: str = "") -> str:
    text = io.StringIO()
    csv.writer(text, quoting=quoting, lineterminator="\n").writerow(values)  # type: ignore[arg-type]
    return before + text.getvalue()
