"""Numbers with units in input files, ``"0.5 fs"``, and lengths of time as a number of steps or with a unit."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from openmm import unit

from qmmlmm.errors import QmmlmmError, SettingError, listed, nearest, shown
from qmmlmm.setting_checks import LARGEST_COUNT, check_quantity, check_whole_number, is_whole_number

_ENERGIES = {"kJ/mol": unit.kilojoule_per_mole, "kcal/mol": unit.kilocalorie_per_mole}
_LENGTHS = {"nm": unit.nanometer, "A": unit.angstrom, "angstrom": unit.angstrom}
_TIMES = {"fs": unit.femtosecond, "ps": unit.picosecond, "ns": unit.nanosecond, "us": unit.microsecond}
_ANGLES = {"rad": unit.radian, "deg": unit.degree}

UNITS: dict[str, unit.Unit] = {
    **_TIMES,
    **{f"1/{name}": found**-1 for name, found in _TIMES.items()},
    **_LENGTHS,
    **_ANGLES,
    **_ENERGIES,
    **{f"{e}/{x}": energy / length for e, energy in _ENERGIES.items() for x, length in _LENGTHS.items()},
    **{
        f"{e}/{x}^2": energy / size**2 for e, energy in _ENERGIES.items() for x, size in {**_LENGTHS, **_ANGLES}.items()
    },
    "K": unit.kelvin,
    "Da": unit.dalton,
    "bar": unit.bar,
    "atm": unit.atmosphere,
}
"""Units by their names in input files."""

_MEASURE = re.compile(r"\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>\S+)\s*")


def check_measure(
    name: str,
    value: object,
    default: unit.Unit,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    error: type[QmmlmmError] = SettingError,
) -> float:
    """Return a number in a unit, of a number in that unit or of a text with a unit such as ``"0.5 fs"``.

    Parameters
    ----------
    name : str
        Name of the setting, for the message.
    value : float, str or Quantity
    default : openmm.unit.Unit
        Unit of the result, and of a number without one.
    above, at_least, at_most : float, optional
        Limit that the number exceeds, and limits that it may equal.
    error : type
        Class of the exception.

    Raises
    ------
    error
        If the text has no number and unit, the unit has another dimension, or the number is out of range.
    """
    found = _quantity(name, value, error) if isinstance(value, str) else value
    return check_quantity(name, found, default, above=above, at_least=at_least, at_most=at_most, error=error)


def _quantity(name: str, text: str, error: type[QmmlmmError]) -> unit.Quantity:
    found = _MEASURE.fullmatch(text)
    if found is None:
        raise error(f'{name} is a number, or a text with a number and a unit such as "0.5 fs", got {shown(text)}')
    if found["unit"] not in UNITS:
        raise error(
            f"{name} has the unknown unit {found['unit']!r}; known are {listed(UNITS, 40)}."
            f"{nearest(found['unit'], list(UNITS))}"
        )
    return float(found["number"]) * UNITS[found["unit"]]


@dataclass(frozen=True)
class Duration:
    """A number of steps or a time.

    Parameters
    ----------
    name : str
        Name of the setting, for messages.
    given : int or str
        Value as it stands in the file.
    steps : int or None
    time : float or None, ps
    """

    name: str
    given: int | str
    steps: int | None = None
    time: float | None = None

    def in_steps(self, step: float) -> int:
        """Return the number of steps of a length in ps; a time becomes the nearest number.

        Raises
        ------
        SettingError
            If the time is shorter than half a step, or there are more steps than OpenMM counts.
        """
        if self.steps is not None:
            return self.steps
        assert self.time is not None
        steps = math.floor(self.time / step + 0.5)
        if not 1 <= steps <= LARGEST_COUNT:
            raise SettingError(
                f"{self.name} = {self.given!r} is {steps:,} steps of {1000.0 * step:g} fs; OpenMM takes from 1 to "
                f"{LARGEST_COUNT:,}"
            )
        return steps


def check_duration(name: str, value: object, error: type[QmmlmmError] = SettingError) -> Duration:
    """Return a length of time: a whole number counts steps, a text such as ``"10 ps"`` has a unit.

    Raises
    ------
    error
        If it is neither, or not above zero.
    """
    if isinstance(value, Duration):
        return Duration(name, value.given, value.steps, value.time)
    if isinstance(value, str):
        return Duration(name, value, time=check_measure(name, value, unit.picosecond, above=0.0, error=error))
    if not is_whole_number(value):
        raise error(f'{name} is a whole number of steps, or a text with a time such as "10 ps", got {shown(value)}')
    return Duration(name, value, steps=check_whole_number(name, value, at_most=LARGEST_COUNT, error=error))
