"""Saddle points of a region in its surroundings."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qmmlmm.errors import ConvergenceError, QmmlmmWarning
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.reactions.energy_surface import EnergySurface
from qmmlmm.reactions.frequencies import STEP, Frequencies, check_executor, frequencies_on_surface
from qmmlmm.reactions.internal_coordinates import Thresholds, check_walk, saddle_searched
from qmmlmm.reactions.optimisation import REPEATS, Optimum, fulfilled, largest_gradient, optimum
from qmmlmm.reactions.structure import Start
from qmmlmm.reactions.surface import TOLERANCE
from qmmlmm.setting_checks import check_flag, check_instance, check_path
from qmmlmm.units import FloatArray, Scalar, Vectors


@dataclass(frozen=True, eq=False)
class SaddlePoint(Optimum):
    """A saddle point with its normal modes.

    Parameters
    ----------
    frequencies : Frequencies
        Modes of the moving atoms with the surroundings held.

    Notes
    -----
    The other parameters are those of `Optimum`.
    """

    frequencies: Frequencies = None  # type: ignore[assignment]

    @property
    def wave_numbers(self) -> FloatArray:
        """Wave numbers of all modes, (n_modes,) 1/cm, ascending; negative along the reaction."""
        return self.frequencies.wave_numbers

    @property
    def n_negative(self) -> int:
        """Number of modes below -20 1/cm; one at a saddle point."""
        return self.frequencies.n_negative


def saddle_point(
    mixed: MixedSystem,
    positions: Start,
    *,
    atoms: Iterable[int] | str | None = None,
    hold: Iterable[int] | str | None = None,
    relax: bool = True,
    thresholds: Thresholds | None = None,
    coordinates: str = "tric",
    max_steps: int = 200,
    executor: Executor | None = None,
    directory: str | os.PathLike[str] | None = None,
    tolerance: Scalar = TOLERANCE,
    box_vectors: Vectors | None = None,
    platform: str | None = None,
) -> SaddlePoint:
    """Search a saddle point near a structure, and check that it has exactly one negative mode.

    Parameters
    ----------
    mixed : MixedSystem
    positions : Structure, (n_particles, 3) Quantity or array, nm
        Start near the saddle point, such as `path.highest` of a scan or of a path.
    atoms, hold, relax, thresholds, coordinates, tolerance, box_vectors, platform
        As in `optimise`.
    max_steps : int
        Largest number of steps of each of up to three searches.
    executor : concurrent.futures.Executor, optional
        Executor for the Hessians at the start and at the end.
    directory : path, optional
        Folder in which their gradients are kept, so that a calculation that was killed does not compute them again.

    Returns
    -------
    SaddlePoint
        A warning says what to do if it is not converged, or has more or fewer than one negative mode.

    Raises
    ------
    ConvergenceError
        If there is no negative mode at the start.
    SelectionError, SettingError, UnsupportedSystemError
        As `EnergySurface`.
    EvaluationError
        If a term or geomeTRIC fails.

    Notes
    -----
    geomeTRIC's restricted-step partitioned rational-function steps on the surface of `EnergySurface`, from the Hessian
    of the region in held surroundings.
    """
    check_walk(coordinates, max_steps)
    surface = EnergySurface(
        mixed,
        positions,
        atoms=atoms,
        hold=hold,
        relax=check_flag("relax", relax),
        box_vectors=box_vectors,
        platform=platform,
        tolerance=tolerance,
    )
    limits = Thresholds() if thresholds is None else check_instance("thresholds", thresholds, Thresholds)
    folder = None if directory is None else check_path("directory", directory)
    check_executor(executor)
    surface.evaluate(surface.coordinates)
    first = frequencies_on_surface(surface, STEP, executor, _inside(folder, "start"), platform)
    if not first.n_negative:
        raise ConvergenceError(
            f"the start has no negative mode, the lowest is {first.wave_numbers[0]:.0f} 1/cm: it is not near a saddle "
            "point. Start from the highest structure of a scan or of a path, or follow a coordinate uphill first"
        )
    hessian = first.hessian
    coordinates_seen, energies = [], []
    for _ in range(REPEATS):
        walk = saddle_searched(
            surface,
            surface.coordinates,
            whole_hessian(surface, hessian),
            frozen=surface.held_among_atoms,
            coordinates=coordinates,
            thresholds=limits,
            max_steps=max_steps,
            free=surface.is_free,
        )
        coordinates_seen.append(walk.coordinates)
        energies.append(walk.energies)
        point, rest = surface.verified()
        converged = walk.converged and fulfilled(surface, point, rest, limits)
        if converged or not walk.converged:
            break
    last = frequencies_on_surface(surface, STEP, executor, _inside(folder, "saddle"), platform)
    warn_of_modes(converged, last, largest_gradient(surface, point), limits)
    found = optimum(surface, point, rest, converged, coordinates_seen, energies, surface.evaluations)
    return SaddlePoint(**vars(found), frequencies=last)


def whole_hessian(surface: EnergySurface, hessian: FloatArray) -> FloatArray:
    """Return the Hessian of all atoms of a surface, with unit springs on those that are held."""
    free = np.delete(np.arange(len(surface.atoms)), surface.held_among_atoms)
    places = (3 * free[:, None] + np.arange(3)).ravel()
    found = np.eye(3 * len(surface.atoms))
    found[np.ix_(places, places)] = hessian
    return found


def _inside(folder: Path | None, name: str) -> Path | None:
    return None if folder is None else folder / name


def warn_of_modes(converged: bool, modes: Frequencies, largest: float, limits: Thresholds) -> None:
    """Warn of a search that is not converged, or of another number of negative modes than one."""
    lowest = ", ".join(f"{number:.0f}" for number in modes.wave_numbers[:3])
    if not converged:
        text = (
            f"the search ended with a largest force of {largest:.1e} hartree/bohr, and {limits.largest_gradient:.1e} "
            f"is the threshold; lowest modes: {lowest} 1/cm. Continue from this result, or start nearer"
        )
    elif modes.n_negative > 1:
        text = (
            f"the result has {modes.n_negative} negative modes ({lowest} 1/cm) and not one. Look at the second with "
            "frequencies.write_mode(path, 1): start again from frequencies.displaced(1, 0.01), or hold the part that "
            "moves in it; more than one remains where two events are coupled"
        )
    elif modes.n_negative < 1:
        text = (
            f"the result has no negative mode ({lowest} 1/cm): the search ended in a minimum. Start nearer to the "
            "saddle point, from a finer scan or a climbing image"
        )
    else:
        return
    warnings.warn(text, QmmlmmWarning, stacklevel=3)
