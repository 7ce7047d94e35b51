"""Collective variables of distances, angles and torsions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import openmm
from openmm import unit

from qmmlmm.errors import SettingError, listed, shown
from qmmlmm.geometry import Geometry
from qmmlmm.sampling.variable import (
    PointVariable,
    Variable,
    check_different,
    check_geometry,
    vectors_between,
    wrapped_expression,
)
from qmmlmm.setting_checks import (
    LARGEST_COUNT,
    check_atoms,
    check_finite_number,
    check_flag,
    check_length,
    check_whole_number,
)
from qmmlmm.units import FloatArray, IntArray

CollectiveVariable = Callable[[Geometry], float]
"""Function from a geometry of all particles, nm, to a number: a `Variable`, or a function of your own."""

ROUNDING = 1e-9
"""Relative difference below which two weights are multiples of each other."""


@dataclass(frozen=True)
class _Points(PointVariable):
    """A variable whose fields are particles."""

    def __post_init__(self) -> None:
        given = {field.name: vars(self)[field.name] for field in fields(self)}
        for name, value in given.items():
            check_whole_number(name, value, at_least=0, at_most=LARGEST_COUNT, what="an index")
            object.__setattr__(self, name, int(value))
        check_different(type(self).__name__, given)

    @property
    def particles(self) -> tuple[int, ...]:
        """Indices of the particles."""
        return tuple(vars(self)[field.name] for field in fields(self))

    def _vectors(self, geometry: Geometry) -> FloatArray:
        """Return the vectors from each particle to the next, (k - 1, 3) nm."""
        indices = np.array(self.particles)
        return vectors_between(check_geometry(geometry, self.particles), indices[:-1], indices[1:])

    def _among_all(self, geometry: Geometry, rows: Sequence[FloatArray]) -> FloatArray:
        gradient = np.zeros_like(geometry.positions)
        gradient[list(self.particles)] = rows
        return gradient


@dataclass(frozen=True)
class Distance(_Points):
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

    @property
    def distances(self) -> tuple[tuple[int, int], ...]:
        """The two particles."""
        return ((self.first, self.second),)

    @property
    def unit(self) -> openmm.unit.Unit:
        """The nanometer."""
        return unit.nanometer

    def expression(self, names: dict[int, str]) -> str:
        """Return the value as an expression of named particles."""
        return f"distance({names[self.first]},{names[self.second]})"

    def value_and_gradient(self, geometry: Geometry) -> tuple[float, FloatArray]:
        """Return the distance and its derivatives, see `Variable.value_and_gradient`; zero where it is zero."""
        (vector,) = self._vectors(geometry)
        length = float(np.linalg.norm(vector))
        direction = vector / length if length > 0.0 else np.zeros(3)
        return length, self._among_all(geometry, [-direction, direction])

    def _force(self, energy: str, periodic: bool) -> openmm.Force:
        force = openmm.CustomBondForce(f"{energy}; value=r")
        force.addBond(self.first, self.second)
        force.setUsesPeriodicBoundaryConditions(check_flag("periodic", periodic))
        return force


@dataclass(frozen=True)
class Angle(_Points):
    """The angle at the second of three particles, radians, from 0 to pi.

    Parameters
    ----------
    first, second, third : int
        Indices of the particles.

    Raises
    ------
    SettingError
        If they are not different indices.
    """

    first: int
    second: int
    third: int

    @property
    def unit(self) -> openmm.unit.Unit:
        """The radian."""
        return unit.radian

    def expression(self, names: dict[int, str]) -> str:
        """Return the value as an expression of named particles."""
        return f"angle({names[self.first]},{names[self.second]},{names[self.third]})"

    def value_and_gradient(self, geometry: Geometry) -> tuple[float, FloatArray]:
        """Return the angle and its derivatives, see `Variable.value_and_gradient`; zero at 0 and at pi."""
        first, second = self._vectors(geometry)
        u, v = -first, second
        normal = np.cross(u, v)
        area = float(np.linalg.norm(normal))
        value = math.atan2(area, float(u @ v))
        if area == 0.0:
            return value, np.zeros_like(geometry.positions)
        on_first = np.cross(u, normal) / ((u @ u) * area)
        on_third = np.cross(normal, v) / ((v @ v) * area)
        return value, self._among_all(geometry, [on_first, -on_first - on_third, on_third])

    def _force(self, energy: str, periodic: bool) -> openmm.Force:
        force = openmm.CustomAngleForce(f"{energy}; value=theta")
        force.addAngle(*self.particles)
        force.setUsesPeriodicBoundaryConditions(check_flag("periodic", periodic))
        return force


@dataclass(frozen=True)
class Torsion(_Points):
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

    @property
    def unit(self) -> openmm.unit.Unit:
        """The radian."""
        return unit.radian

    @property
    def period(self) -> float:
        """A full turn."""
        return 2.0 * math.pi

    def expression(self, names: dict[int, str]) -> str:
        """Return the value as an expression of named particles."""
        return f"dihedral({','.join(names[particle] for particle in self.particles)})"

    def value_and_gradient(self, geometry: Geometry) -> tuple[float, FloatArray]:
        """Return the angle with the sign of OpenMM and IUPAC, and its derivatives, see `Variable.value_and_gradient`.

        Notes
        -----
        Derivatives: Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996), eq. 27; zero where three particles are in
        line.
        """
        u, v, w = self._vectors(geometry)
        left, right, length = np.cross(u, v), np.cross(v, w), float(np.linalg.norm(v))
        value = math.atan2(length * float(u @ right), float(left @ right))
        if not left.any() or not right.any():
            return value, np.zeros_like(geometry.positions)
        on_first, on_fourth = -length * left / (left @ left), length * right / (right @ right)
        # The two ends turn the middle bond with them, each by its projection on it.
        share_first, share_fourth = float(u @ v) / length**2, float(w @ v) / length**2
        on_second = -(1.0 + share_first) * on_first + share_fourth * on_fourth
        on_third = -(on_first + on_second + on_fourth)
        return value, self._among_all(geometry, [on_first, on_second, on_third, on_fourth])

    def _force(self, energy: str, periodic: bool) -> openmm.Force:
        force = openmm.CustomTorsionForce(f"{energy}; value=theta")
        force.addTorsion(*self.particles)
        force.setUsesPeriodicBoundaryConditions(check_flag("periodic", periodic))
        return force


@dataclass(frozen=True)
class DistanceDifference(_Points):
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

    @property
    def unit(self) -> openmm.unit.Unit:
        """The nanometer."""
        return unit.nanometer

    @property
    def distances(self) -> tuple[tuple[int, int], ...]:
        """The pairs donor-proton and proton-acceptor."""
        return self.combination.distances

    @property
    def combination(self) -> Combination:
        """The same as a `Combination`."""
        return Combination([(1.0, Distance(self.donor, self.proton)), (-1.0, Distance(self.proton, self.acceptor))])

    def expression(self, names: dict[int, str]) -> str:
        """Return the value as an expression of named particles."""
        return self.combination.expression(names)

    def value_and_gradient(self, geometry: Geometry) -> tuple[float, FloatArray]:
        """Return the difference and its derivatives, see `Variable.value_and_gradient`."""
        return self.combination.value_and_gradient(geometry)


@dataclass(frozen=True)
class Combination(PointVariable):
    """A sum of variables with weights, such as the bond that breaks minus the bond that forms.

    Parameters
    ----------
    terms : sequence of (float, Variable)
        Weight and variable of each term.

    Raises
    ------
    SettingError
        If there is no term, a weight is zero, a variable is there twice, or a sum with torsions has no common period.

    Notes
    -----
    The unit is that of all terms; terms of different units give a plain number, whose weights have the inverse units. A
    sum of torsions alone, with weights that are multiples of the smallest one, is periodic: it is wrapped to half a
    period about zero. Other sums with torsions would jump where a torsion does, and are refused.

    Examples
    --------
    >>> transfer = Combination([(1.0, Distance(5, 7)), (-1.0, Distance(1, 9))])
    >>> transfer.particles, transfer.unit.get_symbol()
    ((5, 7, 1, 9), 'nm')
    """

    terms: Sequence[tuple[float, Variable]]

    def __post_init__(self) -> None:
        if isinstance(self.terms, str | bytes | Mapping) or not isinstance(self.terms, Iterable):
            raise SettingError(f"terms are a list of (weight, variable), got {shown(self.terms)}")
        terms = tuple(_checked_term(term) for term in self.terms)
        if not terms:
            raise SettingError("terms have one (weight, variable) or more, got none")
        variables = [variable for _, variable in terms]
        twice = [variable for k, variable in enumerate(variables) if variable in variables[:k]]
        if twice:
            raise SettingError(
                f"terms have a variable twice: {listed(twice)}; give it once, with the sum of the weights"
            )
        object.__setattr__(self, "terms", terms)
        self.period  # noqa: B018 - raises if there is none

    @functools.cached_property
    def particles(self) -> tuple[int, ...]:
        """Indices of the particles, each once."""
        return tuple(dict.fromkeys(particle for _, variable in self.terms for particle in variable.particles))

    @property
    def distances(self) -> tuple[tuple[int, int], ...]:
        """The pairs of all terms."""
        return tuple(pair for _, variable in self.terms for pair in variable.distances)

    @property
    def unit(self) -> openmm.unit.Unit | None:
        """Unit of all terms, or None if they differ."""
        units = {variable.unit for _, variable in self.terms}
        return units.pop() if len(units) == 1 else None

    @property
    def period(self) -> float | None:
        """Smallest period of a term, if those of all others are multiples of it."""
        periods = [None if v.period is None else abs(weight) * v.period for weight, v in self.terms]
        known = [period for period in periods if period is not None]
        if not known:
            return None
        shortest = min(known)
        ratios = [period / shortest for period in known]
        if len(known) < len(periods) or any(abs(ratio - round(ratio)) > ROUNDING * ratio for ratio in ratios):
            raise SettingError(
                "a sum with a torsion has terms of torsions only, whose weights are multiples of the smallest: others "
                f"jump where the torsion does, got the weights {listed(weight for weight, _ in self.terms)} for "
                f"{listed(type(variable).__name__ for _, variable in self.terms)}"
            )
        return shortest

    def expression(self, names: dict[int, str]) -> str:
        """Return the value as an expression of named particles, for terms that are `PointVariable`."""
        parts = []
        for weight, variable in self.terms:
            assert isinstance(variable, PointVariable)
            parts.append(f"({weight!r})*({variable.expression(names)})")
        return self._wrapped_expression("+".join(parts))

    def value_and_gradient(self, geometry: Geometry) -> tuple[float, FloatArray]:
        """Return the sum and its derivatives, see `Variable.value_and_gradient`."""
        value, gradient = 0.0, np.zeros_like(check_geometry(geometry, self.particles).positions)
        for weight, variable in self.terms:
            one, derivatives = variable.value_and_gradient(geometry)
            value += weight * one
            gradient += weight * derivatives
        return float(self.difference(value, 0.0)), gradient

    def _force(self, energy: str, periodic: bool) -> openmm.Force:
        if all(_has_expression(variable) for _, variable in self.terms):
            return super()._force(energy, periodic)
        names = [f"term{k}" for k in range(len(self.terms))]
        total = "+".join(f"({weight!r})*{name}" for name, (weight, _) in zip(names, self.terms, strict=True))
        force = openmm.CustomCVForce(f"{energy}; value={self._wrapped_expression(total)}")
        for name, (_, variable) in zip(names, self.terms, strict=True):
            force.addCollectiveVariable(name, variable.value_force(periodic))
        return force

    def _wrapped_expression(self, total: str) -> str:
        return total if self.period is None else wrapped_expression(f"({total})", self.period)


@dataclass(frozen=True)
class CoordinationNumber(Variable):
    """The number of pairs of two groups that are near each other, counted smoothly.

    Parameters
    ----------
    first, second : sequence of int
        Indices of the particles of the groups, which share none.
    distance : Quantity or float, nm
        Distance at which a pair counts one half.
    exponent : int
        Even or odd integer; a pair of larger distance counts less for a larger one.

    Raises
    ------
    SettingError, SelectionError
        If a group is empty or the groups share a particle, or a number is out of range.

    Notes
    -----
    The sum over pairs of 1 / (1 + (r/d)^n), which is (1 - (r/d)^n) / (1 - (r/d)^2n) without its division of zero by
    zero. The forces are on all pairs: keep the groups small.
    """

    first: Sequence[int]
    second: Sequence[int]
    distance: float
    exponent: int = 6

    def __post_init__(self) -> None:
        first, second = check_atoms("first", self.first), check_atoms("second", self.second)
        shared = sorted(set(first) & set(second))
        if shared:
            raise SettingError(f"first and second share no particle, got {listed(shared)} in both")
        object.__setattr__(self, "first", first)
        object.__setattr__(self, "second", second)
        object.__setattr__(self, "distance", check_length("distance", self.distance, above=0.0))
        check_whole_number("exponent", self.exponent, at_least=2, at_most=48)

    @property
    def particles(self) -> tuple[int, ...]:
        """Indices of the particles of both groups."""
        return (*self.first, *self.second)

    @property
    def distances(self) -> tuple[tuple[int, int], ...]:
        """All pairs of a particle of the first group and one of the second."""
        return tuple((i, j) for i in self.first for j in self.second)

    @functools.cached_property
    def pairs(self) -> tuple[IntArray, IntArray]:
        """First and second particles of all pairs."""
        return np.repeat(self.first, len(self.second)), np.tile(self.second, len(self.first))

    def value_and_gradient(self, geometry: Geometry) -> tuple[float, FloatArray]:
        """Return the number and its derivatives, see `Variable.value_and_gradient`."""
        first, second = self.pairs
        vectors = vectors_between(check_geometry(geometry, self.particles), first, second)
        lengths = np.linalg.norm(vectors, axis=1)
        powers = (lengths / self.distance) ** self.exponent
        counts = 1.0 / (1.0 + powers)
        slopes = -self.exponent * (lengths / self.distance) ** (self.exponent - 2) / self.distance**2 * counts**2
        gradient = np.zeros_like(geometry.positions)
        np.add.at(gradient, first, -slopes[:, None] * vectors)
        np.add.at(gradient, second, slopes[:, None] * vectors)
        return float(counts.sum()), gradient

    def value_force(self, periodic: bool = False) -> openmm.Force:
        """Return a Force whose energy is the number, for a CustomCVForce."""
        force = openmm.CustomBondForce(f"1/(1+(r/{self.distance!r})^{self.exponent})")
        for first, second in zip(*self.pairs, strict=True):
            force.addBond(int(first), int(second))
        force.setUsesPeriodicBoundaryConditions(check_flag("periodic", periodic))
        return force


def _checked_term(term: object) -> tuple[float, Variable]:
    if not isinstance(term, tuple | list) or len(term) != 2 or not isinstance(term[1], Variable):
        raise SettingError(f"each of terms is (weight, variable), such as (1.0, Distance(0, 1)), got {shown(term)}")
    weight = check_finite_number("weight of a term", term[0])
    if weight == 0.0:
        raise SettingError(f"weight of a term is not zero; leave {shown(term[1])} out")
    return weight, term[1]


def _has_expression(variable: Variable) -> bool:
    if isinstance(variable, Combination):
        return all(_has_expression(part) for _, part in variable.terms)
    return isinstance(variable, PointVariable)
