"""Minimum-energy crossing points of two surfaces of a region in its surroundings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import unit

from qmmlmm.errors import ConvergenceError, NonFiniteError, SelectionError, SettingError, listed
from qmmlmm.nonadiabatic.nuclei import check_context
from qmmlmm.nonadiabatic.seam_steps import BOND, TINY, displaced, expected_curvature, seam_step, turned, updated
from qmmlmm.setting_checks import LARGEST_COUNT, check_atoms, check_instance, check_positive, check_whole_number
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, NM_IN_BOHR, FloatArray, IntArray

PROJECTION = 3e-4
GAP = 2e-5
"""Tolerances of a crossing point, hartree/bohr and hartree."""

FIRST, LONGEST, SHORTEST = 0.2, 0.4, 1e-4
"""Trust radii in bohr: at the start, the largest, and the one below which steps no longer help."""

GOOD, POOR = 0.75, 0.25
"""Fractions of the expected gain above which the trust radius grows, and below which it shrinks."""

RESTARTS = 3
"""Number of times that the curvature is rebuilt when no step helps."""

NOISE = 1e-6
"""Changes of the energy below it count as none, hartree."""


@dataclass(frozen=True)
class CrossingPoint:
    """The geometry of lowest energy at which two surfaces have the same energy.

    Parameters
    ----------
    positions : (n_particles, 3) float array, nm
    energies : tuple of float, kJ/mol
        Energies of both surfaces at these positions.
    projection : float, hartree/bohr
        Largest component of the mean gradient without its part along the difference of both gradients.
    evaluations : int
        Number of evaluations of both surfaces together.
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
        Contexts of two Systems with the same particles, for example with two multiplicities of a region, or with two
        states (`MixedSystem.select_state`). The start is the geometry of `first`; both are at the crossing point
        afterwards.
    atoms : iterable of int
        Atoms that move; all others are fixed.
    projection : float, hartree/bohr
        Largest `CrossingPoint.projection` of a converged point.
    gap : float, hartree
        Largest gap of a converged point.
    max_iterations : int

    Raises
    ------
    SettingError
        If an argument has another type or is out of range, or both Systems differ in size.
    SelectionError
        If there are no atoms, or some of them cannot move freely.
    NonFiniteError
        If an energy or a force is not a finite number.
    ConvergenceError
        If no crossing point is found.

    Notes
    -----
    Sequential quadratic programming: the mean energy is minimised under the condition that both energies are equal.
    Every step closes the gap to first order and descends along the seam within a trust radius, with approximate second
    derivatives of the Lagrangian (BFGS with Powell's damping). Steps are judged by the augmented Lagrangian, so that
    the gap that a good step opens in second order does not reject it. At the solution the mean gradient is parallel to
    the difference gradient: Bearpark, Robb and Schlegel, Chem. Phys. Lett. 223, 269 (1994); Harvey et al., Theor. Chem.
    Acc. 99, 95 (1998). Nocedal and Wright, Numerical Optimization, chapter 18.

    A molecule among others is stiff in itself and moves easily as a whole. Hence the first curvature has springs
    between the atoms, and the molecule is rotated as a whole with its known gradients and curvatures. Where no step
    helps, the curvature is rebuilt from scratch a few times.
    """
    check_context("first", first)
    check_instance("second", second, openmm.Context, "an openmm.Context")
    sizes = [context.getSystem().getNumParticles() for context in (first, second)]
    if sizes[0] != sizes[1]:
        raise SettingError(f"first and second are of Systems with {sizes[0]} and {sizes[1]} particles; give the same")
    check_positive("projection", projection, "hartree/bohr")
    check_positive("gap", gap, "hartree")
    check_whole_number("max_iterations", max_iterations, at_most=LARGEST_COUNT)
    chosen = np.array(sorted(check_atoms("atoms", atoms, sizes[0])), dtype=np.int64)
    _check(first.getSystem(), chosen)
    surfaces = _Surfaces((first, second), chosen)
    point = surfaces.evaluate(surfaces.start)
    curvature = expected_curvature(point.positions)
    radius, restarts = FIRST, 0
    for _ in range(max_iterations):
        if abs(point.gap) < gap and point.projection < projection:
            found = surfaces.all_positions(point.positions)
            return CrossingPoint(found, point.energies, point.projection, surfaces.evaluations)
        if radius < SHORTEST:
            if restarts == RESTARTS:
                break
            radius, restarts = FIRST, restarts + 1
            curvature = expected_curvature(point.positions)
        step = seam_step(point.gap, point.opening, point.along_seam, curvature, radius)
        length = float(np.linalg.norm(step))
        positions, turn = displaced(point.positions, step.reshape(-1, 3))
        trial = surfaces.evaluate(positions)
        gain = point.gain(trial, step, curvature)
        # Gradients are compared in the frame of the molecule, so that a rotation is no change.
        mean, opening = turned(trial.mean, turn.T), turned(trial.opening, turn.T)
        change = mean - point.mean - trial.multiplier * (opening - point.opening)
        curvature = updated(curvature, step, change)
        if gain < POOR:
            radius = 0.3 * length
        elif gain > GOOD and length > 0.8 * radius:
            radius = min(LONGEST, 2.0 * radius)
        if gain > 0.0:
            point = trial
            curvature = turned(turned(curvature, turn).T, turn).T
    raise ConvergenceError(
        f"no crossing point after {surfaces.evaluations} evaluations: the gap is {point.gap:.1e} hartree and the "
        f"projected gradient {point.projection:.1e} hartree/bohr. Start nearer to it, or raise max_iterations"
    )


@dataclass(frozen=True)
class _Point:
    """Both surfaces at one geometry, in atomic units.

    Parameters
    ----------
    positions : (n, 3) float array, bohr
    values : (2,) float array, hartree
    gradients : (2, 3 n) float array, hartree/bohr
    """

    positions: FloatArray
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
        """Mean gradient without its part along the gradient of the gap."""
        return np.asarray(self.mean - self.multiplier * self.opening)

    @property
    def projection(self) -> float:
        """Largest component of `along_seam`."""
        return float(abs(self.along_seam).max())

    def gain(self, trial: _Point, step: FloatArray, curvature: FloatArray) -> float:
        """Return the change of the augmented Lagrangian to another point as a fraction of the expected change.

        Negative if it has risen; one if both changes are below the noise.
        """
        penalty = BOND / max(float(self.opening @ self.opening), TINY)

        def change(lagrangian: float, gap: float) -> float:
            return lagrangian + 0.5 * penalty * (gap**2 - self.gap**2)

        expected = change(
            float(self.along_seam @ step + 0.5 * step @ curvature @ step), self.gap + float(self.opening @ step)
        )
        mean = float(trial.values.mean() - self.values.mean())
        found = change(mean - self.multiplier * (trial.gap - self.gap), trial.gap)
        if abs(found) < NOISE and abs(expected) < NOISE:
            return 1.0
        return found / min(expected, -NOISE)


class _Surfaces:
    """Two Contexts as functions of the positions of some atoms."""

    def __init__(self, contexts: tuple[openmm.Context, openmm.Context], atoms: IntArray) -> None:
        self._contexts = contexts
        self._atoms = atoms
        state = contexts[0].getState(positions=True)
        self._all = np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        self.evaluations = 0

    @property
    def start(self) -> FloatArray:
        """Positions of the atoms at the start, (n, 3) bohr."""
        return np.asarray(self._all[self._atoms] * NM_IN_BOHR)

    def all_positions(self, positions: FloatArray) -> FloatArray:
        """Return the positions of all particles, nm, from those of the atoms that move, bohr."""
        moved = self._all.copy()
        moved[self._atoms] = positions / NM_IN_BOHR
        return moved

    def evaluate(self, positions: FloatArray) -> _Point:
        """Set the positions of both Contexts, and return their energies and gradients."""
        values, gradients = [], []
        for context in self._contexts:
            context.setPositions(self.all_positions(positions))
            context.computeVirtualSites()
            state = context.getState(energy=True, forces=True)
            values.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) / HARTREE_IN_KJ_PER_MOL)
            forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
            gradients.append(-np.array(forces)[self._atoms].ravel() / FORCE_AU_IN_OPENMM)
            self.evaluations += 1
        if not (np.isfinite(values).all() and np.isfinite(gradients).all()):
            raise NonFiniteError(
                "an energy or a force is not finite; set positions of the first Context, near a crossing"
            )
        return _Point(positions, np.array(values), np.array(gradients))


def _check(system: openmm.System, atoms: IntArray) -> None:
    """Raise SelectionError if some atoms have constraints or are virtual sites."""
    chosen = set(atoms.tolist())
    bound = {a for k in range(system.getNumConstraints()) for a in system.getConstraintParameters(k)[:2]}
    bound |= {a for a in chosen if system.isVirtualSite(a)}
    if bound & chosen:
        raise SelectionError(
            f"particles {listed(sorted(bound & chosen))} have constraints or are virtual sites, and atoms that move "
            "to a crossing point do so freely: leave them out, or build the System without constraints"
        )
