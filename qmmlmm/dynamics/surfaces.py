"""The contract between surface hopping and whatever knows the electronic states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import openmm

from qmmlmm.units import FloatArray, IntArray


@dataclass(frozen=True)
class SurfacePoint:
    """The electronic states at one geometry.

    Parameters
    ----------
    energies : (m,) float array, kJ/mol
        Of all states, in their order. The differences count: what all states have in common may be left out.
    overlaps : (m, m) float array or None
        Of the states of the geometry observed before, in rows, with these; None at the first one, or if there are none.
    couplings : (m, m, n_particles, 3) float array or None, 1/nm
        ``couplings[i, j]`` is <i | gradient of j>; antisymmetric in i and j. States have the signs that make the
        diagonal of `overlaps` positive where these are known, and otherwise couplings change steadily.
    multiplicities : (m,) int array or None
        2S + 1 of each state; None if it is the same for all.
    spin_orbit : (m, m) float array or None, kJ/mol
        Absolute values of the spin-orbit coupling between states of different multiplicity.
    """

    energies: FloatArray
    overlaps: FloatArray | None = None
    couplings: FloatArray | None = None
    multiplicities: IntArray | None = None
    spin_orbit: FloatArray | None = None


class Surfaces(Protocol):
    """Several electronic states, one of which moves the particles of a Context.

    Which one does is a parameter of the Context, so that a hop needs no new Context and checkpoints hold it.
    """

    @property
    def n_states(self) -> int:
        """Number of states."""
        ...

    @property
    def atoms(self) -> IntArray:
        """The particles whose electrons these are: their velocities change at a hop."""
        ...

    def select(self, context: openmm.Context, state: int) -> None:
        """Let a state move the particles from now on."""
        ...

    def observe(self, context: openmm.Context) -> SurfacePoint:
        """Return the states at the present geometry; called once at each."""
        ...

    def memory(self) -> dict[str, FloatArray]:
        """Return what `observe` needs of the last geometry, as arrays that a checkpoint can hold."""
        ...

    def recall(self, memory: dict[str, FloatArray]) -> None:
        """Go on from what `memory` returned; from an empty one as if new."""
        ...
