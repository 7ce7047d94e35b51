"""Reporters for `openmm.app.Simulation`: energies of terms, and progress."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Protocol, TextIO, TypedDict, runtime_checkable

import numpy as np
import openmm
from openmm import app, unit
from tqdm import tqdm

from qmmlmm.coupling.potential import Memory
from qmmlmm.durable_files import naming_full_disk
from qmmlmm.errors import NonFiniteError, OutputFileError, listed
from qmmlmm.progress_display import is_hidden, progress_bar
from qmmlmm.runs.table_rows import csv_row, cut_rows, first_line, read_names
from qmmlmm.setting_checks import check_whole_number
from qmmlmm.units import Vectors

FIRST_COLUMNS = ("Step", "Time (ps)")
LAST_COLUMNS = ("Potential Energy (kJ/mol)", "Kinetic Energy (kJ/mol)", "Temperature (K)")
VOLUME_COLUMN = "Box Volume (nm^3)"
ROWS_BETWEEN_CHECKS = 50
"""Rows of a table between two checks that the charges of the System are unchanged, each of which reads all of them."""
SECONDS_PER_DAY = 86400.0


class NextReport(TypedDict):
    """When the next report is due, in steps, and the parts of the State that it needs, as OpenMM expects it."""

    steps: int
    periodic: bool | None
    include: list[str]


@runtime_checkable
class MixedSystemLike(Protocol):
    """The part of a `MixedSystem` that reporters and run directories use."""

    @property
    def topology(self) -> app.Topology:
        """The Topology."""
        ...

    @property
    def system(self) -> openmm.System:
        """The System of the simulation."""
        ...

    def term_energies(self, context: openmm.Context, *, check_charges: bool = True) -> dict[str, unit.Quantity]:
        """Return the contribution of each term, ``"MM"`` first, after a check that the System is unchanged."""
        ...

    def check_unchanged(self, context: openmm.Context) -> None:
        """Raise if the System of a Context no longer belongs to the terms."""
        ...

    def describe(self) -> Mapping[str, object]:
        """Return regions, terms and settings as JSON values."""
        ...

    def summary(self) -> dict[str, dict[str, object]]:
        """Return counts of each term since it was created, as JSON values."""
        ...

    def forget(self) -> None:
        """Reset all terms."""
        ...

    def memory(self) -> dict[str, Memory]:
        """Return the arrays from which terms continue, for those that have any."""
        ...

    def recall(self, name: str, memory: Memory) -> None:
        """Let a term continue from what `memory` returned."""
        ...

    def raise_original(self, error: BaseException) -> NoReturn:
        """Raise the exception behind an `OpenMMException`, or `error` itself."""
        ...


def steps_to_next(interval: int, simulation: app.Simulation) -> int:
    """Return the number of steps to the next multiple of an interval."""
    return interval - simulation.currentStep % interval


def checked_interval(name: str, value: object) -> int:
    """Return an interval in steps, or raise SettingError if it is no positive integer."""
    return check_whole_number(name, value, what="a number of steps, an integer")


def check_finite(name: str, vectors: Vectors, step: int) -> None:
    """Raise NonFiniteError if positions or velocities, (n, 3), are not finite."""
    wrong = np.flatnonzero(~np.isfinite(np.asarray(vectors)).all(axis=1))
    if wrong.size:
        raise NonFiniteError(
            f"{name} of atoms {listed(wrong)} are not finite at step {step}; continue from the last "
            "checkpoint with a smaller step, or minimise first"
        )


def uses_periodic_box(simulation: app.Simulation) -> bool:
    """Return whether the System of a Simulation is periodic."""
    try:
        return bool(simulation.system.usesPeriodicBoundaryConditions())
    except openmm.OpenMMException:  # a Force class that cannot tell
        return simulation.topology.getPeriodicBoxVectors() is not None


class TermEnergyReporter:
    """Writes the energy of each term to a CSV file.

    Parameters
    ----------
    file : str, path or text file
        File, which is overwritten unless `append` is set.
    report_interval : int
        Number of steps between reports.
    mixed : MixedSystem
        System of the terms.
    append : bool
        Whether to continue the table of an interrupted run, given as a path: rows after the first step of the
        simulation are removed, and a last line that was cut short.

    Raises
    ------
    OutputFileError
        At the first report, if the file to be continued has other columns.
    NonFiniteError
        During the simulation, if an energy is not finite; the row is not written.

    Notes
    -----
    The columns are step, time, one for each term (with its coefficient, so that they add up to the potential energy),
    potential and kinetic energy, temperature, and for a periodic box its volume. Each row is flushed. As in OpenMM's
    reporters, the potential energy is that of the force groups of the integrator.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | TextIO,
        report_interval: int,
        mixed: MixedSystemLike,
        append: bool = False,
    ) -> None:
        self._interval = checked_interval("report_interval", report_interval)
        self._mixed = mixed
        self._degrees_of_freedom = 0
        self.rows_written = 0
        self._header: list[str] | None = None
        self._continued: Path | None = None
        self._opened = isinstance(file, str | os.PathLike)
        self._path = Path(file) if isinstance(file, str | os.PathLike) else Path("the energy table")
        if isinstance(file, str | os.PathLike):
            path = Path(file)
            self._out: TextIO = path.open("r+" if append else "w", encoding="utf-8", newline="")
            if append:
                self._continued = path
        elif append:
            raise OutputFileError(f"a table to be continued is given as a path, got {file!r}")
        else:
            self._out = file

    def describeNextReport(self, simulation: app.Simulation) -> NextReport:
        """Return when the next report is due and what it needs."""
        if self._continued is not None:
            self._continue(simulation)
        return {"steps": steps_to_next(self._interval, simulation), "periodic": None, "include": ["energy"]}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Write one row."""
        terms = {
            name: float(energy.value_in_unit(unit.kilojoule_per_mole))
            for name, energy in self._mixed.term_energies(
                simulation.context, check_charges=self.rows_written % ROWS_BETWEEN_CHECKS == 0
            ).items()
        }
        periodic = uses_periodic_box(simulation)
        names = _column_names(list(terms), periodic)
        if self._header is None:
            self._out.write(csv_row(names, header=True))
            self._header = names
        elif names != self._header:
            raise OutputFileError(other_columns("the energy table", self._header, names))
        kinetic = state.getKineticEnergy()
        values = [
            state.getTime().value_in_unit(unit.picosecond),
            *terms.values(),
            state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole),
            kinetic.value_in_unit(unit.kilojoule_per_mole),
            self._temperature(simulation, kinetic),
        ]
        if periodic:
            values.append(state.getPeriodicBoxVolume().value_in_unit(unit.nanometer**3))
        wrong = [name for name, value in zip(names[1:], values, strict=True) if not math.isfinite(value)]
        if wrong:
            raise NonFiniteError(
                f"not a finite number at step {simulation.currentStep}: {', '.join(wrong)}; "
                "continue from an earlier checkpoint with a smaller step, or minimise first"
            )
        with naming_full_disk(self._path):
            self._out.write(csv_row([simulation.currentStep, *values]))
            self._out.flush()
        self.rows_written += 1

    def close(self) -> None:
        """Close the file, if the reporter opened it."""
        if self._opened:
            self._out.close()

    def _continue(self, simulation: app.Simulation) -> None:
        path, self._continued = self._continued, None
        assert path is not None
        found = read_header(path)
        if found is not None:
            # One evaluation; terms return their cached results at unchanged positions.
            names = _column_names(list(self._mixed.term_energies(simulation.context)), uses_periodic_box(simulation))
            if found != names:
                raise OutputFileError(other_columns(str(path), found, names))
            self._header = names
        cut_energies(path, simulation.currentStep)
        self._out.seek(0, os.SEEK_END)

    def _temperature(self, simulation: app.Simulation, kinetic: unit.Quantity) -> float:
        integrator = simulation.integrator
        # Only OpenMM's Langevin and Nose-Hoover integrators have this method; they share no base class.
        if hasattr(integrator, "computeSystemTemperature"):
            return float(integrator.computeSystemTemperature().value_in_unit(unit.kelvin))
        if not self._degrees_of_freedom:
            self._degrees_of_freedom = degrees_of_freedom(simulation.system)
        temperature = 2.0 * kinetic / (self._degrees_of_freedom * unit.MOLAR_GAS_CONSTANT_R)
        return float(temperature.value_in_unit(unit.kelvin))


def degrees_of_freedom(system: openmm.System) -> int:
    """Return the number of degrees of freedom, as in OpenMM's StateDataReporter."""
    massive = [system.getParticleMass(i)._value > 0.0 for i in range(system.getNumParticles())]
    count = 3 * sum(massive)
    for index in range(system.getNumConstraints()):
        first, second, _ = system.getConstraintParameters(index)
        count -= massive[first] or massive[second]
    if any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces()):
        count -= 3
    return count


def read_header(path: Path) -> list[str] | None:
    """Return the column names of an energy table, or None if its header is incomplete.

    Raises
    ------
    OutputFileError
        If the first line is not that of an energy table.
    """
    names = read_names(path)
    if names is None:
        return None
    if tuple(names[:2]) != FIRST_COLUMNS or not set(LAST_COLUMNS) <= set(names):
        raise OutputFileError(
            f"{path} is no table of term energies: its first line is {first_line(path)!r}, expected "
            '#"Step","Time (ps)",...'
        )
    return names


def cut_energies(path: Path, last_step: int) -> int:
    """Remove the rows of an energy table after a step, and a last line that was cut short.

    Parameters
    ----------
    path : Path
        File of a `TermEnergyReporter`.
    last_step : int
        Last step to keep.

    Returns
    -------
    int
        Number of remaining rows.

    Raises
    ------
    OutputFileError
        If the file is no such table or has an invalid line.
    """
    if read_header(path) is None:
        os.truncate(path, 0)
        return 0
    return cut_rows(path, last_step)


def _column_names(terms: list[str], periodic: bool) -> list[str]:
    names = [*FIRST_COLUMNS, *(f"{term} (kJ/mol)" for term in terms), *LAST_COLUMNS]
    return [*names, VOLUME_COLUMN] if periodic else names


def other_columns(where: str, found: list[str], names: list[str]) -> str:
    """Return a message about a table whose columns are not those of the simulation."""
    return (
        f"{where} has the columns {', '.join(found)}; this simulation gives {', '.join(names)}; "
        "write to another file, or continue with the same terms"
    )


class ProgressReporter:
    """Shows a progress bar with the speed and the time left, a line a minute where the output is no terminal.

    Parameters
    ----------
    report_interval : int
        Number of steps between reports.
    total_steps : int
        Number of steps of the whole run from `first_step` on.
    first_step : int
        Step of the simulation at which the run began; not zero after equilibration in the same Simulation.
    file : text file, optional
        Output of the bar, silent if it is no terminal; standard error if not given.
    """

    def __init__(
        self, report_interval: int, total_steps: int, *, first_step: int = 0, file: TextIO | None = None
    ) -> None:
        self._interval = checked_interval("report_interval", report_interval)
        self._total = checked_interval("total_steps", total_steps)
        self._first_step = first_step
        self._file = file
        self._bar: Any = None
        self._start: tuple[float, float, int] = (0.0, 0.0, 0)

    def describeNextReport(self, simulation: app.Simulation) -> NextReport:
        """Return when the next report is due; it needs no part of the State."""
        if self._bar is None:
            self._open(simulation)
        return {"steps": steps_to_next(self._interval, simulation), "periodic": None, "include": []}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        """Move the bar."""
        if self._bar is None:
            self._open(simulation)
        seconds = time.perf_counter() - self._start[0]
        nanoseconds = state.getTime().value_in_unit(unit.nanosecond) - self._start[1]
        steps = simulation.currentStep - self._start[2]
        if steps > 0 and seconds > 0.0:
            speed = nanoseconds / seconds * SECONDS_PER_DAY
            self._bar.set_postfix_str(f"{speed:.3g} ns/day, {1e3 * seconds / steps:.3g} ms/step", refresh=False)
        self._bar.update(simulation.currentStep - self._first_step - self._bar.n)
        if self._bar.n >= self._total:
            self._bar.close()

    def close(self) -> None:
        """Finish the line of the bar; a later report starts a new one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _open(self, simulation: app.Simulation) -> None:
        now = simulation.context.getTime().value_in_unit(unit.nanosecond)
        self._start = (time.perf_counter(), now, simulation.currentStep)
        done = simulation.currentStep - self._first_step
        if self._file is None and is_hidden():
            self._bar = progress_bar(self._total, "MD", "step", initial=done)
            return
        self._bar = tqdm(
            total=self._total,
            initial=done,
            desc="MD",
            unit="step",
            file=self._file,
            disable=None if self._file is not None else False,
            miniters=1,
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} steps "
            "[{elapsed}, {remaining} left{postfix}]",
        )
