"""Atomic multipoles of a density, and the potential with its derivatives that they feel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qmmlmm.units import FloatArray

CHARGES, DIPOLES, QUADRUPOLES = 0, 1, 2
"""Ranks of multipoles."""


@dataclass(frozen=True)
class AtomicPotential:
    """A potential and its derivatives at atoms.

    Parameters
    ----------
    value : (n,) float array, hartree/e
    gradient : (n, 3) float array, hartree/(e bohr)
    curvature : (n, 3, 3) float array, hartree/(e bohr^2)
        Second derivatives, symmetric.
    """

    value: FloatArray
    gradient: FloatArray
    curvature: FloatArray

    @classmethod
    def zero(cls, n_atoms: int) -> AtomicPotential:
        """Return the potential of no surroundings."""
        return cls(np.zeros(n_atoms), np.zeros((n_atoms, 3)), np.zeros((n_atoms, 3, 3)))

    def __add__(self, other: AtomicPotential) -> AtomicPotential:
        return AtomicPotential(
            self.value + other.value, self.gradient + other.gradient, self.curvature + other.curvature
        )

    def up_to(self, rank: int) -> AtomicPotential:
        """Return the potential that multipoles up to a rank feel: higher derivatives are zero."""
        return AtomicPotential(
            self.value,
            self.gradient if rank >= DIPOLES else np.zeros_like(self.gradient),
            self.curvature if rank >= QUADRUPOLES else np.zeros_like(self.curvature),
        )


@dataclass(frozen=True)
class AtomicMultipoles:
    """Multipoles of atoms, each about its nucleus.

    Parameters
    ----------
    charges : (n,) float array, e
    dipoles : (n, 3) float array, e bohr
    quadrupoles : (n, 3, 3) float array, e bohr^2
        Traceless, 3/2 x x' - 1/2 r^2 summed over the charge.

    Notes
    -----
    Their energy in a potential is sum_A q_A phi + d_A . grad phi + 1/3 Theta_A : grad grad phi.
    """

    charges: FloatArray
    dipoles: FloatArray
    quadrupoles: FloatArray

    def energy(self, potential: AtomicPotential) -> float:
        """Return the energy in a potential, hartree."""
        return float(
            self.charges @ potential.value
            + (self.dipoles * potential.gradient).sum()
            + (self.quadrupoles * potential.curvature).sum() / 3.0
        )

    def up_to(self, rank: int) -> AtomicMultipoles:
        """Return the multipoles up to a rank; higher ones are zero."""
        return AtomicMultipoles(
            self.charges,
            self.dipoles if rank >= DIPOLES else np.zeros_like(self.dipoles),
            self.quadrupoles if rank >= QUADRUPOLES else np.zeros_like(self.quadrupoles),
        )
