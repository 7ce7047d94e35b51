"""A reporter of an evaluator's results besides energy and forces: state energies, charges, dipoles."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TextIO

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.errors import OutputFileError, nearest
from qmmlmm.runs.reporters import FIRST_COLUMNS, NextReport, checked_interval, steps_to_next

UNITS = {
    "state_energies": "hartree",
    "dipole": "e bohr",
    "dipole_origin": "bohr",
    "transition_dipoles": "e bohr",
    "mulliken_charges": "e",
}
"""Units of the results of PySCF, atomic units; other results have none."""


class HasResults(Protocol):
    """The part of a `MixedSystem` that this reporter uses."""

    def results(self, name: str) -> dict[str, object]:
        """Return the results of the last evaluation of a term's evaluator."""
        ...


class ResultReporter:
    """Writes results of one term to a CSV file.

    Parameters
    ----------
    file : str, path or text file
        File, which is overwritten.
    report_interval : int
        Number of steps between reports.
    mixed : MixedSystem
    term : str
        Name of a term that runs in Python, such as ``"dye/QM"``.
    names : sequence of str
        Names of the results, such as ``["state", "state_energies", "oscillator_strengths"]``. An array has a column for
        each element, numbered from 0 in each dimension.

    Raises
    ------
    OutputFileError
        At the first row, if there is no result of a name; later, if a result has changed its shape.

    Notes
    -----
    The first columns are step and time. Values are in the units of the evaluator, for PySCF atomic units; the header
    has the units.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | TextIO,
        report_interval: int,
        mixed: HasResults,
        term: str,
        names: Sequence[str],
    ) -> None:
        self._interval = checked_interval("report_interval", report_interval)
        self._mixed, self._term, self._names = mixed, term, list(names)
        self._columns: list[str] | None = None
        self._opened = isinstance(file, str | os.PathLike)
        if isinstance(file, str | os.PathLike):
            path = Path(file)
            self._out: TextIO = path.open("w", encoding="utf-8", newline="")
        else:
            self._out = file

    def describeNextReport(self, simulation: app.Simulation) -> NextReport:
        """Return when the next report is due and what it needs: the energy, so that the term is computed."""
        return {"steps": steps_to_next(self._interval, simulation), "periodic": None, "include": ["energy"]}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Write one row."""
        results = self._mixed.results(self._term)
        missing = [name for name in self._names if name not in results]
        if missing:
            raise OutputFileError(
                f"term {self._term!r} reports no {missing[0]!r}; it has {', '.join(sorted(results))}."
                f"{nearest(missing[0], list(results))}"
            )
        columns, values = list(FIRST_COLUMNS), []
        for name in self._names:
            array = np.asarray(results[name])
            ending = f" ({UNITS[name]})" if name in UNITS else ""
            for index, value in np.ndenumerate(array):
                position = "".join(f"[{k}]" for k in index)
                columns.append(f"{name}{position}{ending}")
                values.append(value)
        writer = csv.writer(self._out, lineterminator="\n")
        if self._columns is None:
            self._out.write("#" + ",".join(f'"{column}"' for column in columns) + "\n")
            self._columns = columns
        elif columns != self._columns:
            raise OutputFileError(
                f"results of term {self._term!r} have changed their shape; use a new reporter and file"
            )
        writer.writerow([simulation.currentStep, state.getTime().value_in_unit(unit.picosecond), *values])
        self._out.flush()

    def close(self) -> None:
        """Close the file, if the reporter opened it."""
        if self._opened:
            self._out.close()
