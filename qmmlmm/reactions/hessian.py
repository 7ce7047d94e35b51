"""Hessians by central differences, in parallel and resumable."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import Executor, as_completed
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from qmmlmm.progress_display import progress_bar
from qmmlmm.reactions.calculation_directory import calculation_directory
from qmmlmm.reactions.calculation_files import read_arrays, write_arrays
from qmmlmm.reactions.energy_surface import EnergySurface
from qmmlmm.reactions.surface_workers import SurfaceWork, worked_gradient
from qmmlmm.units import FloatArray


def hessian_on_surface(
    surface: EnergySurface,
    step: float,
    *,
    executor: Executor | None = None,
    directory: Path | None = None,
    platform: str | None = None,
) -> FloatArray:
    """Return the Hessian of the atoms of a surface that are not held, with everything else where it is.

    Parameters
    ----------
    surface : EnergySurface
    step : float, bohr
        Displacement.
    executor : concurrent.futures.Executor, optional
    directory : Path, optional
        Folder in which every gradient is kept, so that nothing is computed twice after a crash.
    platform : str, optional
        OpenMM platform of the workers.

    Returns
    -------
    (3 n, 3 n) float array, hartree/bohr^2
        For the atoms of the surface that are not held.
    """
    start = surface.coordinates
    free = np.delete(np.arange(len(start)), surface.held_among_atoms)
    shifts = [(int(k), axis, sign) for k in free for axis in range(3) for sign in (1, -1)]
    rows: dict[tuple[int, int, int], FloatArray] = {}
    with _store(directory, surface, step) as store:
        for shift in shifts:
            known = store.read(shift)
            if known is not None:
                rows[shift] = known
        missing = [shift for shift in shifts if shift not in rows]
        with progress_bar(len(shifts), "Hessian", "gradient", initial=len(rows)) as bar:
            for shift, gradient in _gradients(surface, missing, step, executor, platform):
                store.write(shift, gradient)
                rows[shift] = gradient
                bar.update()
    columns = [
        ((rows[int(k), axis, 1] - rows[int(k), axis, -1])[free] / (2.0 * step)).ravel()
        for k in free
        for axis in range(3)
    ]
    found = np.array(columns)
    return 0.5 * (found + found.T)


def _gradients(
    surface: EnergySurface,
    shifts: list[tuple[int, int, int]],
    step: float,
    executor: Executor | None,
    platform: str | None,
) -> Iterator[tuple[tuple[int, int, int], FloatArray]]:
    start = surface.coordinates

    def displaced(shift: tuple[int, int, int]) -> FloatArray:
        moved = start.copy()
        moved[shift[0], shift[1]] += shift[2] * step
        return moved

    if executor is None:
        for shift in shifts:
            yield shift, surface.with_held_surroundings(displaced(shift)).gradient
        return
    geometry = surface.geometry()
    atoms = tuple(surface.atoms.tolist())
    work = SurfaceWork(uuid.uuid4().hex, surface.mixed, geometry.positions, geometry.box, atoms, platform=platform)
    futures = {executor.submit(worked_gradient, work, displaced(shift)): shift for shift in shifts}
    for future in as_completed(futures):
        yield futures[future], future.result()
        surface.evaluations += 1


class _NoStore:
    """Gradients that are not kept."""

    def read(self, shift: tuple[int, int, int]) -> FloatArray | None:
        """Return None."""

    def write(self, shift: tuple[int, int, int], gradient: FloatArray) -> None:
        """Keep nothing."""


class _GradientStore(_NoStore):
    """Gradients in files of a folder, each with its checksum."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, shift: tuple[int, int, int]) -> Path:
        atom, axis, sign = shift
        return self._folder / f"gradient_{atom:04d}{'xyz'[axis]}{'+' if sign > 0 else '-'}.npz"

    def read(self, shift: tuple[int, int, int]) -> FloatArray | None:
        """Return a gradient that was kept; None if there is none or its file is damaged."""
        arrays = read_arrays(self._path(shift))
        return None if arrays is None else arrays["gradient"]

    def write(self, shift: tuple[int, int, int], gradient: FloatArray) -> None:
        """Keep a gradient."""
        write_arrays(self._path(shift), {"gradient": gradient})


@contextmanager
def _store(folder: Path | None, surface: EnergySurface, step: float) -> Iterator[_NoStore]:
    if folder is None:
        yield _NoStore()
        return
    with calculation_directory(folder, "hessian", surface, {"step": step}):
        yield _GradientStore(folder)
