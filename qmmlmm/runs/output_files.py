"""Trajectory and tables of a run: how they are written, watched, and cut when the run continues."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from qmmlmm.durable_files import sync_file
from qmmlmm.errors import OutputFileError
from qmmlmm.geometry import Geometry
from qmmlmm.runs.checkpoint import ROWS_NAME, load_row_count
from qmmlmm.runs.output_watch import OutputWatch
from qmmlmm.runs.reporters import MixedSystemLike, TermEnergyReporter, cut_energies
from qmmlmm.runs.run_record import RunRecord
from qmmlmm.runs.run_reporter import Reporter
from qmmlmm.runs.trajectory import FORMATS, TrajectoryReporter, cut_trajectory
from qmmlmm.runs.variable_reporter import VariableReporter

ENERGIES_NAME = "energies.csv"
VARIABLES_NAME = "variables.csv"


class OutputFiles:
    """The files of a run directory to which a run appends.

    Parameters
    ----------
    folder : Path
        Run directory.
    mixed : MixedSystemLike

    Attributes
    ----------
    energies : Path
        Table of energies.
    """

    def __init__(self, folder: Path, mixed: MixedSystemLike) -> None:
        self.energies = folder / ENERGIES_NAME
        self._folder = folder
        self._mixed = mixed
        self._energy_reporter: TermEnergyReporter | None = None
        self._rows_before = 0
        self._watches: tuple[OutputWatch, OutputWatch] | None = None

    def trajectory(self, record: RunRecord) -> Path:
        """Return the file of the trajectory."""
        return self._folder / record.output["trajectory"]

    def existing(self) -> list[str]:
        """Return the names of files that a new run would overwrite."""
        names = (ENERGIES_NAME, VARIABLES_NAME, *(f"trajectory.{f}" for f in FORMATS))
        return [name for name in names if (self._folder / name).exists()]

    @property
    def rows(self) -> int:
        """Number of rows in the table of energies."""
        return self._rows_before + (0 if self._energy_reporter is None else self._energy_reporter.rows_written)

    def reporters(
        self,
        record: RunRecord,
        energy_interval: int,
        variables: Mapping[str, Callable[[Geometry], float]] | None,
        variable_interval: int,
    ) -> list[Reporter]:
        """Open the files, and return the reporters that write to them, in the order in which they report."""
        trajectory, energies = self.trajectory(record), self.energies
        # First, because it can refuse to continue its file, and then no other is open.
        variable_reporters = self._variable_reporters(variables, variable_interval)
        self._watches = OutputWatch(trajectory), OutputWatch(energies)
        self._energy_reporter = TermEnergyReporter(energies, energy_interval, self._mixed, append=energies.exists())
        interval = record.output["trajectory_interval"]
        return [
            # First, because its error names the term that is not finite.
            self._energy_reporter,
            TrajectoryReporter(trajectory, interval, first_step=record.first_step, append=trajectory.exists()),
            *variable_reporters,
        ]

    def _variable_reporters(
        self, variables: Mapping[str, Callable[[Geometry], float]] | None, interval: int
    ) -> list[VariableReporter]:
        path = self._folder / VARIABLES_NAME
        return [VariableReporter(path, interval, variables, append=path.exists())] if variables else []

    def look(self, record: RunRecord, step: int, last_step: int) -> None:
        """Compare trajectory and energies with what they were at the last look.

        Parameters
        ----------
        record : RunRecord
        step : int
            Present step.
        last_step : int
            Step of the last checkpoint, for the message.

        Raises
        ------
        RunDirectoryError
            If one was deleted, replaced or cut.
        """
        if self._watches is None or self._energy_reporter is None:
            return
        trajectory, energies = self._watches
        trajectory.look(_frames(record, step) > 0, last_step)
        energies.look(True, last_step)

    def sync(self, record: RunRecord) -> None:
        """Write trajectory and all tables of the directory to the disk."""
        for path in {self.trajectory(record), *self._folder.glob("*.csv")}:
            if path.exists():
                sync_file(path)

    def cut(self, record: RunRecord, step: int) -> None:
        """Remove frames and rows of energies after a step.

        Raises
        ------
        OutputFileError
            If trajectory or energies are damaged or too short; nothing is then overwritten.
        """
        cut_trajectory(self.trajectory(record), _frames(record, step), self._mixed.topology.getNumAtoms())
        self._rows_before = cut_energies(self.energies, step) if self.energies.exists() else 0
        expected = load_row_count(self._folder, step)
        if expected is not None and self._rows_before != expected:
            raise OutputFileError(
                f"{self.energies} has {self._rows_before} rows up to step {step}, but had {expected} when the "
                f"checkpoint was saved; restore the file, or remove {ROWS_NAME} to continue without the lost rows"
            )


def _frames(record: RunRecord, step: int) -> int:
    """Return the number of frames up to a step."""
    interval = record.output["trajectory_interval"]
    return step // interval - record.first_step // interval
