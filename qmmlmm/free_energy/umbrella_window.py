"""One umbrella window: a run in a directory, which a process of its own can execute and continue."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.errors import RunDirectoryError, SettingError, TableError
from qmmlmm.geometry import Geometry
from qmmlmm.mm.barostats import barostats_of
from qmmlmm.runs.barostat_renewal import BarostatRenewal
from qmmlmm.runs.checkpoint import PROGRESS_NAME
from qmmlmm.runs.reporters import MixedSystemLike, NextReport, steps_to_next
from qmmlmm.runs.run_directory import RunDirectory
from qmmlmm.runs.table_rows import cut_rows
from qmmlmm.runs.variable_reporter import VariableReporter, read_variable_table
from qmmlmm.sampling.variable import Variable
from qmmlmm.spectra.snapshots import read_snapshots
from qmmlmm.units import FloatArray, IntArray

NAME = "umbrella"
"""Name of the umbrella, which has the parameters ``umbrella_centre`` and ``umbrella_k``."""

TABLE_NAME = "variable.csv"
START_NAME = "start.npz"

CreateSimulation: TypeAlias = "Callable[[openmm.Force], tuple[MixedSystemLike, app.Simulation]]"
"""Function of the umbrella's Force that returns the mixed System, with the Force in it, and its Simulation."""


@dataclass(frozen=True)
class Window:
    """A window of `UmbrellaSampling`.

    Parameters
    ----------
    folder : Path
    create : callable
    variable : Variable
    centre : float
    constant : float
        Force constant, kJ/mol per square of the variable's unit.
    temperature : float, K
    steps : int
        Number of all steps.
    interval, frame_interval, checkpoint_interval : int
        Numbers of steps.
    seed : int
    """

    folder: Path
    create: CreateSimulation
    variable: Variable
    centre: float
    constant: float
    temperature: float
    steps: int
    interval: int
    frame_interval: int
    checkpoint_interval: int
    seed: int

    @property
    def start_path(self) -> Path:
        """The file with the start."""
        return self.folder / START_NAME


class _StepCounter:
    """A reporter that tells a progress bar how many steps were taken."""

    def __init__(self, interval: int, update: Callable[[int], object], first: int) -> None:
        self._interval, self._update, self._last = interval, update, first

    def describeNextReport(self, simulation: app.Simulation) -> NextReport:
        return {"steps": steps_to_next(self._interval, simulation), "periodic": None, "include": []}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        self._update(simulation.currentStep - self._last)
        self._last = simulation.currentStep


def simulation_of(create: CreateSimulation, variable: Variable) -> tuple[MixedSystemLike, app.Simulation]:
    """Return what `create` makes with an umbrella along a variable.

    Raises
    ------
    SettingError
        If it returns something else, or the Force is not in the System.
    """
    made = _made(create, variable.umbrella(NAME, True))
    # Whether there is a box, the other Forces say; without one, vectors do not go to the nearest image.
    umbrella = f"umbrella {NAME}"
    forces = [force for force in made[1].system.getForces() if force.getName() != umbrella]
    if any(force.usesPeriodicBoundaryConditions() for force in forces) or barostats_of(made[1].system):
        return made
    return _made(create, variable.umbrella(NAME, False))


def _made(create: CreateSimulation, umbrella: openmm.Force) -> tuple[MixedSystemLike, app.Simulation]:
    made = create(umbrella)
    if (
        not isinstance(made, tuple)
        or len(made) != 2
        or not isinstance(made[0], MixedSystemLike)
        or not isinstance(made[1], app.Simulation)
    ):
        raise SettingError(f"create returns (mixed, simulation), a MixedSystem and its Simulation, got {made!r}")
    if f"{NAME}_centre" not in made[1].context.getParameters():
        raise SettingError(
            "create leaves the umbrella out of the System: call mixed.system.addForce(umbrella) before the Simulation "
            "is made"
        )
    return made


def run_window(window: Window, update: Callable[[int], object] | None = None) -> None:
    """Run a window from its start or from its last checkpoint to its end.

    Parameters
    ----------
    window : Window
    update : callable, optional
        Function that is told the number of steps since it was called last.
    """
    resume = RunDirectory.holds_run(window.folder)
    mixed, simulation = simulation_of(window.create, window.variable)
    with RunDirectory(
        window.folder,
        mixed,
        seed=window.seed,
        resume=resume,
        continue_with="umbrella.run(...)  # the same script again",
    ) as run:
        if resume:
            done = run.resume(simulation)
        else:
            done = 0
            begin_window(window, simulation)
        if barostats_of(simulation.system):
            # Before the reporter of the run directory, which writes checkpoints.
            simulation.reporters.append(BarostatRenewal(simulation.system, window.checkpoint_interval))
        reporter = VariableReporter(
            window.folder / TABLE_NAME, window.interval, {"variable": window.variable}, append=resume
        )
        simulation.reporters.append(reporter)
        if update is not None:
            simulation.reporters.append(_StepCounter(window.interval, update, simulation.currentStep))
        try:
            run.attach(
                simulation,
                trajectory_interval=window.frame_interval,
                energy_interval=window.frame_interval,
                checkpoint_interval=window.checkpoint_interval,
                total_steps=window.steps,
                progress=False,
            )
            run.run(simulation, window.steps - done)
        finally:
            reporter.close()


def set_seeds(simulation: app.Simulation, seed: int) -> None:
    """Seed all random numbers of a Simulation, whose Context is made anew: set its positions afterwards."""
    for source in (simulation.integrator, *simulation.system.getForces()):
        # Integrators and Forces that draw random numbers share this method and no base class.
        if hasattr(source, "setRandomNumberSeed"):
            source.setRandomNumberSeed(seed + 1)  # zero would be a seed from the clock
    simulation.context.reinitialize(preserveState=False)


def place(context: openmm.Context, positions: FloatArray, box: FloatArray | None) -> None:
    """Set positions, and the box if there is one.

    Raises
    ------
    SettingError
        If OpenMM refuses the box.
    """
    if box is not None:
        try:
            context.setPeriodicBoxVectors(*box)
        except openmm.OpenMMException as error:
            raise SettingError(f"box_vectors {box.tolist()} are no box of OpenMM: {error}") from error
    context.setPositions(positions)


def begin_window(window: Window, simulation: app.Simulation, *, seeded: bool = False) -> None:
    """Set up the Simulation of a window at its start, without new seeds if it has some."""
    context = simulation.context
    if not seeded:
        set_seeds(simulation, window.seed)
    with np.load(window.start_path, allow_pickle=False) as file:
        place(context, file["positions"], file["box"] if "box" in file.files else None)
    context.setParameter(f"{NAME}_centre", window.centre)
    context.setParameter(f"{NAME}_k", window.constant)
    context.computeVirtualSites()
    context.setVelocitiesToTemperature(window.temperature * unit.kelvin, window.seed + 1)


def steps_done(folder: Path) -> int:
    """Return the number of steps of a window that its last checkpoint has."""
    try:
        return int(json.loads((folder / PROGRESS_NAME).read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def read_samples(window: Window, equilibration: int) -> tuple[IntArray, FloatArray]:
    """Return the steps and values of a window after equilibration; none if it has no table yet.

    Raises
    ------
    TableError
        If rows are missing.
    """
    path = window.folder / TABLE_NAME
    if not path.exists():
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    steps, columns = read_variable_table(path)
    (values,) = columns.values()
    if len(steps) and (np.diff(steps) != window.interval).any():
        raise TableError(f"{path} lacks rows: its steps are not {window.interval} apart; run this window again")
    after = steps > equilibration
    return steps[after], values[after]


def frame_energies(
    window: Window,
    name: str,
    sampled: app.Simulation,
    target: app.Simulation,
    equilibration: int,
    every: int,
) -> tuple[FloatArray, FloatArray]:
    """Return the variable in frames of a window and the energies of a Hamiltonian less those of the sampled one.

    Parameters
    ----------
    window : Window
    name : str
        Name of the Hamiltonian.
    sampled, target : app.Simulation
        Simulations of the two Hamiltonians, whose umbrellas have the force constant zero.
    equilibration : int
        Number of steps that are left out.
    every : int
        Takes each frame whose number is a multiple of this.

    Returns
    -------
    values : (m,) float array
    differences : (m,) float array, kJ/mol
    """
    trajectory = next(window.folder.glob("trajectory.*"), None)
    if trajectory is None:
        raise RunDirectoryError(f"{window.folder} has no trajectory, because frame_interval is larger than the run")
    topology = sampled.topology
    first = equilibration // window.frame_interval
    count = window.steps // window.frame_interval
    frames = read_snapshots(trajectory, topology, count - first, first)[::every]
    path = window.folder / f"energies_{name}.csv"
    known = _known_energies(path)
    with path.open("a", encoding="utf-8", newline="") as file:
        if not known and path.stat().st_size == 0:
            file.write('#"Frame","Variable","Difference (kJ/mol)"\n')
        for k, geometry in enumerate(frames):
            frame = first + k * every
            if frame in known:
                continue
            difference = _energy(target, geometry) - _energy(sampled, geometry)
            known[frame] = (window.variable(geometry), difference)
            csv.writer(file, lineterminator="\n").writerow([frame, *known[frame]])
            file.flush()
    found = np.array([known[first + k * every] for k in range(len(frames))])
    return found[:, 0], found[:, 1]


def _known_energies(path: Path) -> dict[int, tuple[float, float]]:
    if not path.exists():
        return {}
    cut_rows(path, 2**62)
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()[1:]))
    return {int(frame): (float(value), float(difference)) for frame, value, difference in rows}


def _energy(simulation: app.Simulation, geometry: Geometry) -> float:
    context = simulation.context
    place(context, geometry.positions, geometry.box)
    context.computeVirtualSites()
    energy = context.getState(energy=True).getPotentialEnergy()
    return float(energy.value_in_unit(unit.kilojoule_per_mole))
