"""Harmonic restraints of variables on a surface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qmmlmm.errors import SelectionError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.reactions.energy_surface import EnergySurface
from qmmlmm.reactions.structure import Structure
from qmmlmm.reactions.surface import SurfacePoint
from qmmlmm.sampling.variable import Variable
from qmmlmm.units import BOHR_IN_NM, FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL, FloatArray, IntArray


@dataclass(frozen=True)
class Restraint:
    """The energy 0.5 k d^2, where d is the value of a variable less a centre.

    Parameters
    ----------
    variable : Variable
    centre : float
        In the variable's unit.
    force_constant : float
        kJ/mol per square of the variable's unit.
    """

    variable: Variable
    centre: float
    force_constant: float

    def energy_and_gradient(self, geometry: Geometry) -> tuple[float, FloatArray]:
        """Return energy, kJ/mol, and gradient, (n_particles, 3) kJ/(mol nm)."""
        value, gradient = self.variable.value_and_gradient(geometry)
        away = float(self.variable.difference(value, self.centre))
        return 0.5 * self.force_constant * away * away, self.force_constant * away * gradient


class RestrainedSurface:
    """A surface with the energy of restraints.

    Parameters
    ----------
    surface : EnergySurface
    restraints : sequence of Restraint

    Raises
    ------
    SelectionError
        If a variable depends on an atom that does not move on the surface.
    """

    def __init__(self, surface: EnergySurface, restraints: Sequence[Restraint]) -> None:
        self._surface = surface
        self.restraints = tuple(restraints)
        inside = set(surface.atoms.tolist())
        outside = sorted({k for r in self.restraints for k in r.variable.particles} - inside)
        if outside:
            raise SelectionError(
                f"a restrained variable depends on the atoms {listed(outside)}, which do not move in internal "
                "coordinates; name them in atoms, together with those of the region"
            )

    @property
    def atoms(self) -> IntArray:
        """Particles that move on the surface."""
        return self._surface.atoms

    @property
    def symbols(self) -> list[str]:
        """Their chemical symbols."""
        return self._surface.symbols

    @property
    def coordinates(self) -> FloatArray:
        """Present coordinates of the moving atoms, (n_atoms, 3) bohr."""
        return self._surface.coordinates

    @property
    def held_among_atoms(self) -> tuple[int, ...]:
        """Places in `atoms` of those that are held."""
        return self._surface.held_among_atoms

    @property
    def is_free(self) -> bool:
        """Whether the energy depends neither on translation nor on rotation."""
        return self._surface.is_free

    @property
    def tolerance(self) -> float:
        """Root mean square force of relaxed surroundings, kJ/(mol nm)."""
        return self._surface.tolerance

    @property
    def evaluations(self) -> int:
        """Number of evaluations of all terms so far."""
        return self._surface.evaluations

    def evaluate(self, coordinates: FloatArray) -> SurfacePoint:
        """Return energy and gradient with the restraints."""
        return self._with_restraints(self._surface.evaluate(coordinates), np.asarray(coordinates).reshape(-1, 3))

    def verified(self) -> tuple[SurfacePoint, float]:
        """Return the point of the present positions from a new evaluation, and the force on the surroundings."""
        point, rest = self._surface.verified()
        return self._with_restraints(point, self._surface.coordinates), rest

    def structure(self, point: SurfacePoint) -> Structure:
        """Return the structure of all particles at a point."""
        return self._surface.structure(point)

    def restraint_energy(self) -> float:
        """Return the energy of the restraints at the present positions, kJ/mol."""
        geometry = self._surface.geometry()
        return sum(restraint.energy_and_gradient(geometry)[0] for restraint in self.restraints)

    def values(self) -> tuple[float, ...]:
        """Return the values of the restrained variables at the present positions, in their units."""
        geometry = self._surface.geometry()
        return tuple(restraint.variable(geometry) for restraint in self.restraints)

    def _with_restraints(self, point: SurfacePoint, coordinates: FloatArray) -> SurfacePoint:
        positions = point.positions.copy()
        positions[self.atoms] = coordinates * BOHR_IN_NM
        geometry = Geometry(positions, self._surface.box)
        energy, gradient = point.energy, point.gradient.copy()
        for restraint in self.restraints:
            more, slope = restraint.energy_and_gradient(geometry)
            energy += more / HARTREE_IN_KJ_PER_MOL
            gradient += slope[self.atoms] / FORCE_AU_IN_OPENMM
        return SurfacePoint(energy, gradient, point.positions, point.gain)
