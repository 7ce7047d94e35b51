"""Minimum-energy crossing points of two surfaces, in whatever surrounds them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from openmm import unit

from qmmlmm.errors import ConvergenceError, SelectionError
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, NM_IN_BOHR, FloatArray

PROJECTION = 3e-4
GAP = 2e-5
"""hartree/bohr and hartree: what a crossing point may be off by."""

STIFFNESS = 0.4
"""hartree/bohr^2: of a bond, which every direction is taken for until steps have shown what it is."""

SOFTEST = 1e-3
"""hartree/bohr^2, below which a direction is not believed to be."""

LONGEST, SHORTEST = 0.4, 1e-4
"""Steps in bohr: the longest, and one that brings nothing any more."""

NOISE = 1e-6
"""hartree: changes below it say nothing."""

TINY = float(np.finfo(float).tiny)

DAMPING = 0.2
"""Share of the expected curvature that an update of the curvature keeps (Powell)."""


@dataclass(frozen=True)
class CrossingPoint:
    """The geometry of lowest energy at which two surfaces have the same energy.

    Parameters
    ----------
    positions : (n_particles, 3) float array, nm
    energies : tuple of float, kJ/mol
        Of both surfaces there.
    projection : float, hartree/bohr
        Largest component of the mean gradient, without its part along the difference of both gradients.
    evaluations : int
        Of both surfaces together.
    """

    positions: FloatArray
    energies: tuple[float, float]
    projection: float
    evaluations: int

    @property
    def gap(self) -> float:
        """Energy of the second surface less that of the first, kJ/mol."""
        return self.energies[1] - self.energies[0]


def crossing_point(
    first: openmm.Context,
    second: openmm.Context,
    atoms: Iterable[int],
    *,
    projection: float = PROJECTION,
    gap: float = GAP,
    max_iterations: int = 200,
) -> CrossingPoint:
    """Minimise the energy of two surfaces where they cross.

    Parameters
    ----------
    first, second : openmm.Context
        Of two Systems with the same particles, for example of two multiplicities of a region, or of two states of it
        (`MixedSystem.select_state`). The start is the geometry of `first`; both are at the crossing point afterwards.
    atoms : iterable of int
        Those that move; all others stay.
    projection : float, hartree/bohr
    gap : float, hartree
    max_iterations : int

    Raises
    ------
    SelectionError
        If there are no atoms.
    ConvergenceError
        If no such point is found.

    Notes
    -----
    Sequential quadratic programming: the mean energy is minimised under the condition that both are equal. Every step
    closes the gap to first order and goes downhill along the seam, with one approximate matrix of second derivatives of
    the Lagrangian (BFGS with Powell's damping) in a trust radius. It is judged by the augmented Lagrangian: the gap
    that a good step opens in second order does not refuse it. At the solution the mean gradient is parallel to the
    difference gradient: Bearpark, Robb and Schlegel, Chem. Phys. Lett. 223, 269 (1994); Harvey et al., Theor. Chem.
    Acc. 99, 95 (1998). Nocedal and Wright, Numerical Optimization, chapter 18.
    """
    chosen = np.array(sorted(set(int(a) for a in atoms)), dtype=np.int64)
    count = first.getSystem().getNumParticles()
    if not len(chosen) or chosen[0] < 0 or chosen[-1] >= count:
        raise SelectionError(f"atoms that move are some of 0 to {count - 1}, got {chosen.tolist()[:5]}")
    start = np.array(first.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    surfaces = _Surfaces((first, second), chosen, start)
    here = surfaces.at(np.zeros(3 * len(chosen)))
    curvature = STIFFNESS * np.eye(len(here.x))
    radius = LONGEST
    for _ in range(max_iterations):
        if abs(here.gap) < gap and here.projection < projection:
            return CrossingPoint(surfaces.positions(here.x), here.energies, here.projection, surfaces.evaluations)
        if radius < SHORTEST:
            break
        step = _step(here, curvature)
        length = float(np.linalg.norm(step))
        step *= min(1.0, radius / length)
        there = surfaces.at(here.x + step)
        curvature = _updated(curvature, step, there.along_seam - (here.mean - there.multiplier * here.opening))
        penalty = STIFFNESS / max(float(here.opening @ here.opening), TINY)
        if there.merit(here.multiplier, penalty) > here.merit(here.multiplier, penalty) + NOISE:
            radius = 0.3 * min(radius, length)
            continue
        radius = min(LONGEST, 2.0 * max(min(radius, length), SHORTEST))
        here = there
    raise ConvergenceError(
        f"no crossing point after {surfaces.evaluations} evaluations: the gap is {here.gap:.1e} hartree and the "
        f"projected gradient {here.projection:.1e} hartree/bohr. Start nearer to it, or raise max_iterations"
    )


@dataclass(frozen=True)
class _Point:
    """Both surfaces at one place, in atomic units.

    Parameters
    ----------
    x : (3 n,) float array, bohr
        Displacements.
    values : (2,) float array, hartree
    gradients : (2, 3 n) float array, hartree/bohr
    """

    x: FloatArray
    values: FloatArray
    gradients: FloatArray

    @property
    def energies(self) -> tuple[float, float]:
        """Both energies, kJ/mol."""
        return float(self.values[0]) * HARTREE_IN_KJ_PER_MOL, float(self.values[1]) * HARTREE_IN_KJ_PER_MOL

    @property
    def gap(self) -> float:
        """The second energy less the first."""
        return float(self.values[1] - self.values[0])

    @property
    def opening(self) -> FloatArray:
        """Gradient of the gap."""
        return np.asarray(self.gradients[1] - self.gradients[0])

    @property
    def mean(self) -> FloatArray:
        """Mean gradient."""
        return np.asarray(self.gradients.mean(axis=0))

    @property
    def multiplier(self) -> float:
        """Lagrange multiplier: the part of the mean gradient along that of the gap."""
        opening = self.opening
        return float(self.mean @ opening) / max(float(opening @ opening), TINY)

    @property
    def along_seam(self) -> FloatArray:
        """Mean gradient without that part."""
        return np.asarray(self.mean - self.multiplier * self.opening)

    @property
    def projection(self) -> float:
        """Largest component of it."""
        return float(abs(self.along_seam).max())

    def merit(self, multiplier: float, penalty: float) -> float:
        """Return the augmented Lagrangian."""
        return float(self.values.mean()) - multiplier * self.gap + 0.5 * penalty * self.gap**2


def _step(here: _Point, curvature: FloatArray) -> FloatArray:
    """Return the step that closes the gap and minimises the energy along the seam, as far as is known here."""
    opening = here.opening
    square = float(opening @ opening)
    if square < TINY:  # parallel surfaces
        return -here.mean / STIFFNESS
    closing = -here.gap * opening / square
    # The last columns are orthogonal to the first.
    seam = np.linalg.qr(np.column_stack([opening, np.eye(len(opening))]))[0][:, 1:]
    values, vectors = np.linalg.eigh(seam.T @ curvature @ seam)
    downhill = vectors.T @ (seam.T @ (here.along_seam + curvature @ closing))
    return np.asarray(closing - seam @ (vectors @ (downhill / np.maximum(abs(values), SOFTEST))))


def _updated(curvature: FloatArray, step: FloatArray, change: FloatArray) -> FloatArray:
    """Return second derivatives that know how the gradient has changed along a step; they stay positive."""
    expected = curvature @ step
    own, seen = float(step @ expected), float(step @ change)
    if seen < DAMPING * own:
        share = (1.0 - DAMPING) * own / (own - seen)
        change = share * change + (1.0 - share) * expected
        seen = float(step @ change)
    return np.asarray(curvature + np.outer(change, change) / seen - np.outer(expected, expected) / own)


class _Surfaces:
    """Two Contexts along displacements of some atoms."""

    def __init__(self, contexts: tuple[openmm.Context, openmm.Context], atoms: Any, start: FloatArray) -> None:
        self._contexts = contexts
        self._atoms = atoms
        self._start = start
        self.evaluations = 0

    def positions(self, x: FloatArray) -> FloatArray:
        """Return the positions of all particles, nm."""
        moved = self._start.copy()
        moved[self._atoms] += x.reshape(-1, 3) / NM_IN_BOHR
        return moved

    def at(self, x: FloatArray) -> _Point:
        """Bring both Contexts to a place and return their energies and gradients."""
        values, gradients = [], []
        for context in self._contexts:
            context.setPositions(self.positions(x))
            state = context.getState(energy=True, forces=True)
            values.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) / HARTREE_IN_KJ_PER_MOL)
            forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
            gradients.append(-np.array(forces)[self._atoms].ravel() / FORCE_AU_IN_OPENMM)
            self.evaluations += 1
        return _Point(x, np.array(values), np.array(gradients))
