"""A reporter for what an evaluator computes besides energy and forces: state energies, charges, dipoles."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.errors import nearest
from qmmlmm.sampling.reporters import FIRST_COLUMNS, checked_interval, steps_to_next

UNITS = {
    "state_energies": "hartree",
    "dipole": "e bohr",
    "dipole_origin": "bohr",
    "transition_dipoles": "e bohr",
    "mulliken_charges": "e",
}
"""Of the results of PySCF, which come in atomic units; what is not here has none."""


class HasResults(Protocol):
    """What this reporter needs of a `MixedSystem`."""

    def results(self, name: str) -> dict[str, object]:
        """Return what the evaluator of a term reported at its last evaluation."""
        ...


class ResultReporter:
    """Writes results of one term to a CSV file.

    Parameters
    ----------
    file : str, path or text file
        Overwritten.
    report_interval : int
        In steps.
    mixed : MixedSystem
    term : str
        Name of a term that runs in Python, such as ``"dye/QM"``.
    names : list of str
        Results to write, such as ``["state", "state_energies", "oscillator_strengths"]``. An array has a column for
        each element, numbered from 0 in each dimension.

    Raises
    ------
    ValueError
        When the first row is written, if there is no result of a name; and later, if a result has changed its shape.

    Notes
    -----
    Step and time come first. Values are in the units of the evaluator, for PySCF atomic units, which the header names.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | TextIO,
        report_interval: int,
        mixed: HasResults,
        term: str,
        names: list[str],
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

    def describeNextReport(self, simulation: app.Simulation) -> dict[str, Any]:
        """Return when the next report is due and what it needs: the energy, so that the term is computed."""
        return {"steps": steps_to_next(self._interval, simulation), "periodic": None, "include": ["energy"]}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Write one row."""
        results = self._mixed.results(self._term)
        missing = [name for name in self._names if name not in results]
        if missing:
            raise ValueError(
                f"term {self._term!r} reports no {missing[0]!r}; it has {', '.join(sorted(results))}."
                f"{nearest(missing[0], list(results))}"
            )
        columns, values = list(FIRST_COLUMNS), []
        for name in self._names:
            array = np.asarray(results[name])
            ending = f" ({UNITS[name]})" if name in UNITS else ""
            for index, value in np.ndenumerate(array):
                place = "".join(f"[{k}]" for k in index)
                columns.append(f"{name}{place}{ending}")
                values.append(value)
        writer = csv.writer(self._out, lineterminator="\n")
        if self._columns is None:
            self._out.write("#" + ",".join(f'"{column}"' for column in columns) + "\n")
            self._columns = columns
        elif columns != self._columns:
            raise ValueError(f"results of term {self._term!r} have changed their shape; take a new reporter and file")
        writer.writerow([simulation.currentStep, state.getTime().value_in_unit(unit.picosecond), *values])
        self._out.flush()

    def close(self) -> None:
        """Close the file, if it was opened here."""
        if self._opened:
            self._out.close()
