"""Centres along a variable in input files: a list, or a number of equally spaced ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from openmm import unit

from qmmlmm.commands.measures import check_measure
from qmmlmm.errors import SettingError, listed
from qmmlmm.sampling.variable import Variable
from qmmlmm.units import Scalar


def check_centres(centres: object, spacing: Mapping[str, object], *, needed: bool = True) -> tuple[Scalar, ...] | None:
    """Return the listed centres of a table, None if they are equally spaced or there are none.

    Parameters
    ----------
    centres : list or None
    spacing : mapping of str to object
        Values of the keys that stand in their place, by name; None if not given.
    needed : bool
        Whether there have to be centres.

    Raises
    ------
    SettingError
        If both are given, keys are missing, or the centres are no list.
    """
    given = [name for name, value in spacing.items() if value is not None]
    if centres is None:
        if len(given) < len(spacing) and (given or needed):
            raise SettingError(f"has centres, or {_joined(spacing)}; got {listed(given) or 'none of them'}")
        return None
    if given:
        raise SettingError(f"has centres and {listed(given)}; leave one of both out")
    if not isinstance(centres, list | tuple):
        raise SettingError(f"centres is a list of numbers, got {centres!r}")
    return tuple(centres)


def unit_of(variable: Variable) -> unit.Unit:
    """Return the unit of a variable, which is dimensionless if it has none."""
    return unit.dimensionless if variable.unit is None else variable.unit


def listed_centres(variable: Variable, centres: tuple[Scalar, ...]) -> tuple[float, ...]:
    """Return listed centres in the unit of a variable."""
    return tuple(check_measure("each of centres", value, unit_of(variable)) for value in centres)


def spaced_centres(variable: Variable, start: object, stop: object, count: int) -> tuple[float, ...]:
    """Return a number of equally spaced centres in the unit of a variable."""
    first, last = (check_measure(name, value, unit_of(variable)) for name, value in (("start", start), ("stop", stop)))
    return tuple(float(x) for x in np.linspace(first, last, count))


def _joined(names: Mapping[str, object]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}"
