"""Run directories: everything that a run leaves behind, and what it needs to go on."""

from __future__ import annotations

import contextlib
import json
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.errors import listed
from qmmlmm.sampling.checkpoint import (
    CHECKPOINT_NAME,
    PROGRESS_NAME,
    forget_older,
    load_checkpoint,
    load_electronic_states,
    replace_file,
    save_checkpoint,
)
from qmmlmm.sampling.directory_lock import DirectoryLock
from qmmlmm.sampling.errors import RunDirectoryError
from qmmlmm.sampling.reporters import (
    MixedSystemLike,
    ProgressReporter,
    TermEnergyReporter,
    checked_interval,
    cut_energies,
)
from qmmlmm.sampling.run_record import RECORD_FORMAT, describe_session, differences, identity, read_record
from qmmlmm.sampling.run_reporter import CheckpointReporter, RunReporter
from qmmlmm.sampling.trajectory import FORMATS, TrajectoryReporter, cut_trajectory

__all__ = ["RunDirectory", "RunDirectoryError"]

RECORD_NAME = "run.json"
ENERGIES_NAME = "energies.csv"
TOPOLOGY_NAME = "topology.pdb"
LARGE_TOPOLOGY_NAME = "topology.cif"
MOST_ATOMS_IN_PDB = 99_999


class RunDirectory:
    """A directory that holds a run, says how it was made, and from which it can be resumed.

    Parameters
    ----------
    path : str or path
        Made if it does not exist.
    mixed : MixedSystem
        What is simulated.
    seed : int, optional
        The seed that the script used, for velocities and all else that it drew; it is written down, not used.
        The seeds of the integrator and of a barostat are read from them.
    resume : bool
        Open the directory of an interrupted run in order to call `resume`. Otherwise the directory must not
        hold a run.

    Raises
    ------
    RunDirectoryError
        If the directory holds a run and `resume` is not set, or holds none and it is, or if another process
        uses it.
    OSError
        If it cannot be made or written to.

    Notes
    -----
    ======================================  ==============================================================
    ``run.json``                            versions, platform, seeds, terms, hashes of the inputs; for each
                                            session what the terms counted: evaluations, SCF cycles, failures
    ``topology.pdb`` (large: ``.cif``)      atoms and the positions at the start
    ``trajectory.dcd`` (or ``.xtc``)        frames
    ``energies.csv``                        energy per term
    ``checkpoint.chk``, ``state.xml``       last checkpoint; the one before ends in ``.previous``
    ``electronic_states.npz``               its electronic states, from which terms with excited states go on
    ``progress.json``                       its step and time
    ======================================  ==============================================================

    Whenever the process dies, even without notice, the run goes on from the last checkpoint as though nothing
    had happened: frames and rows after it are removed and made again.

    Examples
    --------
    The shape of a script that starts a run or takes it up again::

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
        resume: bool = False,
    ) -> None:
        self._path = Path(path)
        self._mixed = mixed
        self._seed = seed
        self._record: dict[str, Any] | None = None
        self._reporter: RunReporter | None = None
        self._simulation: Any = None
        self._resumed = False
        self._closed = False
        self._saved_step = -1
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
                self._record = read_record(self._path / RECORD_NAME)
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
        return self._path / ENERGIES_NAME

    @property
    def topology_path(self) -> Path:
        """The file with the atoms, PDB or for large systems PDBx/mmCIF."""
        large = self._mixed.topology.getNumAtoms() > MOST_ATOMS_IN_PDB
        return self._path / (LARGE_TOPOLOGY_NAME if large else TOPOLOGY_NAME)

    @property
    def trajectory_path(self) -> Path:
        """The trajectory; known once the run is attached or was opened to be resumed."""
        return self._path / str(self._known_record()["output"]["trajectory"])

    def attach(
        self,
        simulation: app.Simulation,
        *,
        trajectory_interval: int,
        energy_interval: int,
        checkpoint_interval: int,
        total_steps: int,
        trajectory_format: str = "dcd",
    ) -> None:
        """Add the reporters of this run to a Simulation, and write a first checkpoint.

        Parameters
        ----------
        simulation : app.Simulation
            With positions, and velocities if it needs any; or after `resume`.
        trajectory_interval, energy_interval, checkpoint_interval : int
            In steps. The interval of the trajectory stays the same when a run is resumed.
        total_steps : int
            Steps of the whole run from its beginning, for the progress display.
        trajectory_format : {"dcd", "xtc"}
            XTC is a third of the size and keeps 0.001 nm.

        Raises
        ------
        RunDirectoryError
            If the run was not resumed, is attached already or closed, or its trajectory has another interval.
        """
        self._check_open()
        if self._reporter is not None:
            raise RunDirectoryError(f"{self._path} is attached to a Simulation already")
        for name, value in (
            ("trajectory_interval", trajectory_interval),
            ("energy_interval", energy_interval),
            ("checkpoint_interval", checkpoint_interval),
            ("total_steps", total_steps),
        ):
            checked_interval(name, value)
        if trajectory_format not in FORMATS:
            raise RunDirectoryError(f"trajectory_format is one of {listed(FORMATS)}, got {trajectory_format!r}")
        output = {
            "trajectory": f"trajectory.{trajectory_format}",
            "trajectory_interval": trajectory_interval,
        }
        if self._record is None:
            self._begin(simulation, output)
        elif not self._resumed:
            raise RunDirectoryError(f"call resume(simulation) before attach: {self._path} holds a run")
        elif self._record["output"] != output:
            raise RunDirectoryError(
                f"the trajectory of {self._path} is {_output_text(self._record['output'])} and cannot be "
                f"continued as {_output_text(output)}; use the same, or start a new run"
            )
        record = self._known_record()
        first_step = record["first_step"]
        trajectory, energies = self.trajectory_path, self.energies_path
        self._reporter = RunReporter(
            # First, because it names the term that is not finite.
            TermEnergyReporter(energies, energy_interval, self._mixed, append=energies.exists()),
            TrajectoryReporter(trajectory, trajectory_interval, first_step=first_step, append=trajectory.exists()),
            # Later than these: a checkpoint promises that what came before it is in the files.
            CheckpointReporter(checkpoint_interval, self.save_checkpoint),
            ProgressReporter(
                min(trajectory_interval, energy_interval, checkpoint_interval),
                total_steps,
                first_step=first_step,
            ),
        )
        self._simulation = simulation
        simulation.reporters.append(self._reporter)

    def run(self, simulation: app.Simulation, steps: int) -> None:
        """Advance the Simulation and save a checkpoint at the end.

        If this fails or is interrupted, files are closed, the last checkpoint stays and the directory can be
        resumed.

        Parameters
        ----------
        simulation : app.Simulation
            The one that is attached.
        steps : int
            Number of steps.

        Raises
        ------
        BaseException
            What went wrong, with its own class, also when it happened in a callback of OpenMM.
        """
        self._check_open()
        reporter = self._reporter
        if reporter is None or simulation is not self._simulation:
            raise RunDirectoryError("call attach(simulation, ...) with this Simulation before run")
        try:
            simulation.step(steps)
            if simulation.currentStep != self._saved_step:
                self.save_checkpoint(simulation)
            self._write_summary(simulation)
            reporter.pause()
        except BaseException as error:  # noqa: BLE001 - also KeyboardInterrupt, and all are raised again
            with contextlib.suppress(OSError):  # a full disk; the error that counts is the first one
                self._write_summary(simulation)
            with contextlib.suppress(OSError):
                self.close()
            self._mixed.raise_original(error)

    def resume(self, simulation: app.Simulation) -> int:
        """Bring the Simulation and the files back to the last checkpoint.

        Parameters
        ----------
        simulation : app.Simulation
            Made by the same script; positions and velocities need not be set.

        Returns
        -------
        int
            Number of steps that are done, counted from the beginning of the run.

        Raises
        ------
        RunDirectoryError
            If this is not the same simulation, or there is no checkpoint.
        OutputFileError
            If trajectory or energies are damaged or too short; nothing is overwritten then.
        """
        self._check_open()
        if self._record is None:
            raise RunDirectoryError(f"{self._path} was opened for a new run; open it with resume=True")
        if self._reporter is not None:
            raise RunDirectoryError("resume comes before attach")
        record = self._record
        found = differences(
            {key: record[key] for key in ("mixed_system", "hashes", "integrator")},
            identity(self._mixed, simulation),
        )
        if found:
            raise RunDirectoryError(
                f"{self._path} holds another run: {listed(found)}; resume it with the script and the "
                "files that it was made from, or start a new run elsewhere"
            )
        # Two resumed runs take the same steps, whatever was computed before in their processes.
        self._mixed.forget()
        loaded = load_checkpoint(simulation, self._path)
        step, first = simulation.currentStep, record["first_step"]
        for name, memory in load_electronic_states(self._path, step).items():
            self._mixed.recall(name, memory)
        interval = record["output"]["trajectory_interval"]
        cut_trajectory(self.trajectory_path, step // interval - first // interval, self._mixed.topology.getNumAtoms())
        if self.energies_path.exists():
            cut_energies(self.energies_path, step)
        if loaded != CHECKPOINT_NAME:
            # What was passed over may be later than this, and must not come up again.
            self.save_checkpoint(simulation)
            forget_older(self._path)
        self._saved_step = step
        self._write_record({**record, "sessions": [*record["sessions"], describe_session(simulation, self._seed)]})
        self._resumed = True
        return int(step - first)

    def save_checkpoint(self, simulation: app.Simulation) -> None:
        """Save a checkpoint now; frames and rows up to here are on disk before it."""
        self._check_open()
        for path in (self.trajectory_path, self.energies_path):
            if path.exists():
                _sync(path)
        save_checkpoint(simulation, self._path, self._mixed.memory())
        self._saved_step = simulation.currentStep

    def close(self) -> None:
        """Close the files, detach from the Simulation and let others use the directory."""
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
                f"{self._path} holds a run{where}; take it up again with resume=True, choose another "
                "directory, or remove this one"
            )
        found = [
            name for name in (ENERGIES_NAME, *(f"trajectory.{f}" for f in FORMATS)) if (self._path / name).exists()
        ]
        if found:
            raise RunDirectoryError(
                f"{self._path} holds {listed(found)} but no {RECORD_NAME}, and they would be overwritten; "
                "choose another directory"
            )

    def _known_record(self) -> dict[str, Any]:
        if self._record is None:
            raise RunDirectoryError(f"nothing of {self._path} is written before attach(simulation, ...)")
        return self._record

    def _begin(self, simulation: app.Simulation, output: dict[str, Any]) -> None:
        same = identity(self._mixed, simulation)
        state = simulation.context.getState(positions=True, enforcePeriodicBox=True)
        positions = np.asarray(state.getPositions(asNumpy=True))
        if len(positions) > 1 and not np.ptp(positions, axis=0).any():  # OpenMM starts them at zero
            raise RunDirectoryError("all atoms of the Simulation are at one place; set its positions before attach")
        self._write_topology(state)
        save_checkpoint(simulation, self._path, self._mixed.memory())
        self._saved_step = simulation.currentStep
        # The record comes last: where it is, there is something to resume.
        self._write_record(
            {
                "format": RECORD_FORMAT,
                "first_step": simulation.currentStep,
                "first_time (ps)": state.getTime().value_in_unit(unit.picosecond),
                "output": output,
                **same,
                "sessions": [describe_session(simulation, self._seed)],
            }
        )

    def _write_topology(self, state: openmm.State) -> None:
        topology, positions = self._mixed.topology, state.getPositions()
        with open(self.topology_path, "w", encoding="utf-8") as file:
            if self.topology_path.name == LARGE_TOPOLOGY_NAME:
                app.PDBxFile.writeFile(topology, positions, file, keepIds=True)
                return
            box = app.Topology()
            if topology.getPeriodicBoxVectors() is not None:  # as it is now, not as it was read
                box.setPeriodicBoxVectors(state.getPeriodicBoxVectors())
            app.PDBFile.writeHeader(box, file)
            app.PDBFile.writeModel(topology, positions, file, keepIds=True)
            app.PDBFile.writeFooter(topology, file)

    def _write_summary(self, simulation: app.Simulation) -> None:
        """Put into the record what the terms counted in this session."""
        record = self._known_record()
        *before, session = record["sessions"]
        session = {**session, "last_step": simulation.currentStep, "terms": self._mixed.summary()}
        self._write_record({**record, "sessions": [*before, session]})

    def _write_record(self, record: dict[str, Any]) -> None:
        replace_file(self._path / RECORD_NAME, (json.dumps(record, indent=1) + "\n").encode("utf-8"))
        self._record = record


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _output_text(output: dict[str, Any]) -> str:
    return f"{output['trajectory']} with a frame every {output['trajectory_interval']} steps"
