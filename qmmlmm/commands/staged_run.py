"""A run in stages: minimisation, heating, equilibration, production, each in a folder from which it continues."""

from __future__ import annotations

import contextlib
import io
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.analysis.hills_figure import save_hills_figure
from qmmlmm.commands.run_input import RunInput, RunSystem, Stage, make_barostat, make_integrator
from qmmlmm.commands.run_settings import STAGES
from qmmlmm.durable_files import replace_file
from qmmlmm.errors import ConvergenceError, RunDirectoryError, listed
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.progress_display import progress_bar
from qmmlmm.runs.checkpoint import load_state, load_step
from qmmlmm.runs.directory_lock import DirectoryLock
from qmmlmm.runs.report.harmless import harmless
from qmmlmm.runs.report.stages_report import MinimisationFacts, StageFacts, write_stages_report
from qmmlmm.runs.reporters import check_finite
from qmmlmm.runs.run_directory import RunDirectory
from qmmlmm.runs.run_record import differences
from qmmlmm.runs.topology_file import topology_file_name, write_topology
from qmmlmm.sampling.heating import Heating
from qmmlmm.sampling.hill_sampler import HillSampler
from qmmlmm.sampling.metadynamics import HillForce, hill_names, profile_table
from qmmlmm.units import FloatArray

INPUT_NAME = "input.toml"
MINIMISED_NAME = "minimised.npz"
PROFILE_NAME = "free_energy.csv"
PROFILE_FIGURE = "free_energy.png"
MINIMISE = "minimise"
ADVICE = (
    "the first step of OpenMM's minimiser is long: write force_field_only = true in [minimise], and let [heat] relax "
    "the regions at the level of their terms"
)
ITERATIONS_IN_ONE_GO = 50
"""Iterations of the minimiser between two files from which a minimisation continues."""
FREE_TO_CHANGE = ("dynamics.length", "output.checkpoint", "platform")
"""Keys that may change when a run is continued."""


class StagedRun:
    """The run of an input file in its folder.

    Parameters
    ----------
    given : RunInput

    Raises
    ------
    RunDirectoryError
        If the folder holds the run of another input, other files, or more steps than the input asks for.

    Notes
    -----
    The folder has a copy of the input file, the report over all stages, and a folder for each stage. That of the
    minimisation has the positions and energies after every 50 iterations; the others are those of `RunDirectory`.
    """

    def __init__(self, given: RunInput) -> None:
        self._given = given
        self._folder = given.directory
        self._check_folder()

    def folder(self, stage: str) -> Path:
        """Return the folder of a stage."""
        return self._folder / stage

    def progress(self, stage: Stage) -> int:
        """Return the number of completed steps of a stage that is on disk."""
        folder = self.folder(stage.name)
        return load_step(folder) if RunDirectory.holds_run(folder) else 0

    def minimised(self) -> int:
        """Return the number of completed iterations of the minimisation that are on disk."""
        found = _load_minimised(self.folder(MINIMISE) / MINIMISED_NAME)
        return 0 if found is None else found[0]

    def run(self, *, report: Callable[[str], None]) -> None:
        """Run what is left of all stages.

        Parameters
        ----------
        report : callable
            Function that gets a line of text at the beginning and the end of each stage.

        Raises
        ------
        TerminatedError
            After SIGTERM, with a checkpoint.
        RunDirectoryError
            If another process runs it.
        BaseException
            Any exception in its original class, also from a callback of OpenMM.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = DirectoryLock(self._folder)
        try:
            replace_file(self._folder / INPUT_NAME, self._given.path.read_bytes())
            if self._given.minimise is not None:
                self._minimise(report)
            for stage in self._given.stages:
                self._run_stage(stage, report)
                self._write_report()
        except BaseException:
            self._write_report()
            raise
        finally:
            lock.release()

    def _write_report(self) -> None:
        """Write the report over all stages; that of a stage is written by its run directory."""
        given, minimisation = self._given, None
        if given.minimise is not None:
            found = _load_minimised(self.folder(MINIMISE) / MINIMISED_NAME)
            done, energies = (0, np.zeros(0)) if found is None else (found[0], found[2])
            minimisation = MinimisationFacts(done, given.minimise.iterations, energies)
        stages = [
            StageFacts(
                stage.name, self.progress(stage), stage.steps, stage.step, not isinstance(stage.system, MixedSystem)
            )
            for stage in given.stages
        ]
        description = given.production.system.describe()
        write_stages_report(self._folder, minimisation, stages, description, f"qmmlmm run {given.path}")

    def _check_folder(self) -> None:
        path = self._folder / INPUT_NAME
        if not path.is_file():
            found = sorted(p.name for p in self._folder.iterdir()) if self._folder.is_dir() else []
            if [name for name in found if not name.startswith(".")]:
                raise RunDirectoryError(
                    f"{self._folder} holds {listed(found)} and no run; name another folder with directory = ..."
                )
            return
        try:
            before = tomllib.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunDirectoryError(f"{path} is damaged: {error}; restore it from your input file") from error
        if not self._has_started():
            return
        changed = differences(_fixed(before), _fixed(self._given.content.content()))
        if changed:
            raise RunDirectoryError(
                f"{self._folder} holds the run of another input: {listed(changed)}; write the old values to continue "
                f"it, or name another folder with directory = ... Only {', '.join(FREE_TO_CHANGE)} may change"
            )
        done, steps = self.progress(self._given.production), self._given.production.steps
        if done > steps:
            raise RunDirectoryError(
                f"{self._folder} has {done:,} steps of production already, and [dynamics] length is {steps:,} steps; "
                "it may be extended and not be cut"
            )

    def _has_started(self) -> bool:
        minimised = (self.folder(MINIMISE) / MINIMISED_NAME).exists()
        return minimised or any(RunDirectory.holds_run(self.folder(name)) for name in STAGES)

    def _minimise(self, report: Callable[[str], None]) -> None:
        settings = self._given.minimise
        assert settings is not None
        folder = self.folder(MINIMISE)
        folder.mkdir(exist_ok=True)
        path = folder / MINIMISED_NAME
        found = _load_minimised(path)
        done = 0 if found is None else found[0]
        if done >= settings.iterations:
            return
        report(f"minimise: {settings.iterations} iterations in {folder}")
        system = self._given.plain if settings.force_field_only else self._given.system
        simulation = self._simulation(system, openmm.VerletIntegrator(0.001))
        _set_parameters(simulation.context, self._given.parameters(MINIMISE))
        try:
            if found is None:
                simulation.context.setPositions(self._given.start.positions)
                simulation.context.computeVirtualSites()
                energies = [_energy(simulation)]
            else:
                simulation.context.setPositions(found[1])
                energies = list(found[2])
            with progress_bar(settings.iterations, "minimise", "iteration", initial=done) as bar:
                while done < settings.iterations:
                    count = min(ITERATIONS_IN_ONE_GO, settings.iterations - done)
                    simulation.minimizeEnergy(settings.tolerance, count)
                    state = simulation.context.getState(positions=True)
                    positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
                    check_finite("positions", positions, 0)
                    done += count
                    energies.append(_energy(simulation))
                    _save_minimised(path, done, positions, energies)
                    bar.update(count)
            state = simulation.context.getState(positions=True)
            topology = self._given.start.topology
            write_topology(folder / topology_file_name(topology), topology, state)
        except BaseException as error:  # noqa: BLE001 - all are raised again
            try:
                system.raise_original(error)
            except ConvergenceError as original:
                raise ConvergenceError(f"{original}; {ADVICE}") from original
        report(f"minimise: from {energies[0]:.1f} to {energies[-1]:.1f} kJ/mol")

    def _run_stage(self, stage: Stage, report: Callable[[str], None]) -> None:
        folder = self.folder(stage.name)
        resume = RunDirectory.holds_run(folder)
        done = self.progress(stage)
        if done >= stage.steps:
            if stage is self._given.production:
                report(f"{stage.name}: all {stage.steps:,} steps are done; a larger length in [dynamics] extends it")
            return
        output = self._given.output
        at = f" from step {done:,}" if resume else ""
        report(f"{stage.name}: {stage.steps:,} steps, {stage.steps * stage.step:g} ps, in {folder}{at}")
        metadynamics = self._given.metadynamics if stage is self._given.production else None
        with _barostat(stage.system.system, stage, self._given):
            temperature = float(self._given.dynamics.temperature)
            force = None if metadynamics is None else HillForce(metadynamics, temperature, stage.system.system)
            integrator = make_integrator(self._given.dynamics, stage.system, stage.inner_steps, stage.friction)
            integrator.setRandomNumberSeed(stage.seed)
            simulation = self._simulation(stage.system, integrator)
            sampler: Heating | HillSampler | None = None
            if stage.start is not None:
                sampler = Heating(simulation, stage.start, temperature, stage.steps)
            elif force is not None:
                sampler = HillSampler(force, simulation)
            seed = self._given.dynamics.seed
            with RunDirectory(
                folder,
                stage.system,
                seed=seed,
                sampler=sampler,
                resume=resume,
                continue_with=f"qmmlmm run {self._given.path}",
            ) as run:
                if resume:
                    done = run.resume(simulation)
                else:
                    self._begin(simulation, stage)
                run.attach(
                    simulation,
                    trajectory_interval=output.trajectory.in_steps(stage.step),
                    energy_interval=output.energies.in_steps(stage.step),
                    checkpoint_interval=output.checkpoint.in_steps(stage.step),
                    total_steps=stage.steps,
                    trajectory_format=output.format,
                    variables=self._given.variables,
                    variable_interval=(output.variables or output.energies).in_steps(stage.step),
                )
                run.run(simulation, stage.steps - done)
            if metadynamics is not None and isinstance(sampler, HillSampler):
                profile = sampler.free_energy()
                table = profile_table(metadynamics, self._given.variables, profile, np.full_like(profile, np.nan))
                replace_file(folder / PROFILE_NAME, table.encode())
                with harmless(folder / PROFILE_FIGURE):
                    labels = [
                        name if v.variable.unit is None else f"{name} ({v.variable.unit.get_symbol()})"
                        for name, v in zip(
                            hill_names(metadynamics, self._given.variables), metadynamics.along, strict=True
                        )
                    ]
                    save_hills_figure([v.grid() for v in metadynamics.along], profile, labels, folder / PROFILE_FIGURE)
                report(f"{stage.name}: {len(sampler.hills):,} hills; their free energy is in {folder / PROFILE_NAME}")

    def _begin(self, simulation: app.Simulation, stage: Stage) -> None:
        """Set positions, velocities and parameters at the beginning of a stage."""
        context, given = simulation.context, self._given
        position = given.stages.index(stage)
        if position > 0:
            state = load_state(self.folder(given.stages[position - 1].name))
            context.setPeriodicBoxVectors(*state.getPeriodicBoxVectors())
            context.setPositions(state.getPositions())
            context.setVelocities(state.getVelocities())
        else:
            found = _load_minimised(self.folder(MINIMISE) / MINIMISED_NAME) if given.minimise is not None else None
            context.setPositions(given.start.positions if found is None else found[1])
            temperature = given.dynamics.temperature if stage.start is None else stage.start
            context.setVelocitiesToTemperature(temperature, given.dynamics.seed)
        _set_parameters(context, given.parameters(stage.name))

    def _simulation(self, system: RunSystem, integrator: openmm.Integrator) -> app.Simulation:
        platform, properties = self._given.platform.arguments()
        topology = self._given.start.topology
        if platform is None:
            return app.Simulation(topology, system.system, integrator)
        return app.Simulation(topology, system.system, integrator, platform, properties)


@contextlib.contextmanager
def _barostat(system: openmm.System, stage: Stage, given: RunInput) -> Iterator[None]:
    """Return a context in which a System has the barostat of a stage, if there is one."""
    if stage.pressure is None:
        yield
        return
    barostat = make_barostat(given.dynamics, stage.pressure)
    barostat.setRandomNumberSeed(stage.seed)
    index = system.addForce(barostat)
    try:
        yield
    finally:
        system.removeForce(index)


def _set_parameters(context: openmm.Context, parameters: dict[str, float]) -> None:
    for name, value in parameters.items():
        context.setParameter(name, value)


def _energy(simulation: app.Simulation) -> float:
    state = simulation.context.getState(energy=True)
    return float(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))


def _save_minimised(path: Path, done: int, positions: FloatArray, energies: list[float]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, iterations=np.array(done), positions_nm=positions, energies_kj_per_mol=np.array(energies))
    replace_file(path, buffer.getvalue())


def _load_minimised(path: Path) -> tuple[int, FloatArray, FloatArray] | None:
    """Return iterations, positions in nm and energies in kJ/mol of a minimisation, or None before the first."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return int(file["iterations"]), file["positions_nm"], file["energies_kj_per_mol"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunDirectoryError(f"{path} is damaged: {error}; remove it to minimise again") from error


def _fixed(content: dict[str, object]) -> dict[str, object]:
    """Return the part of an input that may not change."""
    found = {key: dict(value) if isinstance(value, dict) else value for key, value in content.items()}
    for place in FREE_TO_CHANGE:
        table, _, key = place.partition(".")
        if not key:
            found.pop(table, None)
        elif isinstance(inner := found.get(table), dict):
            inner.pop(key, None)
    # A table that has nothing else is as good as none; that of a stage says that there is one.
    return {key: value for key, value in found.items() if value != {} or key in ("minimise", "heat", "equilibrate")}
