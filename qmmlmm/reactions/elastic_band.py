"""Paths by nudged elastic bands with a climbing image, in relaxed surroundings."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
import uuid
import warnings
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from openmm import unit
from scipy.optimize import minimize
from tqdm import tqdm

from qmmlmm.analysis.path_figure import save_path_figure
from qmmlmm.durable_files import checksum
from qmmlmm.embedding.region_geometry import nearest_displacements
from qmmlmm.errors import EvaluationError, QmmlmmWarning, SettingError
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.progress_display import progress_bar
from qmmlmm.reactions.calculation_directory import calculation_directory
from qmmlmm.reactions.energy_surface import EnergySurface
from qmmlmm.reactions.evaluation_log import EvaluationLog
from qmmlmm.reactions.frequencies import check_executor
from qmmlmm.reactions.internal_coordinates import band_optimised
from qmmlmm.reactions.path import ReactionPath
from qmmlmm.reactions.structure import Structure
from qmmlmm.reactions.surface import TOLERANCE, SurfacePoint, SurfaceState
from qmmlmm.reactions.surface_workers import SurfaceWork, WorkedPoint, worked_point
from qmmlmm.setting_checks import check_flag, check_instance, check_path, check_quantity, check_whole_number
from qmmlmm.units import (
    ANGSTROM_IN_BOHR,
    BOHR_IN_NM,
    HARTREE_IN_EV,
    HARTREE_IN_KJ_PER_MOL,
    NM_IN_BOHR,
    FloatArray,
    IntArray,
    Scalar,
    Vectors,
)

LARGEST_FORCE = 0.05
"""Largest force perpendicular to the path of a converged band, eV/angstrom."""

ROOM = 0.8
"""Part of the largest force at which geomeTRIC ends: the new evaluation at the end relaxes the surroundings further."""

PUSH = 0.005
"""Random displacement of interpolated atoms, nm, in the same directions for all images."""

FINE = {"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-9}
"""Options of the fit of distances, whose misfit is small in nm."""

SAME_STRUCTURE = 0.05
"""Largest displacement of an atom between structures that are the same, angstrom."""


@dataclass(frozen=True, eq=False)
class BandPath(ReactionPath):
    """A path of lowest energy, as images of a band.

    Parameters
    ----------
    perpendicular_forces : (n,) Quantity, eV/angstrom
        Largest force on an atom of each image perpendicular to the path, from a new evaluation at the end. At the ends
        it is the whole force, and at the climbing image that without its inverted part along the path.
    forces_along : (n,) Quantity, eV/angstrom
        Force along the path at each image; small at the climbing image.
    converged : bool
    evaluations : int
        Number of evaluations of the terms: QM calls.

    Notes
    -----
    The other parameters are those of `ReactionPath`; `progress` is the length of the path in angstrom.
    """

    perpendicular_forces: FloatArray = None  # type: ignore[assignment]
    forces_along: FloatArray = None  # type: ignore[assignment]
    converged: bool = True
    evaluations: int = 0

    def __str__(self) -> str:
        lines = ["image   length (A)   energy (kJ/mol)   force across (eV/A)   force along (eV/A)"]
        for k, row in enumerate(
            zip(self.progress, self.relative_energies, self.perpendicular_forces, self.forces_along, strict=True)
        ):
            lines.append(f"{k:5d}{row[0]:13.3f}{row[1]:18.2f}{row[2]:22.4f}{row[3]:21.4f}")
        return "\n".join(lines)


class _Images:
    """A surface for the images of a band, each with surroundings of its own."""

    def __init__(
        self,
        surface: EnergySurface,
        states: list[SurfaceState],
        folder: Path | None,
        executor: Executor | None,
        platform: str | None,
        bar: tqdm,
    ) -> None:
        self._surface = surface
        self._executor = executor
        geometry = surface.geometry()
        self._work = SurfaceWork(
            uuid.uuid4().hex, surface.mixed, geometry.positions, geometry.box, tuple(surface.atoms.tolist()),
            surface.hold, surface.relaxes, surface.tolerance, platform,
        )  # fmt: skip
        self._running: dict[int, tuple[FloatArray, Future[WorkedPoint]]] = {}
        self._logs: list[EvaluationLog | None] = [None for _ in states]
        if folder is not None:
            for k in range(len(states)):
                place = folder / f"image_{k:02d}"
                place.mkdir(exist_ok=True)
                self._logs[k] = EvaluationLog(place)
        self._states = states
        self._known: list[tuple[FloatArray, SurfacePoint] | None] = [None for _ in states]
        self._image = 0
        self._bar = bar

    @property
    def atoms(self) -> IntArray:
        """Particles that move on the surface."""
        return self._surface.atoms

    @property
    def symbols(self) -> list[str]:
        """Their chemical symbols."""
        return self._surface.symbols

    def select(self, folder: str) -> None:
        """Select the image whose number ends the name of geomeTRIC's folder."""
        found = re.search(r"struct_(\d+)", folder)
        if found is None:
            raise EvaluationError(f"geomeTRIC computed something that is no image of the band: {folder}")
        self._image = int(found.group(1))

    def submit(self, coordinates: FloatArray) -> None:
        """Begin to compute the selected image in the executor, unless its result is known."""
        image = self._image
        known = self._known[image]
        if known is not None and np.array_equal(known[0], coordinates):
            return
        self._surface.log = self._logs[image]
        self._surface.state = self._states[image]
        recalled = self._surface.recalled(coordinates)
        if recalled is not None:
            self._states[image] = self._surface.state
            self._known[image] = (coordinates.copy(), recalled)
            return
        assert self._executor is not None
        future = self._executor.submit(worked_point, self._work, self._states[image], coordinates)
        self._running[image] = (coordinates.copy(), future)

    def evaluate(self, coordinates: FloatArray) -> SurfacePoint:
        """Return energy and gradient of the selected image."""
        known = self._known[self._image]
        if known is not None and np.array_equal(known[0], coordinates):
            return known[1]
        self._surface.log = self._logs[self._image]
        self._surface.state = self._states[self._image]
        submitted, future = self._running.pop(self._image, (None, None))
        if future is not None and submitted is not None and np.array_equal(submitted, coordinates):
            point, state, evaluations = future.result()
            self._surface.state = state
            self._surface.evaluations += evaluations
            self._surface.keep(coordinates, point)
        else:
            point = self._surface.evaluate(coordinates)
        self._states[self._image] = self._surface.state
        self._known[self._image] = (coordinates.copy(), point)
        highest = max(found[1].energy for found in self._known if found is not None)
        lowest = min(found[1].energy for found in self._known if found is not None)
        self._bar.set_postfix_str(f"highest {(highest - lowest) * HARTREE_IN_KJ_PER_MOL:.1f} kJ/mol", refresh=False)
        self._bar.update()
        return point

    def verified(self, image: int, coordinates: FloatArray) -> SurfacePoint:
        """Return the point of an image from a new evaluation with relaxed surroundings."""
        self._image = image
        self.evaluate(coordinates)
        self._surface.log = self._logs[image]
        self._surface.state = self._states[image]
        return self._surface.verified()[0]


def reaction_path(
    mixed: MixedSystem,
    reactant: Structure | ReactionPath,
    product: Structure | None = None,
    *,
    images: int = 11,
    climb: bool = True,
    largest_force: Scalar = LARGEST_FORCE,
    max_cycles: int = 100,
    executor: Executor | None = None,
    directory: str | os.PathLike[str] | None = None,
    atoms: Iterable[int] | str | None = None,
    hold: Iterable[int] | str | None = None,
    relax: bool = True,
    tolerance: Scalar = TOLERANCE,
    box_vectors: Vectors | None = None,
    platform: str | None = None,
) -> BandPath:
    """Return the path of lowest energy between two minima, or near a scan, by geomeTRIC's nudged elastic band.

    Parameters
    ----------
    mixed : MixedSystem
    reactant : Structure or ReactionPath
        First minimum, such as the result of `optimise`, or a scan from which the band starts.
    product : Structure, optional
        Last minimum; not with a path.
    images : int
        Number of structures, both ends included.
    climb : bool
        Whether the highest image climbs to the saddle point.
    largest_force : Quantity or float, eV/angstrom
        Largest force perpendicular to the path of a converged band.
    max_cycles : int
        Largest number of steps of the band.
    executor : concurrent.futures.Executor, optional
        Executor that computes all images of a step at once, with workers of its own memory or threads; one after
        another in this process if not given.
    directory : path, optional
        Folder of the results. A band that was killed continues there, without computing any energy again.
    atoms, hold, relax, tolerance, box_vectors, platform
        As in `optimise`.

    Returns
    -------
    BandPath
        A warning says if it is not converged.

    Raises
    ------
    SettingError
        If both ends are the same structure, or an argument is out of range.
    SelectionError, UnsupportedSystemError
        As `EnergySurface`.
    RunDirectoryError
        If the directory is in use, or has another calculation.
    EvaluationError
        If a term or geomeTRIC fails.

    Notes
    -----
    Source: Henkelman, Uberuaga and Jonsson, J. Chem. Phys. 113, 9901 (2000). Between two minima the band starts from
    interpolated distances (Smidstrup et al., J. Chem. Phys. 140, 214106 (2014)), and the surroundings from interpolated
    positions. Choose ends that come from each other by a scan or a reaction path: the water of two independent
    optimisations is in different minima, which is no reaction.
    """
    count = check_whole_number("images", images, at_least=5, at_most=99)
    check_whole_number("max_cycles", max_cycles)
    check_flag("climb", climb)
    check_executor(executor)
    per = unit.elementary_charge * unit.volt / unit.angstrom
    bound = check_quantity("largest_force", largest_force, per, above=0.0)
    ends = _ends(reactant, product)
    surface = EnergySurface(
        mixed,
        ends[0],
        atoms=atoms,
        hold=hold,
        relax=relax,
        box_vectors=box_vectors,
        platform=platform,
        tolerance=tolerance,
    )
    _check_different(surface, ends)
    start = surface.geometry().positions
    whole = [_beside(structure, start, surface.box) for structure in ends]
    frames = _resampled(whole, surface.atoms, count) if len(whole) > 2 else _interpolated(whole, surface.atoms, count)
    start_coordinates = np.array([frame[surface.atoms] for frame in frames]) * NM_IN_BOHR
    settings: dict[str, object] = {
        "images": checksum(np.round(start_coordinates, 6).tobytes()),
        "largest force": bound,
        "climb": climb,
        "max cycles": max_cycles,
    }
    target = None if directory is None else check_path("directory", directory)
    held = nullcontext() if target is None else calculation_directory(target, "path", surface, settings)
    with held, tempfile.TemporaryDirectory() as folder, progress_bar(None, "path", "evaluation") as bar:
        states = [SurfaceState(frame, None) for frame in frames]
        band = _Images(surface, states, target, executor, platform, bar)
        found, converged = band_optimised(
            band,
            start_coordinates,
            folder,
            parallel=executor is not None,
            largest_force=ROOM * bound,
            climb=climb,
            max_cycles=max_cycles,
            free=surface.is_free,
        )
        points = [band.verified(k, coordinates) for k, coordinates in enumerate(found)]
    across, along = _forces(points, surface.atoms)
    inner = across[1:-1]
    if not converged or float(inner.max()) > bound:
        converged = False
        warnings.warn(
            f"the band is not converged: the largest force across the path is {inner.max():.3f} eV/angstrom and "
            f"{bound:g} is the threshold. Raise max_cycles, start from a scan, or take more images",
            QmmlmmWarning,
            stacklevel=2,
        )
    lengths = np.concatenate([[0.0], np.cumsum([np.linalg.norm(b - a) for a, b in itertools.pairwise(found)])])
    path = BandPath(
        mixed,
        tuple(surface.structure(point) for point in points),
        lengths / ANGSTROM_IN_BOHR,
        "Path Length (angstrom)",
        perpendicular_forces=across,
        forces_along=along,
        converged=converged,
        evaluations=surface.evaluations,
    )
    if target is not None:
        path.write_csv(target / "path.csv")
        path.write_pdb(target / "path.pdb")
        path.write_xyz(target / "path.xyz")
        save_path_figure(path.progress, {"band": path.relative_energies}, path.progress_label, target / "path.png")
    return path


def _ends(reactant: object, product: object) -> list[Structure]:
    if isinstance(reactant, ReactionPath):
        if product is not None:
            raise SettingError("product is the second of two minima and does not go with a path; leave it out")
        if len(reactant) < 3:
            raise SettingError(f"a band starts from a path of three structures or more, got {len(reactant)}")
        return list(reactant.structures)
    what = "a Structure, such as optimise returns"
    first = check_instance("reactant", reactant, Structure, f"{what}, or a ReactionPath")
    return [first, check_instance("product", product, Structure, what)]


def _check_different(surface: EnergySurface, ends: list[Structure]) -> None:
    first, last = (s.positions.value_in_unit(unit.angstrom)[surface.atoms] for s in (ends[0], ends[-1]))
    # Distances: a molecule that was only moved is the same.
    distances = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (first, last)]
    if float(np.abs(distances[0] - distances[1]).max()) < SAME_STRUCTURE:
        raise SettingError(
            f"reactant and product are the same structure: no distance differs by more than {SAME_STRUCTURE} angstrom. "
            "Check that both optimisations ended in their own minimum, and that the atoms are in the same order"
        )


def _beside(structure: Structure, start: FloatArray, box: FloatArray | None) -> FloatArray:
    """Return positions, nm, of the images that are nearest to those of another structure."""
    positions = np.array(structure.positions.value_in_unit(unit.nanometer))
    return start + nearest_displacements(positions - start, box)


def _resampled(whole: list[FloatArray], atoms: IntArray, count: int) -> list[FloatArray]:
    """Return structures at equal distances along a path."""
    steps = [float(np.linalg.norm(b[atoms] - a[atoms])) for a, b in itertools.pairwise(whole)]
    lengths = np.concatenate([[0.0], np.cumsum(steps)])
    frames = []
    for length in np.linspace(0.0, lengths[-1], count):
        k = min(int(np.searchsorted(lengths, length, side="right")) - 1, len(whole) - 2)
        part = (length - lengths[k]) / (lengths[k + 1] - lengths[k])
        frames.append((1.0 - part) * whole[k] + part * whole[k + 1])
    return frames


def _interpolated(whole: list[FloatArray], atoms: IntArray, count: int) -> list[FloatArray]:
    """Return structures between two, those of `atoms` by interpolated distances."""
    first, last = whole
    ends = [x[atoms] for x in (first, last)]
    pairs = np.triu_indices(len(atoms), 1)
    distances = [np.linalg.norm(x[pairs[0]] - x[pairs[1]], axis=1) for x in ends]
    frames = []
    for part in np.linspace(0.0, 1.0, count):
        frame = (1.0 - part) * first + part * last
        if 0.0 < part < 1.0:
            wanted = (1.0 - part) * distances[0] + part * distances[1]
            frame[atoms] = _with_distances(frame[atoms], pairs, wanted)
        frames.append(frame)
    return frames


def _with_distances(start: FloatArray, pairs: tuple[IntArray, IntArray], wanted: FloatArray) -> FloatArray:
    """Return positions whose distances, weighted by their inverse fourth power, are nearest to given ones."""

    # Of the wanted distances: with the present ones atoms part without end.
    weight = (0.1 / wanted) ** 4

    def misfit(flat: FloatArray) -> tuple[float, FloatArray]:
        x = flat.reshape(-1, 3)
        delta = x[pairs[0]] - x[pairs[1]]
        r = np.linalg.norm(delta, axis=1)
        away = r - wanted
        slope = 2.0 * weight * away / r
        gradient = np.zeros_like(x)
        np.add.at(gradient, pairs[0], slope[:, None] * delta)
        np.add.at(gradient, pairs[1], -slope[:, None] * delta)
        return float((weight * away**2).sum()), gradient.ravel()

    # Atoms on top of each other have no direction in which they part.
    moved = start + PUSH * np.random.default_rng(0).standard_normal(start.shape)
    found = minimize(misfit, moved.ravel(), jac=True, method="L-BFGS-B", options=FINE)
    return np.asarray(found.x).reshape(-1, 3)


def _forces(points: list[SurfacePoint], atoms: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return the largest force on an atom across the path, and that along it, at each image, eV/angstrom."""
    factor = HARTREE_IN_EV * ANGSTROM_IN_BOHR
    energies = np.array([point.energy for point in points])
    places = np.array([point.positions[atoms] / BOHR_IN_NM for point in points])
    across, along = [], []
    for k, point in enumerate(points):
        force = -point.gradient
        if 0 < k < len(points) - 1:
            tangent = _tangent(energies[k - 1 : k + 2], places[k - 1 : k + 2])
            part = float((force * tangent).sum())
            force = force - part * tangent
        else:
            part = 0.0
        across.append(float(np.linalg.norm(force, axis=1).max()) * factor)
        along.append(part * factor)
    return np.array(across), np.array(along)


def _tangent(energies: FloatArray, places: FloatArray) -> FloatArray:
    """Return the tangent at the second of three images.

    Notes
    -----
    Source: Henkelman and Jonsson, J. Chem. Phys. 113, 9978 (2000), eqs. 8 to 11.
    """
    before, after = places[1] - places[0], places[2] - places[1]
    down, up = energies[0] - energies[1], energies[2] - energies[1]
    if up > 0.0 > down:
        tangent = after
    elif down > 0.0 > up:
        tangent = before
    else:
        large, small = max(abs(up), abs(down)), min(abs(up), abs(down))
        tangent = after * large + before * small if energies[2] > energies[0] else after * small + before * large
    return np.asarray(tangent / np.linalg.norm(tangent))
