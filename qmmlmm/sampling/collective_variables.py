"""Collective variables as functions of positions, and as umbrellas and values in OpenMM."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import openmm

from qmmlmm.embedding.region_geometry import nearest_displacements
from qmmlmm.errors import SettingError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.setting_checks import LARGEST_COUNT, check_flag, check_instance, check_whole_number
from qmmlmm.units import FloatArray

CollectiveVariable = Callable[[Geometry], float]
"""Function from a geometry of all particles, nm, to a number."""


def _vectors(geometry: Geometry, pairs: Sequence[tuple[int, int]]) -> FloatArray:
    """Return the vectors from the first to the second particle of each pair, to the nearest image, (k, 3) nm."""
    check_instance("geometry", geometry, Geometry)
    n_particles, last = len(geometry.positions), max(index for pair in pairs for index in pair)
    if last >= n_particles:
        raise SettingError(f"a collective variable has the particle {last}, and the geometry {n_particles} particles")
    first, second = (geometry.positions[[pair[end] for pair in pairs]] for end in (0, 1))
    return nearest_displacements(second - first, geometry.box)


@dataclass(frozen=True)
class Distance:
    """The distance between two particles, nm.

    Parameters
    ----------
    first, second : int
        Indices of the particles.

    Raises
    ------
    SettingError
        If they are not different indices.
    """

    first: int
    second: int

    def __post_init__(self) -> None:
        _check_particles(self)

    def __call__(self, geometry: Geometry) -> float:
        """Return the distance to the nearest image."""
        return float(np.linalg.norm(_vectors(geometry, [(self.first, self.second)])))

    def umbrella(self, name: str, periodic: bool = False) -> openmm.Force:
        """Return 0.5 k (r - r0)^2 with the global parameters ``<name>_centre``, nm, and ``<name>_k``, kJ/(mol nm^2).

        Raises
        ------
        SettingError
            If the name cannot stand in an expression.
        """
        _check_name(name)
        return _umbrella(self._force(f"0.5*{name}_k*(r-{name}_centre)^2", periodic), name)

    def value_force(self, periodic: bool = False) -> openmm.Force:
        """Return a force whose energy is the distance in nm, for a CustomCVForce."""
        return self._force("r", periodic)

    def _force(self, energy: str, periodic: bool) -> openmm.Force:
        force = openmm.CustomBondForce(energy)
        force.addBond(self.first, self.second)
        force.setUsesPeriodicBoundaryConditions(check_flag("periodic", periodic))
        return force


@dataclass(frozen=True)
class DistanceDifference:
    """The distance donor-proton minus the distance proton-acceptor, nm: the progress of a proton transfer.

    Parameters
    ----------
    donor, proton, acceptor : int
        Indices of the particles.

    Raises
    ------
    SettingError
        If they are not different indices.
    """

    donor: int
    proton: int
    acceptor: int

    def __post_init__(self) -> None:
        _check_particles(self)

    def __call__(self, geometry: Geometry) -> float:
        """Return the difference."""
        return Distance(self.donor, self.proton)(geometry) - Distance(self.proton, self.acceptor)(geometry)

    def umbrella(self, name: str, periodic: bool = False) -> openmm.Force:
        """Return 0.5 k (d - d0)^2 with the global parameters ``<name>_centre``, nm, and ``<name>_k``, kJ/(mol nm^2).

        Raises
        ------
        SettingError
            If the name cannot stand in an expression.
        """
        _check_name(name)
        energy = f"0.5*{name}_k*(distance(p1,p2)-distance(p2,p3)-{name}_centre)^2"
        return _umbrella(self._force(energy, periodic), name)

    def value_force(self, periodic: bool = False) -> openmm.Force:
        """Return a force whose energy is the difference in nm, for a CustomCVForce."""
        return self._force("distance(p1,p2)-distance(p2,p3)", periodic)

    def _force(self, energy: str, periodic: bool) -> openmm.Force:
        force = openmm.CustomCompoundBondForce(3, energy)
        force.addBond([self.donor, self.proton, self.acceptor])
        force.setUsesPeriodicBoundaryConditions(check_flag("periodic", periodic))
        return force


@dataclass(frozen=True)
class Torsion:
    """A dihedral angle, radians, from -pi to pi.

    Parameters
    ----------
    first, second, third, fourth : int
        Indices of the particles.

    Raises
    ------
    SettingError
        If they are not different indices.
    """

    first: int
    second: int
    third: int
    fourth: int

    def __post_init__(self) -> None:
        _check_particles(self)

    def __call__(self, geometry: Geometry) -> float:
        """Return the angle with the sign of OpenMM and IUPAC."""
        pairs = [(self.first, self.second), (self.second, self.third), (self.third, self.fourth)]
        u, v, w = _vectors(geometry, pairs)
        left, right = np.cross(u, v), np.cross(v, w)
        return float(np.arctan2(np.linalg.norm(v) * (u @ right), left @ right))

    def umbrella(self, name: str, periodic: bool = False) -> openmm.Force:
        """Return 0.5 k d^2, d the shorter way from ``<name>_centre``, radians; ``<name>_k`` in kJ/(mol rad^2).

        Raises
        ------
        SettingError
            If the name cannot stand in an expression.
        """
        _check_name(name)
        energy = f"0.5*{name}_k*d^2; d=min(a,2*pi-a); a=abs(theta-{name}_centre); pi={np.pi!r}"
        return _umbrella(self._force(energy, periodic), name)

    def value_force(self, periodic: bool = False) -> openmm.Force:
        """Return a force whose energy is the angle in radians, for a CustomCVForce."""
        return self._force("theta", periodic)

    def _force(self, energy: str, periodic: bool) -> openmm.Force:
        force = openmm.CustomTorsionForce(energy)
        force.addTorsion(self.first, self.second, self.third, self.fourth)
        force.setUsesPeriodicBoundaryConditions(check_flag("periodic", periodic))
        return force


def _check_particles(variable: object) -> None:
    for name, value in vars(variable).items():
        check_whole_number(name, value, at_least=0, at_most=LARGEST_COUNT, what="an index")
    given = vars(variable)
    if len(set(given.values())) < len(given):
        found = listed(f"{name}={index}" for name, index in given.items())
        raise SettingError(f"{type(variable).__name__} needs different particles, got {found}")


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise SettingError(
            f"the name of an umbrella stands in names of parameters and has letters, digits and underscores, such as "
            f"'transfer', got {name!r}"
        )


def _umbrella(force: openmm.Force, name: str) -> openmm.Force:
    force.addGlobalParameter(f"{name}_k", 0.0)
    force.addGlobalParameter(f"{name}_centre", 0.0)
    force.setName(f"umbrella {name}")
    return force
