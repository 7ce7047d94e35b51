"""Settings of ``qmmlmm run``: stages, dynamics, output and platform."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import openmm
from openmm import unit

from qmmlmm.commands.measures import Duration, check_duration, check_measure
from qmmlmm.errors import SettingError
from qmmlmm.runs.trajectory import FORMATS
from qmmlmm.sampling.multiple_time_step import MOST_INNER_STEPS
from qmmlmm.setting_checks import (
    LARGEST_COUNT,
    check_atoms,
    check_choice,
    check_flag,
    check_mapping,
    check_names,
    check_text,
    check_whole_number,
    is_number,
)
from qmmlmm.units import Scalar

STAGES = ("minimise", "heat", "equilibrate", "production")
INTEGRATORS = ("langevin", "multiple-time-step")
LONGEST_STEP = 0.01
"""Largest step, ps; a larger one is a number in fs."""
HIGHEST_TEMPERATURE = 1e5
"""K; a higher one is no temperature of atoms that a force field or QM describes."""
LARGEST_SEED = LARGEST_COUNT - len(STAGES)
"""Each stage adds a number of its own."""


def _set(record: object, values: Mapping[str, object]) -> None:
    for name, value in values.items():
        object.__setattr__(record, name, value)


@dataclass(frozen=True)
class MinimiseSettings:
    """Stage one, if there is a table [minimise]: minimisation of the energy.

    Parameters
    ----------
    iterations : whole number
        Largest number of iterations.
    tolerance : number, kJ/mol/nm
        Root mean square force at which the minimisation ends.
    force_field_only : true or false
        Whether the force field describes the regions in this stage. The first step of OpenMM's minimiser is long, and
        QM may not converge there. Heating from a low temperature relaxes the regions at their own level.
    """

    iterations: int = 200
    tolerance: Scalar = 10.0
    force_field_only: bool = True

    def __post_init__(self) -> None:
        force = unit.kilojoule_per_mole / unit.nanometer
        _set(
            self,
            {
                "iterations": check_whole_number("iterations", self.iterations, at_most=LARGEST_COUNT),
                "tolerance": check_measure("tolerance", self.tolerance, force, above=0.0),
                "force_field_only": check_flag("force_field_only", self.force_field_only),
            },
        )


@dataclass(frozen=True)
class HeatSettings:
    """Stage two, if there is a table [heat]: the temperature rises to that of [dynamics], at constant volume.

    Parameters
    ----------
    length : steps or time
        A whole number of steps, or a time such as "10 ps".
    start : number, K
        Temperature at the beginning of the stage.
    friction : number, 1/ps
        Friction of the thermostat in this stage. The temperature lags behind by its rise during 1/friction.
    force_field_only : true or false
        Whether the force field describes the regions in this stage.
    """

    length: Duration = field(default_factory=lambda: check_duration("length", "10 ps"))
    start: Scalar = 10.0
    friction: Scalar = 10.0
    force_field_only: bool = False

    def __post_init__(self) -> None:
        _set(
            self,
            {
                "length": check_duration("length", self.length),
                "start": check_measure("start", self.start, unit.kelvin, above=0.0, at_most=HIGHEST_TEMPERATURE),
                "friction": check_measure("friction", self.friction, unit.picosecond**-1, at_least=0.0, at_most=1e4),
                "force_field_only": check_flag("force_field_only", self.force_field_only),
            },
        )


@dataclass(frozen=True)
class EquilibrateSettings:
    """Stage three, if there is a table [equilibrate]: dynamics before that of production.

    Parameters
    ----------
    length : steps or time
        A whole number of steps, or a time such as "10 ps".
    pressure : number, bar, or "none", optional
        Pressure; that of [dynamics] if not given. "none" keeps the volume constant.
    force_field_only : true or false
        Whether the force field describes the regions in this stage.
    """

    length: Duration = field(default_factory=lambda: check_duration("length", "10 ps"))
    pressure: Scalar | None = None
    force_field_only: bool = False

    def __post_init__(self) -> None:
        pressure = self.pressure
        if pressure not in (None, "none"):
            pressure = check_measure("pressure", pressure, unit.bar, at_least=0.0)
        _set(
            self,
            {
                "length": check_duration("length", self.length),
                "pressure": pressure,
                "force_field_only": check_flag("force_field_only", self.force_field_only),
            },
        )


@dataclass(frozen=True)
class DynamicsSettings:
    """Production, and settings that the stages before it share.

    Parameters
    ----------
    length : steps or time
        Length of production: a whole number of steps, or a time such as "100 ps". It may be extended later.
    integrator : {"langevin", "multiple-time-step"}
        With multiple time steps, the correction acts every few steps.
    step : number, ps
        Time step of the fast forces, such as "0.5 fs".
    correct_every : whole number, optional
        Number of steps between two evaluations of the correction, at least 2. Only with multiple time steps; every
        number of steps in the file then counts these longer steps.
    isokinetic : true or false
        Whether velocities of unconstrained atoms are bounded, so that no resonance heats them. Only with multiple time
        steps.
    temperature : number, K
        Temperature of the thermostat.
    friction : number, 1/ps
        Friction of the thermostat.
    pressure : number, bar, optional
        Pressure of a Monte Carlo barostat; constant volume if not given.
    barostat_interval : whole number
        Number of steps between two attempts to change the volume.
    seed : whole number
        Seed of velocities, thermostat and barostat, at least 1.
    """

    length: Duration
    integrator: str = "langevin"
    step: Scalar = "0.5 fs"
    correct_every: int | None = None
    isokinetic: bool = False
    temperature: Scalar = 300.0
    friction: Scalar = 1.0
    pressure: Scalar | None = None
    barostat_interval: int = 25
    seed: int = 1

    def __post_init__(self) -> None:
        hot = HIGHEST_TEMPERATURE
        values: dict[str, object] = {
            "length": check_duration("length", self.length),
            "integrator": check_choice("integrator", self.integrator, INTEGRATORS),
            "step": check_measure("step", self.step, unit.picosecond, above=0.0, at_most=LONGEST_STEP),
            "isokinetic": check_flag("isokinetic", self.isokinetic),
            "temperature": check_measure("temperature", self.temperature, unit.kelvin, above=0.0, at_most=hot),
            "friction": check_measure("friction", self.friction, unit.picosecond**-1, at_least=0.0, at_most=1e4),
            "barostat_interval": check_whole_number("barostat_interval", self.barostat_interval, at_most=LARGEST_COUNT),
            "seed": check_whole_number("seed", self.seed, at_most=LARGEST_SEED),
        }
        if self.pressure is not None:
            values["pressure"] = check_measure("pressure", self.pressure, unit.bar, at_least=0.0)
        if self.multiple and self.correct_every is None:
            raise SettingError("lacks 'correct_every', which multiple time steps need, such as correct_every = 4")
        if self.correct_every is not None:
            values["correct_every"] = check_whole_number(
                "correct_every", self.correct_every, at_least=2, at_most=MOST_INNER_STEPS
            )
        if not self.multiple:
            for name in ("correct_every", "isokinetic"):
                if vars(self)[name]:
                    raise SettingError(
                        f'{name} goes with integrator = "multiple-time-step", got integrator = {self.integrator!r}'
                    )
        _set(self, values)

    @property
    def multiple(self) -> bool:
        """Whether there are multiple time steps."""
        return self.integrator == "multiple-time-step"

    @property
    def inner_steps(self) -> int:
        """Number of fast steps in a step."""
        return self.correct_every or 1


@dataclass(frozen=True)
class HoldSettings:
    """Atoms that are held at their initial positions, [[hold]]: 0.5 k d^2 for each.

    Parameters
    ----------
    select : text, optional
        Atoms as a selection; virtual sites are left out. Give exactly one of `select` and `atoms`.
    atoms : list of whole numbers, optional
        Indices of the atoms, from zero.
    force_constant : number, kJ/mol/nm^2
        Force constant k of the energy 0.5 k d^2 of each atom.
    stages : list of texts
        Stages in which the atoms are held: "minimise", "heat", "equilibrate" and "production".
    """

    select: str | None = None
    atoms: tuple[int, ...] | None = None
    force_constant: Scalar = 1000.0
    stages: tuple[str, ...] = STAGES

    def __post_init__(self) -> None:
        if (self.select is None) == (self.atoms is None):
            raise SettingError("has one of 'select' and 'atoms'")
        if self.select is not None:
            check_text("select", self.select)
        if self.atoms is not None:
            object.__setattr__(self, "atoms", check_atoms("atoms", self.atoms))
        constant = unit.kilojoule_per_mole / unit.nanometer**2
        _set(
            self,
            {
                "force_constant": check_measure("force_constant", self.force_constant, constant, above=0.0),
                "stages": _stages(self.stages),
            },
        )


@dataclass(frozen=True)
class RestraintSettings:
    """A variable that is held at a value, [[restraint]]: 0.5 k (x - x0)^2.

    Parameters
    ----------
    variable : text
        Name of a [[variable]].
    centre : number, nm or rad
        Value at which the variable is held, in its unit; an angle may be "60 deg".
    force_constant : number, kJ/mol/nm^2 or kJ/mol/rad^2
        Force constant k of the energy 0.5 k (x - x0)^2.
    stages : list of texts
        Stages in which the variable is held: "minimise", "heat", "equilibrate" and "production".
    """

    variable: str
    centre: Scalar
    force_constant: Scalar
    stages: tuple[str, ...] = STAGES

    def __post_init__(self) -> None:
        check_text("variable", self.variable)
        for name in ("centre", "force_constant"):
            value = vars(self)[name]
            if not isinstance(value, str) and not is_number(value):
                raise SettingError(f"{name} is a number, or a text with a unit, got {value!r}")
        _set(self, {"stages": _stages(self.stages)})


@dataclass(frozen=True)
class OutputSettings:
    """Output files and how often they are written.

    Parameters
    ----------
    trajectory : steps or time
        Interval between frames: a whole number of steps, or a time such as "1 ps".
    format : {"dcd", "xtc"}
        Format of the trajectory. An XTC file has a third of the size and a precision of 0.001 nm.
    energies : steps or time
        Interval between rows of the table of energies.
    variables : steps or time, optional
        Interval between rows of the table of variables; that of `energies` if not given.
    checkpoint : steps or time
        Interval between checkpoints, from which a stopped run continues.
    """

    trajectory: Duration = field(default_factory=lambda: check_duration("trajectory", 1000))
    format: str = "dcd"
    energies: Duration = field(default_factory=lambda: check_duration("energies", 100))
    variables: Duration | None = None
    checkpoint: Duration = field(default_factory=lambda: check_duration("checkpoint", 200))

    def __post_init__(self) -> None:
        values: dict[str, object] = {
            name: check_duration(name, vars(self)[name]) for name in ("trajectory", "energies", "checkpoint")
        }
        values["format"] = check_choice("format", self.format, FORMATS)
        if self.variables is not None:
            values["variables"] = check_duration("variables", self.variables)
        _set(self, values)


@dataclass(frozen=True)
class PlatformSettings:
    """Where the run is computed; everything here may change when a run is continued.

    Parameters
    ----------
    name : text, optional
        OpenMM platform: "CUDA", "OpenCL", "HIP", "CPU" or "Reference"; the fastest one if not given.
    precision : {"single", "mixed", "double"}, optional
        Precision of a GPU platform; OpenMM's default if not given.
    device : whole number or text, optional
        Index of the GPU, or several indices such as "0,1".
    threads : whole number, optional
        Number of threads of the CPU platform and of torch. If it is not given, OpenMM chooses its number, and torch
        uses one thread.
    properties : table
        Other properties of the platform, with the names that OpenMM uses.
    """

    name: str | None = None
    precision: str | None = None
    device: int | str | None = None
    threads: int | None = None
    properties: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name is not None:
            count = openmm.Platform.getNumPlatforms()
            names = [openmm.Platform.getPlatform(index).getName() for index in range(count)]
            check_choice("name", self.name, names)
        if self.precision is not None:
            check_choice("precision", self.precision, ("single", "mixed", "double"))
        if self.device is not None and not isinstance(self.device, str):
            check_whole_number("device", self.device, at_least=0)
        if self.device is not None and isinstance(self.device, str):
            check_text("device", self.device)
        if self.threads is not None:
            check_whole_number("threads", self.threads, at_most=1024)
        for name, value in check_mapping("properties", self.properties).items():
            check_text(f"properties: {name}", value)
        self.arguments()

    def arguments(self) -> tuple[openmm.Platform | None, dict[str, str]]:
        """Return platform and properties, for `openmm.app.Simulation`.

        Raises
        ------
        SettingError
            If the platform does not have a property, or there are properties and no platform.
        """
        given = {
            "precision": ("Precision", self.precision),
            "device": ("DeviceIndex", self.device),
        }
        found = {key: (prop, str(value)) for key, (prop, value) in given.items() if value is not None}
        if self.name is None:
            if found or self.properties:
                raise SettingError(f"lacks 'name', which {', '.join([*found, *self.properties])} need")
            return None, {}
        platform = openmm.Platform.getPlatform(self.name)
        known = list(platform.getPropertyNames())
        properties = dict(self.properties)
        for key, (prop, value) in found.items():
            if prop not in known:
                raise SettingError(f"{key} is for GPUs, and the platform is {self.name!r}; leave it out")
            properties[prop] = value
        if self.threads is not None and "Threads" in known:
            properties["Threads"] = str(self.threads)
        unknown = [name for name in properties if name not in known]
        if unknown:
            raise SettingError(
                f"properties: the platform {self.name!r} has no property {unknown[0]!r}; it has {', '.join(known)}"
            )
        return platform, properties


def _stages(value: Iterable[str]) -> tuple[str, ...]:
    names = check_names("stages", value)
    for name in names:
        check_choice("each of stages", name, STAGES)
    return names
