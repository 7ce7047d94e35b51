"""Configurations to start from without a model: the force field's, with the region's atoms moved at random."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from qmmlmm.learning.loop.draws import draw_seed
from qmmlmm.learning.loop.geometry_record import Snapshot
from qmmlmm.learning.loop.guard import Guard
from qmmlmm.learning.loop.settings import LoopSettings, Walker
from qmmlmm.learning.loop.store import Job
from qmmlmm.learning.loop.walk import Walking
from qmmlmm.units import FloatArray

SHRINKING = (1.0, 1.0, 1.0, 0.5, 0.25, 0.0)
"""Sizes of displacements that are tried until the region is a molecule."""


def start_walk(
    walking: Walking,
    guard: Guard,
    atoms: Sequence[int],
    settings: LoopSettings,
    index: int,
    walker: Walker,
    state: Snapshot,
    count: int,
) -> tuple[Snapshot, list[Job]]:
    """Return where the force field leads a walker, and configurations from the way.

    Parameters
    ----------
    walking : Walking
        With the force field's System.
    guard : Guard
    atoms : sequence of int
        Of the region.
    settings : LoopSettings
    index : int
        Of the walker.
    walker : Walker
    state : Snapshot
    count : int
        Configurations.
    """
    steps, seed = settings.start_steps, draw_seed(settings, 0, index, "walk")
    walking.begin(state, walker.parameters, seed)
    if steps:
        walking.minimise()
        walking.begin(dataclasses.replace(walking.snapshot(), velocities=None), walker.parameters, seed)
    rng = np.random.default_rng(draw_seed(settings, 0, index, "displace"))
    jobs: list[Job] = []
    now = state
    marks = np.linspace(0, steps, max(1, count) + 1).astype(int)
    for before, step in itertools.pairwise(marks):
        now = walking.plain(int(step - before))
        if len(jobs) < count:
            for size in SHRINKING:
                places = displaced(now.positions, atoms, size * settings.start_displacement, rng)
                if not guard.geometry_fault(places):
                    break
            moved = Snapshot(places, now.box)
            jobs.append(Job(0, "start", index, int(step), moved, variables=walking.values(moved)))
    return now, jobs


def displaced(positions: FloatArray, atoms: Sequence[int], size: float, rng: np.random.Generator) -> FloatArray:
    """Return positions with those of some atoms moved at random.

    Parameters
    ----------
    positions : (n, 3) float array
    atoms : sequence of int
    size : float
        Standard deviation of each coordinate on average; between configurations it differs from nothing to twice this.
    rng : numpy.random.Generator
    """
    moved = positions.copy()
    moved[list(atoms)] += size * rng.uniform(0.0, 2.0) * rng.normal(size=(len(atoms), 3))
    return moved
