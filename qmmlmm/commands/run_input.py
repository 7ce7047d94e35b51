"""The input file of ``qmmlmm run``: a System, its Hamiltonian, stages and output in TOML."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import openmm
from openmm import unit

from qmmlmm.commands.hamiltonian_input import read_hamiltonian
from qmmlmm.commands.input_file import Table, read_toml, reading
from qmmlmm.commands.measures import check_measure
from qmmlmm.commands.metadynamics_input import read_metadynamics
from qmmlmm.commands.run_settings import (
    DynamicsSettings,
    EquilibrateSettings,
    HeatSettings,
    HoldSettings,
    MinimiseSettings,
    OutputSettings,
    PlatformSettings,
    RestraintSettings,
)
from qmmlmm.commands.system_input import Start, read_system
from qmmlmm.commands.variable_input import read_variables
from qmmlmm.errors import InputFileError, SettingError, listed, nearest
from qmmlmm.mm.force_field_system import ForceFieldSystem
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.selection import select
from qmmlmm.sampling.metadynamics import Metadynamics
from qmmlmm.sampling.multiple_time_step import MultipleTimeStepIntegrator
from qmmlmm.sampling.position_hold import hold_positions
from qmmlmm.sampling.variable import Variable
from qmmlmm.setting_checks import LARGEST_COUNT, check_atoms, check_path

TOP = ("directory", "system", "region", "parameters", "term", "minimise", "heat", "equilibrate", "dynamics", "hold",
       "variable", "restraint", "metadynamics", "output", "platform")  # fmt: skip

RunSystem = MixedSystem | ForceFieldSystem


@dataclass(frozen=True)
class Stage:
    """A stage of a run with dynamics.

    Parameters
    ----------
    name : {"heat", "equilibrate", "production"}
    steps : int
    step : float, ps
        Length of one.
    inner_steps : int
        Number of fast steps in one; 1 without multiple time steps.
    pressure : float or None, bar
    start : float or None, K
        Temperature from which it heats.
    friction : float, 1/ps
    system : MixedSystem or ForceFieldSystem
    seed : int
    """

    name: str
    steps: int
    step: float
    inner_steps: int
    pressure: float | None
    start: float | None
    friction: float
    system: RunSystem
    seed: int


@dataclass(frozen=True)
class Hold:
    """A Force whose parameters depend on the stage.

    Parameters
    ----------
    text : str
        What is held, for people.
    parameters : mapping of str to float
        Parameters of the Context while it acts.
    strength : str
        The one that is zero while it does not.
    stages : tuple of str
    """

    text: str
    parameters: Mapping[str, float]
    strength: str
    stages: tuple[str, ...]

    def values(self, stage: str) -> dict[str, float]:
        """Return the parameters of the Context in a stage."""
        return {**self.parameters, **({} if stage in self.stages else {self.strength: 0.0})}


@dataclass(frozen=True)
class RunInput:
    """What an input file of ``qmmlmm run`` describes, checked and ready to run.

    Parameters
    ----------
    path : Path
        The file.
    content : Table
        What it holds.
    directory : Path
        Folder of the run.
    start : Start
    system : MixedSystem or ForceFieldSystem
        System of production.
    plain : ForceFieldSystem
        System of stages with the force field only.
    dynamics : DynamicsSettings
    minimise : MinimiseSettings or None
    stages : tuple of Stage
        Stages with dynamics, production last.
    holds : tuple of Hold
    variables : mapping of str to Variable
    metadynamics : Metadynamics or None
        Hills of production.
    output : OutputSettings
    platform : PlatformSettings
    """

    path: Path
    content: Table
    directory: Path
    start: Start
    system: RunSystem
    plain: ForceFieldSystem
    dynamics: DynamicsSettings
    minimise: MinimiseSettings | None
    stages: tuple[Stage, ...]
    holds: tuple[Hold, ...]
    variables: Mapping[str, Variable]
    metadynamics: Metadynamics | None
    output: OutputSettings
    platform: PlatformSettings

    @property
    def production(self) -> Stage:
        """The last stage."""
        return self.stages[-1]

    def parameters(self, stage: str) -> dict[str, float]:
        """Return the parameters of holds and restraints in a stage."""
        return {name: value for hold in self.holds for name, value in hold.values(stage).items()}


def read_run(path: Path) -> RunInput:
    """Return the run that a file describes; paths in it are relative to the file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    InputFileError
        If a key is unknown or missing, or has a wrong value.
    """
    path = check_path("the input file", path, InputFileError)
    with reading(path):
        return _read_run(path)


def _read_run(path: Path) -> RunInput:
    content = read_toml(path, TOP)
    folder = path.parent
    # All that takes no time comes first.
    directory = folder / content.text("directory", path.stem)
    dynamics = content.table("dynamics").build(DynamicsSettings)
    minimise = content.table("minimise").build(MinimiseSettings) if "minimise" in content else None
    heat = content.table("heat").build(HeatSettings) if "heat" in content else None
    equilibrate = content.table("equilibrate").build(EquilibrateSettings) if "equilibrate" in content else None
    output = content.optional_table("output").build(OutputSettings)
    platform = content.optional_table("platform").build(PlatformSettings)
    holds = [(table, table.build(HoldSettings)) for table in content.tables("hold")]
    restraints = [(table, table.build(RestraintSettings)) for table in content.tables("restraint")]
    if directory.exists() and not directory.is_dir():
        raise InputFileError(f"directory {str(directory)!r} is a file; name a folder")
    start = read_system(content.table("system"), folder)
    variables = read_variables(content, start.topology, folder)
    metadynamics = read_metadynamics(content, variables)
    if metadynamics is not None and metadynamics.shared:
        raise InputFileError("[metadynamics] shared is for the walkers of a learning loop; leave it out")
    _check_pressure(content, start, dynamics, equilibrate)
    forces: list[openmm.Force] = []
    acting = [_hold(f"hold{k}", table, found, start, forces) for k, (table, found) in enumerate(holds, start=1)]
    acting += [
        _restraint(f"restraint{k}", table, found, variables, start, forces)
        for k, (table, found) in enumerate(restraints, start=1)
    ]
    mixed = read_hamiltonian(content, start, folder)
    plain = ForceFieldSystem(start.topology, start.system)
    for force in forces:
        plain.system.addForce(copy.deepcopy(force))
        if mixed is not None:
            mixed.system.addForce(copy.deepcopy(force))
    system: RunSystem = plain if mixed is None else mixed
    with content.place():
        stages = _stages(content, dynamics, heat, equilibrate, system, plain)
        _check_output(output, stages[-1])
    return RunInput(
        path, content, directory, start, system, plain, dynamics, minimise, stages, tuple(acting), variables,
        metadynamics, output, platform,
    )  # fmt: skip


def _check_pressure(
    content: Table, start: Start, dynamics: DynamicsSettings, equilibrate: EquilibrateSettings | None
) -> None:
    given = [
        name
        for name, settings in (("dynamics", dynamics), ("equilibrate", equilibrate))
        if settings is not None and settings.pressure not in (None, "none")
    ]
    if given and not start.periodic:
        raise InputFileError(f"[{given[0]}] pressure needs a box, and the System has none; leave it out")


def _stages(
    content: Table,
    dynamics: DynamicsSettings,
    heat: HeatSettings | None,
    equilibrate: EquilibrateSettings | None,
    system: RunSystem,
    plain: ForceFieldSystem,
) -> tuple[Stage, ...]:
    """Return the stages with dynamics; the seeds differ."""
    if dynamics.multiple:
        if not isinstance(system, MixedSystem):
            raise InputFileError(
                '[dynamics] integrator = "multiple-time-step" needs a correction: write correct = {...} in [[term]]'
            )
        # Raises if there is no correction, before anything runs.
        make_integrator(dynamics, system, dynamics.inner_steps, dynamics.friction)

    def stage(
        name: str,
        length: HeatSettings | EquilibrateSettings | DynamicsSettings,
        number: int,
        *,
        only: bool = False,
        pressure: float | None = None,
        from_temperature: float | None = None,
    ) -> Stage:
        inner = 1 if only else dynamics.inner_steps
        step = dynamics.step * inner
        table = "dynamics" if name == "production" else name
        with content.table(table).place():
            steps = length.length.in_steps(step)
        chosen = plain if only else system
        friction = length.friction if isinstance(length, HeatSettings) else dynamics.friction
        return Stage(
            name, steps, step, inner, pressure, from_temperature, float(friction), chosen, dynamics.seed + number
        )

    found = []
    if heat is not None:
        found.append(stage("heat", heat, 1, only=heat.force_field_only, from_temperature=heat.start))
    if equilibrate is not None:
        pressure = dynamics.pressure if equilibrate.pressure is None else equilibrate.pressure
        found.append(
            stage(
                "equilibrate",
                equilibrate,
                2,
                only=equilibrate.force_field_only,
                pressure=None if pressure in (None, "none") else float(pressure),
            )
        )
    found.append(stage("production", dynamics, 0, pressure=dynamics.pressure))
    return tuple(found)


def make_barostat(dynamics: DynamicsSettings, pressure: float) -> openmm.MonteCarloBarostat:
    """Return a barostat, without a seed.

    Parameters
    ----------
    dynamics : DynamicsSettings
        Temperature, and number of steps between two attempts.
    pressure : float, bar
    """
    return openmm.MonteCarloBarostat(
        pressure * unit.bar, dynamics.temperature * unit.kelvin, dynamics.barostat_interval
    )


def make_integrator(
    dynamics: DynamicsSettings, system: RunSystem, inner_steps: int, friction: float
) -> openmm.Integrator:
    """Return the integrator of a stage.

    Parameters
    ----------
    dynamics : DynamicsSettings
    system : MixedSystem or ForceFieldSystem
    inner_steps : int
        Number of fast steps in a step; 1 without multiple time steps.
    friction : float, 1/ps
    """
    if inner_steps > 1 and isinstance(system, MixedSystem):
        return MultipleTimeStepIntegrator(
            system,
            dynamics.temperature,
            friction,
            dynamics.step * inner_steps,
            inner_steps,
            isokinetic=dynamics.isokinetic,
        )
    return openmm.LangevinMiddleIntegrator(dynamics.temperature, friction, dynamics.step)


def _check_output(output: OutputSettings, production: Stage) -> None:
    frames = output.trajectory.in_steps(production.step)
    if frames > production.steps:
        raise SettingError(
            f"[output] trajectory has a frame every {frames:,} steps, and production has {production.steps:,} steps: "
            "no frame would be written; give trajectory = a smaller number, or a larger length in [dynamics]"
        )
    for duration in (output.energies, output.variables, output.checkpoint):
        if duration is not None:
            duration.in_steps(production.step)


def _hold(name: str, table: Table, settings: HoldSettings, start: Start, forces: list[openmm.Force]) -> Hold:
    """Return a hold, whose Force is added to a list."""
    with table.place():
        if settings.select is not None:
            atoms = select(start.topology, settings.select, positions=start.positions)
        else:
            assert settings.atoms is not None
            atoms = check_atoms("atoms", settings.atoms, start.topology.getNumAtoms())
        massive = [atom for atom in atoms if start.system.getParticleMass(atom)._value > 0.0]
        if not massive:
            raise SettingError(f"none of its {len(atoms)} atoms has a mass")
        forces.append(hold_positions(name, massive, start.positions, start.periodic))
        strength = f"{name}_k"
        what = f"{len(massive)} atoms held with {settings.force_constant:g} kJ/mol/nm^2"
        return Hold(what, {strength: settings.force_constant}, strength, settings.stages)


def _restraint(
    name: str,
    table: Table,
    settings: RestraintSettings,
    variables: Mapping[str, Variable],
    start: Start,
    forces: list[openmm.Force],
) -> Hold:
    """Return a restraint, whose Force is added to a list."""
    if settings.variable not in variables:
        raise InputFileError(
            f"{table.where} names the variable {settings.variable!r}; there are {listed(variables) or 'none'}."
            f"{nearest(settings.variable, list(variables))}"
        )
    variable = variables[settings.variable]
    own = unit.dimensionless if variable.unit is None else variable.unit
    with table.place():
        centre = check_measure("centre", settings.centre, own, at_most=float(LARGEST_COUNT))
        energy = unit.kilojoule_per_mole / own**2
        constant = check_measure("force_constant", settings.force_constant, energy, above=0.0)
        forces.append(variable.umbrella(name, start.periodic))
    strength = f"{name}_k"
    what = f"{settings.variable} held at {centre:g} {own.get_symbol()} with {constant:g} kJ/mol/{own.get_symbol()}^2"
    return Hold(what, {f"{name}_centre": centre, strength: constant}, strength, settings.stages)
