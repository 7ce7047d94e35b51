"""Minimum-energy crossing points of two surfaces, in whatever surrounds them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from openmm import unit
from scipy.optimize import minimize

from qmmlmm.errors import ConvergenceError, SelectionError
from qmmlmm.units import ANGSTROM_IN_BOHR, FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, NM_IN_BOHR, FloatArray

PROJECTION = 1e-3
GAP = 1e-4
"""hartree/bohr and hartree: what a crossing point may be off by."""


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
    Sequential quadratic programming (SciPy's SLSQP): the mean energy is minimised under the condition that both are
    equal. At the solution the mean gradient is parallel to the difference gradient: Bearpark, Robb and Schlegel,
    Chem. Phys. Lett. 223, 269 (1994); Harvey et al., Theor. Chem. Acc. 99, 95 (1998).
    """
    chosen = np.array(sorted(set(int(a) for a in atoms)), dtype=np.int64)
    count = first.getSystem().getNumParticles()
    if not len(chosen) or chosen[0] < 0 or chosen[-1] >= count:
        raise SelectionError(f"atoms that move are some of 0 to {count - 1}, got {chosen.tolist()[:5]}")
    start = np.array(first.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    surfaces = _Surfaces((first, second), chosen, start)
    # Hartree over angstrom: SLSQP's first step is the gradient itself.
    found: Any = None
    place = np.zeros(3 * len(chosen))
    for _ in range(3):
        found = minimize(
            lambda x: surfaces.mean(x)[0],
            place,
            jac=lambda x: surfaces.mean(x)[1],
            constraints={
                "type": "eq",
                "fun": lambda x: surfaces.difference(x)[0],
                "jac": lambda x: surfaces.difference(x)[1],
            },
            method="SLSQP",
            options={"maxiter": max_iterations, "ftol": 1e-9},
        )
        place = found.x
        _, mean = surfaces.mean(place)
        distance, direction = surfaces.difference(place)
        unit_direction = direction / max(float(np.linalg.norm(direction)), np.finfo(float).tiny)
        left = float(abs(mean - (mean @ unit_direction) * unit_direction).max()) / ANGSTROM_IN_BOHR
        if left < projection and abs(distance) < gap:
            return CrossingPoint(surfaces.positions(place), surfaces.energies(place), left, surfaces.evaluations)
    raise ConvergenceError(
        f"no crossing point after {surfaces.evaluations} evaluations: the gap is {distance:.1e} hartree and the "
        f"projected gradient {left:.1e} hartree/bohr ({found.message}). Start nearer to it, or raise max_iterations"
    )


class _Surfaces:
    """Energies in hartree and gradients in hartree/angstrom of two Contexts, along displacements in angstrom."""

    def __init__(self, contexts: tuple[openmm.Context, openmm.Context], atoms: Any, start: FloatArray) -> None:
        self._contexts = contexts
        self._atoms = atoms
        self._start = start
        self._last: tuple[FloatArray, FloatArray, FloatArray] | None = None
        self.evaluations = 0

    def positions(self, x: FloatArray) -> FloatArray:
        """Return the positions of all particles, nm."""
        moved = self._start.copy()
        moved[self._atoms] += x.reshape(-1, 3) * ANGSTROM_IN_BOHR / NM_IN_BOHR
        return moved

    def energies(self, x: FloatArray) -> tuple[float, float]:
        """Return both energies, kJ/mol."""
        values, _ = self._both(x)
        return float(values[0]) * HARTREE_IN_KJ_PER_MOL, float(values[1]) * HARTREE_IN_KJ_PER_MOL

    def mean(self, x: FloatArray) -> tuple[float, FloatArray]:
        """Return the mean energy and its gradient."""
        values, gradients = self._both(x)
        return float(values.mean()), gradients.mean(axis=0)

    def difference(self, x: FloatArray) -> tuple[float, FloatArray]:
        """Return the second energy less the first, and its gradient."""
        values, gradients = self._both(x)
        return float(values[1] - values[0]), gradients[1] - gradients[0]

    def _both(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        if self._last is not None and np.array_equal(self._last[0], x):
            return self._last[1], self._last[2]
        values, gradients = [], []
        for context in self._contexts:
            context.setPositions(self.positions(x))
            state = context.getState(energy=True, forces=True)
            values.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) / HARTREE_IN_KJ_PER_MOL)
            forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
            gradients.append(-np.array(forces)[self._atoms].ravel() / FORCE_AU_IN_OPENMM * ANGSTROM_IN_BOHR)
            self.evaluations += 1
        self._last = (x.copy(), np.array(values), np.array(gradients))
        return self._last[1], self._last[2]
