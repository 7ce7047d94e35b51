"""First configurations, without a model: from the force field or a base, with random displacements of the region."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from qmmlmm.geometry import Geometry
from qmmlmm.learning.labels.label_job import Job
from qmmlmm.learning.loop.draws import draw_seed
from qmmlmm.learning.loop.guard import Guard
from qmmlmm.learning.loop.settings import LoopSettings, Walker
from qmmlmm.learning.loop.walker_simulation import WalkerSimulation
from qmmlmm.learning.loop.walker_state import WalkerState
from qmmlmm.units import FloatArray

SHRINKING = (1.0, 1.0, 1.0, 0.5, 0.25, 0.0)
"""Factors of displacements that are tried until the geometry of the region has no fault."""


def start_walker(
    simulation: WalkerSimulation,
    relaxation: WalkerSimulation,
    guard: Guard,
    atoms: Sequence[int],
    settings: LoopSettings,
    index: int,
    walker: Walker,
    state: WalkerState,
    count: int,
) -> tuple[WalkerState, list[Job]]:
    """Run a walker without a model; return its last state, and configurations along the trajectory.

    Parameters
    ----------
    simulation : WalkerSimulation
        Simulation with the force field, or with the base of a learned difference.
    relaxation : WalkerSimulation
        Simulation with the force field, which removes bad contacts: a step of a minimiser may bring two atoms on top of
        each other, which is no error of a force field.
    guard : Guard
    atoms : sequence of int
        Atoms of the region.
    settings : LoopSettings
    index : int
        Index of the walker.
    walker : Walker
    state : WalkerState
        State at the start.
    count : int
        Number of configurations.
    """
    steps, seed = settings.start_steps, draw_seed(settings, 0, index, "walk")
    first = state
    if steps:
        relaxation.begin(state, walker.parameters, seed)
        relaxation.minimise()
        first = WalkerState(relaxation.state().geometry)
    simulation.begin(first, walker.parameters, seed)
    rng = np.random.default_rng(draw_seed(settings, 0, index, "displace"))
    jobs: list[Job] = []
    now = state
    marks = np.linspace(0, steps, max(1, count) + 1).astype(int)
    for before, step in itertools.pairwise(marks):
        now = simulation.advance_unchecked(int(step - before))
        if len(jobs) < count:
            for size in SHRINKING:
                positions = displaced(now.geometry.positions, atoms, size * settings.start_displacement, rng)
                if not guard.geometry_fault(positions):
                    break
            moved = Geometry(positions, now.geometry.box)
            jobs.append(Job(0, "start", index, int(step), moved, variables=simulation.values(moved)))
    return now, jobs


def displaced(positions: FloatArray, atoms: Sequence[int], size: float, rng: np.random.Generator) -> FloatArray:
    """Return positions with random displacements of some atoms.

    Parameters
    ----------
    positions : (n, 3) float array, nm
    atoms : sequence of int
    size : float
        Mean standard deviation of a coordinate, nm; that of each configuration is between zero and twice this.
    rng : numpy.random.Generator
    """
    moved = positions.copy()
    moved[list(atoms)] += size * rng.uniform(0.0, 2.0) * rng.normal(size=(len(atoms), 3))
    return moved
