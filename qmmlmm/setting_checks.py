"""Checks of single settings: type, range, finite. Each returns the value, or raises with the name of the setting."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeGuard

import numpy as np

from qmmlmm.errors import QmmlmmError, SettingError, nearest


def is_whole_number(value: object) -> TypeGuard[int]:
    """Return whether a value is an integer, including NumPy's, and no bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a real number, including NumPy's, and no bool; NaN and infinity are numbers."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


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
        limits = f"of {at_least} or more" if at_most is None else f"from {at_least} to {at_most}"
        raise error(f"{name} is {what} {limits}, got {value!r}")
    return int(value)


def check_positive(name: str, value: object, unit_name: str = "", error: type[QmmlmmError] = SettingError) -> float:
    """Return a finite number above zero."""
    if not is_number(value) or not 0.0 < float(value) < math.inf:
        raise error(f"{name} is a number above zero{_in(unit_name)}, got {value!r}")
    return float(value)


def check_not_negative(name: str, value: object, unit_name: str = "", error: type[QmmlmmError] = SettingError) -> float:
    """Return a finite number that is zero or above."""
    if not is_number(value) or not 0.0 <= float(value) < math.inf:
        raise error(f"{name} is zero or a number above{_in(unit_name)}, got {value!r}")
    return float(value)


def check_finite_number(name: str, value: object, error: type[QmmlmmError] = SettingError) -> float:
    """Return a finite number of either sign."""
    if not is_number(value) or not math.isfinite(float(value)):
        raise error(f"{name} is a finite number, got {value!r}")
    return float(value)


def check_between(name: str, value: object, low: float, high: float, error: type[QmmlmmError] = SettingError) -> float:
    """Return a number that lies between two others, both excluded."""
    if not is_number(value) or not low < float(value) < high:
        raise error(f"{name} lies between {low:g} and {high:g}, got {value!r}")
    return float(value)


def check_flag(name: str, value: object, error: type[QmmlmmError] = SettingError) -> bool:
    """Return a bool; numbers and texts are not accepted."""
    if not isinstance(value, bool | np.bool_):
        raise error(f"{name} is True or False, got {value!r}")
    return bool(value)


def check_choice(name: str, value: object, choices: Iterable[str], error: type[QmmlmmError] = SettingError) -> str:
    """Return a text that is one of the choices."""
    valid = tuple(choices)
    if not isinstance(value, str) or value not in valid:
        raise error(f"{name} is one of {', '.join(map(repr, valid))}, got {value!r}.{nearest(str(value), valid)}")
    return value


def _in(unit_name: str) -> str:
    return f", in {unit_name}" if unit_name else ""
