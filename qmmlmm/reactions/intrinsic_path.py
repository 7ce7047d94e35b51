"""Intrinsic reaction paths from a saddle point to both minima."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from openmm import unit

from qmmlmm.errors import SettingError
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.reactions.energy_surface import EnergySurface
from qmmlmm.reactions.internal_coordinates import Thresholds, reaction_path_followed
from qmmlmm.reactions.optimisation import Optimum, optimised
from qmmlmm.reactions.path import ReactionPath
from qmmlmm.reactions.saddle_point import SaddlePoint, whole_hessian
from qmmlmm.reactions.structure import Structure
from qmmlmm.reactions.surface import TOLERANCE, SurfacePoint
from qmmlmm.setting_checks import check_flag, check_instance, check_length, check_whole_number
from qmmlmm.units import BOHR_IN_NM, FloatArray, Scalar

SAME_FRAME = 1e-4
"""Distance of two frames that are the same, bohr."""


@dataclass(frozen=True, eq=False)
class IntrinsicPath(ReactionPath):
    """The way of steepest descent in mass-weighted coordinates from a saddle point to both sides.

    Parameters
    ----------
    first_minimum, last_minimum : Optimum or None
        Minima at both ends; None if they were not optimised.
    saddle : SaddlePoint
    evaluations : int
        Number of evaluations of the terms: QM calls.

    Notes
    -----
    The other parameters are those of `ReactionPath`; `progress` is the length of the path from the saddle point in
    bohr times the square root of Da.
    """

    first_minimum: Optimum | None = None
    last_minimum: Optimum | None = None
    saddle: SaddlePoint = None  # type: ignore[assignment]
    evaluations: int = 0


class _Recording:
    """A surface that keeps the points at which it was evaluated."""

    def __init__(self, surface: EnergySurface) -> None:
        self._surface = surface
        self.atoms, self.symbols = surface.atoms, surface.symbols
        self.points: dict[bytes, SurfacePoint] = {}

    def evaluate(self, coordinates: FloatArray) -> SurfacePoint:
        """Return energy and gradient."""
        point = self._surface.evaluate(coordinates)
        self.points[np.round(coordinates, 6).tobytes()] = point
        return point


def intrinsic_path(
    mixed: MixedSystem,
    saddle: SaddlePoint,
    *,
    step: Scalar = 0.01,
    max_steps: int = 100,
    coordinates: str = "tric",
    optimise_ends: bool = True,
    thresholds: Thresholds | None = None,
    tolerance: Scalar = TOLERANCE,
    platform: str | None = None,
) -> IntrinsicPath:
    """Follow the intrinsic reaction path from a saddle point to both sides, by geomeTRIC.

    Parameters
    ----------
    mixed : MixedSystem
    saddle : SaddlePoint
        Result of `saddle_point` with one negative mode.
    step : Quantity or float, nm
        Length of the steps.
    max_steps : int
        Largest number of steps on each side.
    coordinates : {"tric", "dlc", "hdlc", "cart"}
        Internal coordinates.
    optimise_ends : bool
        Whether both ends are optimised to minima.
    thresholds, tolerance, platform
        As in `optimise`.

    Raises
    ------
    SettingError
        If the saddle point does not have one negative mode, or another argument is out of range.
    EvaluationError
        If a term or geomeTRIC fails.
    """
    check_instance("mixed", mixed, MixedSystem)
    check_instance("saddle", saddle, SaddlePoint, "a SaddlePoint, such as saddle_point returns")
    length = check_length("step", step, above=0.0, at_most=0.1)
    check_whole_number("max_steps", max_steps)
    check_flag("optimise_ends", optimise_ends)
    if saddle.n_negative != 1:
        raise SettingError(
            f"a reaction path leaves a saddle point along its one negative mode, and this one has {saddle.n_negative}; "
            "refine it with saddle_point, starting nearer"
        )
    surface = EnergySurface(mixed, saddle, platform=platform, tolerance=tolerance)
    if surface.held_among_atoms:
        raise SettingError("a reaction path moves all its atoms; hold none of them in saddle_point")
    surface.evaluate(surface.coordinates)
    start, state = surface.coordinates, surface.state
    hessian = whole_hessian(surface, saddle.frequencies.hessian)
    sides: list[list[Structure]] = []
    minima: list[Optimum | None] = []
    for direction in ("backward", "forward"):
        surface.state = state
        recording = _Recording(surface)
        walk = reaction_path_followed(
            recording,
            start,
            hessian,
            direction=direction,
            step=length * 10.0,
            coordinates=coordinates,
            max_steps=max_steps,
            free=surface.is_free,
        )
        points = [recording.points[np.round(frame, 6).tobytes()] for frame in _distinct(walk.coordinates)[1:]]
        sides.append([surface.structure(point) for point in points])
        minima.append(optimised(surface, thresholds, coordinates) if optimise_ends else None)
    structures: list[Structure] = [*reversed(sides[0]), saddle, *sides[1]]
    lengths = _lengths(structures, surface)
    progress = lengths - lengths[len(sides[0])]
    return IntrinsicPath(
        mixed,
        tuple(structures),
        progress,
        "Path Length (bohr sqrt(Da))",
        first_minimum=minima[0],
        last_minimum=minima[1],
        saddle=saddle,
        evaluations=surface.evaluations,
    )


def _distinct(frames: FloatArray) -> list[FloatArray]:
    """Return frames without those that repeat the one before: geomeTRIC keeps steps that it rejects."""
    kept = [frames[0]]
    for frame in frames[1:]:
        if float(np.linalg.norm(frame - kept[-1])) > SAME_FRAME:
            kept.append(frame)
    return kept


def _lengths(structures: list[Structure], surface: EnergySurface) -> FloatArray:
    """Return the mass-weighted length of the path up to each structure, bohr sqrt(Da)."""
    roots = np.sqrt(surface.masses)[:, None]
    places = [s.positions.value_in_unit(unit.nanometer)[surface.atoms] * roots / BOHR_IN_NM for s in structures]
    steps = [float(np.linalg.norm(b - a)) for a, b in itertools.pairwise(places)]
    return np.concatenate([[0.0], np.cumsum(steps)])
