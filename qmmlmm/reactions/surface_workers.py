"""Surfaces in the workers of an executor, which are made once for each calculation."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TypeAlias

from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.reactions.energy_surface import EnergySurface
from qmmlmm.reactions.surface import TOLERANCE, SurfacePoint, SurfaceState
from qmmlmm.units import FloatArray


@dataclass(frozen=True)
class SurfaceWork:
    """What a worker needs to make the surface of a calculation.

    Parameters
    ----------
    key : str
        Name of the calculation, unique.
    mixed : MixedSystem
    positions : (n_particles, 3) float array, nm
    box : (3, 3) float array or None, nm
    atoms, hold : tuple of int
    relax : bool
    tolerance : float, kJ/(mol nm)
    platform : str or None
    """

    key: str
    mixed: MixedSystem
    positions: FloatArray
    box: FloatArray | None
    atoms: tuple[int, ...]
    hold: tuple[int, ...] = ()
    relax: bool = False
    tolerance: float = TOLERANCE
    platform: str | None = None


WorkedPoint: TypeAlias = tuple[SurfacePoint, SurfaceState, int]
"""A point, the state of the surface after it, and the number of evaluations of the terms."""

# One surface for each calculation and thread of a worker.
_surfaces: dict[tuple[str, int], EnergySurface] = {}


def worked_gradient(work: SurfaceWork, coordinates: FloatArray) -> FloatArray:
    """Return the gradient at coordinates in held surroundings, in a worker."""
    return _surface(work).with_held_surroundings(coordinates).gradient


def worked_point(work: SurfaceWork, state: SurfaceState, coordinates: FloatArray) -> WorkedPoint:
    """Return the point at coordinates from a state of the surroundings, in a worker."""
    surface = _surface(work)
    surface.begin(state)
    before = surface.evaluations
    point = surface.evaluate(coordinates)
    return point, surface.state, surface.evaluations - before


def _surface(work: SurfaceWork) -> EnergySurface:
    place = (work.key, threading.get_ident())
    if place not in _surfaces:
        for old in [known for known in _surfaces if known[1] == place[1]]:
            del _surfaces[old]
        _surfaces[place] = EnergySurface(
            work.mixed,
            work.positions,
            atoms=work.atoms,
            hold=work.hold,
            relax=work.relax,
            box_vectors=work.box,
            platform=work.platform,
            tolerance=work.tolerance,
        )
    return _surfaces[place]
