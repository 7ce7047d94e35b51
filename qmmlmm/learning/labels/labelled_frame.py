"""One geometry of a region with the labels on which a potential is trained."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeGuard

import numpy as np

from qmmlmm.elements import SYMBOLS, multiplicity_fault
from qmmlmm.errors import DataSetError, QmmlmmError, SettingError, listed
from qmmlmm.setting_checks import check_items, check_whole_number
from qmmlmm.units import FloatArray, IntArray


@dataclass(frozen=True)
class NearCharges:
    """Charges of the surroundings close to a region, with the forces that the region exerts on them.

    Parameters
    ----------
    positions : (k, 3) float array, bohr
        Positions of the images closest to the region.
    charges : (k,) float array, e
    forces : (k, 3) float array, hartree/bohr
        Forces on these images only, through 1/r.
    widths : (k,) float array, bohr, optional
        Widths w of Gaussian charges, which act through erf(r/w)/r, see `qmmlmm.coupling.smeared_charges`; zero for
        points.
    """

    positions: FloatArray
    charges: FloatArray
    forces: FloatArray
    widths: FloatArray | None = None


@dataclass(frozen=True)
class LabelledFrame:
    """Energy, forces and response of a region at one geometry, in atomic units.

    Parameters
    ----------
    atomic_numbers : (n,) int array
    positions : (n, 3) float array, bohr
    energy : float, hartree
        Energy with the interaction with the surroundings, if there are any.
    forces : (n, 3) float array, hartree/bohr
        Minus the derivative of the energy at a fixed potential phi(r) of the surroundings.
    method : str
        Method that computed the labels. All frames of a training have the same method.
    charge, multiplicity : int
    electronic_state : int
        Index of the state; zero is the lowest of its multiplicity.
    potential : (n,) float array, hartree/e, optional
        Potential of the surroundings at the atoms. None: the region is in a vacuum.
    field : (n, 3) float array, hartree/(e bohr), optional
        Minus the gradient of the potential.
    field_gradient : (n, 3, 3) float array, hartree/(e bohr^2), optional
        Element (i, a, b) is the derivative of component a of the field along b.
    charges : (n,) float array, e, optional
        Charges of the atoms in the surroundings.
    dipole : (3,) float array, e bohr, optional
        Dipole moment in the surroundings, about the centre of the nuclear charges.
    vacuum_energy : float, hartree, optional
        Energy of the same geometry without surroundings, as the next two.
    vacuum_forces : (n, 3) float array, hartree/bohr, optional
    vacuum_dipole : (3,) float array, e bohr, optional
    near : NearCharges, optional
    name : str
        Name of the frame in reports, without blanks.

    Raises
    ------
    DataSetError
        If shapes do not agree, a number is not finite, charge and multiplicity do not fit the electrons, or two atoms
        coincide.
    """

    atomic_numbers: IntArray
    positions: FloatArray
    energy: float
    forces: FloatArray
    method: str
    charge: int = 0
    multiplicity: int = 1
    electronic_state: int = 0
    potential: FloatArray | None = None
    field: FloatArray | None = None
    field_gradient: FloatArray | None = None
    charges: FloatArray | None = None
    dipole: FloatArray | None = None
    vacuum_energy: float | None = None
    vacuum_forces: FloatArray | None = None
    vacuum_dipole: FloatArray | None = None
    near: NearCharges | None = None
    name: str = "frame"

    def __post_init__(self) -> None:
        self._check_names()
        where = f"frame {self.name!r}"
        n = self._check_numbers(where)
        if (self.potential is None) != (self.field is None):
            raise DataSetError(f"{where} has one of potential and field; labels in surroundings need both")
        shapes = {
            "positions": (n, 3), "forces": (n, 3), "potential": (n,), "field": (n, 3), "field_gradient": (n, 3, 3),
            "charges": (n,), "dipole": (3,), "vacuum_forces": (n, 3), "vacuum_dipole": (3,), "energy": (),
            "vacuum_energy": (),
        }  # fmt: skip
        for key, shape in shapes.items():
            value = vars(self)[key]
            if value is not None or key in ("positions", "forces", "energy"):
                array = _checked(where, key, value, shape)
                object.__setattr__(self, key, array if shape else float(array))
        if self.near is not None:
            if not isinstance(self.near, NearCharges):
                raise DataSetError(f"{where}: near is a NearCharges, got {type(self.near).__name__}")
            if self.potential is None:
                raise DataSetError(f"{where} has near charges but no potential of the surroundings")
            k = np.size(self.near.charges)
            near = {"positions": (k, 3), "charges": (k,), "forces": (k, 3), "widths": (k,)}
            arrays = {
                key: _checked(where, f"near.{key}", vars(self.near)[key], shape)
                for key, shape in near.items()
                if key != "widths" or self.near.widths is not None
            }
            object.__setattr__(self, "near", NearCharges(**arrays))
        distance = np.linalg.norm(self.positions[:, None] - self.positions[None], axis=-1) + np.eye(n)
        if distance.min() < 1e-3:
            a, b = np.unravel_index(int(distance.argmin()), distance.shape)
            raise DataSetError(f"{where}: atoms {a} and {b} have the same position; leave the frame out")

    def _check_names(self) -> None:
        if not _is_line(self.name) or any(c.isspace() or c in '"=' for c in self.name):
            raise DataSetError(f"a frame's name is a text and has no blanks, quotes or equal signs, got {self.name!r}")
        check_method(f"frame {self.name!r}: the method of the labels", self.method, DataSetError)

    def _check_numbers(self, where: str) -> int:
        """Check the integers; return the number of atoms."""
        try:
            numbers = np.asarray(self.atomic_numbers)
        except ValueError as error:
            raise DataSetError(f"{where}: atomic numbers are a list of integers") from error
        if numbers.ndim != 1 or not numbers.size:
            raise DataSetError(f"{where} has no atoms, or its atomic numbers are no list of integers")
        if numbers.dtype.kind not in "iu" or numbers.min() < 1 or numbers.max() > len(SYMBOLS):
            raise DataSetError(f"{where}: atomic numbers are integers from 1 to 118, got {listed(numbers)}")
        object.__setattr__(self, "atomic_numbers", numbers)
        for name, low, high in (("charge", -1000, 1000), ("multiplicity", 1, 1000), ("electronic_state", 0, 1000)):
            value = vars(self)[name]
            checked = check_whole_number(f"{where}: {name}", value, at_least=low, at_most=high, error=DataSetError)
            object.__setattr__(self, name, checked)
        fault = multiplicity_fault(numbers, self.charge, self.multiplicity)
        if fault:
            raise DataSetError(f"{where}: {fault}")
        return len(numbers)

    @property
    def condition(self) -> tuple[int, int, int]:
        """Charge, multiplicity and electronic state."""
        return self.charge, self.multiplicity, self.electronic_state

    def without_surroundings(self) -> LabelledFrame:
        """Return the frame in a vacuum, from its vacuum labels.

        Raises
        ------
        DataSetError
            If it has no vacuum labels.
        """
        if self.potential is None:
            return self
        if self.vacuum_energy is None or self.vacuum_forces is None:
            raise DataSetError(f"frame {self.name!r} has no energy and forces in a vacuum")
        return replace(
            self, energy=self.vacuum_energy, forces=self.vacuum_forces, dipole=self.vacuum_dipole, potential=None,
            field=None, field_gradient=None, charges=None, near=None, vacuum_energy=None, vacuum_forces=None,
            vacuum_dipole=None,
        )  # fmt: skip


def check_method(name: str, method: object, error: type[QmmlmmError] = SettingError) -> str:
    """Return the name of a method, which files keep in quotes."""
    if not _is_line(method) or '"' in method:
        raise error(f"{name} must be named, in ASCII and without quotes, got {method!r}")
    return method


def _is_line(text: object) -> TypeGuard[str]:
    """Return whether a value is a text of printable ASCII characters, as the file has them."""
    return isinstance(text, str) and bool(text) and text.isascii() and text.isprintable()


def _checked(where: str, key: str, value: object, shape: tuple[int, ...]) -> FloatArray:
    """Return finite numbers as an array of a shape."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise TypeError
    except (TypeError, ValueError):
        raise DataSetError(f"{where}: {key} is no array of numbers, got {type(value).__name__}") from None
    if array.shape != shape:
        raise DataSetError(f"{where}: {key} has the shape {array.shape}, expected {shape}")
    if not np.isfinite(array).all():
        atoms = listed(sorted({int(index[0]) for index in np.argwhere(~np.isfinite(array))})) if shape else ""
        raise DataSetError(f"{where}: {key} is not a finite number{f' at {atoms}' if atoms else ''}; label it again")
    return np.asarray(array, dtype=float)


def check_frames(name: str, frames: object) -> list[LabelledFrame]:
    """Return frames as a list, at least one."""
    return list(check_items(name, frames, LabelledFrame, error=DataSetError))


def check_together(frames: list[LabelledFrame]) -> None:
    """Raise DataSetError unless the frames are of one region and one method.

    Parameters
    ----------
    frames : list of LabelledFrame
    """
    if isinstance(frames, list) and not frames:
        raise DataSetError("there are no frames")
    check_items("frames", frames, LabelledFrame, error=DataSetError)
    first = frames[0]
    for k, frame in enumerate(frames[1:], start=1):
        if frame.method != first.method:
            raise DataSetError(
                f"frame {k} ({frame.name!r}) was labelled with {frame.method!r}, frame 0 ({first.name!r}) with "
                f"{first.method!r}; energies of two methods cannot be trained on together: keep one file for each"
            )
        if not np.array_equal(frame.atomic_numbers, first.atomic_numbers):
            same = sorted(frame.atomic_numbers) == sorted(first.atomic_numbers)
            raise DataSetError(
                f"frame {k} ({frame.name!r}) has the atoms {listed(frame.atomic_numbers, 30)}, frame 0 "
                f"{listed(first.atomic_numbers, 30)}: "
                + ("the same atoms in another order; bring them into one order" if same else "another region")
            )


def optional_labels() -> tuple[str, ...]:
    """Return the names of optional labels."""
    return tuple(f.name for f in fields(LabelledFrame) if f.default is None)
