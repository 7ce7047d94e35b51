"""The input file of a reaction, TOML, which ``qmmlmm optimise`` and the other commands of a reaction read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import openmm
from openmm import unit

from qmmlmm.commands.hamiltonian_input import read_hamiltonian
from qmmlmm.commands.input_file import Table, read_toml, reading
from qmmlmm.commands.measures import check_measure
from qmmlmm.commands.potential_input import read_level
from qmmlmm.commands.run_input import make_integrator
from qmmlmm.commands.run_settings import HIGHEST_TEMPERATURE, DynamicsSettings
from qmmlmm.commands.scan_input import ScanPlan, read_scan
from qmmlmm.commands.system_input import Start, read_coordinates, read_system
from qmmlmm.commands.umbrella_settings import ProfileSettings, UmbrellaSettings
from qmmlmm.commands.variable_input import chosen_variable, read_variables
from qmmlmm.coupling.potential import RegionPotential
from qmmlmm.errors import InputFileError, SettingError
from qmmlmm.free_energy.umbrella_exchange import check_sampler_is_there
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.reactions import EnergySurface, Thresholds
from qmmlmm.reactions.internal_coordinates import check_walk
from qmmlmm.reactions.restraint import RestrainedSurface, Restraint
from qmmlmm.sampling.variable import Variable
from qmmlmm.setting_checks import (
    check_atoms,
    check_choice,
    check_count,
    check_flag,
    check_path,
    check_text,
    check_whole_number,
)
from qmmlmm.units import FloatArray, Scalar

TOP = ("directory", "workers", "system", "region", "parameters", "term", "variable", "moving", "scan", "path",
       "frequencies", "umbrella", "dynamics", "profile", "single_points", "platform")  # fmt: skip


class SurfaceArguments(TypedDict):
    """Arguments that all calculations have in common but frequencies, see `qmmlmm.reactions.optimise`."""

    atoms: tuple[int, ...] | str | None
    hold: tuple[int, ...] | str | None
    relax: bool
    tolerance: float
    platform: str | None


class WalkArguments(TypedDict):
    """Arguments of what walks on the surface in internal coordinates."""

    thresholds: Thresholds
    coordinates: str
    max_steps: int


@dataclass(frozen=True)
class MovingSettings:
    """The table [moving]: what moves, and how far.

    Parameters
    ----------
    atoms : text or list of whole numbers, optional
        Atoms that move in internal coordinates, a selection or indices; the atoms of all regions if not given.
    hold : text or list of whole numbers, optional
        Atoms that do not move at all, such as "not within 8 angstrom of resname LIG", of which whole residues are held.
    relax : true or false
        Whether all other atoms are relaxed, or held.
    tolerance : number, kJ/mol/nm
        Root mean square force of relaxed surroundings.
    coordinates : {"tric", "dlc", "hdlc", "cart"}
        Internal coordinates of geomeTRIC; "tric" are for several molecules.
    max_steps : whole number
        Largest number of steps of an optimisation, of a search, and of each point of a scan.
    """

    atoms: tuple[int, ...] | str | None = None
    hold: tuple[int, ...] | str | None = None
    relax: bool = True
    tolerance: Scalar = 1.0
    coordinates: str = "tric"
    max_steps: int = 300

    def __post_init__(self) -> None:
        for name in ("atoms", "hold"):
            value = vars(self)[name]
            if isinstance(value, str):
                check_text(name, value)
            elif value is not None:
                object.__setattr__(self, name, check_atoms(name, value, empty=name == "hold"))
        check_flag("relax", self.relax)
        force = unit.kilojoule_per_mole / unit.nanometer
        object.__setattr__(self, "tolerance", check_measure("tolerance", self.tolerance, force, above=0.0))
        check_walk(check_text("coordinates", self.coordinates), self.max_steps)


@dataclass(frozen=True)
class PathSettings:
    """The table [path]: a nudged elastic band, from the scan or between two structures.

    Parameters
    ----------
    reactant, product : path, optional
        Files with the coordinates of two structures, which are optimised first; from the scan if not given.
    images : whole number
        Number of structures, both ends included.
    climb : true or false
        Whether the highest image climbs to the saddle point.
    largest_force : number, eV/angstrom
        Largest force across the path of a converged band.
    max_cycles : whole number
        Largest number of steps of the band.
    """

    reactant: str | None = None
    product: str | None = None
    images: int = 11
    climb: bool = True
    largest_force: float = 0.05
    max_cycles: int = 100

    def __post_init__(self) -> None:
        for name in ("reactant", "product"):
            if vars(self)[name] is not None:
                check_text(name, vars(self)[name])
        if (self.reactant is None) != (self.product is None):
            raise SettingError("has one of reactant and product; give both, or none to start from the scan")
        check_whole_number("images", self.images, at_least=5, at_most=99)
        check_flag("climb", self.climb)
        per = unit.elementary_charge * unit.volt / unit.angstrom
        object.__setattr__(self, "largest_force", check_measure("largest_force", self.largest_force, per, above=0.0))
        check_whole_number("max_cycles", self.max_cycles)


@dataclass(frozen=True)
class FrequenciesSettings:
    """The table [frequencies].

    Parameters
    ----------
    temperature : number, K
        Temperature of the thermal corrections and of the rate.
    """

    temperature: Scalar = 298.15

    def __post_init__(self) -> None:
        kelvin = check_measure("temperature", self.temperature, unit.kelvin, above=0.0, at_most=HIGHEST_TEMPERATURE)
        object.__setattr__(self, "temperature", kelvin)


@dataclass(frozen=True)
class ReactionPlatform:
    """The table [platform].

    Parameters
    ----------
    name : text, optional
        Platform of OpenMM for everything. If not given, the surroundings are relaxed on the fastest one, and energies
        of up to 6,000 particles are computed on the Reference platform, in double precision.
    """

    name: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            count = openmm.Platform.getNumPlatforms()
            check_choice("name", self.name, [openmm.Platform.getPlatform(k).getName() for k in range(count)])


@dataclass(frozen=True)
class UmbrellaPlan:
    """Windows with their variable and dynamics, in steps.

    Parameters
    ----------
    name : str
        Name of the variable.
    variable : Variable
    centres, force_constants : tuple of float
    starts : {"scan", "positions"} or None
    dynamics : DynamicsSettings
    steps, equilibration, sample, frames, checkpoint, pull : int
    exchange : bool
    """

    name: str
    variable: Variable
    centres: tuple[float, ...]
    force_constants: tuple[float, ...]
    starts: str | None
    dynamics: DynamicsSettings
    steps: int
    equilibration: int
    sample: int
    frames: int
    checkpoint: int
    pull: int
    exchange: bool


@dataclass(frozen=True)
class UpperLevel:
    """The level of single points.

    Parameters
    ----------
    potential : RegionPotential
    term : str
        Term that it replaces.
    """

    potential: RegionPotential
    term: str


@dataclass(frozen=True)
class ReactionInput:
    """What an input file of a reaction describes, checked and ready to run.

    Parameters
    ----------
    path : Path
        The file.
    content : Table
        What it holds.
    directory : Path
        Folder of the results, one folder inside for each command.
    start : Start
    mixed : MixedSystem
    moving : MovingSettings
    thresholds : Thresholds
    scan : ScanPlan or None
    band : PathSettings
    ends : tuple of two (n_particles, 3) float arrays, nm; or None
        Reactant and product of a band.
    frequencies : FrequenciesSettings
    umbrella : UmbrellaPlan or None
    profile : ProfileSettings
    upper : UpperLevel or None
    workers : int
        Number of processes that compute Hessians and windows.
    platform : str or None
    atoms, hold : tuple of int
        Atoms that move in internal coordinates, and atoms that are held, at the coordinates of [system].
    counts : mapping of str to int
        Number of atoms that move in internal coordinates, are held, and all.
    """

    path: Path
    content: Table
    directory: Path
    start: Start
    mixed: MixedSystem
    moving: MovingSettings
    thresholds: Thresholds
    scan: ScanPlan | None
    band: PathSettings
    ends: tuple[FloatArray, FloatArray] | None
    frequencies: FrequenciesSettings
    umbrella: UmbrellaPlan | None
    profile: ProfileSettings
    upper: UpperLevel | None
    workers: int
    platform: str | None
    atoms: tuple[int, ...]
    hold: tuple[int, ...]
    counts: Mapping[str, int]

    def surface(self, *, continued: bool) -> SurfaceArguments:
        """Return the arguments for the surface.

        Parameters
        ----------
        continued : bool
            Whether the start is the result of another command, whose moving and held atoms are taken: a selection such
            as ``within`` would choose others at other positions.
        """
        return SurfaceArguments(
            atoms=None if continued else self.moving.atoms,
            hold=None if continued else self.moving.hold,
            relax=self.moving.relax,
            tolerance=float(self.moving.tolerance),
            platform=self.platform,
        )

    def walk(self) -> WalkArguments:
        """Return the arguments of a walk in internal coordinates."""
        return WalkArguments(
            thresholds=self.thresholds, coordinates=self.moving.coordinates, max_steps=self.moving.max_steps
        )


def read_reaction(path: Path) -> ReactionInput:
    """Return the reaction that a file describes; paths in it are relative to the file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    InputFileError
        If a key is unknown or missing, or has a wrong value, or atoms cannot move as the file says.
    """
    path = check_path("the input file", path, InputFileError)
    with reading(path):
        return _read_reaction(path)


def _read_reaction(path: Path) -> ReactionInput:
    content = read_toml(path, TOP)
    folder = path.parent
    # All that takes no time comes first.
    directory = folder / content.text("directory", path.stem + "_run")
    if directory.exists() and not directory.is_dir():
        raise InputFileError(f"directory {str(directory)!r} is a file; name a folder")
    workers = check_count("workers", content.whole_number("workers", 1), error=InputFileError)
    table = content.optional_table("moving")
    moving = table.without("thresholds").build(MovingSettings)
    thresholds = table.optional_table("thresholds").build(Thresholds)
    band = content.optional_table("path").build(PathSettings)
    frequencies = content.optional_table("frequencies").build(FrequenciesSettings)
    umbrella = content.table("umbrella").build(UmbrellaSettings) if "umbrella" in content else None
    dynamics = content.table("dynamics").build(DynamicsSettings) if "dynamics" in content else None
    profile = content.optional_table("profile").build(ProfileSettings)
    platform = content.optional_table("platform").build(ReactionPlatform).name
    start = read_system(content.table("system"), folder)
    variables = read_variables(content, start.topology, folder)
    plan = read_scan(content.table("scan"), variables) if "scan" in content else None
    ends = _ends(content, band, start, folder)
    mixed = read_hamiltonian(content, start, folder)
    if mixed is None:
        raise InputFileError(
            'the file lacks [[term]], the level of the reacting atoms: for example method = "gfn2-xtb", with '
            "[region.NAME] for its atoms"
        )
    upper = _upper(content.table("single_points"), mixed, folder) if "single_points" in content else None
    with table.place():
        surface = EnergySurface(
            mixed,
            start.positions,
            atoms=moving.atoms,
            hold=moving.hold,
            relax=moving.relax,
            tolerance=moving.tolerance,
            platform=platform,
        )
    if umbrella is not None and umbrella.exchange:
        with content.table("umbrella").place():
            _check_exchange(workers, profile)
    windows = None if umbrella is None else _windows(content, umbrella, dynamics, variables, plan)
    if windows is not None:
        if windows.dynamics.pressure is not None:
            with content.table("dynamics").place():
                _check_pressure(windows, start, held=bool(surface.hold) or not moving.relax)
        if windows.dynamics.multiple:
            # Raises if there is no correction, before anything runs.
            make_integrator(windows.dynamics, mixed, windows.dynamics.inner_steps, float(windows.dynamics.friction))
        with content.optional_table("profile").place():
            profile.ends_of(windows.variable)
    if plan is not None:
        with content.table("scan").place():
            # Refuses atoms that do not move.
            RestrainedSurface(surface, [Restraint(axis.variable, 0.0, 0.0) for axis in plan.axes])
    counts = {
        "all": start.topology.getNumAtoms(),
        "moving": len(surface.atoms) - len(surface.held_among_atoms),
        "held": len(surface.hold),
    }
    return ReactionInput(
        path, content, directory, start, mixed, moving, thresholds, plan, band, ends, frequencies, windows, profile,
        upper, workers, platform, tuple(surface.atoms.tolist()), surface.hold, counts,
    )  # fmt: skip


def _check_pressure(windows: UmbrellaPlan, start: Start, *, held: bool) -> None:
    """Raise SettingError if windows cannot be at constant pressure."""
    if not start.periodic:
        raise SettingError("pressure needs a box, and the System has none; leave it out")
    if held:
        raise SettingError(
            "pressure moves all molecules when the box changes, also those that [moving] holds; leave hold and "
            "relax = false out, or pressure"
        )
    if windows.exchange:
        raise SettingError("pressure: windows that exchange have a constant volume; leave it out, or exchange")
    every = windows.dynamics.barostat_interval
    if windows.checkpoint % every:
        raise SettingError(
            f"barostat_interval divides the checkpoint of [umbrella], which is {windows.checkpoint} steps, got {every}"
        )


def _windows(
    content: Table,
    settings: UmbrellaSettings,
    dynamics: DynamicsSettings | None,
    variables: Mapping[str, Variable],
    scan: ScanPlan | None,
) -> UmbrellaPlan:
    table = content.table("umbrella")
    variable = chosen_variable(table, settings.variable, variables)
    if dynamics is None:
        raise InputFileError('[umbrella] needs [dynamics], such as length = "10 ps", for its windows')
    with table.place():
        centres = settings.centres_of(variable)
        if centres is None:
            own = [] if scan is None else [axis.centres for axis in scan.axes if axis.name == settings.variable]
            if not own:
                raise SettingError(
                    "lacks centres, or start, stop and windows; it may lack both with the variable of [scan]"
                )
            centres = own[0]
        if len(centres) < 2 or len(set(centres)) < len(centres):
            raise SettingError("has two centres or more, all of them different")
        constants = settings.force_constants_of(variable, len(centres))
        step = float(dynamics.step) * dynamics.inner_steps
        sample, frames = settings.sample.in_steps(step), settings.frames.in_steps(step)
        if frames % sample:
            raise SettingError(f"frames is a multiple of sample, and they are {frames} and {sample} steps")
        checkpoint, pull = settings.checkpoint.in_steps(step), settings.pull.in_steps(step)
        equilibration = settings.equilibration.in_steps(step)
    with content.table("dynamics").place():
        steps = dynamics.length.in_steps(step)
        if steps < 10 * sample:
            raise SettingError(f"length is {steps} steps: ten samples or more are needed, one every {sample} steps")
    return UmbrellaPlan(
        settings.variable, variable, centres, constants, settings.starts, dynamics, steps, equilibration, sample,
        frames, checkpoint, pull, settings.exchange,
    )  # fmt: skip


def _check_exchange(workers: int, profile: ProfileSettings) -> None:
    """Raise if windows cannot exchange."""
    if workers > 1:
        raise SettingError(f"exchange runs all windows in one process, and workers = {workers}; leave workers out")
    if profile.reweight_every is not None:
        raise SettingError("exchange leaves no trajectories, and [profile] has reweight_every; leave one of both out")
    check_sampler_is_there()


def _ends(content: Table, settings: PathSettings, start: Start, folder: Path) -> tuple[FloatArray, FloatArray] | None:
    if settings.reactant is None or settings.product is None:
        return None
    found = []
    for key, name in (("reactant", settings.reactant), ("product", settings.product)):
        positions = read_coordinates(folder, name, f"[path] {key}:")
        if len(positions) != len(start.positions):
            raise InputFileError(
                f"[path] {key}: {name} has {len(positions)} atoms and the System {len(start.positions)}; give a file "
                "of the same system"
            )
        found.append(positions)
    return found[0], found[1]


def _upper(table: Table, mixed: MixedSystem, folder: Path) -> UpperLevel:
    names = list(mixed.terms)
    name = table.text("term", names[0] if len(names) == 1 else None)
    with table.place():
        replaced = mixed.term(name)
    potential = read_level(table.without("term"), folder, replaced.term.embedding)
    with table.place():
        potential.check(replaced.layout.specification)
    return UpperLevel(potential, name)
