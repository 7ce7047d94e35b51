"""The table [scan] of a reaction's input file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from openmm import unit

from qmmlmm.commands.centres import check_centres, listed_centres, spaced_centres, unit_of
from qmmlmm.commands.input_file import Table
from qmmlmm.commands.measures import check_measure
from qmmlmm.commands.variable_input import chosen_variable
from qmmlmm.errors import SettingError
from qmmlmm.sampling.variable import Variable
from qmmlmm.setting_checks import check_flag, check_text, check_whole_number
from qmmlmm.units import Scalar

MOST_POINTS = 10_000
SECOND = "second"


@dataclass(frozen=True)
class AxisSettings:
    """A variable of a scan, with its values; the table [scan.second].

    Parameters
    ----------
    variable : text
        Name of a [[variable]].
    centres : list of numbers, in the unit of the variable, optional
        Values in the order in which they are visited; in their place `start`, `stop` and `steps`.
    start, stop : number, in the unit of the variable, optional
        First and last value.
    steps : whole number, optional
        Number of equal steps from `start` to `stop`; there is one point more.
    force_constant : number, kJ/mol per square of the unit, optional
        400,000 for nm and 2,000 for radians if not given.
    """

    variable: str
    centres: tuple[Scalar, ...] | None = None
    start: Scalar | None = None
    stop: Scalar | None = None
    steps: int | None = None
    force_constant: Scalar | None = None

    def __post_init__(self) -> None:
        check_text("variable", self.variable)
        spacing = {name: vars(self)[name] for name in ("start", "stop", "steps")}
        object.__setattr__(self, "centres", check_centres(self.centres, spacing))
        if self.steps is not None:
            check_whole_number("steps", self.steps, at_most=MOST_POINTS)

    def centres_of(self, variable: Variable) -> tuple[float, ...]:
        """Return the centres in the unit of a variable."""
        if self.centres is not None:
            return listed_centres(variable, self.centres)
        assert self.steps is not None
        return spaced_centres(variable, self.start, self.stop, self.steps + 1)

    def force_constant_of(self, variable: Variable) -> float | None:
        """Return the force constant in kJ/mol per square of the unit of a variable."""
        if self.force_constant is None:
            return None
        per = unit.kilojoule_per_mole / unit_of(variable) ** 2
        return check_measure("force_constant", self.force_constant, per, above=0.0)


@dataclass(frozen=True)
class ScanSettings(AxisSettings):
    """The table [scan]: restrained values of a variable, one after another.

    Parameters
    ----------
    variable : text
        Name of a [[variable]].
    centres : list of numbers, in the unit of the variable, optional
        Values in the order in which they are visited; in their place `start`, `stop` and `steps`.
    start, stop : number, in the unit of the variable, optional
        First and last value.
    steps : whole number, optional
        Number of equal steps from `start` to `stop`; there is one point more.
    force_constant : number, kJ/mol per square of the unit, optional
        400,000 for nm and 2,000 for radians if not given.
    both_ways : true or false
        Whether the scan goes back too, which shows whether it depends on its history.
    """

    both_ways: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("both_ways", self.both_ways)


@dataclass(frozen=True)
class Axis:
    """A variable of a scan.

    Parameters
    ----------
    name : str
    variable : Variable
    centres : tuple of float
    force_constant : float or None
    """

    name: str
    variable: Variable
    centres: tuple[float, ...]
    force_constant: float | None


@dataclass(frozen=True)
class ScanPlan:
    """A scan along one variable or two.

    Parameters
    ----------
    axes : tuple of Axis
    both_ways : bool
    """

    axes: tuple[Axis, ...]
    both_ways: bool

    @property
    def n_points(self) -> int:
        """Number of points of one way."""
        return math.prod(len(axis.centres) for axis in self.axes)


def read_scan(table: Table, variables: Mapping[str, Variable]) -> ScanPlan:
    """Return the scan of the table [scan], with a second variable if it has [scan.second].

    Raises
    ------
    InputFileError
        If a key is unknown or has a wrong value, or there is no such variable.
    """
    settings = table.without(SECOND).build(ScanSettings)
    axes = [_axis(table, settings, variables)]
    if SECOND in table:
        second = table.table(SECOND)
        axes.append(_axis(second, second.build(AxisSettings), variables))
        with second.place():
            if axes[0].variable == axes[1].variable:
                raise SettingError(f"has the variable of [scan], {axes[0].name!r}; name another one")
    plan = ScanPlan(tuple(axes), settings.both_ways)
    with table.place():
        if len(axes) == 2 and min(len(axis.centres) for axis in axes) < 2:
            raise SettingError("and [scan.second] have two centres or more each; leave one of the variables out")
        if plan.n_points > MOST_POINTS:
            raise SettingError(f"has {MOST_POINTS:,} points at most, got {plan.n_points:,}")
    return plan


def _axis(table: Table, settings: AxisSettings, variables: Mapping[str, Variable]) -> Axis:
    variable = chosen_variable(table, settings.variable, variables)
    with table.place():
        centres = settings.centres_of(variable)
        if not centres or len(set(centres)) < len(centres):
            raise SettingError("has one centre or more, all of them different")
        return Axis(settings.variable, variable, centres, settings.force_constant_of(variable))
