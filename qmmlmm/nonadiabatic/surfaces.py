"""The contract between surface hopping and the source of the electronic states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import openmm

from qmmlmm.coupling.potential import Memory
from qmmlmm.units import FloatArray, IntArray


@dataclass(frozen=True)
class SurfacePoint:
    """The electronic states at one geometry.

    Parameters
    ----------
    energies : (m,) float array, kJ/mol
        Energies of all states. Only differences matter: a part that all states share may be left out.
    overlaps : (m, m) float array or None
        Overlaps of the states at the geometry observed before, in rows, with these; None at the first geometry, or if
        the source has none.
    couplings : (m, m, n_particles, 3) float array or None, 1/nm
        ``couplings[i, j]`` is <i | gradient of j>; antisymmetric in i and j. The states have the signs that make the
        diagonal of `overlaps` positive where these are known; otherwise couplings change steadily.
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


@runtime_checkable
class Surfaces(Protocol):
    """Several electronic states, one of which moves the particles of a Context.

    The selected state is a parameter of the Context, so that a hop needs no new Context and checkpoints hold it.
    """

    @property
    def n_states(self) -> int:
        """Number of states."""
        ...

    @property
    def atoms(self) -> IntArray:
        """The particles whose electronic states these are; their velocities change at a hop."""
        ...

    def select(self, context: openmm.Context, state: int) -> None:
        """Select the state that moves the particles."""
        ...

    def observe(self, context: openmm.Context) -> SurfacePoint:
        """Return the states at the present geometry; called once at each geometry."""
        ...

    def memory(self) -> Memory:
        """Return what `observe` needs from the last geometry, as arrays that a checkpoint can hold."""
        ...

    def recall(self, memory: Memory) -> None:
        """Continue from what `memory` returned; an empty mapping starts from scratch."""
        ...
