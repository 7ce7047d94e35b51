"""Checks of single settings: type, range, finite, unit. Each returns the value, or raises with the setting's name."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeGuard, TypeVar

import numpy as np
from openmm import unit

from qmmlmm.errors import QmmlmmError, SelectionError, SettingError, listed, nearest, shown
from qmmlmm.units import FloatArray

_Class = TypeVar("_Class")
_Callable = TypeVar("_Callable", bound=Callable[..., object])

LARGEST_COUNT = 2**31 - 1
"""Largest integer that OpenMM takes for a number of steps or an index."""


def is_whole_number(value: object) -> TypeGuard[int]:
    """Return whether a value is an integer, including NumPy's, and no bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a real number, including NumPy's, and no bool; NaN and infinity are numbers."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def as_float(value: float) -> float:
    """Return a number as a float; integers beyond its range are infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def check_whole_number(
    name: str,
    value: object,
    *,
    at_least: int = 1,
    at_most: int | None = None,
    what: str = "a whole number",
    error: type[QmmlmmError] = SettingError,
) -> int:
    """Return an integer within limits.

    Parameters
    ----------
    name : str
        Name of the setting, for the message.
    value : object
    at_least : int
    at_most : int, optional
    what : str
        What the number counts, such as ``"a number of steps"``.
    error : type
        Class of the exception.
    """
    if not is_whole_number(value) or value < at_least or (at_most is not None and value > at_most):
        # The largest integer of OpenMM is worth a word only where it was exceeded.
        open_above = at_most is None or (at_most == LARGEST_COUNT and not (is_whole_number(value) and value > at_most))
        limits = f"of {at_least} or more" if open_above else f"from {at_least} to {at_most}"
        raise error(f"{name} is {what} {limits}, got {shown(value)}")
    return int(value)


def check_steps(name: str, value: object, error: type[QmmlmmError] = SettingError) -> int:
    """Return a number of steps that a simulation can take: zero or more, as `Integrator.step` of OpenMM accepts."""
    return check_whole_number(
        name, value, at_least=0, at_most=LARGEST_COUNT, what="a whole number of steps", error=error
    )


def check_positive(name: str, value: object, unit_name: str = "", error: type[QmmlmmError] = SettingError) -> float:
    """Return a finite number above zero."""
    if not is_number(value) or not 0.0 < as_float(value) < math.inf:
        raise error(f"{name} is a number above zero{_in(unit_name)}, got {shown(value)}")
    return float(value)


def check_not_negative(name: str, value: object, unit_name: str = "", error: type[QmmlmmError] = SettingError) -> float:
    """Return a finite number that is zero or above."""
    if not is_number(value) or not 0.0 <= as_float(value) < math.inf:
        raise error(f"{name} is zero or a number above{_in(unit_name)}, got {shown(value)}")
    return float(value)


def check_finite_number(name: str, value: object, error: type[QmmlmmError] = SettingError) -> float:
    """Return a finite number of either sign."""
    if not is_number(value) or not math.isfinite(as_float(value)):
        raise error(f"{name} is a finite number, got {shown(value)}")
    return float(value)


def check_between(name: str, value: object, low: float, high: float, error: type[QmmlmmError] = SettingError) -> float:
    """Return a number that lies between two others, both excluded."""
    if not is_number(value) or not low < as_float(value) < high:
        raise error(f"{name} lies between {low:g} and {high:g}, got {shown(value)}")
    return float(value)


def check_count(name: str, value: object, *, at_least: int = 1, error: type[QmmlmmError] = SettingError) -> int:
    """Return a number of things that 32 bits hold, as OpenMM and the kernel require."""
    return check_whole_number(name, value, at_least=at_least, at_most=LARGEST_COUNT, error=error)


def check_number(
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
    at_most: float = math.inf,
    unit_name: str = "",
    error: type[QmmlmmError] = SettingError,
) -> float:
    """Return a finite number within limits.

    Parameters
    ----------
    name : str
        Name of the setting, for the message.
    value : object
    above, at_least : float
        Lower limit, without or with the limit itself.
    below, at_most : float
        Upper limit, without or with the limit itself.
    unit_name : str
        Unit of the number, for the message.
    error : type
        Class of the exception.
    """
    number = as_float(value) if is_number(value) else math.nan
    if not math.isfinite(number) or not (above < number < below and at_least <= number <= at_most):
        limits = {"above": above, "at least": at_least, "below": below, "at most": at_most}
        words = [f"{word} {limit:g}" for word, limit in limits.items() if math.isfinite(limit)]
        raise error(
            f"{name} is a finite number{' ' * bool(words)}{' and '.join(words)}{_in(unit_name)}, got {shown(value)}"
        )
    return number


def check_flag(name: str, value: object, error: type[QmmlmmError] = SettingError) -> bool:
    """Return a bool; numbers and texts are not accepted."""
    if not isinstance(value, bool | np.bool_):
        raise error(f"{name} is True or False, got {shown(value)}")
    return bool(value)


def check_choice(name: str, value: object, choices: Iterable[str], error: type[QmmlmmError] = SettingError) -> str:
    """Return a text that is one of the choices."""
    valid = tuple(choices)
    if not isinstance(value, str) or value not in valid:
        raise error(f"{name} is one of {', '.join(map(repr, valid))}, got {shown(value)}.{nearest(str(value), valid)}")
    return value


def check_seed(name: str, value: object, error: type[QmmlmmError] = SettingError) -> int:
    """Return a seed of a random generator: an integer of zero or more that 32 bits hold."""
    return check_whole_number(name, value, at_least=0, at_most=2**32 - 1, error=error)


def check_length(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_most: float | None = None,
    error: type[QmmlmmError] = SettingError,
) -> float:
    """Return a length, nm, that was given as a Quantity or as a number in nm."""
    return check_quantity(name, value, unit.nanometer, above=above, at_most=at_most, error=error)


def check_quantity(
    name: str,
    value: object,
    default: unit.Unit,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    error: type[QmmlmmError] = SettingError,
) -> float:
    """Return the bare number of a Quantity, or of a number that has OpenMM's default unit.

    Parameters
    ----------
    name : str
        Name of the setting, for the message.
    value : Quantity or float
    default : openmm.unit.Unit
        Unit of the result, and of a bare number.
    above, at_least, at_most : float, optional
        Limit that the number exceeds, and limits that it may equal.
    error : type
        Class of the exception.

    Raises
    ------
    error
        If the unit has another dimension, or the value is no finite number within the limits.
    """
    number = value
    if isinstance(value, unit.Quantity):
        if not value.unit.is_compatible(default):
            raise error(f"{name} has a unit like {default.get_name()}, got {shown(value)}")
        try:
            number = value.value_in_unit(default)
        except TypeError:  # a text with a unit
            number = None
    if not is_number(number) or not math.isfinite(as_float(number)):
        raise error(f"{name} is a finite number, in {default.get_name()}, or a Quantity, got {shown(value)}")
    if above is not None and not float(number) > above:
        limit = "zero" if above == 0.0 else f"{above:g}"
        raise error(f"{name} is a number above {limit}, in {default.get_name()}, got {shown(value)}")
    if at_least is not None and not float(number) >= at_least:
        limit = "zero" if at_least == 0.0 else f"{at_least:g}"
        raise error(f"{name} is {limit} or a number above, in {default.get_name()}, got {shown(value)}")
    if at_most is not None and not float(number) <= at_most:
        raise error(
            f"{name} is at most {at_most:g} {default.get_name()}, got {shown(value)}; a number without a unit is in "
            f"{default.get_name()}"
        )
    return float(number)


def check_array(
    name: str,
    value: object,
    shape: tuple[int | None, ...] | None = None,
    default: unit.Unit | None = None,
    error: type[QmmlmmError] = SettingError,
    *,
    finite: bool = True,
) -> FloatArray:
    """Return numbers, by default finite ones, as an array of floats.

    Parameters
    ----------
    name : str
        Name of the setting, for the message.
    value : array or Quantity
    shape : tuple of int or None, optional
        Length of each axis; None for an axis of any length.
    default : openmm.unit.Unit, optional
        Unit of the result, and of bare numbers. Without it, a Quantity is refused.
    error : type
        Class of the exception.
    finite : bool
        Whether NaN and infinity are refused.
    """
    bare = _without_unit(name, value, default, error)
    try:
        array = np.asarray(bare)
        # A bool is no number, and a text is none either.
        if array.dtype.kind not in "iuf":
            raise TypeError
        array = np.array(array, dtype=float)
    except (TypeError, ValueError):
        raise error(f"{name} is an array of numbers, got {shown(value)}") from None
    if shape is not None and (
        array.ndim != len(shape) or any(n is not None and n != m for n, m in zip(shape, array.shape, strict=True))
    ):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise error(f"{name} has the shape ({wanted}), got {array.shape}")
    if finite and not np.isfinite(array).all():
        places = np.argwhere(~np.isfinite(array))
        where = listed(int(place[0]) if len(place) == 1 else tuple(map(int, place)) for place in places)
        raise error(f"{name} is finite, but is not at {where}")
    return array


def check_atoms(
    name: str,
    value: object,
    n_atoms: int | None = None,
    *,
    count: int | None = None,
    empty: bool = False,
    error: type[QmmlmmError] = SelectionError,
) -> tuple[int, ...]:
    """Return indices of distinct atoms, in the given order.

    Parameters
    ----------
    name : str
        Name of the setting, for the message.
    value : iterable of int
    n_atoms : int, optional
        Number of atoms of the System, for the upper limit.
    count : int, optional
        How many atoms there are.
    empty : bool
        Whether no atom at all is accepted.
    error : type
        Class of the exception.
    """
    try:
        given = None if isinstance(value, str | bytes | Mapping) else list(value)  # type: ignore[call-overload]
    except TypeError:
        given = None
    if given is None:
        raise error(f"{name} is a list of atom indices, got {shown(value)}")
    for atom in given:
        if not is_whole_number(atom) or atom < 0 or (n_atoms is not None and atom >= n_atoms):
            limits = "of 0 or more" if n_atoms is None else f"from 0 to {n_atoms - 1}"
            raise error(f"{name} has atom indices {limits}, got {shown(atom)}")
    atoms = tuple(int(atom) for atom in given)
    if len(set(atoms)) < len(atoms):
        twice = sorted({atom for atom in atoms if atoms.count(atom) > 1})
        raise error(f"{name} has an atom twice: {listed(twice)}")
    if count is not None and len(atoms) != count:
        raise error(f"{name} has {count} atoms, got {len(atoms)}")
    if not atoms and not empty:
        raise error(f"{name} has no atom")
    return atoms


def check_text(name: str, value: object, error: type[QmmlmmError] = SettingError) -> str:
    """Return a text that is not blank and has no control characters, so that it can stand in a table or a file name."""
    if not isinstance(value, str) or not value.strip():
        raise error(f"{name} is a text, got {shown(value)}")
    if not value.isprintable():
        raise error(f"{name} has a line break or another control character: {shown(value)}")
    return value


def check_names(name: str, value: object, error: type[QmmlmmError] = SettingError) -> tuple[str, ...]:
    """Return different texts, at least one; a single text is no list of texts."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise error(f"{name} is a list of names, got {shown(value)}")
    names = tuple(check_text(f"each of {name}", text, error) for text in value)
    if not names or len(set(names)) < len(names):
        raise error(f"{name} has one or more different names, got {listed(names) or 'none'}")
    return names


def check_path(name: str, value: object, error: type[QmmlmmError] = SettingError) -> Path:
    """Return a path; bytes, an empty text and a text with a NUL character are not accepted."""
    if not isinstance(value, str | os.PathLike):
        raise error(f"{name} is a path, got {shown(value)}")
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        raise error(f"{name} is a path, got {shown(value)}")
    return Path(text)


def check_mapping(name: str, value: object, error: type[QmmlmmError] = SettingError) -> Mapping[str, object]:
    """Return a mapping whose keys are texts."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise error(f"{name} maps names to values, got {shown(value)}")
    return value


def check_instance(
    name: str, value: object, kind: type[_Class], what: str = "", error: type[QmmlmmError] = SettingError
) -> _Class:
    """Return an object of a class; the class itself, given for its instance, is named in the message."""
    if not isinstance(value, kind):
        given = f"the class {value.__name__} itself" if isinstance(value, type) else shown(value)
        raise error(f"{name} is {what or f'an instance of {kind.__name__}'}, got {given}")
    return value


def check_items(
    name: str, value: object, kind: type[_Class], *, empty: bool = False, error: type[QmmlmmError] = SettingError
) -> tuple[_Class, ...]:
    """Return objects of one class, at least one unless none is accepted."""
    if isinstance(value, str | bytes | Mapping | kind) or not isinstance(value, Iterable):
        raise error(f"{name} is a list of {kind.__name__} objects, got {shown(value)}")
    items = tuple(check_instance(f"each of {name}", item, kind, error=error) for item in value)
    if not items and not empty:
        raise error(f"{name} has one {kind.__name__} or more, got none")
    return items


def check_callable(
    name: str, value: _Callable, what: str = "a function", error: type[QmmlmmError] = SettingError
) -> _Callable:
    """Return a function or another object that can be called."""
    if not callable(value):
        raise error(f"{name} is {what}, got {shown(value)}")
    return value


def _without_unit(name: str, value: object, default: unit.Unit | None, error: type[QmmlmmError]) -> object:
    """Return an array, or a list that may have Quantities in it, in the default unit."""
    parts = list(value) if isinstance(value, list | tuple) else [value]
    if not any(isinstance(part, unit.Quantity) for part in parts):
        return value
    if default is None:
        raise error(f"{name} has no unit, got {shown(value)}")
    bare = []
    for part in parts:
        if not isinstance(part, unit.Quantity) or not part.unit.is_compatible(default):
            raise error(f"{name} has a unit like {default.get_name()}, got {shown(value)}")
        try:
            bare.append(part.value_in_unit(default))
        except TypeError:  # a text with a unit
            raise error(f"{name} is an array of numbers, got {shown(value)}") from None
    return bare if isinstance(value, list | tuple) else bare[0]


def _in(unit_name: str) -> str:
    return f", in {unit_name}" if unit_name else ""
