"""Minimum-energy crossing points of two surfaces, in whatever surrounds them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import unit

from qmmlmm.dynamics.seam_steps import BOND, TINY, displaced, expected_curvature, seam_step, turned, updated
from qmmlmm.errors import ConvergenceError, SelectionError, listed
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, NM_IN_BOHR, FloatArray, IntArray

PROJECTION = 3e-4
GAP = 2e-5
"""hartree/bohr and hartree: what a crossing point may be off by."""

FIRST, LONGEST, SHORTEST = 0.2, 0.4, 1e-4
"""Steps in bohr: the first one, the longest, and one that brings nothing any more."""

GOOD, POOR = 0.75, 0.25
"""Share of the expected gain from which on the next step may be longer, and below which it is shorter."""

RESTARTS = 3
"""How often the curvature is forgotten when no step brings anything."""

NOISE = 1e-6
"""hartree: changes below it say nothing."""


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
        If there are no atoms, or some of them cannot move freely.
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

    A molecule among others is stiff in itself and moves easily as a whole. The first curvature has springs between
    the atoms for that reason, and turns of the whole are rotations, along which the known gradients and curvatures go
    with the molecule. Where no step brings anything, the curvature is forgotten and built anew, a few times.
    """
    chosen = np.array(sorted(set(int(a) for a in atoms)), dtype=np.int64)
    _check(first.getSystem(), chosen)
    surfaces = _Surfaces((first, second), chosen)
    here = surfaces.at(surfaces.start)
    curvature = expected_curvature(here.places)
    radius, restarts = FIRST, 0
    for _ in range(max_iterations):
        if abs(here.gap) < gap and here.projection < projection:
            return CrossingPoint(surfaces.positions(here.places), here.energies, here.projection, surfaces.evaluations)
        if radius < SHORTEST:
            if restarts == RESTARTS:
                break
            radius, restarts = FIRST, restarts + 1
            curvature = expected_curvature(here.places)
        step = seam_step(here.gap, here.opening, here.along_seam, curvature, radius)
        length = float(np.linalg.norm(step))
        places, turn = displaced(here.places, step.reshape(-1, 3))
        there = surfaces.at(places)
        gain = here.gain(there, step, curvature)
        # Gradients are compared as the molecule sees them, so that a turn is no change.
        mean, opening = turned(there.mean, turn.T), turned(there.opening, turn.T)
        change = mean - here.mean - there.multiplier * (opening - here.opening)
        curvature = updated(curvature, step, change)
        if gain < POOR:
            radius = 0.3 * length
        elif gain > GOOD and length > 0.8 * radius:
            radius = min(LONGEST, 2.0 * radius)
        if gain > 0.0:
            here = there
            curvature = turned(turned(curvature, turn).T, turn).T
    raise ConvergenceError(
        f"no crossing point after {surfaces.evaluations} evaluations: the gap is {here.gap:.1e} hartree and the "
        f"projected gradient {here.projection:.1e} hartree/bohr. Start nearer to it, or raise max_iterations"
    )


@dataclass(frozen=True)
class _Point:
    """Both surfaces at one place, in atomic units.

    Parameters
    ----------
    places : (n, 3) float array, bohr
    values : (2,) float array, hartree
    gradients : (2, 3 n) float array, hartree/bohr
    """

    places: FloatArray
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

    def gain(self, there: _Point, step: FloatArray, curvature: FloatArray) -> float:
        """Return what a step has brought, as a share of what was expected of it; by the augmented Lagrangian.

        Negative if it was for the worse; one if both are below the noise.
        """
        penalty = BOND / max(float(self.opening @ self.opening), TINY)

        def change(lagrangian: float, gap: float) -> float:
            return lagrangian + 0.5 * penalty * (gap**2 - self.gap**2)

        expected = change(
            float(self.along_seam @ step + 0.5 * step @ curvature @ step), self.gap + float(self.opening @ step)
        )
        mean = float(there.values.mean() - self.values.mean())
        found = change(mean - self.multiplier * (there.gap - self.gap), there.gap)
        if abs(found) < NOISE and abs(expected) < NOISE:
            return 1.0
        return found / min(expected, -NOISE)


class _Surfaces:
    """Two Contexts as functions of the places of some atoms."""

    def __init__(self, contexts: tuple[openmm.Context, openmm.Context], atoms: IntArray) -> None:
        self._contexts = contexts
        self._atoms = atoms
        state = contexts[0].getState(positions=True)
        self._all = np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        self.evaluations = 0

    @property
    def start(self) -> FloatArray:
        """Places of the atoms at the start, (n, 3) bohr."""
        return np.asarray(self._all[self._atoms] * NM_IN_BOHR)

    def positions(self, places: FloatArray) -> FloatArray:
        """Return the positions of all particles, nm."""
        moved = self._all.copy()
        moved[self._atoms] = places / NM_IN_BOHR
        return moved

    def at(self, places: FloatArray) -> _Point:
        """Bring both Contexts to a place and return their energies and gradients."""
        values, gradients = [], []
        for context in self._contexts:
            context.setPositions(self.positions(places))
            context.computeVirtualSites()
            state = context.getState(energy=True, forces=True)
            values.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) / HARTREE_IN_KJ_PER_MOL)
            forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
            gradients.append(-np.array(forces)[self._atoms].ravel() / FORCE_AU_IN_OPENMM)
            self.evaluations += 1
        return _Point(places, np.array(values), np.array(gradients))


def _check(system: openmm.System, atoms: IntArray) -> None:
    """Raise SelectionError if there are no atoms, or some that follow others."""
    count = system.getNumParticles()
    if not len(atoms) or atoms[0] < 0 or atoms[-1] >= count:
        raise SelectionError(f"atoms that move are some of 0 to {count - 1}, got {atoms.tolist()[:5]}")
    chosen = set(atoms.tolist())
    bound = {a for k in range(system.getNumConstraints()) for a in system.getConstraintParameters(k)[:2]}
    bound |= {a for a in chosen if system.isVirtualSite(a)}
    if bound & chosen:
        raise SelectionError(
            f"particles {listed(sorted(bound & chosen))} have constraints or are virtual sites, and atoms that move "
            "to a crossing point do so freely: leave them out, or build the System without constraints"
        )
