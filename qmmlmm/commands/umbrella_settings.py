"""Settings of ``qmmlmm umbrella`` and ``qmmlmm profile``: windows, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from openmm import unit

from qmmlmm.commands.centres import check_centres, listed_centres, spaced_centres, unit_of
from qmmlmm.commands.measures import Duration, check_duration, check_measure
from qmmlmm.errors import SettingError
from qmmlmm.sampling.variable import Variable
from qmmlmm.setting_checks import check_choice, check_flag, check_text, check_whole_number
from qmmlmm.units import Scalar

STARTS = ("scan", "positions")
MOST_WINDOWS = 1000


@dataclass(frozen=True)
class UmbrellaSettings:
    """The table [umbrella]: windows along a variable, each with the dynamics of [dynamics].

    Parameters
    ----------
    variable : text
        Name of a [[variable]].
    force_constant : number or list of numbers, kJ/mol per square of the unit
        Of all windows, or of each one: the energy is 0.5 k d^2.
    centres : list of numbers, in the unit of the variable, optional
        Centres of the windows; in their place `start`, `stop` and `windows`. Those of [scan] if none of these is given
        and both have the same variable.
    start, stop : number, in the unit of the variable, optional
        First and last centre.
    windows : whole number, optional
        Number of equally spaced windows from `start` to `stop`.
    starts : {"scan", "positions"}, optional
        "scan": each window starts at the structure of the scan that is nearest to its centre; "positions": one
        structure, the minimum if qmmlmm optimise has run, is pulled from window to window. The scan if it has run, and
        else "positions", if not given.
    equilibration : steps or time
        Beginning of each window that the profile leaves out.
    sample : steps or time
        Between values of the variable.
    frames : steps or time
        Between frames of the trajectories, a multiple of `sample`.
    checkpoint : steps or time
        Between checkpoints, from which a window that was stopped continues.
    pull : steps or time
        From one window to the next while one structure is pulled.
    exchange : true or false
        Whether windows exchange their centres every `sample` (OpenMM 8.6 or newer). They then run in one process and
        leave no trajectories.
    """

    variable: str
    force_constant: Scalar | tuple[Scalar, ...]
    centres: tuple[Scalar, ...] | None = None
    start: Scalar | None = None
    stop: Scalar | None = None
    windows: int | None = None
    starts: str | None = None
    equilibration: Duration = field(default_factory=lambda: check_duration("equilibration", "1 ps"))
    sample: Duration = field(default_factory=lambda: check_duration("sample", 10))
    frames: Duration = field(default_factory=lambda: check_duration("frames", 100))
    checkpoint: Duration = field(default_factory=lambda: check_duration("checkpoint", 200))
    pull: Duration = field(default_factory=lambda: check_duration("pull", 200))
    exchange: bool = False

    def __post_init__(self) -> None:
        check_text("variable", self.variable)
        spacing = {name: vars(self)[name] for name in ("start", "stop", "windows")}
        object.__setattr__(self, "centres", check_centres(self.centres, spacing, needed=False))
        if isinstance(self.force_constant, list | tuple):
            object.__setattr__(self, "force_constant", tuple(self.force_constant))
        if self.windows is not None:
            check_whole_number("windows", self.windows, at_least=2, at_most=MOST_WINDOWS)
        if self.starts is not None:
            check_choice("starts", self.starts, STARTS)
        check_flag("exchange", self.exchange)
        for name in ("equilibration", "sample", "frames", "checkpoint", "pull"):
            object.__setattr__(self, name, check_duration(name, vars(self)[name]))

    def centres_of(self, variable: Variable) -> tuple[float, ...] | None:
        """Return the centres in the unit of a variable; None if they are those of the scan."""
        if self.centres is not None:
            return listed_centres(variable, self.centres)
        return None if self.windows is None else spaced_centres(variable, self.start, self.stop, self.windows)

    def force_constants_of(self, variable: Variable, count: int) -> tuple[float, ...]:
        """Return the force constant of each of a number of windows, kJ/mol per square of the unit of a variable."""
        given = self.force_constant if isinstance(self.force_constant, tuple) else (self.force_constant,) * count
        if len(given) != count:
            raise SettingError(f"force_constant is one number, or one for each of {count} windows, got {len(given)}")
        per = unit.kilojoule_per_mole / unit_of(variable) ** 2
        return tuple(check_measure("force_constant", value, per, above=0.0) for value in given)


@dataclass(frozen=True)
class ProfileSettings:
    """The table [profile]: what is made of the windows.

    Parameters
    ----------
    bins : whole number
        Number of bins of the profile.
    reactant, product : number, in the unit of the variable, optional
        Places near the two minima; the two lowest ones if not given. A torsion needs them.
    reweight_every : whole number, optional
        With [single_points]: every frame of the trajectories whose number is a multiple of this is computed with that
        level too, which gives the profile of that level. Not done if not given.
    """

    bins: int = 40
    reactant: Scalar | None = None
    product: Scalar | None = None
    reweight_every: int | None = None

    def __post_init__(self) -> None:
        check_whole_number("bins", self.bins, at_least=2, at_most=100_000)
        if (self.reactant is None) != (self.product is None):
            raise SettingError("has one of reactant and product; give both or none")
        if self.reweight_every is not None:
            check_whole_number("reweight_every", self.reweight_every)

    def ends_of(self, variable: Variable) -> tuple[float | None, float | None]:
        """Return reactant and product in the unit of a variable, or None for both."""
        if self.reactant is None:
            return None, None
        own = unit_of(variable)
        return check_measure("reactant", self.reactant, own), check_measure("product", self.product, own)
