"""What a surface is: energy and gradient of some atoms, for optimisers and searches of reaction paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from qmmlmm.reactions.structure import Structure
from qmmlmm.reactions.surroundings import FieldOfRegion
from qmmlmm.units import FloatArray, IntArray

TOLERANCE = 1.0
"""Root mean square force of relaxed surroundings, kJ/(mol nm); a fifteenth of that of a converged region."""


@dataclass(frozen=True)
class SurfacePoint:
    """Energy and gradient of the moving atoms at one geometry.

    Parameters
    ----------
    energy : float, hartree
        Potential energy of the whole System; with relaxed surroundings its minimum over their positions.
    gradient : (n_atoms, 3) float array, hartree/bohr
    positions : (n_particles, 3) float array, nm
    gain : float, hartree
        Energy by which the surroundings were relaxed after the last evaluation of the terms; zero if they are held.
    """

    energy: float
    gradient: FloatArray
    positions: FloatArray
    gain: float = 0.0


@dataclass(frozen=True)
class SurfaceState:
    """What a surface remembers from one geometry to the next.

    Parameters
    ----------
    positions : (n_particles, 3) float array, nm
    field : FieldOfRegion or None
        Field in which the surroundings are relaxed; None if they are held.
    """

    positions: FloatArray
    field: FieldOfRegion | None


class Surface(Protocol):
    """Energy and gradient of some atoms."""

    @property
    def atoms(self) -> IntArray:
        """Particles that move on the surface."""

    @property
    def symbols(self) -> list[str]:
        """Their chemical symbols."""

    def evaluate(self, coordinates: FloatArray) -> SurfacePoint:
        """Return energy and gradient at coordinates, (n_atoms, 3) bohr."""


class OptimisedSurface(Surface, Protocol):
    """A surface on which `optimise` works."""

    @property
    def coordinates(self) -> FloatArray:
        """Present coordinates of the moving atoms, (n_atoms, 3) bohr."""

    @property
    def held_among_atoms(self) -> tuple[int, ...]:
        """Places in `atoms` of those that are held."""

    @property
    def is_free(self) -> bool:
        """Whether the energy depends neither on translation nor on rotation."""

    @property
    def tolerance(self) -> float:
        """Root mean square force of relaxed surroundings, kJ/(mol nm)."""

    @property
    def evaluations(self) -> int:
        """Number of evaluations of all terms so far."""

    def verified(self) -> tuple[SurfacePoint, float]:
        """Return the point of the present positions from a new evaluation, and the force on the surroundings."""

    def structure(self, point: SurfacePoint) -> Structure:
        """Return the structure of all particles at a point."""
