"""The table [system] of an input file: Topology, System of the force field and positions from files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.commands.amber_files import read_amber
from qmmlmm.commands.input_file import Table
from qmmlmm.commands.measures import check_measure
from qmmlmm.errors import InputFileError, PreparationError, SettingError, listed
from qmmlmm.preparation.prepared_files import read_prepared
from qmmlmm.setting_checks import check_array, check_choice, check_flag, check_names, check_text
from qmmlmm.units import FloatArray, Scalar

CONSTRAINTS = {"none": None, "HBonds": app.HBonds, "AllBonds": app.AllBonds, "HAngles": app.HAngles}

KINDS: dict[str, tuple[str, ...]] = {
    "prepared": (),
    "prmtop": ("coordinates",),
    "psf": ("parameters", "coordinates"),
    "top": ("coordinates",),
    "xml": ("topology", "coordinates"),
    "pdb": ("force_field",),
}
"""Keys of which one says what the files are, with the others that it needs."""
STRUCTURES = (".pdb", ".ent", ".cif", ".mmcif", ".pdbx")
"""Endings of files with names of atoms, which may have several models."""
_OPTIONS = ("cutoff", "constraints", "rigid_water", "no_box", "hydrogen_mass", "flexible_constraints")
_READS_OPTIONS = ("prmtop", "psf", "top", "pdb")
_OPTIONAL = {"psf": ("box",), "top": ("include",)}


@dataclass(frozen=True)
class SystemSettings:
    """The table [system]: one of the kinds of files, with relative paths from the folder of the input file.

    Parameters
    ----------
    prepared : path, optional
        Folder that qmmlmm prepare wrote.
    prmtop : path, optional
        Amber topology; requires `coordinates`.
    psf : path, optional
        CHARMM topology; requires `parameters` and `coordinates`, and `box` if the coordinates have no box.
    top : path, optional
        GROMACS topology; requires `coordinates`.
    xml : path, optional
        Serialised OpenMM System; requires `topology` and `coordinates`.
    pdb : path, optional
        Complete structure, PDB or mmCIF; requires `force_field`.
    coordinates : path, optional
        Amber inpcrd or rst7, GROMACS gro, CHARMM crd, PDB, mmCIF, or a serialised OpenMM State (XML).
    topology : path, optional
        PDB or mmCIF file with the names and bonds for `xml`.
    parameters : list of paths, optional
        CHARMM files rtf, prm, par, str for `psf`.
    force_field : list of paths, optional
        Force field files for `pdb`: files that come with OpenMM, such as "amber14-all.xml", or your own files.
    include : path, optional
        Folder with the GROMACS force fields for `top`.
    box : list of numbers, nm, optional
        Edges of a rectangular box for `psf`; the box of the coordinates if not given.
    cutoff : number, nm
        Cutoff of PME and Lennard-Jones interactions. Not for `prepared` and `xml`, whose System already has one.
    constraints : {"none", "HBonds", "AllBonds", "HAngles"}
        Constraints outside the regions; regions have no constraints. Not for `prepared` and `xml`.
    rigid_water : true or false
        Whether water is rigid, independently of `constraints`. OpenMM minimises flexible water about ten times faster.
        Not for `prepared` and `xml`.
    no_box : true or false
        Whether the System has no box and no cutoff. Not for `prepared` and `xml`.
    hydrogen_mass : number, dalton, optional
        Mass of hydrogens outside water. The additional mass is taken from the heavy atoms. Not for `prepared` and
        `xml`.
    flexible_constraints : true or false
        Whether constrained bonds keep their force field terms. A term with the method "force field" needs them. Only
        for `prmtop`, `psf` and `pdb`.
    """

    prepared: str | None = None
    prmtop: str | None = None
    psf: str | None = None
    top: str | None = None
    xml: str | None = None
    pdb: str | None = None
    coordinates: str | None = None
    topology: str | None = None
    parameters: tuple[str, ...] | None = None
    force_field: tuple[str, ...] | None = None
    include: str | None = None
    box: FloatArray | None = None
    cutoff: Scalar = 0.9
    constraints: str = "HBonds"
    rigid_water: bool = True
    no_box: bool = False
    hydrogen_mass: Scalar | None = None
    flexible_constraints: bool = False

    def __post_init__(self) -> None:
        values: dict[str, object] = {}
        for name in ("prepared", "prmtop", "psf", "top", "xml", "pdb", "coordinates", "topology", "include"):
            if vars(self)[name] is not None:
                values[name] = check_text(name, vars(self)[name])
        for name in ("parameters", "force_field"):
            if vars(self)[name] is not None:
                values[name] = _names(name, vars(self)[name])
        if self.box is not None:
            box = check_array("box", self.box, (3,), unit.nanometer)
            if box.min() <= 0.0:
                raise SettingError(f"box is three edges above zero, nm, got {list(self.box)}")
            values["box"] = box
        values["cutoff"] = check_measure("cutoff", self.cutoff, unit.nanometer, above=0.0, at_most=10.0)
        values["constraints"] = check_choice("constraints", check_text("constraints", self.constraints), CONSTRAINTS)
        values["rigid_water"] = check_flag("rigid_water", self.rigid_water)
        values["no_box"] = check_flag("no_box", self.no_box)
        values["flexible_constraints"] = check_flag("flexible_constraints", self.flexible_constraints)
        if self.hydrogen_mass is not None:
            values["hydrogen_mass"] = check_measure(
                "hydrogen_mass", self.hydrogen_mass, unit.dalton, at_least=1.0, at_most=6.0
            )
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self._check_together()

    @property
    def kind(self) -> str:
        """The key that says what the files are."""
        return next(kind for kind in KINDS if vars(self)[kind] is not None)

    def _check_together(self) -> None:
        kinds = [kind for kind in KINDS if vars(self)[kind] is not None]
        if len(kinds) != 1:
            raise SettingError(f"has one of {', '.join(KINDS)}, got {listed(kinds) or 'none'}")
        (kind,) = kinds
        for name in KINDS[kind]:
            if vars(self)[name] is None:
                raise SettingError(f"lacks {name!r}, which {kind!r} needs")
        every = ("coordinates", "topology", "parameters", "force_field", "include", "box")
        if kind == "top" and self.flexible_constraints:
            raise SettingError("flexible_constraints: OpenMM does not offer it for GROMACS files; leave it out")
        unused = [
            name
            for name in every
            if vars(self)[name] is not None and name not in (*KINDS[kind], *_OPTIONAL.get(kind, ()))
        ]
        if unused:
            raise SettingError(f"has {listed(unused)}, which {kind!r} does not need; leave it out")


@dataclass(frozen=True)
class Start:
    """What a table [system] describes.

    Parameters
    ----------
    topology : openmm.app.Topology
    system : openmm.System
        System of the force field; its default box is that of the coordinates.
    positions : (n, 3) float array, nm
    """

    topology: app.Topology
    system: openmm.System
    positions: FloatArray

    @property
    def periodic(self) -> bool:
        """Whether there is a box."""
        return bool(self.system.usesPeriodicBoundaryConditions())


def read_system(table: Table, folder: Path) -> Start:
    """Return topology, System and positions that a table [system] describes, see `SystemSettings`.

    Parameters
    ----------
    table : Table
    folder : Path
        Folder to which paths are relative.

    Raises
    ------
    InputFileError
        If a key is unknown or missing, or has a wrong value, or OpenMM refuses a file.
    """
    settings = table.build(SystemSettings)
    if settings.kind not in _READS_OPTIONS:
        given = [name for name in _OPTIONS if name in table]
        if given:
            raise InputFileError(
                f"[system] has {listed(given)}, and the System of {settings.kind!r} is made already; leave it out"
            )
    topology, system, quantity = _READERS[settings.kind](settings, folder)
    positions = np.array(quantity.value_in_unit(unit.nanometer), dtype=float)
    if not topology.getNumAtoms() == system.getNumParticles() == len(positions):
        raise InputFileError(
            f"[system] the topology has {topology.getNumAtoms()} atoms, the System {system.getNumParticles()} "
            f"particles and the coordinates {len(positions)}; give the files of the same system"
        )
    return Start(topology, system, positions)


_Read = tuple[app.Topology, openmm.System, unit.Quantity]


def _names(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
        raise SettingError(f"{name} is a list of texts in quotes, got {value!r}")
    if not value:
        raise SettingError(f"{name} is a list of files, got none")
    return check_names(name, value)


def _method(settings: SystemSettings) -> dict[str, object]:
    """Return the arguments of OpenMM's createSystem."""
    method: dict[str, object] = {"constraints": CONSTRAINTS[settings.constraints]}
    if not settings.rigid_water:  # if it is true, OpenMM's default knows which models are flexible
        method["rigidWater"] = False
    if settings.hydrogen_mass is not None:
        method["hydrogenMass"] = settings.hydrogen_mass * unit.dalton
    if settings.flexible_constraints:
        method["flexibleConstraints"] = True
    if settings.no_box:
        return method | {"nonbondedMethod": app.NoCutoff}
    return method | {"nonbondedMethod": app.PME, "nonbondedCutoff": settings.cutoff * unit.nanometer}


def _prepared(settings: SystemSettings, folder: Path) -> _Read:
    assert settings.prepared is not None
    path = folder / settings.prepared
    try:
        topology, system, positions = read_prepared(path)
        box = _state(path / "state.xml").getPeriodicBoxVectors()
    except PreparationError as error:
        raise InputFileError(f"[system] prepared: {error}") from error
    if system.usesPeriodicBoundaryConditions():
        system.setDefaultPeriodicBoxVectors(*box)
    return topology, system, positions


def _amber(settings: SystemSettings, folder: Path) -> _Read:
    assert settings.prmtop is not None
    assert settings.coordinates is not None
    return read_amber(folder / settings.prmtop, folder / settings.coordinates, _method(settings))


def _pdb(settings: SystemSettings, folder: Path) -> _Read:
    assert settings.pdb is not None
    assert settings.force_field is not None
    path = _file(folder, "pdb", settings.pdb)
    structure = _made_by_openmm(f"pdb {str(path)!r}", lambda: _structure(path))
    # OpenMM looks for its own files by name; those beside the input file come first.
    names = [str(folder / name) if (folder / name).is_file() else name for name in settings.force_field]
    force_field = _made_by_openmm(f"force_field {listed(names)}", lambda: app.ForceField(*names))
    if not settings.no_box and structure.topology.getPeriodicBoxVectors() is None:
        raise InputFileError(
            "[system] the pdb has no box (CRYST1): add no_box = true for a system without one, or take a file that "
            "has it"
        )
    system = _made_by_openmm("the pdb", lambda: force_field.createSystem(structure.topology, **_method(settings)))
    return structure.topology, system, structure.positions


def _charmm(settings: SystemSettings, folder: Path) -> _Read:
    assert settings.psf is not None
    assert settings.parameters is not None
    assert settings.coordinates is not None
    path = _file(folder, "psf", settings.psf)
    files = [str(_file(folder, "parameters", name)) for name in settings.parameters]
    positions, box = _coordinates(_file(folder, "coordinates", settings.coordinates))
    psf = _made_by_openmm(f"psf {str(path)!r}", lambda: app.CharmmPsfFile(str(path)))
    if settings.box is not None:
        psf.setBox(*(settings.box * unit.nanometer))
    elif box is not None:
        psf.topology.setPeriodicBoxVectors(box)
        psf.box_vectors = box
    elif not settings.no_box:
        raise InputFileError(
            "[system] neither psf nor coordinates have a box: give box = [x, y, z] in nm, or no_box = true"
        )
    parameters = _made_by_openmm(f"parameters {listed(files)}", lambda: app.CharmmParameterSet(*files))
    system = _made_by_openmm("the psf", lambda: psf.createSystem(parameters, **_method(settings)))
    return psf.topology, system, positions


def _gromacs(settings: SystemSettings, folder: Path) -> _Read:
    assert settings.top is not None
    assert settings.coordinates is not None
    path = _file(folder, "top", settings.top)
    positions, box = _coordinates(_file(folder, "coordinates", settings.coordinates))
    options: dict[str, object] = {"periodicBoxVectors": None if settings.no_box else box}
    if settings.include is not None:
        options["includeDir"] = str(folder / settings.include)
    if box is None and not settings.no_box:
        raise InputFileError("[system] the coordinates have no box: take a file that has one, or give no_box = true")
    top = _made_by_openmm(f"top {str(path)!r}", lambda: app.GromacsTopFile(str(path), **options))
    system = _made_by_openmm("the top", lambda: top.createSystem(**_method(settings)))
    return top.topology, system, positions


def _serialised(settings: SystemSettings, folder: Path) -> _Read:
    assert settings.xml is not None
    assert settings.topology is not None
    assert settings.coordinates is not None
    path, structure_path = _file(folder, "xml", settings.xml), _file(folder, "topology", settings.topology)
    text = path.read_text(encoding="utf-8", errors="replace")
    system = _made_by_openmm(f"xml {str(path)!r}", lambda: openmm.XmlSerializer.deserialize(text))
    if not isinstance(system, openmm.System):
        raise InputFileError(f"[system] xml {str(path)!r} holds a {type(system).__name__}, not a System")
    structure = _made_by_openmm(f"topology {str(structure_path)!r}", lambda: _structure(structure_path))
    positions, box = _coordinates(_file(folder, "coordinates", settings.coordinates))
    if box is not None and system.usesPeriodicBoundaryConditions():
        system.setDefaultPeriodicBoxVectors(*box)
    return structure.topology, system, positions


_READERS: dict[str, Callable[[SystemSettings, Path], _Read]] = {
    "prepared": _prepared,
    "prmtop": _amber,
    "psf": _charmm,
    "top": _gromacs,
    "xml": _serialised,
    "pdb": _pdb,
}


def _file(folder: Path, key: str, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise InputFileError(f"[system] {key}: there is no file {str(path)!r}")
    return path


def _structure(path: Path) -> Any:
    """Return OpenMM's reader of a PDB or mmCIF file, which has a Topology and positions."""
    if path.suffix.lower() in (".cif", ".mmcif", ".pdbx"):
        return app.PDBxFile(str(path))
    with path.open(encoding="utf-8") as file:
        return app.PDBFile(file)


def _state(path: Path) -> openmm.State:
    state = openmm.XmlSerializer.deserialize(path.read_text(encoding="utf-8"))
    if not isinstance(state, openmm.State):
        raise ValueError(f"it holds a {type(state).__name__}, not a State with positions")
    return state


def read_coordinates(folder: Path, name: str, place: str) -> FloatArray:
    """Return the positions, (n, 3) nm, of a file of any of the formats that OpenMM reads.

    Parameters
    ----------
    folder : Path
        Folder to which the name is relative.
    name : str
    place : str
        Where the name stands, for messages.

    Raises
    ------
    InputFileError
        If there is no such file, or OpenMM cannot read it.
    """
    path = folder / name
    if not path.is_file():
        raise InputFileError(f"{place} there is no file {str(path)!r}")
    return np.array(_coordinates(path, place)[0].value_in_unit(unit.nanometer), dtype=float)


def read_structures(folder: Path, name: str, place: str) -> list[FloatArray]:
    """Return the positions of all models of a PDB or mmCIF file, or those of another file, (n, 3) nm each.

    The parameters and errors are those of `read_coordinates`.
    """
    path = folder / name
    if not path.is_file() or path.suffix.lower() not in STRUCTURES:
        return [read_coordinates(folder, name, place)]
    structure = _made_by_openmm(f"structures {str(path)!r}", lambda: _structure(path), place)
    return [
        np.array(structure.getPositions(asNumpy=True, frame=k).value_in_unit(unit.nanometer), dtype=float)
        for k in range(structure.getNumFrames())
    ]


def _coordinates(path: Path, place: str = "[system]") -> tuple[unit.Quantity, Any]:
    """Return positions, and box vectors or None, of a file of any of the formats that OpenMM reads."""
    ending = path.suffix.lower()

    def read() -> tuple[unit.Quantity, Any]:
        if ending == ".xml":
            state = _state(path)
            return state.getPositions(), state.getPeriodicBoxVectors()
        if ending == ".gro":
            gro = app.GromacsGroFile(str(path))
            return gro.positions, gro.getPeriodicBoxVectors()
        if ending in STRUCTURES:
            structure = _structure(path)
            return structure.positions, structure.topology.getPeriodicBoxVectors()
        if ending in (".crd", ".cor"):
            return app.CharmmCrdFile(str(path)).positions, None
        amber = app.AmberInpcrdFile(str(path))
        return amber.positions, amber.boxVectors

    found: tuple[unit.Quantity, Any] = _made_by_openmm(f"coordinates {str(path)!r}", read, place)
    return found


def _made_by_openmm(what: str, make: Callable[[], Any], place: str = "[system]") -> Any:
    """Return what OpenMM makes, with its own errors as errors of the input file."""
    try:
        return make()
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise InputFileError(f"{place} OpenMM cannot use {what}: {reason}") from error
