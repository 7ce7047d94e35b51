"""Umbrella windows that exchange their centres, by OpenMM's replica exchange."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.durable_files import naming_full_disk, replace_file, sealed, unsealed
from qmmlmm.errors import MissingDependencyError, NonFiniteError, RunDirectoryError
from qmmlmm.free_energy.umbrella_window import (
    NAME,
    TABLE_NAME,
    Window,
    begin_window,
    set_seeds,
    simulation_of,
)
from qmmlmm.geometry import Geometry
from qmmlmm.runs.checkpoint import write_progress, write_state
from qmmlmm.runs.directory_lock import DirectoryLock
from qmmlmm.runs.reporters import FIRST_COLUMNS
from qmmlmm.runs.table_rows import csv_row, cut_rows
from qmmlmm.runs.variable_reporter import column_name
from qmmlmm.units import FloatArray

CHECKPOINT_NAME = "exchange.npz"
REPLICAS_NAME = "exchange.csv"
SAMPLER = "ReplicaExchangeSampler"


def check_sampler_is_there() -> None:
    """Raise MissingDependencyError if this OpenMM has no replica exchange."""
    # OpenMM before 8.6 has no such class.
    if not hasattr(app, SAMPLER):
        raise MissingDependencyError(
            f"exchange between windows needs OpenMM 8.6 or newer, and this is {openmm.version.version}: upgrade it "
            '(pip install "openmm>=8.6"), or leave exchange out'
        )


def run_exchange(windows: Sequence[Window], folder: Path, seed: int, update: Callable[[int], object]) -> None:
    """Run all windows at once, from their starts or from the last checkpoint, with exchanges between them.

    Parameters
    ----------
    windows : sequence of Window
    folder : Path
        Directory of the windows.
    seed : int
        Seed of the exchanges.
    update : callable
        Function that is told the number of steps since it was called last.

    Raises
    ------
    MissingDependencyError
        If this OpenMM has no replica exchange.
    RunDirectoryError
        If the directory is in use, or its checkpoint cannot be loaded.
    NonFiniteError
        If the variable is not finite.
    """
    check_sampler_is_there()
    lock = DirectoryLock(folder)
    try:
        _Exchange(windows, folder, seed).run(update)
    finally:
        lock.release()


@dataclass
class _Tables:
    """The open tables of all windows, and that of the replicas."""

    files: list[TextIO]
    replicas: TextIO

    def close(self) -> None:
        for file in (*self.files, self.replicas):
            file.close()

    def sync(self) -> None:
        for file in (*self.files, self.replicas):
            file.flush()
            os.fsync(file.fileno())


class _Exchange:
    """One Simulation whose Context holds the replicas in turn."""

    def __init__(self, windows: Sequence[Window], folder: Path, seed: int) -> None:
        self._windows, self._folder = tuple(windows), folder
        first = self._windows[0]
        self._mixed, self._simulation = simulation_of(first.create, first.variable)
        self._interval = first.interval
        self._periodic = self._simulation.system.usesPeriodicBoundaryConditions()
        # OpenMM draws its exchanges from the random numbers of the process, which are the caller's.
        self._draws = random.Random(seed).getstate()
        context = self._simulation.context
        known = self._checkpoint()
        if known is None:
            replicas = []
            set_seeds(self._simulation, first.seed)
            for window in self._windows:
                begin_window(window, self._simulation, seeded=True)
                replicas.append(_state(context))
        else:
            replicas = self._load(known)
        # OpenMM before 8.6 has no such class.
        self._sampler: Any = getattr(app, SAMPLER)(self._states(), self._simulation, self._interval)
        self._sampler.replicaConformation = replicas
        if known is not None:
            self._sampler.currentIteration = int(known["iteration"])
            self._sampler.replicaStateIndex = known["places"].tolist()
            self._sampler._previousReplicaStateIndex = known["previous places"].tolist()
        self._sampler.reporters.append(self._keep)
        self._tables: _Tables

    @property
    def _step(self) -> int:
        return int(self._sampler.currentIteration) * self._interval

    def run(self, update: Callable[[int], object]) -> None:
        """Run to the end of the windows."""
        first = self._windows[0]
        self._tables = self._open()
        try:
            while self._step < first.steps:
                self._iterate()
                update(len(self._windows) * self._interval)
                before, now = self._step - self._interval, self._step
                if now >= first.steps or before // first.checkpoint_interval < now // first.checkpoint_interval:
                    self._save()
        finally:
            self._tables.close()
        for replica, place in enumerate(self._sampler.replicaStateIndex):
            write_state(self._windows[place].folder, self._sampler.replicaConformation[replica])

    def _states(self) -> list[dict[str, object]]:
        return [
            {
                "temperature": window.temperature * unit.kelvin,
                f"{NAME}_centre": window.centre,
                f"{NAME}_k": window.constant,
            }
            for window in self._windows
        ]

    def _iterate(self) -> None:
        outside = random.getstate()
        random.setstate(self._draws)
        try:
            self._sampler.simulate(1)
        except openmm.OpenMMException as error:
            self._mixed.raise_original(error)
        finally:
            self._draws = random.getstate()
            random.setstate(outside)

    def _keep(self, sampler: Any) -> None:
        """Write the value of each replica into the table of the window in which it moved."""
        step = self._step
        time = step * self._time_step
        for replica, place in enumerate(sampler.replicaStateIndex):
            window = self._windows[place]
            geometry = Geometry.from_state(sampler.replicaConformation[replica], self._periodic)
            value = float(window.variable(geometry))
            if not np.isfinite(value):
                raise NonFiniteError(
                    f"the variable is not a finite number in window {window.folder.name} at step {step}; run again to "
                    "continue from the last checkpoint, with a smaller time step if it comes again"
                )
            with naming_full_disk(window.folder / TABLE_NAME):
                self._tables.files[place].write(csv_row([step, time, value]))
        order = np.argsort(sampler.replicaStateIndex)
        with naming_full_disk(self._folder / REPLICAS_NAME):
            self._tables.replicas.write(csv_row([step, *order.tolist()]))

    def _open(self) -> _Tables:
        names = [*FIRST_COLUMNS, column_name("variable", self._windows[0].variable)]
        files = [_table(window.folder / TABLE_NAME, names, self._step) for window in self._windows]
        columns = [FIRST_COLUMNS[0], *(f"Replica in {window.folder.name}" for window in self._windows)]
        return _Tables(files, _table(self._folder / REPLICAS_NAME, columns, self._step))

    def _save(self) -> None:
        """Write a checkpoint that is whole at any moment, after the rows that it counts."""
        self._tables.sync()
        sampler = self._sampler
        _, numbers, _ = self._draws
        arrays = {
            "iteration": np.array(sampler.currentIteration),
            "places": np.array(sampler.replicaStateIndex),
            "previous places": np.array(sampler._previousReplicaStateIndex),
            "draws": np.array(numbers, dtype=np.int64),
            "context": np.frombuffer(self._simulation.context.createCheckpoint(), dtype=np.uint8),
        }
        for k, state in enumerate(sampler.replicaConformation):
            arrays[f"replica {k}"] = np.frombuffer(openmm.XmlSerializer.serialize(state).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        replace_file(self._folder / CHECKPOINT_NAME, sealed(buffer.getvalue()))
        for window in self._windows:
            write_progress(window.folder, self._step, self._step * self._time_step)

    @property
    def _time_step(self) -> float:
        return float(self._simulation.integrator.getStepSize().value_in_unit(unit.picosecond))

    def _checkpoint(self) -> dict[str, FloatArray] | None:
        path = self._folder / CHECKPOINT_NAME
        if not path.exists():
            return None
        try:
            with np.load(io.BytesIO(unsealed(path.read_bytes())), allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError, KeyError) as error:
            raise RunDirectoryError(f"{path} cannot be read: {error}; restore it, or use another directory") from error

    def _load(self, known: dict[str, FloatArray]) -> list[openmm.State]:
        version, _, gauss = self._draws
        self._draws = (version, tuple(known["draws"].tolist()), gauss)
        try:
            self._simulation.context.loadCheckpoint(known["context"].tobytes())
        except openmm.OpenMMException as error:
            raise RunDirectoryError(
                f"{self._folder / CHECKPOINT_NAME} is of another platform, machine or version of OpenMM: {error}; "
                "continue there, or use another directory"
            ) from error
        texts = (known[f"replica {k}"].tobytes().decode() for k in range(len(self._windows)))
        return [openmm.XmlSerializer.deserialize(text) for text in texts]


def _state(context: openmm.Context) -> openmm.State:
    return context.getState(positions=True, velocities=True, parameters=True, integratorParameters=True)


def _table(path: Path, names: Sequence[str], step: int) -> TextIO:
    """Open a table to continue after a step; it is made with its header if it is not there or was cut short."""
    if step and path.exists():
        cut_rows(path, step)
    else:
        replace_file(path, csv_row(list(names), header=True).encode())
    return path.open("a", encoding="utf-8", newline="")
