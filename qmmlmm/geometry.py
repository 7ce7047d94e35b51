"""Positions of particles and, if there is one, the periodic box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from openmm import unit

from qmmlmm.errors import SettingError
from qmmlmm.setting_checks import check_array, check_instance
from qmmlmm.units import BOHR_IN_NM, NM_IN_BOHR, FloatArray, Vectors

if TYPE_CHECKING:
    import openmm


@dataclass(frozen=True, eq=False)
class Geometry:
    """Positions of particles and the box vectors of their periodic box.

    Parameters
    ----------
    positions : (n, 3) float array
    box : (3, 3) float array or None
        Box vectors in rows, reduced as OpenMM's are; None without periodicity.

    Notes
    -----
    Both have the same unit of length. Docstrings name it in the type field: "Geometry, nm" outside the coupling and
    "Geometry, bohr" inside it and across the contract of a potential.
    """

    positions: FloatArray
    box: FloatArray | None = None

    @classmethod
    def from_state(cls, state: openmm.State, periodic: bool) -> Geometry:
        """Return the positions and box of an OpenMM State, nm.

        Parameters
        ----------
        state : openmm.State
            State with positions.
        periodic : bool
            Whether the System is periodic. A State can hold box vectors either way.
        """
        positions = np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        if not periodic:
            return cls(positions)
        return cls(positions, np.array(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)))

    @classmethod
    def from_context(cls, context: openmm.Context) -> Geometry:
        """Return the positions of a Context, nm, and its box if its System is periodic.

        Raises
        ------
        SettingError
            If it is no Context.
        """
        import openmm

        check_instance("context", context, openmm.Context, "an openmm.Context, such as simulation.context")
        return cls.from_state(context.getState(positions=True), context.getSystem().usesPeriodicBoundaryConditions())

    @classmethod
    def from_quantities(cls, positions: Vectors, box: Vectors | None = None) -> Geometry:
        """Return the geometry that a user gave, nm.

        Parameters
        ----------
        positions : (n, 3) Quantity or float array, nm
        box : (3, 3) Quantity or float array, nm, optional

        Raises
        ------
        SettingError
            If they are no lengths or have another shape.
        """
        found = _lengths("positions", positions)
        if found.ndim != 2 or found.shape[1] != 3 or not len(found):
            raise SettingError(f"positions are an (n, 3) array, nm, got one of shape {found.shape}")
        if box is None:
            return cls(found)
        vectors = _lengths("box vectors", box)
        if vectors.shape != (3, 3):
            raise SettingError(f"box vectors are a (3, 3) array, nm, got one of shape {vectors.shape}")
        return cls(found, vectors)

    def in_bohr(self) -> Geometry:
        """Convert from nm to bohr."""
        return self._scaled(NM_IN_BOHR)

    def in_nm(self) -> Geometry:
        """Convert from bohr to nm."""
        return self._scaled(BOHR_IN_NM)

    def is_same(self, other: Geometry) -> bool:
        """Return whether all numbers are equal."""
        if (self.box is None) != (other.box is None) or not np.array_equal(self.positions, other.positions):
            return False
        return self.box is None or other.box is None or np.array_equal(self.box, other.box)

    def _scaled(self, factor: float) -> Geometry:
        return Geometry(self.positions * factor, None if self.box is None else self.box * factor)


def _lengths(name: str, given: Vectors) -> FloatArray:
    try:
        return check_array(name, given, default=unit.nanometer)
    except SettingError as error:
        raise SettingError(f"{name} are lengths, a Quantity or bare numbers in nm: {error}") from error
