"""Ensembles of surface-hopping trajectories, run by any executor, that can be stopped and continued."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, as_completed
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from openmm import unit

from qmmlmm.durable_files import replace_file
from qmmlmm.errors import EvaluationError, RunDirectoryError, SettingError, listed
from qmmlmm.nonadiabatic.populations import Populations, populations, write_table
from qmmlmm.nonadiabatic.surface_hopping import SurfaceHopping
from qmmlmm.progress_display import progress_bar
from qmmlmm.setting_checks import (
    LARGEST_COUNT,
    check_array,
    check_callable,
    check_instance,
    check_items,
    check_path,
    check_whole_number,
)
from qmmlmm.units import FloatArray, IntArray

RECORD_NAME = "ensemble.json"


@dataclass(frozen=True)
class InitialCondition:
    """The start of a trajectory.

    Parameters
    ----------
    positions : (n_particles, 3) Quantity or float array, nm
        Stored without the unit.
    velocities : (n_particles, 3) Quantity or float array, nm/ps
    state : int
        Electronic state.
    seed : int
        Seed of the random numbers that decide about hops.
    box_vectors : (3, 3) Quantity or float array, nm, optional

    Raises
    ------
    SettingError
        If an array has the wrong shape or is not finite, or state or seed are no whole numbers of zero or more.
    """

    positions: FloatArray
    velocities: FloatArray
    state: int
    seed: int
    box_vectors: FloatArray | None = None

    def __post_init__(self) -> None:
        speed = unit.nanometer / unit.picosecond
        positions = check_array("InitialCondition: positions", self.positions, (None, 3), unit.nanometer)
        velocities = check_array("InitialCondition: velocities", self.velocities, (None, 3), speed)
        if not len(positions) or len(positions) != len(velocities):
            raise SettingError(
                f"InitialCondition: positions and velocities have the shape (n_particles, 3), got {positions.shape} "
                f"and {velocities.shape}"
            )
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "velocities", velocities)
        if self.box_vectors is not None:
            box = check_array("InitialCondition: box_vectors", self.box_vectors, (3, 3), unit.nanometer)
            object.__setattr__(self, "box_vectors", box)
        check_whole_number("InitialCondition: state", self.state, at_least=0)
        check_whole_number("InitialCondition: seed", self.seed, at_least=0)


@dataclass(frozen=True)
class TrajectoryRecord:
    """States and energies along one trajectory, with a row for the start and for every step.

    Parameters
    ----------
    times : (t,) float array, ps
    states : (t,) int array
        Active state.
    squares : (t, m) float array
        Absolute squares of the amplitudes.
    energies : (t, m) float array, kJ/mol
        Energies of all states, see `SurfacePoint`.
    total_energies : (t,) float array, kJ/mol
        Potential energy on the active state plus kinetic energy of all particles.
    """

    times: FloatArray
    states: IntArray
    squares: FloatArray
    energies: FloatArray
    total_energies: FloatArray

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a table with a row for the start and for every step; the header names the units."""
        count = self.energies.shape[1]
        columns = ["Time (ps)", "State", "Total Energy (kJ/mol)"]
        columns += [f"Energy {k} (kJ/mol)" for k in range(count)] + [f"Population {k}" for k in range(count)]
        rows = zip(self.times, self.states, self.total_energies, self.energies, self.squares, strict=True)
        write_table(path, columns, ((t, int(s), e, *energies, *squares) for t, s, e, energies, squares in rows))


@dataclass(frozen=True)
class Ensemble:
    """Trajectories from given initial conditions.

    Parameters
    ----------
    directory : path
        Directory, created if necessary, with the record (``0003.npz``) and a checkpoint of each trajectory.
    create : callable
        Function that returns a `SurfaceHopping` with its Simulation, called once for each trajectory. Executors with
        worker processes need a function at the top of a module.
    conditions : sequence of InitialCondition
    steps : int
        Number of steps of each trajectory.
    checkpoint_interval : int
        Number of steps between checkpoints.

    Raises
    ------
    SettingError
        If a number of steps is no whole number of one or more, there are no conditions, or an argument has another
        type.

    Examples
    --------
    ::

        ensemble = Ensemble("dye_run", create_hopping, conditions, steps=400)
        with ProcessPoolExecutor(8, mp_context=multiprocessing.get_context("spawn")) as executor:
            found = ensemble.run(executor)
        print(found.shares[-1], found.lower[-1], found.upper[-1])
    """

    directory: str | os.PathLike[str]
    create: Callable[[], SurfaceHopping]
    conditions: Sequence[InitialCondition]
    steps: int
    checkpoint_interval: int = 50

    def __post_init__(self) -> None:
        check_path("Ensemble: directory", self.directory)
        check_callable("Ensemble: create", self.create, "a function that returns a SurfaceHopping")
        object.__setattr__(self, "conditions", check_items("Ensemble: conditions", self.conditions, InitialCondition))
        for name in ("steps", "checkpoint_interval"):
            check_whole_number(
                f"Ensemble: {name}", vars(self)[name], at_most=LARGEST_COUNT, what="a whole number of steps"
            )

    def run(self, executor: Executor | None = None) -> Populations:
        """Run all trajectories that are not complete, and return the populations of all.

        Parameters
        ----------
        executor : concurrent.futures.Executor, optional
            Executor that runs the trajectories; they run one after another in this process if not given. The processes
            of a pool are to be spawned: forked ones inherit OpenMM's and OpenMP's threads half and can die of it.

        Raises
        ------
        SettingError
            If it is no executor.
        RunDirectoryError
            If the directory holds another ensemble, or a file in it is damaged.
        EvaluationError
            If trajectories failed. All others are run first and kept.
        """
        if executor is not None:
            check_instance("executor", executor, Executor, "a concurrent.futures.Executor")
        folder = Path(self.directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirectoryError(f"{folder} cannot be the directory of an ensemble: {error}") from error
        self._check_record(folder)
        tasks = [
            (folder / f"{index:04d}", self.create, condition, self.steps, self.checkpoint_interval)
            for index, condition in enumerate(self.conditions)
        ]
        remaining = [task for task in tasks if not _complete(task[0], self.steps)]
        failures: list[str] = []
        pool_broke = False
        with progress_bar(len(remaining), "trajectories", "trajectory") as bar:
            if executor is None:
                for task in remaining:
                    _keep_failure(failures, task[0], lambda task=task: _run_trajectory(*task))  # type: ignore[misc]
                    bar.update()
            else:
                futures = {executor.submit(_run_trajectory, *task): task[0] for task in remaining}
                for future in as_completed(futures):
                    _keep_failure(failures, futures[future], future.result)
                    pool_broke = pool_broke or isinstance(future.exception(), BrokenExecutor)
                    bar.update()
        if failures:
            died = ""
            if pool_broke:
                died = (
                    "A worker process died: memory may be short, or the pool forks its processes; give "
                    'ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn")). '
                )
            raise EvaluationError(
                f"{len(failures)} of {len(tasks)} trajectories failed: {listed(failures)}. {died}Run the ensemble "
                "again to continue them from their last checkpoints"
            )
        return self.populations()

    def populations(self) -> Populations:
        """Return the populations of the trajectories that are complete.

        Raises
        ------
        RunDirectoryError
            If there is none, or a file is damaged.
        """
        folder = Path(self.directory)
        paths = [folder / f"{index:04d}" for index in range(len(self.conditions))]
        rows = [_read_rows(path) for path in paths if _complete(path, self.steps)]
        if not rows:
            raise RunDirectoryError(f"{folder} holds no complete trajectory; call run")
        states, squares = (np.array([row[name][: self.steps + 1] for row in rows]) for name in ("states", "squares"))
        return populations(rows[0]["times"][: self.steps + 1], states, squares)

    def trajectory_record(self, index: int) -> TrajectoryRecord:
        """Return the record of a trajectory, also of one that is not complete.

        Parameters
        ----------
        index : int
            Index of its initial condition.

        Raises
        ------
        SettingError
            If there is no such initial condition.
        RunDirectoryError
            If it has not been started, or its file is damaged.
        """
        check_whole_number("index", index, at_least=0, at_most=len(self.conditions) - 1, what="an index")
        path = Path(self.directory) / f"{index:04d}"
        if not path.with_suffix(".npz").exists():
            raise RunDirectoryError(f"{self.directory} holds nothing of trajectory {index} yet; call run")
        return TrajectoryRecord(**_read_rows(path))

    def _check_record(self, folder: Path) -> None:
        digest = hashlib.sha256()
        for condition in self.conditions:
            for array in (condition.positions, condition.velocities, condition.box_vectors):
                digest.update(b"none" if array is None else np.ascontiguousarray(array, dtype=float).tobytes())
            digest.update(f"{condition.state} {condition.seed};".encode())
        record = {"trajectories": len(self.conditions), "conditions": digest.hexdigest()}
        path = folder / RECORD_NAME
        if path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise RunDirectoryError(
                    f"{path} is damaged and does not say which trajectories this directory holds: {error}; if these "
                    "are the same initial conditions, delete that file, else use another directory"
                ) from error
            if found != record:
                raise RunDirectoryError(
                    f"{folder} holds trajectories from other initial conditions; use another directory"
                )
            return
        try:
            replace_file(path, (json.dumps(record) + "\n").encode())
        except OSError as error:
            raise RunDirectoryError(f"{path} cannot be written: {error}") from error


def _keep_failure(failures: list[str], path: Path, call: Callable[[], object]) -> None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - reported together, and no other trajectory is lost
        failures.append(f"{path.name} ({type(error).__name__}: {error})")


def _run_trajectory(
    path: Path, create: Callable[[], SurfaceHopping], condition: InitialCondition, steps: int, interval: int
) -> None:
    """Run one trajectory from its start or from its last checkpoint."""
    hopping = check_instance("the result of create", create(), SurfaceHopping)
    context = hopping.simulation.context
    checkpoint = path.with_suffix(".chk")
    rows: dict[str, list[Any]] = {row.name: [] for row in fields(TrajectoryRecord)}
    if checkpoint.exists():
        hopping.load_checkpoint(checkpoint)
        # Rows are written before the checkpoint that they belong to.
        count = hopping.simulation.currentStep + 1
        rows = {name: list(values[:count]) for name, values in _read_rows(path).items()}
        if len(rows["times"]) < count:
            raise RunDirectoryError(
                f"{path.with_suffix('.npz')} has {len(rows['times'])} rows and its checkpoint is after step "
                f"{count - 1}; delete both to run this trajectory again"
            )
    else:
        if condition.box_vectors is not None:
            context.setPeriodicBoxVectors(*condition.box_vectors)
        hopping.reset(condition.state, condition.seed)
        context.setTime(0.0)
        context.setStepCount(0)
        context.setPositions(condition.positions)
        context.setVelocities(condition.velocities)
        hopping.before_step()
        _add_row(rows, hopping)
    while hopping.simulation.currentStep < steps:
        for _ in range(min(interval, steps - hopping.simulation.currentStep)):
            hopping.step(1)
            _add_row(rows, hopping)
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {name: np.array(values) for name, values in rows.items()}
        np.savez(buffer, **arrays)
        replace_file(path.with_suffix(".npz"), buffer.getvalue())
        hopping.save_checkpoint(checkpoint)


def _add_row(rows: dict[str, list[Any]], hopping: SurfaceHopping) -> None:
    state = hopping.simulation.context.getState(energy=True)
    assert hopping.point is not None
    energy = state.getPotentialEnergy() + state.getKineticEnergy()
    rows["times"].append(state.getTime().value_in_unit(unit.picosecond))
    rows["states"].append(hopping.state)
    rows["squares"].append(hopping.populations)
    rows["energies"].append(hopping.point.energies)
    rows["total_energies"].append(energy.value_in_unit(unit.kilojoule_per_mole))


def _read_rows(path: Path) -> dict[str, Any]:
    """Return the rows of a trajectory; RunDirectoryError names a file that has none."""
    record = path.with_suffix(".npz")
    expected = {row.name for row in fields(TrajectoryRecord)}
    try:
        with np.load(io.BytesIO(record.read_bytes()), allow_pickle=False) as file:
            rows = {name: file[name] for name in file.files}
        if set(rows) != expected or len({len(values) for values in rows.values()}) != 1:
            raise ValueError(f"it has no rows of {listed(sorted(expected))}")
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise RunDirectoryError(
            f"{record} is no record of a trajectory: {error}; delete it and {path.with_suffix('.chk').name} to run "
            "this trajectory again"
        ) from error
    return rows


def _complete(path: Path, steps: int) -> bool:
    return path.with_suffix(".npz").exists() and len(_read_rows(path)["times"]) > steps
