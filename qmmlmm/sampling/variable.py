"""The contract of a collective variable: a number that depends on positions, in Python and as a Force of OpenMM."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

import numpy as np
import openmm

from qmmlmm.embedding.region_geometry import nearest_displacements
from qmmlmm.errors import SettingError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.setting_checks import check_flag, check_instance
from qmmlmm.units import FloatArray, IntArray


class Variable(ABC):
    """A collective variable: a smooth function of the positions of some particles.

    Notes
    -----
    Vectors between particles go to the nearest image, as OpenMM finds it: the two are to be nearer than half the
    shortest box vector.
    """

    @property
    @abstractmethod
    def particles(self) -> tuple[int, ...]:
        """Indices of the particles that it depends on."""

    @property
    def unit(self) -> openmm.unit.Unit | None:
        """Unit of the value, such as `openmm.unit.nanometer`; None for a plain number."""
        return None

    @property
    def period(self) -> float | None:
        """Period of the value, such as 2 pi for a torsion; None if it is not periodic."""
        return None

    @property
    def distances(self) -> tuple[tuple[int, int], ...]:
        """Pairs of particles whose distance is a term of the value; none for angles, torsions and structures."""
        return ()

    @abstractmethod
    def value_and_gradient(self, geometry: Geometry) -> tuple[float, FloatArray]:
        """Return the value and its derivatives by all positions.

        Parameters
        ----------
        geometry : Geometry, nm

        Returns
        -------
        value : float
            In the variable's unit.
        gradient : (n_particles, 3) float array
            In the variable's unit/nm; zero on particles that it does not depend on.

        Raises
        ------
        SettingError
            If it is no Geometry, or has too few particles.
        """

    def __call__(self, geometry: Geometry) -> float:
        """Return the value at a geometry, nm."""
        return self.value_and_gradient(geometry)[0]

    @abstractmethod
    def value_force(self, periodic: bool = False) -> openmm.Force:
        """Return a Force whose energy is the value, for a CustomCVForce.

        Parameters
        ----------
        periodic : bool
            Whether vectors go to the nearest image.
        """

    def umbrella(self, name: str, periodic: bool = False) -> openmm.Force:
        """Return the Force of the energy 0.5 k d^2, where d is the value less a centre, by the shorter way.

        Parameters
        ----------
        name : str
            The global parameters are ``<name>_centre`` and ``<name>_k``, kJ/mol per square of the variable's unit. Both
            are zero at first.
        periodic : bool
            Whether vectors go to the nearest image.

        Raises
        ------
        SettingError
            If the name cannot stand in an expression.
        """
        check_name(name)
        force = openmm.CustomCVForce(umbrella_energy("value", name, self.period))
        force.addCollectiveVariable("value", self.value_force(periodic))
        return with_parameters(force, name)

    def difference(self, value: FloatArray | float, centre: FloatArray | float) -> FloatArray:
        """Return values less centres; for a periodic variable the shorter way."""
        away = np.asarray(value, dtype=float) - np.asarray(centre, dtype=float)
        return away if self.period is None else np.asarray(away - self.period * np.floor(away / self.period + 0.5))


class PointVariable(Variable):
    """A variable that OpenMM computes from an expression of distances, angles and torsions."""

    @abstractmethod
    def expression(self, names: dict[int, str]) -> str:
        """Return the value as an expression of a CustomCompoundBondForce.

        Parameters
        ----------
        names : dict of int to str
            Name of each particle in the expression, such as ``"p1"``.
        """

    def value_force(self, periodic: bool = False) -> openmm.Force:
        """Return a Force whose energy is the value, for a CustomCVForce."""
        return self._force("value", periodic)

    def umbrella(self, name: str, periodic: bool = False) -> openmm.Force:
        """Return the Force of the energy 0.5 k d^2, see `Variable.umbrella`."""
        check_name(name)
        return with_parameters(self._force(umbrella_energy("value", name, self.period), periodic), name)

    def _force(self, energy: str, periodic: bool) -> openmm.Force:
        """Return a Force whose energy is an expression of ``value``."""
        names = {particle: f"p{k}" for k, particle in enumerate(self.particles, start=1)}
        force = openmm.CustomCompoundBondForce(len(names), f"{energy}; value={self.expression(names)}")
        force.addBond(list(self.particles))
        force.setUsesPeriodicBoundaryConditions(check_flag("periodic", periodic))
        return force


def check_name(name: object) -> None:
    """Raise SettingError if a text cannot be the name of an umbrella, which stands in names of parameters."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise SettingError(
            f"the name of an umbrella stands in names of parameters and has letters, digits and underscores, such as "
            f"'transfer', got {name!r}"
        )


def umbrella_energy(value: str, name: str, period: float | None) -> str:
    """Return the expression of an umbrella's energy, with the parameters ``<name>_k`` and ``<name>_centre``."""
    if period is None:
        return f"0.5*{name}_k*({value}-{name}_centre)^2"
    return f"0.5*{name}_k*away^2; away={wrapped_expression('whole', period)}; whole={value}-{name}_centre"


def wrapped_expression(value: str, period: float) -> str:
    """Return the expression of a value moved by periods into the range from minus half a period to half a period."""
    return f"{value}-{period!r}*floor({value}/{period!r}+0.5)"


def with_parameters(force: openmm.Force, name: str) -> openmm.Force:
    """Return the Force of an umbrella with its global parameters and its name."""
    force.addGlobalParameter(f"{name}_k", 0.0)
    force.addGlobalParameter(f"{name}_centre", 0.0)
    force.setName(f"umbrella {name}")
    return force


def check_geometry(geometry: object, particles: tuple[int, ...]) -> Geometry:
    """Return a geometry that has these particles.

    Raises
    ------
    SettingError
        If it is no Geometry, or has too few particles.
    """
    found = check_instance("geometry", geometry, Geometry)
    n_particles, last = len(found.positions), max(particles)
    if last >= n_particles:
        raise SettingError(f"a collective variable has the particle {last}, and the geometry {n_particles} particles")
    return found


def vectors_between(geometry: Geometry, first: IntArray, second: IntArray) -> FloatArray:
    """Return the vectors from the first to the second particle of pairs, to the nearest image, (k, 3) nm."""
    return nearest_displacements(geometry.positions[second] - geometry.positions[first], geometry.box)


def check_different(name: str, particles: dict[str, int]) -> None:
    """Raise SettingError if a particle has two roles in a variable."""
    if len(set(particles.values())) < len(particles):
        found = listed(f"{role}={index}" for role, index in particles.items())
        raise SettingError(f"{name} needs different particles, got {found}")
