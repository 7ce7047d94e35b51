"""Collective variables that compare a structure with references: RMSD, and progress along a path with its distance."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import openmm
from openmm import unit

from qmmlmm.errors import SettingError
from qmmlmm.geometry import Geometry
from qmmlmm.mm.python_force import pass_openmm_an_array
from qmmlmm.sampling.variable import Variable, check_geometry, vectors_between
from qmmlmm.setting_checks import check_array, check_atoms, check_flag, check_quantity
from qmmlmm.units import FloatArray, IntArray

FEWEST_ATOMS = 3
"""Number of atoms below which a rotation is not defined."""

DECAY = 2.3
"""The weight of an image's neighbour is exp(-2.3), a tenth, of its own: Branduardi et al. (2007)."""


class StructureVariable(Variable):
    """A variable of the shape of some atoms, which does not depend on their position and orientation."""

    atoms: Sequence[int]

    @property
    def particles(self) -> tuple[int, ...]:
        """Indices of the atoms."""
        return tuple(self.atoms)

    def value_and_gradient(self, geometry: Geometry) -> tuple[float, FloatArray]:
        """Return the value and its derivatives, see `Variable.value_and_gradient`."""
        check_geometry(geometry, self.particles)
        chosen = geometry.positions[list(self.particles)]
        value, derivatives = self.of_atoms(Geometry(chosen, geometry.box))
        gradient = np.zeros_like(geometry.positions)
        gradient[list(self.particles)] = derivatives
        return value, gradient

    def of_atoms(self, atoms: Geometry) -> tuple[float, FloatArray]:
        """Return the value and its derivatives by the positions of the atoms, (k, 3).

        Parameters
        ----------
        atoms : Geometry, nm
            Positions of the atoms, in their order, in any image.
        """
        return self._of_whole(self._tree.whole(atoms))

    @property
    def _tree(self) -> ReferenceTree:
        raise NotImplementedError

    def _of_whole(self, positions: FloatArray) -> tuple[float, FloatArray]:
        raise NotImplementedError

    def value_force(self, periodic: bool = False) -> openmm.Force:
        """Return a Force whose energy is the value, for a CustomCVForce; Python computes it."""
        pass_openmm_an_array()
        periodic = check_flag("periodic", periodic)
        # OpenMM 8.5 has no such method, and passes all particles.
        on_some = hasattr(openmm.PythonForce, "setParticles")
        force = openmm.PythonForce(ValueCallback(self, periodic, on_some), {})
        if on_some:
            force.setParticles(list(self.particles))
        force.setUsesPeriodicBoundaryConditions(periodic)
        return force


@dataclass(frozen=True)
class ValueCallback:
    """The function that a PythonForce calls for a variable.

    Parameters
    ----------
    variable : StructureVariable
    periodic : bool
    on_some : bool
        Whether OpenMM passes the variable's atoms only.
    """

    variable: StructureVariable
    periodic: bool
    on_some: bool

    def __call__(self, state: openmm.State) -> tuple[float, FloatArray]:
        """Return the value and minus its derivatives."""
        geometry = Geometry.from_state(state, self.periodic)
        compute = self.variable.of_atoms if self.on_some else self.variable.value_and_gradient
        value, gradient = compute(geometry)
        return value, -gradient


@dataclass(frozen=True)
class RMSD(StructureVariable):
    """The root mean square deviation of atoms from a reference, after the best rotation and translation, nm.

    Parameters
    ----------
    atoms : sequence of int
        Three or more.
    reference : (k, 3) Quantity or float array, nm
        Positions of these atoms; a whole structure, not cut by a box.

    Raises
    ------
    SettingError, SelectionError
        If there are too few atoms, or the reference has another shape.

    Notes
    -----
    Rotation: Kabsch, Acta Cryst. A 34, 827 (1978). The atoms are made whole through pairs that are near in the
    reference. `openmm.RMSDForce` does not: molecules in different images have a wrong value there. All atoms count
    alike. The derivatives are zero where the deviation is zero.
    """

    atoms: Sequence[int]
    reference: FloatArray = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "atoms", _checked_atoms(self.atoms))
        array = check_array("reference", self.reference, (len(self.atoms), 3), unit.nanometer)
        # Tuples, so that equal variables are equal and can be written as JSON.
        object.__setattr__(self, "reference", tuple(map(tuple, array.tolist())))

    @property
    def unit(self) -> openmm.unit.Unit:
        """The nanometer."""
        return unit.nanometer

    @functools.cached_property
    def _tree(self) -> ReferenceTree:
        return ReferenceTree(np.array(self.reference))

    def _of_whole(self, positions: FloatArray) -> tuple[float, FloatArray]:
        square, gradient = square_deviation(positions, np.array(self.reference))
        value = math.sqrt(square)
        return value, gradient / (2.0 * value) if value > 0.0 else np.zeros_like(gradient)


@dataclass(frozen=True)
class _PathVariable(StructureVariable):
    atoms: Sequence[int]
    images: Sequence[FloatArray] = field(repr=False)
    sharpness: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "atoms", _checked_atoms(self.atoms))
        array = check_array("images", self.images, (None, len(self.atoms), 3), unit.nanometer)
        if len(array) < 2:
            raise SettingError(f"a path has two images or more, got {len(array)}")
        object.__setattr__(self, "images", tuple(tuple(map(tuple, image)) for image in array.tolist()))
        steps = [square_deviation(array[k + 1], array[k])[0] for k in range(len(array) - 1)]
        if min(steps) < 1e-12 * max(steps) or not max(steps):
            k = int(np.argmin(steps))
            raise SettingError(f"images {k} and {k + 1} of a path are the same structure; leave one of them out")
        sharpness = DECAY / float(np.mean(steps))
        if self.sharpness is not None:
            sharpness = check_quantity("sharpness", self.sharpness, unit.nanometer**-2, above=0.0)
        object.__setattr__(self, "sharpness", sharpness)

    @functools.cached_property
    def _array(self) -> FloatArray:
        return np.array(self.images)

    @functools.cached_property
    def _tree(self) -> ReferenceTree:
        return ReferenceTree(self._array[0])

    def _near_images(self, positions: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        """Return the distance from the path, the normed weights of the images, and gradients of square deviations."""
        assert self.sharpness is not None
        found = [square_deviation(positions, image) for image in self._array]
        squares = np.array([square for square, _ in found])
        weights = np.exp(-self.sharpness * (squares - squares.min()))
        distance = squares.min() - math.log(weights.sum()) / self.sharpness
        return distance, weights / weights.sum(), np.array([gradient for _, gradient in found])


@dataclass(frozen=True)
class PathProgress(_PathVariable):
    """The progress along a path of reference structures, from 0 at the first image to 1 at the last.

    Parameters
    ----------
    atoms : sequence of int
        Three or more.
    images : (m, k, 3) Quantity or float array, nm
        Positions of these atoms in each image, in the order of the path; whole structures, evenly spaced.
    sharpness : Quantity or float, 1/nm^2, optional
        The lambda of the paper; 2.3 over the mean square deviation between neighbours if not given.

    Raises
    ------
    SettingError, SelectionError
        If there are too few atoms or images, or two neighbours are equal.

    Notes
    -----
    s = (sum_i i w_i / sum_i w_i) / (m - 1) with w_i = exp(-lambda d_i), i from 0, where d_i is the mean square
    deviation from image i after the best rotation. Source: Branduardi, Gervasio and Parrinello, J. Chem. Phys. 126,
    054103 (2007), eq. 8. Far from the path s still has a value: watch or restrain `PathDistance`.
    """

    def _of_whole(self, positions: FloatArray) -> tuple[float, FloatArray]:
        _, weights, gradients = self._near_images(positions)
        numbers = np.arange(len(weights)) / (len(weights) - 1)
        value = float(weights @ numbers)
        assert self.sharpness is not None
        return value, -self.sharpness * np.tensordot(weights * (numbers - value), gradients, axes=1)


@dataclass(frozen=True)
class PathDistance(_PathVariable):
    """The distance from a path of reference structures, nm^2.

    Parameters
    ----------
    atoms : sequence of int
        Three or more.
    images : (m, k, 3) Quantity or float array, nm
        As in `PathProgress`.
    sharpness : Quantity or float, 1/nm^2, optional
        As in `PathProgress`.

    Raises
    ------
    SettingError, SelectionError
        If there are too few atoms or images, or two neighbours are equal.

    Notes
    -----
    z = -ln(sum_i w_i) / lambda: Branduardi et al. (2007), eq. 9. It is slightly negative on the path.
    """

    @property
    def unit(self) -> openmm.unit.Unit:
        """The square nanometer."""
        return unit.nanometer**2

    def _of_whole(self, positions: FloatArray) -> tuple[float, FloatArray]:
        distance, weights, gradients = self._near_images(positions)
        return distance, np.tensordot(weights, gradients, axes=1)


class ReferenceTree:
    """The pairs through which atoms are made whole: a minimum spanning tree of a reference.

    Parameters
    ----------
    reference : (k, 3) float array, nm
    """

    def __init__(self, reference: FloatArray) -> None:
        count = len(reference)
        distances = np.linalg.norm(reference[:, None] - reference[None], axis=2)
        nearest, parents = distances[0].copy(), np.zeros(count, dtype=np.int64)
        left = np.arange(count) > 0
        children: list[int] = []
        # Rows say which edges lead from the first atom to each atom.
        paths = np.zeros((count, count - 1))
        while left.any():
            child = int(np.where(left, nearest, np.inf).argmin())
            left[child] = False
            paths[child] = paths[parents[child]]
            paths[child, len(children)] = 1.0
            children.append(child)
            nearer = distances[child] < nearest
            nearest = np.where(nearer, distances[child], nearest)
            parents = np.where(nearer & left, child, parents)
        self._children: IntArray = np.array(children, dtype=np.int64)
        self._parents: IntArray = parents[self._children]
        self._paths = paths

    def whole(self, atoms: Geometry) -> FloatArray:
        """Return the positions of atoms in images that are next to each other, (k, 3) nm."""
        if atoms.box is None:
            return atoms.positions
        edges = vectors_between(atoms, self._parents, self._children)
        return np.asarray(atoms.positions[0] + self._paths @ edges)


def square_deviation(positions: FloatArray, reference: FloatArray) -> tuple[float, FloatArray]:
    """Return the mean square deviation after the best rotation, and its derivatives by the positions, (k, 3).

    Parameters
    ----------
    positions, reference : (k, 3) float arrays
    """
    moved, fixed = positions - positions.mean(axis=0), reference - reference.mean(axis=0)
    left, _, right = np.linalg.svd(fixed.T @ moved)
    # No mirror image: the smallest singular value pays for a proper rotation.
    left[:, -1] *= np.sign(np.linalg.det(left @ right))
    away = moved - fixed @ (left @ right)
    return float((away * away).sum() / len(away)), 2.0 * away / len(away)


def _checked_atoms(atoms: Sequence[int]) -> tuple[int, ...]:
    found = check_atoms("atoms", atoms)
    if len(found) < FEWEST_ATOMS:
        raise SettingError(f"a structure has {FEWEST_ATOMS} atoms or more, got {len(found)}; take distances for fewer")
    return found
