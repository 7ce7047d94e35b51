"""Relaxation of the surroundings of a region in the field of its fitted charges."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import unit
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve

from qmmlmm.embedding.region_geometry import nearest_displacements
from qmmlmm.errors import ConvergenceError, NonFiniteError
from qmmlmm.geometry import Geometry
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.selection import near_particles
from qmmlmm.mm.surroundings_system import NearSurroundings, SurroundingsSystem
from qmmlmm.reactions.fitted_charges import fit_charges, force_columns
from qmmlmm.units import FloatArray, IntArray

REACH = 1.2
"""Distance from the region of the charges to whose forces its charges are fitted, nm."""

RESTARTS = 3
"""Largest number of minimisations in a row that do not reach the tolerance."""

LOOSE = 1.5
"""Multiple of the tolerance that counts as reached: OpenMM scales it by the size of the positions."""

HELPED = 0.5
"""Part of the force that is left by a minimisation that is worth another one."""

MOST_ITERATIONS = 20_000
"""Number of iterations of OpenMM's minimiser, which has no limit by itself, after which a relaxation fails."""

FORCE = unit.kilojoule_per_mole / unit.nanometer


@dataclass(frozen=True)
class FieldOfRegion:
    """What stands for the region while its surroundings move.

    Parameters
    ----------
    charges : (n_charged,) float array, e
        Fitted charges of the region's atoms.
    forces : (n_moving, 3) float array, kJ/(mol nm)
        Constant forces that make the forces on the surroundings exact at the geometry of the fit. They make up for
        what the model leaves out, too.
    """

    charges: FloatArray
    forces: FloatArray


class SurroundingsModel:
    """The surroundings of fixed atoms in OpenMM.

    Where most particles are fixed, what is farther than the cutoff from all that move is left out of the relaxation,
    and electrostatics has a reaction field there: the constant forces of `fit` correct both.

    Parameters
    ----------
    mixed : MixedSystem
    fixed : collection of int
        Particles that do not move.
    positions : (n_particles, 3) float array, nm
        Start. Fixed particles remain there, but for the regions.
    box : (3, 3) float array or None, nm
    platform : openmm.Platform or None
        Platform of the minimisation.
    exact_platform : openmm.Platform or None
        Platform of energies and forces.
    tolerance : float, kJ/(mol nm)
        Root mean square force of relaxed surroundings.

    Attributes
    ----------
    field : FieldOfRegion
    is_fitted : bool
        Whether the field was fitted, or is the force field's.
    """

    def __init__(
        self,
        mixed: MixedSystem,
        fixed: Collection[int],
        positions: FloatArray,
        box: FloatArray | None,
        platform: openmm.Platform | None,
        exact_platform: openmm.Platform | None,
        tolerance: float,
    ) -> None:
        self._model = SurroundingsSystem(mixed, fixed)
        self._box = box
        self._tolerance = tolerance
        near = self._model.near(Geometry(positions, box))
        self._moved: SurroundingsSystem | NearSurroundings = self._model if near is None else near
        self._particles: IntArray = np.arange(len(positions)) if near is None else near.particles
        self._context = _context(self._moved.system, platform, box)
        same = (platform and platform.getName()) == (exact_platform and exact_platform.getName())
        self._exact = self._context if same else _context(self._moved.system, exact_platform, box)
        self._whole = self._exact if near is None else _context(self._model.system, exact_platform, box)
        self._excluded = self._model.excluded_particles()
        self._groups = _groups(self._model.system)
        self._constraints = _constraints(self._model.system)
        system = self._moved.system
        sites = [k for k in range(system.getNumParticles()) if system.isVirtualSite(k)]
        self._placed = np.union1d(np.searchsorted(self._particles, self.moving), np.array(sites, dtype=np.int64))
        self.field: FieldOfRegion
        self.forget()

    @property
    def moving(self) -> IntArray:
        """Particles that move, without virtual sites."""
        return self._model.moving

    def forget(self) -> None:
        """Let the field of the force field act on the surroundings, as at the beginning."""
        self._apply(FieldOfRegion(self._model.reference_charges.copy(), np.zeros((len(self.moving), 3))))
        self.is_fitted = False

    def use(self, field: FieldOfRegion) -> None:
        """Let another field act on the surroundings."""
        if field is not self.field:
            self._apply(field)
        self.is_fitted = True

    def fit(self, positions: FloatArray, forces: FloatArray) -> tuple[float, FloatArray]:
        """Fit charges and constant forces to the forces of the whole System.

        Returns energy, kJ/mol, and forces, (n_particles, 3) kJ/(mol nm), of the surroundings in the new field.

        Parameters
        ----------
        positions : (n_particles, 3) float array, nm
        forces : (n_particles, 3) float array, kJ/(mol nm)
            All forces of the mixed System at these positions.
        """
        charges = self.field.charges
        atoms = self._model.charged_atoms
        targets = self._targets(positions) if len(atoms) else np.zeros(0, dtype=np.int64)
        if len(targets):
            self._apply(FieldOfRegion(charges, np.zeros((len(self.moving), 3))))
            residual = (forces - self._forces_of_whole(positions))[targets]
            columns = force_columns(positions, self._box, atoms, targets, self._model.charges[targets])
            groups = np.unique(self._groups[targets], return_inverse=True)[1]
            charges = fit_charges(columns, groups, residual, charges, self._model.total_charge)
        self._apply(FieldOfRegion(charges, np.zeros((len(self.moving), 3))))
        energy, found = self.energy_and_forces(positions)
        rest = (forces - found)[self.moving]
        self._apply(FieldOfRegion(charges, rest))
        self.is_fitted = True
        found[self.moving] += rest
        return energy - float((rest * positions[self.moving]).sum()), found

    def _forces_of_whole(self, positions: FloatArray) -> FloatArray:
        """Return the forces, (n_particles, 3) kJ/(mol nm), of the whole System with the charges of the field."""
        if self._whole is self._exact:
            return self.energy_and_forces(positions)[1]
        self._model.set_charges(self.field.charges, [self._whole])
        return _energy_and_forces(self._whole, positions)[1]

    def energy_and_forces(self, positions: FloatArray) -> tuple[float, FloatArray]:
        """Return energy, kJ/mol, and forces, (n_particles, 3) kJ/(mol nm), of the surroundings in the field."""
        energy, forces = _energy_and_forces(self._exact, positions[self._particles])
        found = np.zeros_like(positions)
        found[self._particles] = forces
        return energy, found

    def relaxed(self, positions: FloatArray) -> FloatArray:
        """Return positions, (n_particles, 3) nm, with relaxed surroundings.

        Raises
        ------
        NonFiniteError
            If the minimiser diverges.
        ConvergenceError
            If it does not end.
        """
        self._context.setPositions(positions[self._particles])
        self._context.computeVirtualSites()
        before = np.inf
        limit = _IterationLimit(MOST_ITERATIONS)
        for _ in range(RESTARTS):
            openmm.LocalEnergyMinimizer.minimize(self._context, self._tolerance, 0, limit)
            state = self._context.getState(positions=True, forces=True)
            found = positions.copy()
            # What is fixed, too, comes back rounded from a platform of single precision.
            placed = np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
            found[self._particles[self._placed]] = placed[self._placed]
            if not np.isfinite(placed).all():
                raise NonFiniteError(
                    "the surroundings diverged while they were relaxed; minimise the System with the force field first"
                )
            # Its line search ends early where atoms cross a cutoff; a new start goes on.
            forces = np.zeros_like(positions)
            forces[self._particles] = state.getForces(asNumpy=True).value_in_unit(FORCE)
            residual = self.residual_force(found, forces)
            if limit.is_reached:
                raise ConvergenceError(
                    f"the surroundings were not relaxed after {MOST_ITERATIONS:,} iterations: their root mean square "
                    f"force is {residual:.3g} kJ/(mol nm), and {self._tolerance:g} is the tolerance. Minimise the "
                    "System with the force field first, raise tolerance, or hold what is far away; if this comes later "
                    "in a calculation, the forces of a term on its surroundings are doubtful: try check_potential"
                )
            if residual < LOOSE * self._tolerance or residual > HELPED * before:
                break
            before = residual
        return found

    def residual_force(self, positions: FloatArray, forces: FloatArray) -> float:
        """Return the root mean square force, kJ/(mol nm), on what moves, without its part along constraints.

        Parameters
        ----------
        positions : (n_particles, 3) float array, nm
        forces : (n_particles, 3) float array, kJ/(mol nm)
        """
        free = forces.copy()
        pairs = self._constraints
        if len(pairs):
            along = positions[pairs[:, 0]] - positions[pairs[:, 1]]
            along /= np.linalg.norm(along, axis=1)[:, None]
            rows = np.repeat(np.arange(len(pairs)), 6)
            columns = (3 * pairs[:, :, None] + np.arange(3)).reshape(len(pairs), 6).ravel()
            values = np.concatenate([along, -along], axis=1).ravel()
            jacobian = coo_array((values, (rows, columns)), shape=(len(pairs), forces.size)).tocsc()
            multipliers = spsolve((jacobian @ jacobian.T).tocsc(), jacobian @ forces.ravel())
            free -= (jacobian.T @ multipliers).reshape(-1, 3)
        return float(np.sqrt((free[self.moving] ** 2).mean()))

    def _apply(self, field: FieldOfRegion) -> None:
        contexts = [self._context] if self._exact is self._context else [self._context, self._exact]
        self._moved.set_charges(field.charges, contexts)
        self._moved.set_forces(field.forces, contexts)
        self.field = field

    def _targets(self, positions: FloatArray) -> IntArray:
        """Return the charged particles near the region to whose forces its charges are fitted."""
        atoms = self._model.charged_atoms
        candidates = np.flatnonzero(self._model.charges)
        around = np.zeros(len(positions), dtype=bool)
        around[atoms] = True
        candidates = candidates[near_particles(positions, self._box, around, 1.01 * REACH)[candidates]]
        outside = np.setdiff1d(candidates, [*atoms.tolist(), *self._excluded])
        pairs = (positions[outside][:, None, :] - positions[atoms][None, :, :]).reshape(-1, 3)
        delta = nearest_displacements(pairs, self._box).reshape(len(outside), len(atoms), 3)
        near = (delta * delta).sum(-1).min(axis=1) < REACH**2 if len(outside) else np.zeros(0, dtype=bool)
        # Whole groups: the forces on a virtual site are those on its parents.
        groups = np.isin(self._groups, self._groups[outside[near]])
        return np.setdiff1d(np.flatnonzero(groups), atoms)


class _IterationLimit(openmm.MinimizationReporter):
    """Stops a minimisation after a number of iterations, those of earlier ones included."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most

    @property
    def is_reached(self) -> bool:
        """Whether the minimisation was stopped."""
        return self._left <= 0

    def report(self, iteration: int, x: Sequence[float], grad: Sequence[float], args: Mapping[str, float]) -> bool:
        """Count an iteration, and return whether it is the last one."""
        self._left -= 1
        return self.is_reached


def _energy_and_forces(context: openmm.Context, positions: FloatArray) -> tuple[float, FloatArray]:
    context.setPositions(positions)
    context.computeVirtualSites()
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, np.array(state.getForces(asNumpy=True).value_in_unit(FORCE))


def _constraints(system: openmm.System) -> IntArray:
    """Return the pairs of particles with a constraint, (n, 2)."""
    pairs = [system.getConstraintParameters(k)[:2] for k in range(system.getNumConstraints())]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _context(system: openmm.System, platform: openmm.Platform | None, box: FloatArray | None) -> openmm.Context:
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator) if platform is None else openmm.Context(system, integrator, platform)
    if box is not None:
        context.setPeriodicBoxVectors(*box)
    return context


def _groups(system: openmm.System) -> IntArray:
    """Return for each particle the number of its group: a virtual site has that of its parents."""
    pairs = [
        (index, system.getVirtualSite(index).getParticle(k))
        for index in range(system.getNumParticles())
        if system.isVirtualSite(index)
        for k in range(system.getVirtualSite(index).getNumParticles())
    ]
    rows, columns = (np.array([pair[end] for pair in pairs], dtype=np.int64) for end in (0, 1))
    n_particles = system.getNumParticles()
    graph = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(n_particles, n_particles))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
