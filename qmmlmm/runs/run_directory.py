"""Run directories: all files of a run, from which it can be resumed."""

from __future__ import annotations

import contextlib
import json
import os
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from openmm import app, unit

from qmmlmm.coupling.potential import Memory
from qmmlmm.errors import RunDirectoryError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.runs.checkpoint import (
    CHECKPOINT_NAME,
    PROGRESS_NAME,
    forget_older,
    load_checkpoint,
    load_memory,
    save_checkpoint,
    save_row_count,
)
from qmmlmm.runs.directory_lock import DirectoryLock
from qmmlmm.runs.output_files import OutputFiles
from qmmlmm.runs.provenance import hash_system
from qmmlmm.runs.report.report_writer import ReportWriter
from qmmlmm.runs.reporters import MixedSystemLike, ProgressReporter, checked_interval
from qmmlmm.runs.run_record import RunOutput, RunRecord, describe_session, differences, run_identity
from qmmlmm.runs.run_reporter import CheckpointReporter, RunReporter
from qmmlmm.runs.termination import TerminationReporter, TerminationSignal
from qmmlmm.runs.topology_file import topology_file_name, write_topology
from qmmlmm.runs.trajectory import FORMATS
from qmmlmm.setting_checks import (
    check_choice,
    check_flag,
    check_instance,
    check_path,
    check_text,
    check_whole_number,
)

RECORD_NAME = "run.json"

SAMPLER = ""
"""Key of the sampler's memory beside those of the terms, whose names are not empty."""


class Stepper(Protocol):
    """An object that advances a Simulation."""

    def step(self, steps: int) -> None:
        """Advance by a number of steps."""
        ...


class Sampler(Stepper, Protocol):
    """An object that moves the atoms of a Simulation and can continue from a checkpoint."""

    @property
    def simulation(self) -> app.Simulation:
        """The Simulation."""
        ...

    def memory(self) -> Memory:
        """Return the arrays of a checkpoint, for `recall`."""
        ...

    def recall(self, memory: Memory) -> None:
        """Continue from what `memory` returned."""
        ...


class RunDirectory:
    """A directory with the files and the record of a run, from which it can be resumed.

    Parameters
    ----------
    path : str or path
        Directory, which is created if it does not exist.
    mixed : MixedSystem
        System of the simulation.
    seed : int, optional
        Seed of the script, for velocities and other random numbers. It is recorded and not used. The seeds of the
        integrator and of a barostat are recorded too.
    sampler : Sampler, optional
        Object that moves the atoms instead of the Simulation, such as `AdaptiveCorrection` or `SurfaceHopping`: `run`
        calls its `step`, and checkpoints include its memory.
    resume : bool
        Whether to open the directory of an interrupted run in order to call `resume`. Otherwise the directory must not
        hold a run.
    continue_with : str, optional
        Command or line of Python that continues the run, for its report; by default the report shows how a script
        does it.

    Raises
    ------
    RunDirectoryError
        If the directory holds a run and `resume` is not set, or holds none and it is, or if another process
        uses it.
    OSError
        If it cannot be created or written to.

    Notes
    -----
    ======================================  ==============================================================
    ``run.json``                            versions, platform, seeds, terms, hashes of the inputs; for each
                                            session counts of the terms: evaluations, SCF cycles, failures
    ``topology.pdb`` (large: ``.cif``)      atoms and the positions at the start
    ``trajectory.dcd`` (or ``.xtc``)        frames
    ``energies.csv``                        energy per term
    ``variables.csv``                       variables, if `attach` is given any
    ``checkpoint.chk``, ``state.xml``       last checkpoint; the one before ends in ``.previous``
    ``memory.npz``                          memory of terms with excited states and of the sampler
    ``progress.json``                       its step and time
    ``energy_rows.json``                    rows of the energy table at the last checkpoints
    ``report.html``                         report for a browser: Hamiltonian, regions, energies, cost; it is
                                            written at checkpoints, in 2 % of the time at most, and at the end
    ======================================  ==============================================================

    If the process is killed at any moment, the run can be resumed from the last checkpoint: frames and rows after it
    are removed and computed again. After SIGTERM, which batch systems send before they kill a job, `run` finishes its
    step, saves a checkpoint and raises TerminatedError. An output file that was deleted, replaced or cut during the
    run is an error at the next checkpoint.

    Examples
    --------
    A script that starts a run or resumes it::

        resume = RunDirectory.holds_run("my_run")
        with RunDirectory("my_run", mixed, seed=7, resume=resume) as run:
            if resume:
                done = run.resume(simulation)
            else:
                done = 0
                simulation.context.setPositions(positions)
                simulation.context.setVelocitiesToTemperature(300, 7)
            run.attach(simulation, trajectory_interval=1000, energy_interval=100, checkpoint_interval=1000,
                       total_steps=50000)
            run.run(simulation, 50000 - done)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mixed: MixedSystemLike,
        *,
        seed: int | None = None,
        sampler: Sampler | None = None,
        resume: bool = False,
        continue_with: str | None = None,
    ) -> None:
        self._path = check_path("path", path, RunDirectoryError)
        check_flag("resume", resume, RunDirectoryError)
        if not isinstance(mixed, MixedSystemLike):
            raise RunDirectoryError(f"mixed is a MixedSystem, as create_mixed_system returns it, got {mixed!r}")
        self._mixed = mixed
        self._outputs = OutputFiles(self._path, mixed)
        self._seed = None if seed is None else check_whole_number("seed", seed, at_least=0, error=RunDirectoryError)
        self._sampler = sampler
        self._continue_with = continue_with
        if continue_with is not None:
            check_text("continue_with", continue_with, RunDirectoryError)
        self._report: ReportWriter | None = None
        self._record: RunRecord | None = None
        self._reporter: RunReporter | None = None
        self._simulation: app.Simulation | None = None
        self._resumed = False
        self._closed = False
        self._saved_step = -1
        self._signal = TerminationSignal()
        if self._path.exists() and not self._path.is_dir():
            raise RunDirectoryError(f"{self._path} is a file, not a directory; choose another path")
        if resume and not self.holds_run(self._path):
            raise RunDirectoryError(
                f"{self._path} holds no run to resume ({RECORD_NAME} is missing); start one with resume=False"
            )
        self._path.mkdir(parents=True, exist_ok=True)
        self._lock = DirectoryLock(self._path)
        weakref.finalize(self, self._lock.release)
        try:
            if resume:
                self._record = RunRecord.read(self._path / RECORD_NAME)
            else:
                self._check_fresh()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def holds_run(path: str | os.PathLike[str]) -> bool:
        """Return whether a directory holds a run that was started."""
        return (Path(path) / RECORD_NAME).is_file()

    @property
    def path(self) -> Path:
        """The directory."""
        return self._path

    @property
    def energies_path(self) -> Path:
        """The table of energies, which `qmmlmm.analysis.tables.read_energies` reads."""
        return self._outputs.energies

    @property
    def topology_path(self) -> Path:
        """The file with the atoms, PDB or for large systems PDBx/mmCIF."""
        return self._path / topology_file_name(self._mixed.topology)

    @property
    def trajectory_path(self) -> Path:
        """The trajectory; its name is known after `attach`, or if the run was opened to be resumed."""
        return self._outputs.trajectory(self._known_record())

    def attach(
        self,
        simulation: app.Simulation,
        *,
        trajectory_interval: int,
        energy_interval: int,
        checkpoint_interval: int,
        total_steps: int,
        trajectory_format: str = "dcd",
        progress: bool = True,
        variables: Mapping[str, Callable[[Geometry], float]] | None = None,
        variable_interval: int | None = None,
    ) -> None:
        """Add the reporters of this run to a Simulation, and write a first checkpoint.

        Parameters
        ----------
        simulation : app.Simulation
            Simulation with positions, and velocities if it needs any; or after `resume`.
        trajectory_interval, energy_interval, checkpoint_interval : int
            Numbers of steps. The interval of the trajectory must be the same when a run is resumed.
        total_steps : int
            Number of steps of the whole run from its beginning, for the progress display.
        trajectory_format : {"dcd", "xtc"}
            Format of the trajectory. XTC has a third of the size and a precision of 0.001 nm.
        progress : bool
            Whether to show a progress bar; what runs several directories has one of its own.
        variables : mapping of str to callable, optional
            Functions of the geometry for ``variables.csv``, see `VariableReporter`; the same when a run is resumed.
        variable_interval : int, optional
            Number of steps between their rows; `energy_interval` if not given.

        Raises
        ------
        RunDirectoryError
            If the run was not resumed, is attached already or closed, or its trajectory has another interval.
        HamiltonianError, UnsupportedSystemError
            If a term's Force was removed or charges of the System were changed, see `MixedSystem.check_unchanged`.
        """
        self._check_open()
        if self._reporter is not None:
            raise RunDirectoryError(f"{self._path} is attached to a Simulation already")
        if self._sampler is not None and self._sampler.simulation is not simulation:
            raise RunDirectoryError(f"the sampler of {self._path} moves another Simulation than this one")
        for name, value in (
            ("trajectory_interval", trajectory_interval),
            ("energy_interval", energy_interval),
            ("checkpoint_interval", checkpoint_interval),
            ("total_steps", total_steps),
            ("variable_interval", energy_interval if variable_interval is None else variable_interval),
        ):
            checked_interval(name, value)
        check_choice("trajectory_format", trajectory_format, FORMATS, RunDirectoryError)
        check_flag("progress", progress, RunDirectoryError)
        self._check_simulation(simulation)
        self._mixed.check_unchanged(simulation.context)
        output: RunOutput = {
            "trajectory": f"trajectory.{trajectory_format}",
            "trajectory_interval": trajectory_interval,
        }
        if self._record is None:
            self._begin(simulation, output)
        elif not self._resumed:
            raise RunDirectoryError(f"call resume(simulation) before attach: {self._path} holds a run")
        elif self._record.output != output:
            raise RunDirectoryError(
                f"the trajectory of {self._path} is {_output_text(self._record.output)} and cannot be "
                f"continued as {_output_text(output)}; use the same, or start a new run"
            )
        record = self._known_record()
        outputs = self._outputs.reporters(record, energy_interval, variables, variable_interval or energy_interval)
        self._stopper = TerminationReporter(self._signal, self.save_checkpoint)
        shortest = min(trajectory_interval, energy_interval, checkpoint_interval)
        bars = [ProgressReporter(shortest, total_steps, first_step=record.first_step)] if progress else []
        self._reporter = RunReporter(
            *outputs,
            # After these: at a checkpoint all frames and rows before it are in the files.
            CheckpointReporter(checkpoint_interval, self._save_and_report),
            *bars,
            self._stopper,
        )
        self._outputs.look(record, simulation.currentStep, self._saved_step)
        self._simulation = simulation
        self._report = ReportWriter(
            self._path, self._mixed, simulation, record, total_steps=total_steps, continue_with=self._continue_with
        )
        simulation.reporters.append(self._reporter)

    def run(self, simulation: app.Simulation, steps: int) -> None:
        """Advance the Simulation and save a checkpoint at the end.

        If this fails or is interrupted, files are closed, the last checkpoint is kept and the run can be resumed. The
        signal SIGTERM is handled if it is not already, and if this is the main thread.

        Parameters
        ----------
        simulation : app.Simulation
            Simulation of `attach`.
        steps : int
            Number of steps.

        Raises
        ------
        TerminatedError
            After SIGTERM, with a checkpoint of the last step.
        FullDiskError
            If a file cannot be written because the disk is full.
        BaseException
            Any exception in its original class, also from a callback of OpenMM.
        """
        self._check_open()
        check_whole_number("steps", steps, at_least=0, what="a number of steps", error=RunDirectoryError)
        reporter = self._reporter
        if reporter is None or self._simulation is None or simulation is not self._simulation:
            raise RunDirectoryError("call attach(simulation, ...) with this Simulation before run")
        try:
            stepper: Stepper = simulation if self._sampler is None else self._sampler
            with self._signal:
                stepper.step(steps)
                if simulation.currentStep != self._saved_step:
                    self.save_checkpoint(simulation)
                self._stopper.stop_if_received(simulation)
            self._write_summary(simulation)
            if self._report is not None:
                self._report.write(simulation)
            reporter.pause()
        except BaseException as error:  # noqa: BLE001 - also KeyboardInterrupt, and all are raised again
            with contextlib.suppress(OSError):  # a full disk; the error that counts is the first one
                self._write_summary(simulation)
            if self._report is not None:
                self._report.write(simulation, error)
            with contextlib.suppress(OSError):
                self.close()
            self._mixed.raise_original(error)

    def resume(self, simulation: app.Simulation) -> int:
        """Bring the Simulation and the files back to the last checkpoint.

        Parameters
        ----------
        simulation : app.Simulation
            Simulation of the same script; positions and velocities need not be set.

        Returns
        -------
        int
            Number of completed steps since the beginning of the run.

        Raises
        ------
        RunDirectoryError
            If this is not the same simulation, or there is no checkpoint.
        OutputFileError
            If trajectory or energies are damaged or too short; nothing is then overwritten.
        """
        self._check_open()
        if self._record is None:
            raise RunDirectoryError(f"{self._path} was opened for a new run; open it with resume=True")
        if self._reporter is not None:
            raise RunDirectoryError("resume comes before attach")
        self._check_simulation(simulation)
        record = self._record
        found = differences(record.identity, run_identity(self._mixed, simulation))
        if found:
            raise RunDirectoryError(
                f"{self._path} holds another run: {listed(found)}; resume it with its script and its "
                "input files, or start a new run elsewhere"
            )
        # Two resumed runs take the same steps, independent of earlier computations in their processes.
        self._mixed.forget()
        loaded = load_checkpoint(simulation, self._path)
        step = simulation.currentStep
        for name, memory in load_memory(self._path, step).items():
            if name != SAMPLER:
                self._mixed.recall(name, memory)
            elif self._sampler is not None:
                self._sampler.recall(memory)
        self._outputs.cut(record, step)
        if loaded != CHECKPOINT_NAME:
            # Skipped checkpoints may be later than this one and must not be loaded again.
            self.save_checkpoint(simulation)
            forget_older(self._path)
        self._saved_step = step
        self._write_record(record.with_session(describe_session(simulation, self._seed)))
        self._resumed = True
        return int(step - record.first_step)

    def save_checkpoint(self, simulation: app.Simulation) -> None:
        """Save a checkpoint now; earlier frames and rows are on disk before it.

        Raises
        ------
        RunDirectoryError
            If an output file was deleted, replaced or cut since the last checkpoint.
        """
        self._check_open()
        record = self._known_record()
        self._outputs.look(record, simulation.currentStep, self._saved_step)
        self._outputs.sync(record)
        self._save_files(simulation)

    def close(self) -> None:
        """Close the files, detach from the Simulation and release the directory."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._reporter is not None:
                if self._simulation is not None and self._reporter in self._simulation.reporters:
                    self._simulation.reporters.remove(self._reporter)
                self._reporter.close()
        finally:
            self._lock.release()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RunDirectoryError(f"{self._path} is closed; open it again with resume=True")

    def _check_fresh(self) -> None:
        if self.holds_run(self._path):
            where = ""
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                progress = json.loads((self._path / PROGRESS_NAME).read_text(encoding="utf-8"))
                where = f" that is at step {progress['step']} ({progress['time (ps)']:.3f} ps)"
            raise RunDirectoryError(
                f"{self._path} holds a run{where}; resume it with resume=True, choose another "
                "directory, or remove this one"
            )
        found = self._outputs.existing()
        if found:
            raise RunDirectoryError(
                f"{self._path} holds {listed(found)} but no {RECORD_NAME}, and they would be overwritten; "
                "choose another directory"
            )

    def _check_simulation(self, simulation: app.Simulation) -> None:
        check_instance("simulation", simulation, app.Simulation, "an app.Simulation", RunDirectoryError)
        mine, given = self._mixed.system, simulation.system
        if given is not mine and hash_system(given) != hash_system(mine):
            raise RunDirectoryError(
                f"the Simulation has another System than {self._path} was opened for; make it with mixed.system"
            )

    def _save_and_report(self, simulation: app.Simulation) -> None:
        self.save_checkpoint(simulation)
        if self._report is not None:
            self._report.write_if_cheap(simulation)

    def _save_files(self, simulation: app.Simulation) -> None:
        save_row_count(self._path, simulation.currentStep, self._outputs.rows)
        save_checkpoint(simulation, self._path, self._memory())
        self._saved_step = simulation.currentStep

    def _memory(self) -> dict[str, Memory]:
        found = dict(self._mixed.memory())
        return found if self._sampler is None else found | {SAMPLER: self._sampler.memory()}

    def _known_record(self) -> RunRecord:
        if self._record is None:
            raise RunDirectoryError(f"{self._path} has no files before attach(simulation, ...)")
        return self._record

    def _begin(self, simulation: app.Simulation, output: RunOutput) -> None:
        identity = run_identity(self._mixed, simulation)
        state = simulation.context.getState(positions=True, enforcePeriodicBox=True)
        positions = np.asarray(state.getPositions(asNumpy=True))
        if len(positions) > 1 and not np.ptp(positions, axis=0).any():  # OpenMM starts them at zero
            raise RunDirectoryError("all atoms of the Simulation are at the same position; set positions before attach")
        write_topology(self.topology_path, self._mixed.topology, state)
        self._save_files(simulation)
        # The record is last: if it exists, the run can be resumed.
        self._write_record(
            RunRecord(
                simulation.currentStep,
                state.getTime().value_in_unit(unit.picosecond),
                output,
                identity,
                (describe_session(simulation, self._seed),),
            )
        )

    def _write_summary(self, simulation: app.Simulation) -> None:
        """Write the counts of the terms in this session to the record."""
        self._write_record(self._known_record().with_counts(simulation.currentStep, self._mixed.summary()))

    def _write_record(self, record: RunRecord) -> None:
        record.write(self._path / RECORD_NAME)
        self._record = record


def _output_text(output: RunOutput) -> str:
    return f"{output['trajectory']} with a frame every {output['trajectory_interval']} steps"
