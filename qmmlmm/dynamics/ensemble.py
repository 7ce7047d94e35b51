"""Many trajectories of surface hopping, through any executor, which can be stopped and go on."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from openmm import unit
from tqdm import tqdm

from qmmlmm.dynamics.populations import Populations, populations, write_table
from qmmlmm.dynamics.surface_hopping import SurfaceHopping
from qmmlmm.errors import EvaluationError, listed
from qmmlmm.sampling.checkpoint import replace_file
from qmmlmm.sampling.errors import RunDirectoryError
from qmmlmm.units import FloatArray, IntArray

RECORD_NAME = "ensemble.json"


@dataclass(frozen=True)
class InitialCondition:
    """Where a trajectory begins.

    Parameters
    ----------
    positions : (n_particles, 3) float array, nm
    velocities : (n_particles, 3) float array, nm/ps
    state : int
        Electronic state.
    seed : int
        Of the random numbers that decide about hops.
    box_vectors : (3, 3) float array, nm, optional
    """

    positions: FloatArray
    velocities: FloatArray
    state: int
    seed: int
    box_vectors: FloatArray | None = None


@dataclass(frozen=True)
class Course:
    """What one trajectory went through, a row for the beginning and for every step.

    Parameters
    ----------
    times : (t,) float array, ps
    states : (t,) int array
        The active one.
    squares : (t, m) float array
        Absolute squares of the amplitudes.
    energies : (t, m) float array, kJ/mol
        Of all states, see `SurfacePoint`.
    total_energies : (t,) float array, kJ/mol
        Potential energy on the active state and kinetic energy of all particles.
    """

    times: FloatArray
    states: IntArray
    squares: FloatArray
    energies: FloatArray
    total_energies: FloatArray

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a table with a row for the beginning and for every step; the header names the units."""
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
        Made if it does not exist. Holds the rows (``0003.npz``) and a checkpoint of each trajectory.
    create : callable
        Returns a `SurfaceHopping` with its Simulation. For executors with processes of their own a function at the top
        of a module; each trajectory calls it once.
    conditions : sequence of InitialCondition
    steps : int
        Of each trajectory.
    checkpoint_interval : int
        In steps.

    Examples
    --------
    ::

        ensemble = Ensemble("dye_run", create_hopping, conditions, steps=400)
        with ProcessPoolExecutor(8) as executor:
            found = ensemble.run(executor)
        print(found.shares[-1], found.lower[-1], found.upper[-1])
    """

    directory: str | os.PathLike[str]
    create: Callable[[], SurfaceHopping]
    conditions: Sequence[InitialCondition]
    steps: int
    checkpoint_interval: int = 50

    def run(self, executor: Executor | None = None) -> Populations:
        """Run what is not done yet, and return the populations of all trajectories.

        Parameters
        ----------
        executor : concurrent.futures.Executor, optional
            Runs the trajectories; one after another in this process if not given.

        Raises
        ------
        RunDirectoryError
            If the directory holds another ensemble.
        EvaluationError
            If trajectories failed; all others are run first, and those that are done stay.
        """
        folder = Path(self.directory)
        folder.mkdir(parents=True, exist_ok=True)
        self._check_record(folder)
        tasks = [
            (folder / f"{index:04d}", self.create, condition, self.steps, self.checkpoint_interval)
            for index, condition in enumerate(self.conditions)
        ]
        open_ = [task for task in tasks if not _done(task[0], self.steps)]
        failures: list[str] = []
        with tqdm(total=len(open_), desc="trajectories", unit="trajectory", disable=None) as bar:
            if executor is None:
                for task in open_:
                    _keep_failure(failures, task[0], lambda task=task: _run_trajectory(*task))  # type: ignore[misc]
                    bar.update()
            else:
                futures = {executor.submit(_run_trajectory, *task): task[0] for task in open_}
                for future in as_completed(futures):
                    _keep_failure(failures, futures[future], future.result)
                    bar.update()
        if failures:
            raise EvaluationError(
                f"{len(failures)} of {len(tasks)} trajectories failed: {listed(failures)}. They go on from their last "
                "checkpoints when the ensemble is run again"
            )
        return self.populations()

    def populations(self) -> Populations:
        """Return the populations of the trajectories that are done.

        Raises
        ------
        RunDirectoryError
            If there is none.
        """
        folder = Path(self.directory)
        paths = [folder / f"{index:04d}" for index in range(len(self.conditions))]
        rows = [_read_rows(path) for path in paths if _done(path, self.steps)]
        if not rows:
            raise RunDirectoryError(f"{folder} holds no trajectory that is done; call run")
        states, squares = (np.array([row[name][: self.steps + 1] for row in rows]) for name in ("states", "squares"))
        return populations(rows[0]["times"][: self.steps + 1], states, squares)

    def course(self, index: int) -> Course:
        """Return what is written of a trajectory, also of one that is not done.

        Parameters
        ----------
        index : int
            In the order of the conditions.

        Raises
        ------
        RunDirectoryError
            If nothing is written.
        """
        path = Path(self.directory) / f"{index:04d}"
        if not path.with_suffix(".npz").exists():
            raise RunDirectoryError(f"{self.directory} holds nothing of trajectory {index} yet; call run")
        return Course(**_read_rows(path))

    def _check_record(self, folder: Path) -> None:
        digest = hashlib.sha256()
        for condition in self.conditions:
            for array in (condition.positions, condition.velocities, condition.box_vectors):
                digest.update(b"none" if array is None else np.ascontiguousarray(array, dtype=float).tobytes())
            digest.update(f"{condition.state} {condition.seed};".encode())
        record = {"trajectories": len(self.conditions), "conditions": digest.hexdigest()}
        path = folder / RECORD_NAME
        if path.exists():
            if json.loads(path.read_text(encoding="utf-8")) != record:
                raise RunDirectoryError(f"{folder} holds trajectories from other initial conditions; take another one")
            return
        replace_file(path, (json.dumps(record) + "\n").encode())


def _keep_failure(failures: list[str], path: Path, call: Callable[[], object]) -> None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - reported together, and no other trajectory is lost
        failures.append(f"{path.name} ({type(error).__name__}: {error})")


def _run_trajectory(
    path: Path, create: Callable[[], SurfaceHopping], condition: InitialCondition, steps: int, interval: int
) -> None:
    """Run one trajectory from its beginning or from its last checkpoint."""
    hopping = create()
    context = hopping.simulation.context
    checkpoint = path.with_suffix(".chk")
    rows: dict[str, list[Any]] = {row.name: [] for row in fields(Course)}
    if checkpoint.exists():
        hopping.load_checkpoint(checkpoint)
        # Rows are written before the checkpoint that they belong to.
        rows = {name: list(values[: hopping.simulation.currentStep + 1]) for name, values in _read_rows(path).items()}
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
    with np.load(io.BytesIO(path.with_suffix(".npz").read_bytes())) as file:
        return {name: file[name] for name in file.files}


def _done(path: Path, steps: int) -> bool:
    return path.with_suffix(".npz").exists() and len(_read_rows(path)["times"]) > steps
