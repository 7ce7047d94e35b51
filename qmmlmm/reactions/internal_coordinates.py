"""geomeTRIC over a surface: its optimiser, saddle search and reaction path in internal coordinates.

No other module imports geomeTRIC.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from qmmlmm.errors import EvaluationError, MissingDependencyError, SettingError, shown
from qmmlmm.progress_display import progress_bar
from qmmlmm.reactions.surface import Surface, SurfacePoint
from qmmlmm.setting_checks import LARGEST_COUNT, check_positive, check_whole_number
from qmmlmm.units import ANGSTROM_IN_BOHR, HARTREE_IN_KJ_PER_MOL, FloatArray, IntArray

COORDINATES = ("tric", "dlc", "hdlc", "cart")


@dataclass(frozen=True)
class Thresholds:
    """What a converged geometry fulfils; the defaults are those of Gaussian and geomeTRIC.

    Parameters
    ----------
    energy : float, hartree
        Change of the energy in the last step.
    rms_gradient, largest_gradient : float, hartree/bohr
    rms_step, largest_step : float, angstrom

    Raises
    ------
    SettingError
        If a value is no positive number.
    """

    energy: float = 1e-6
    rms_gradient: float = 3e-4
    largest_gradient: float = 4.5e-4
    rms_step: float = 1.2e-3
    largest_step: float = 1.8e-3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_positive(name, value)


TIGHT = Thresholds(1e-6, 1e-5, 1.5e-5, 4e-5, 6e-5)
"""Thresholds for saddle points and frequencies in vacuum."""


@dataclass(frozen=True)
class Walk:
    """The geometries that geomeTRIC went through.

    Parameters
    ----------
    coordinates : (n_steps, n_atoms, 3) float array, bohr
    energies : (n_steps,) float array, hartree
    converged : bool
    """

    coordinates: FloatArray
    energies: FloatArray
    converged: bool


def geometric_module(name: str) -> ModuleType:
    """Return a module of geomeTRIC.

    Raises
    ------
    MissingDependencyError
        If geomeTRIC is not installed.
    """
    try:
        import geometric

        return importlib.import_module(f"{geometric.__name__}.{name}")
    except ImportError as error:
        raise MissingDependencyError(
            'optimisations and paths need geomeTRIC: pip install "qmmlmm[reactions]"'
        ) from error


def geometric_molecule(symbols: Sequence[str], frames: FloatArray) -> object:
    """Return a Molecule of geomeTRIC with frames, (n_frames, n_atoms, 3) bohr."""
    molecule = geometric_module("molecule").Molecule()
    molecule.elem = list(symbols)
    molecule.xyzs = [frame / ANGSTROM_IN_BOHR for frame in frames]
    molecule.comms = ["" for _ in frames]
    molecule.build_topology()
    return molecule


class Images(Surface, Protocol):
    """A surface for the images of a band, of which all may be computed at once."""

    def select(self, folder: str) -> None:
        """Select the image whose number ends the name of geomeTRIC's folder."""

    def submit(self, coordinates: FloatArray) -> None:
        """Begin to compute the selected image, whose result `evaluate` then waits for."""


class _Queue:
    """The queue in which geomeTRIC computes all images before it reads their results; ours never holds a task."""

    def empty(self) -> bool:
        """Return whether there is nothing to wait for."""
        return True


def geometric_engine(
    surface: Surface, coordinates: FloatArray | None = None, before: Callable[[str], None] | None = None
) -> object:
    """Return an Engine of geomeTRIC over a surface, for scripts of geomeTRIC.

    Parameters
    ----------
    surface : Surface
        Such as an `EnergySurface`.
    coordinates : (n_atoms, 3) float array, bohr, optional
        Coordinates of the Engine's molecule; zeros if not given.
    before : callable, optional
        Function that is called with the name of geomeTRIC's folder before each evaluation.

    Notes
    -----
    geomeTRIC wraps no exceptions: what a term raises reaches the caller.
    """
    start = np.zeros((len(surface.atoms), 3)) if coordinates is None else coordinates
    engine_class = geometric_module("engine").Engine

    class SurfaceEngine(engine_class):  # type: ignore[misc, valid-type]
        """Energy and gradient of the surface."""

        def calc_new(self, coords: FloatArray, dirname: str) -> dict[str, Any]:
            """Return energy, hartree, and gradient, (3 n_atoms,) hartree/bohr."""
            if before is not None:
                before(dirname)
            point = surface.evaluate(np.array(coords).reshape(-1, 3))
            return {"energy": point.energy, "gradient": point.gradient.ravel().copy()}

        def copy_scratch(self, src: str, dest: str) -> None:
            """There are no files."""

    return SurfaceEngine(geometric_molecule(surface.symbols, start[None]))


def minimised(
    surface: Surface,
    start: FloatArray,
    *,
    frozen: Sequence[int] = (),
    coordinates: str = "tric",
    thresholds: Thresholds | None = None,
    max_steps: int = 300,
    free: bool = False,
    title: str | None = None,
    leave: bool = True,
) -> Walk:
    """Return the way to a minimum.

    Parameters
    ----------
    surface : Surface
    start : (n_atoms, 3) float array, bohr
    frozen : sequence of int
        Positions in `surface.atoms` of atoms that do not move.
    coordinates : {"tric", "dlc", "hdlc", "cart"}
        Internal coordinates.
    thresholds : Thresholds, optional
    max_steps : int
    free : bool
        Whether the energy does not depend on translation and rotation.
    title : str, optional
        Name of the walk, whose progress is shown.
    leave : bool
        Whether its bar stays at the end.
    """
    options = {"transition": False, "hessian": "never", "subfrctor": 1 if free else 0}
    limits = thresholds or Thresholds()
    return _walked(surface, start, frozen, coordinates, limits, max_steps, options, title=title, leave=leave)


def saddle_searched(
    surface: Surface,
    start: FloatArray,
    hessian: FloatArray,
    *,
    frozen: Sequence[int] = (),
    coordinates: str = "tric",
    thresholds: Thresholds | None = None,
    max_steps: int = 200,
    free: bool = False,
) -> Walk:
    """Return the way to a saddle point by partitioned rational-function steps.

    Parameters
    ----------
    hessian : (3 n_atoms, 3 n_atoms) float array, hartree/bohr^2
        Hessian at the start.

    Notes
    -----
    The other parameters are those of `minimised`.
    """
    options = {"transition": True, "hessian": "first", "subfrctor": 1 if free else 0}
    limits = thresholds or Thresholds()
    return _walked(surface, start, frozen, coordinates, limits, max_steps, options, hessian, "saddle point")


def reaction_path_followed(
    surface: Surface,
    start: FloatArray,
    hessian: FloatArray,
    *,
    direction: str,
    step: float,
    coordinates: str = "tric",
    max_steps: int = 200,
    free: bool = False,
) -> Walk:
    """Return one side of the intrinsic reaction path from a saddle point.

    Parameters
    ----------
    direction : {"forward", "backward"}
        Along the negative mode or against it.
    step : float, angstrom
        Length of the steps.

    Notes
    -----
    The other parameters are those of `saddle_searched`.
    """
    options = {
        "irc": True,
        "irc_direction": direction,
        "hessian": "first",
        "trust": step,
        "subfrctor": 1 if free else 0,
    }
    return _walked(surface, start, (), coordinates, Thresholds(), max_steps, options, hessian, f"path {direction}")


def check_walk(coordinates: str, max_steps: int) -> None:
    """Raise SettingError if internal coordinates or a number of steps cannot be used."""
    check_whole_number("max_steps", max_steps, at_most=LARGEST_COUNT)
    if coordinates not in COORDINATES:
        raise SettingError(f"coordinates are one of {', '.join(COORDINATES)}, got {shown(coordinates)}")


class _Watched:
    """A surface that shows each evaluation."""

    def __init__(self, surface: Surface, bar: tqdm) -> None:
        self._surface, self._bar = surface, bar
        self._first: float | None = None

    @property
    def atoms(self) -> IntArray:
        """Particles that move on the surface."""
        return self._surface.atoms

    @property
    def symbols(self) -> list[str]:
        """Their chemical symbols."""
        return self._surface.symbols

    def evaluate(self, coordinates: FloatArray) -> SurfacePoint:
        """Return energy and gradient."""
        point = self._surface.evaluate(coordinates)
        self._first = point.energy if self._first is None else self._first
        change = (point.energy - self._first) * HARTREE_IN_KJ_PER_MOL
        largest = float(np.linalg.norm(point.gradient, axis=1).max())
        self._bar.set_postfix_str(f"{change:+.2f} kJ/mol, largest force {largest:.1e} hartree/bohr", refresh=False)
        self._bar.update()
        return point


def _walked(
    surface: Surface,
    start: FloatArray,
    frozen: Sequence[int],
    coordinates: str,
    thresholds: Thresholds,
    max_steps: int,
    options: dict[str, Any],
    hessian: FloatArray | None = None,
    title: str | None = None,
    leave: bool = True,
) -> Walk:
    check_walk(coordinates, max_steps)
    optimize, internal = geometric_module("optimize"), geometric_module("internal")
    errors = geometric_module("errors")
    molecule: Any = geometric_molecule(surface.symbols, start[None])
    if options.get("irc") and len(molecule.molecules) == 1 and coordinates == "tric":
        coordinates = "dlc"  # as geomeTRIC's own driver does
    parameters = geometric_module("params").OptParams(
        **options,
        maxiter=max_steps,
        convergence_energy=thresholds.energy,
        convergence_grms=thresholds.rms_gradient,
        convergence_gmax=thresholds.largest_gradient,
        convergence_drms=thresholds.rms_step,
        convergence_dmax=thresholds.largest_step,
    )
    with (
        _quiet(),
        tempfile.TemporaryDirectory() as folder,
        progress_bar(None, title or "", "evaluation", shown=None if title else False, leave=leave) as bar,
    ):
        parameters.xyzout = str(Path(folder) / "walk.xyz")
        if hessian is not None:
            parameters.hess_data = np.array(hessian)
        constraints, values = None, None
        if len(frozen):
            text = "$freeze\nxyz " + ",".join(str(k + 1) for k in frozen) + "\n"
            constraints, all_values = geometric_module("prepare").parse_constraints(molecule, text)
            values = all_values[0]
        system = {"tric": (False, False), "dlc": (True, False), "hdlc": (False, True), "cart": (False, False)}
        connect, add_cartesians = system[coordinates]
        kind = internal.CartesianCoordinates if coordinates == "cart" else internal.DelocalizedInternalCoordinates
        made = kind(
            molecule, build=True, connect=connect, addcart=add_cartesians, constraints=constraints, cvals=values
        )
        engine: Any = geometric_engine(_Watched(surface, bar), start)
        optimizer = optimize.Optimizer(start.ravel().copy(), molecule, made, engine, folder, parameters, False)
        converged = True
        try:
            optimizer.optimizeGeometry()
        except errors.GeomOptNotConvergedError:
            converged = False
        except (errors.IRCError, errors.GeomOptStructureError) as error:
            raise EvaluationError(f"geomeTRIC stopped: {error}") from error
    frames = np.array(optimizer.progress.xyzs) * ANGSTROM_IN_BOHR
    return Walk(frames, np.array(optimizer.progress.qm_energies), converged)


def band_optimised(
    surface: Images,
    start: FloatArray,
    folder: str,
    *,
    parallel: bool,
    largest_force: float,
    climb: bool,
    max_cycles: int,
    free: bool,
) -> tuple[FloatArray, bool]:
    """Return the images of an optimised elastic band, (n_images, n_atoms, 3) bohr, and whether it is converged.

    Parameters
    ----------
    surface : Images
    start : (n_images, n_atoms, 3) float array, bohr
    folder : str
        Folder for geomeTRIC's files.
    parallel : bool
        Whether all images are submitted before the first result is read.
    largest_force : float, eV/angstrom
        Largest force perpendicular to the path; half of it is the largest mean.
    climb : bool
        Whether the highest image climbs.
    max_cycles : int
    free : bool
        Whether the images can be rotated onto one another.
    """
    neb = geometric_module("neb")
    parameters = geometric_module("params").NEBParams(
        maxg=largest_force,
        avgg=0.5 * largest_force,
        climb=4.0 * largest_force if climb else 0.0,
        neb_maxcyc=max_cycles,
        align=free,
        optep=False,
        images=len(start),
        prefix=os.path.join(folder, "band"),
    )
    molecule: Any = geometric_molecule(surface.symbols, start)
    with _quiet(), _queue() if parallel else contextlib.nullcontext():
        engine: Any = _images_engine(surface, start[0])
        chain = neb.ElasticBand(molecule, engine=engine, tmpdir=folder, params=parameters, plain=parameters.plain)
        chain, cycles = neb.OptimizeChain(chain, engine, parameters)
    found = np.array([structure.cartesians.reshape(-1, 3) for structure in chain.Structures])
    return found, bool(cycles < max_cycles)


def _images_engine(surface: Images, coordinates: FloatArray) -> object:
    """Return an Engine over the images of a band, which geomeTRIC can queue."""
    engine_class = type(geometric_engine(surface, coordinates, surface.select))

    class ImagesEngine(engine_class):  # type: ignore[misc, valid-type]
        """Energy and gradient of each image."""

        def calc_wq(self, coords: FloatArray, dirname: str) -> None:
            """Begin to compute an image."""
            surface.select(dirname)
            surface.submit(np.array(coords).reshape(-1, 3))

        def read_wq(self, coords: FloatArray, dirname: str) -> dict[str, Any]:
            """Return the result of an image."""
            found: dict[str, Any] = self.calc_new(coords, dirname)
            return found

    return ImagesEngine(geometric_molecule(surface.symbols, coordinates[None]))


@contextlib.contextmanager
def _queue() -> Iterator[None]:
    """Let geomeTRIC queue the images of a band."""
    nifty: Any = geometric_module("nifty")
    before, nifty.WORK_QUEUE = nifty.WORK_QUEUE, _Queue()
    try:
        yield
    finally:
        nifty.WORK_QUEUE = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence geomeTRIC's log, and restore NumPy's way of printing, which it changes."""
    logger = logging.getLogger("geometric")
    level, logger_level = logger.disabled, logger.level
    children = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("geometric")]
    disabled = [child.disabled for child in children]
    printing = np.get_printoptions()
    for child in children:
        child.disabled = True
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled, logger.level = level, logger_level
        for child, was in zip(children, disabled, strict=True):
            child.disabled = was
        np.set_printoptions(**printing)
