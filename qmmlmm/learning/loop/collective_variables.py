"""Collective variables as functions of positions, and the umbrellas that OpenMM holds over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import openmm

from qmmlmm.units import FloatArray

CollectiveVariable = Callable[[FloatArray, FloatArray], float]
"""Positions of all particles (n, 3) and box vectors (3, 3), nm, to a number."""


def _shortest(delta: FloatArray, box: FloatArray) -> FloatArray:
    """Return the vector to the nearest image; exact below half the box."""
    if np.array_equal(box, np.eye(3)):
        return delta
    for axis in (2, 1, 0):
        delta = delta - np.round(delta[axis] / box[axis, axis]) * box[axis]
    return delta


@dataclass(frozen=True)
class Distance:
    """The distance of two particles, nm.

    Parameters
    ----------
    first, second : int
        Indices in the Topology.
    """

    first: int
    second: int

    def __call__(self, positions: FloatArray, box: FloatArray) -> float:
        """Return the distance to the nearest image."""
        return float(np.linalg.norm(_shortest(positions[self.second] - positions[self.first], box)))

    def umbrella(self, name: str, periodic: bool = False) -> openmm.Force:
        """Return 0.5 k (r - r0)^2 with the global parameters ``<name>_centre``, nm, and ``<name>_k``, kJ/(mol nm^2)."""
        return _umbrella(self._force(f"0.5*{name}_k*(r-{name}_centre)^2", periodic), name)

    def value_force(self, periodic: bool = False) -> openmm.Force:
        """Return a force whose energy is the distance in nm, for a CustomCVForce."""
        return self._force("r", periodic)

    def _force(self, energy: str, periodic: bool) -> openmm.Force:
        force = openmm.CustomBondForce(energy)
        force.addBond(self.first, self.second)
        force.setUsesPeriodicBoundaryConditions(periodic)
        return force


@dataclass(frozen=True)
class DistanceDifference:
    """The distance donor-proton less the distance proton-acceptor, nm: where a proton is on its way.

    Parameters
    ----------
    donor, proton, acceptor : int
    """

    donor: int
    proton: int
    acceptor: int

    def __call__(self, positions: FloatArray, box: FloatArray) -> float:
        """Return the difference."""
        return Distance(self.donor, self.proton)(positions, box) - Distance(self.proton, self.acceptor)(positions, box)

    def umbrella(self, name: str, periodic: bool = False) -> openmm.Force:
        """Return 0.5 k (d - d0)^2 with the global parameters ``<name>_centre``, nm, and ``<name>_k``, kJ/(mol nm^2)."""
        energy = f"0.5*{name}_k*(distance(p1,p2)-distance(p2,p3)-{name}_centre)^2"
        return _umbrella(self._force(energy, periodic), name)

    def value_force(self, periodic: bool = False) -> openmm.Force:
        """Return a force whose energy is the difference in nm, for a CustomCVForce."""
        return self._force("distance(p1,p2)-distance(p2,p3)", periodic)

    def _force(self, energy: str, periodic: bool) -> openmm.Force:
        force = openmm.CustomCompoundBondForce(3, energy)
        force.addBond([self.donor, self.proton, self.acceptor])
        force.setUsesPeriodicBoundaryConditions(periodic)
        return force


@dataclass(frozen=True)
class Torsion:
    """A dihedral angle, radians, from -pi to pi.

    Parameters
    ----------
    first, second, third, fourth : int
    """

    first: int
    second: int
    third: int
    fourth: int

    def __call__(self, positions: FloatArray, box: FloatArray) -> float:
        """Return the angle in the sign of OpenMM and IUPAC."""
        a, b, c, d = (positions[k] for k in (self.first, self.second, self.third, self.fourth))
        u, v, w = _shortest(b - a, box), _shortest(c - b, box), _shortest(d - c, box)
        left, right = np.cross(u, v), np.cross(v, w)
        return float(np.arctan2(np.linalg.norm(v) * (u @ right), left @ right))

    def umbrella(self, name: str, periodic: bool = False) -> openmm.Force:
        """Return 0.5 k d^2, d the shorter way round from ``<name>_centre``, radians; ``<name>_k`` in kJ/(mol rad^2)."""
        energy = f"0.5*{name}_k*d^2; d=min(a,2*pi-a); a=abs(theta-{name}_centre); pi={np.pi!r}"
        return _umbrella(self._force(energy, periodic), name)

    def value_force(self, periodic: bool = False) -> openmm.Force:
        """Return a force whose energy is the angle in radians, for a CustomCVForce."""
        return self._force("theta", periodic)

    def _force(self, energy: str, periodic: bool) -> openmm.Force:
        force = openmm.CustomTorsionForce(energy)
        force.addTorsion(self.first, self.second, self.third, self.fourth)
        force.setUsesPeriodicBoundaryConditions(periodic)
        return force


def _umbrella(force: openmm.Force, name: str) -> openmm.Force:
    force.addGlobalParameter(f"{name}_k", 0.0)
    force.addGlobalParameter(f"{name}_centre", 0.0)
    force.setName(f"umbrella {name}")
    return force
