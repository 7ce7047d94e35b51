"""Well-tempered metadynamics of walkers: hills along collective variables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import openmm

from qmmlmm.errors import LoopError, SettingError
from qmmlmm.geometry import Geometry
from qmmlmm.sampling.variable import Variable
from qmmlmm.setting_checks import (
    LARGEST_COUNT,
    as_float,
    check_array,
    check_flag,
    check_instance,
    check_items,
    check_positive,
    check_whole_number,
    is_number,
)
from qmmlmm.units import GAS_CONSTANT, FloatArray

POINTS_PER_WIDTH = 5
"""Grid points of the bias per width of a hill. The spline between them has an error of 1e-4 of a hill's height."""

PADDING = 12
"""Points beyond both ends of a periodic variable. The free ends of a spline affect some points, and OpenMM crashes if
round-off takes a variable beyond them."""

INSIDE = 1e-9
"""Share of a range by which a variable is kept inside it, for the same reason."""

MOST_POINTS = 20_000
"""Largest number of grid points along a variable; two variables have the square of a tenth at most."""

HILLS_AT_ONCE = 4096
"""Number of hills that are added to the grid together; bounds the memory."""


@dataclass(frozen=True)
class HillVariable:
    """A collective variable with hills.

    Parameters
    ----------
    variable : Variable
    width : float
        Standard deviation of a hill, approximately that of the variable in a well; in the variable's unit.
    low, high : float, optional
        Range of the hills; beyond it the bias has its value at the end, without a force. A torsion is periodic and has
        none.

    Raises
    ------
    LoopError
        If a number is out of range.
    """

    variable: Variable
    width: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.variable, Variable):
            raise LoopError(f"variable is a Variable, such as Distance(0, 1), got {self.variable!r}")
        check_positive("width of a hill", self.width, error=LoopError)
        if self.periodic:
            if self.low is not None or self.high is not None:
                raise LoopError(f"a torsion is periodic: leave out low and high, got {self.low}, {self.high}")
            if self.width > self._period / (2.0 * math.pi):
                raise LoopError(f"width of a hill along a torsion is in radians and at most 1, got {self.width!r}")
        elif (
            not is_number(self.low)
            or not is_number(self.high)
            or not -math.inf < as_float(self.low) < as_float(self.high) < math.inf
        ):
            name, unit = type(self.variable).__name__, self.variable.unit
            where = "" if unit is None else f", in {unit.get_symbol()}"
            raise LoopError(f"hills along a {name} need low below high{where}, got {self.low!r} and {self.high!r}")
        low, high = self.edges
        if POINTS_PER_WIDTH * (high - low) / self.width > MOST_POINTS:
            raise LoopError(
                f"width of a hill is {self.width!r} in a range from {low:g} to {high:g}, which needs a grid of more "
                f"than {MOST_POINTS} points; take approximately the standard deviation of the variable in a well"
            )

    @property
    def periodic(self) -> bool:
        """Whether the variable is periodic, as a torsion is."""
        return self.variable.period is not None

    @property
    def _period(self) -> float:
        assert self.variable.period is not None
        return self.variable.period

    @property
    def edges(self) -> tuple[float, float]:
        """Ends of the grid."""
        if self.low is None or self.high is None:
            return -0.5 * self._period, 0.5 * self._period
        return self.low, self.high

    def grid(self) -> FloatArray:
        """Return the grid points of the bias; for a torsion the last is the first again."""
        low, high = self.edges
        return np.linspace(low, high, max(16, math.ceil(POINTS_PER_WIDTH * (high - low) / self.width)) + 1)

    def hills(self, centres: FloatArray) -> FloatArray:
        """Return hills of height one on the grid, (k, n) for (k,) centres."""
        away = self.grid()[None, :] - centres[:, None]
        if self.periodic:
            # With the neighbouring images, so that there is no kink half a period away.
            return np.sum([np.exp(-0.5 * ((away + self._period * n) / self.width) ** 2) for n in (-1, 0, 1)], axis=0)
        return np.asarray(np.exp(-0.5 * (away / self.width) ** 2))

    def holds(self, value: float) -> bool:
        """Return whether hills are added at a value."""
        low, high = self.edges
        return low <= value <= high


@dataclass(frozen=True)
class Hill:
    """One hill.

    Parameters
    ----------
    step : int
        Step of the walker.
    centre : tuple of float
        Values of the variables.
    height : float, kJ/mol
    """

    step: int
    centre: tuple[float, ...]
    height: float


@dataclass(frozen=True)
class Metadynamics:
    """Settings of hills.

    Parameters
    ----------
    variables : HillVariable or sequence of HillVariable
        One or two variables.
    height : float, kJ/mol
        Height of the first hill.
    bias_factor : float
        Factor, above one, by which the hills finally raise the temperature along the variables. Barriers of as many kT
        are easily crossed.
    interval : int
        Number of steps between two hills; in a learning loop a multiple of its `check_interval`.
    shared : bool
        Whether a walker of a learning loop also has the hills of all others from earlier rounds. If not, each has its
        own, and their scatter gives the error.

    Raises
    ------
    LoopError
        If a number is out of range.

    Notes
    -----
    A hill at s has the height h exp(-V(s)/(kT (f - 1))) where V is the bias so far and f the bias factor; then V goes
    to -(1 - 1/f) F, F being the free energy: Barducci, Bussi, Parrinello, Phys. Rev. Lett. 100, 020603 (2008). Several
    walkers on one bias: Raiteri et al., J. Phys. Chem. B 110, 3533 (2006).

    Hills of early rounds were added on the surface of a less accurate model. Later hills correct the bias at the rate
    of their heights, so that a profile is reliable only if it did not change over the rounds in which the bounds on the
    error were kept, or if it comes from umbrellas with the final model.

    `openmm.app.Metadynamics` is not used because it takes its own steps, shares hills through files with random names,
    and is not reproducible after a run was killed.
    """

    variables: HillVariable | Sequence[HillVariable]
    height: float
    bias_factor: float
    interval: int
    shared: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.variables, HillVariable):
            check_items("variables", self.variables, HillVariable, empty=True, error=LoopError)
        if not 1 <= len(self.along) <= 2:
            raise LoopError(f"hills are along one or two variables, got {len(self.along)}")
        points = math.prod(len(v.grid()) for v in self.along)
        if len(self.along) == 2 and points > (MOST_POINTS / 10) ** 2:
            raise LoopError(f"the widths of two variables need a grid of {points} points; take wider hills")
        check_positive("height of a hill", self.height, "kJ/mol", LoopError)
        if not is_number(self.bias_factor) or not 1 < as_float(self.bias_factor) < math.inf:
            raise LoopError(f"bias_factor is a number above one, got {self.bias_factor!r}")
        check_whole_number(
            "interval", self.interval, at_most=LARGEST_COUNT, what="a whole number of steps", error=LoopError
        )
        check_flag("shared", self.shared, LoopError)

    @property
    def along(self) -> tuple[HillVariable, ...]:
        """The variables."""
        return (self.variables,) if isinstance(self.variables, HillVariable) else tuple(self.variables)

    def identity(self) -> dict[str, object]:
        """Return the settings on which the hills depend, as JSON values."""
        along = [{"kind": type(v.variable).__name__, **asdict(v)} for v in self.along]
        return {"along": along, "height": self.height, "bias_factor": self.bias_factor, "interval": self.interval,
                "shared": self.shared}  # fmt: skip

    def bias(self, hills: Sequence[Hill]) -> FloatArray:
        """Return the sum of hills on the grid, kJ/mol, (n,) or (n, m)."""
        total = np.zeros([len(v.grid()) for v in self.along])
        for begin in range(0, len(hills), HILLS_AT_ONCE):
            some = hills[begin : begin + HILLS_AT_ONCE]
            heights = np.array([hill.height for hill in some])
            first = heights[:, None] * self.along[0].hills(np.array([hill.centre[0] for hill in some]))
            if len(self.along) == 1:
                total += first.sum(axis=0)
            else:
                total += first.T @ self.along[1].hills(np.array([hill.centre[1] for hill in some]))
        return total

    def next_height(self, bias: float, temperature: float) -> float:
        """Return the height of the next hill, kJ/mol, where the bias has a value, kJ/mol, at a temperature, K."""
        return self.height * math.exp(-bias / (GAS_CONSTANT * temperature * (self.bias_factor - 1.0)))

    def free_energy(self, bias: FloatArray) -> FloatArray:
        """Return the free energy from a bias on the grid, kJ/mol, zero at its minimum."""
        found = -self.bias_factor / (self.bias_factor - 1.0) * bias
        return np.asarray(found - found.min())


def mean_profile(profiles: Sequence[FloatArray], temperature: float) -> tuple[FloatArray, FloatArray]:
    """Return the mean of free energies from independent walkers, zero at its minimum, and its standard error, kJ/mol.

    Parameters
    ----------
    profiles : sequence of (n,) or (n, m) float arrays, kJ/mol
        Free energies, each of which is shifted so that its probabilities sum to one. The error of a single one is NaN.
    temperature : float, K

    Raises
    ------
    SettingError
        If there is no profile, they differ in shape or are no finite numbers, or the temperature is not above zero.
    """
    check_positive("temperature", temperature, "K")
    if isinstance(profiles, str | bytes | Mapping) or not isinstance(profiles, Iterable):
        raise SettingError(f"profiles are a list of arrays, got {profiles!r}")
    profiles = [check_array("each of profiles", profile) for profile in profiles]
    if not profiles or len({profile.shape for profile in profiles}) > 1 or not profiles[0].size:
        raise SettingError(f"profiles have one shape, got {[profile.shape for profile in profiles]}")
    kt = GAS_CONSTANT * temperature
    normal = np.array([profile + kt * np.log(np.exp(-profile / kt).mean()) for profile in profiles])
    mean = normal.mean(axis=0)
    error = np.full_like(mean, np.nan)
    if len(normal) > 1:
        error = normal.std(axis=0, ddof=1) / np.sqrt(len(normal))
    return mean - mean.min(), error


def hill_names(settings: Metadynamics, variables: Mapping[str, Callable[[Geometry], float]]) -> list[str]:
    """Return the names of the variables along which there are hills; that of its class for one without a name."""
    return [
        next((name for name, known in variables.items() if known == v.variable), type(v.variable).__name__)
        for v in settings.along
    ]


def profile_table(
    settings: Metadynamics,
    variables: Mapping[str, Callable[[Geometry], float]],
    profile: FloatArray,
    error: FloatArray,
) -> str:
    """Return a free energy on the grid with its standard error as CSV, with the header style of OpenMM.

    Parameters
    ----------
    settings : Metadynamics
    variables : mapping of str to callable
        Variables by name, for the header.
    profile, error : (n,) or (n, m) float array, kJ/mol
    """
    names = hill_names(settings, variables)
    grid = np.meshgrid(*[v.grid() for v in settings.along], indexing="ij")
    # NumPy takes a comma in a name for a separator, even in quotes.
    named = [name.replace(",", "") for name in names]
    header = ",".join(f'"{name}"' for name in [*named, "free energy (kJ/mol)", "standard error (kJ/mol)"])
    rows = zip(*[values.ravel() for values in (*grid, profile, error)], strict=True)
    return "\n".join([f"#{header}", *(",".join(f"{value:.6g}" for value in row) for row in rows), ""])


class HillForce:
    """The bias in a System.

    Parameters
    ----------
    settings : Metadynamics
    temperature : float, K
    system : openmm.System
        System to which the force is added.

    Raises
    ------
    SettingError
        If an argument has another type, the temperature is not above zero, or the System has too few particles.
    """

    def __init__(self, settings: Metadynamics, temperature: float, system: openmm.System) -> None:
        check_instance("settings", settings, Metadynamics)
        check_positive("temperature", temperature, "K")
        check_instance("system", system, openmm.System, "an openmm.System")
        last = max(max(v.variable.particles) for v in settings.along)
        if last >= system.getNumParticles():
            raise SettingError(f"hills act on particle {last}, and system has {system.getNumParticles()} particles")
        self.settings, self._temperature = settings, temperature
        self._bias = settings.bias([])
        periodic = system.usesPeriodicBoundaryConditions()
        names = [f"s{k}" for k in range(len(settings.along))]
        arguments = [
            name if v.periodic else _kept_inside(name, *v.edges) for name, v in zip(names, settings.along, strict=True)
        ]
        self._force = openmm.CustomCVForce(f"hills({','.join(arguments)})")
        for name, v in zip(names, settings.along, strict=True):
            self._force.addCollectiveVariable(name, v.variable.value_force(periodic))
        self._force.addTabulatedFunction("hills", self._function())
        self._force.setName("hills")
        system.addForce(self._force)

    def _function(self) -> openmm.TabulatedFunction:
        kind = openmm.Continuous1DFunction if len(self.settings.along) == 1 else openmm.Continuous2DFunction
        return kind(*self._table())

    def _table(self) -> list[object]:
        """Return the arguments of OpenMM's functions for the bias: sizes if there are two, values, ends of the axes."""
        along, values, ends = self.settings.along, self._bias, []
        for axis, v in enumerate(along):
            low, high = v.edges
            if v.periodic:
                rows = np.moveaxis(values, axis, 0).copy()
                rows[-1] = rows[0]  # equal in spite of round-off
                rows = np.concatenate([rows[-1 - PADDING : -1], rows, rows[1 : 1 + PADDING]])
                beyond = PADDING * (high - low) / (len(v.grid()) - 1)
                low, high = low - beyond, high + beyond
                values = np.moveaxis(rows, 0, axis)
            ends += [low, high]
        table = [float(value) for value in values.T.ravel()]  # the first variable runs fastest
        return [*(values.shape if len(along) == 2 else ()), table, *ends]

    def set(self, hills: Sequence[Hill], context: openmm.Context | None = None) -> None:
        """Replace all hills, in the force and in a Context with it."""
        self._bias = self.settings.bias(hills)
        self._update(context)

    def add(self, step: int, values: Sequence[float], context: openmm.Context) -> Hill | None:
        """Add a hill and return it, or return None outside the range of a variable.

        Parameters
        ----------
        step : int
        values : sequence of float
            Values of the variables.
        context : openmm.Context
        """
        along = self.settings.along
        if not all(v.holds(value) for v, value in zip(along, values, strict=True)):
            return None
        hill = Hill(
            step, tuple(float(v) for v in values), self.settings.next_height(self.at(values), self._temperature)
        )
        self._bias = self._bias + self.settings.bias([hill])
        self._update(context)
        return hill

    def at(self, values: Sequence[float]) -> float:
        """Return the bias, linear between points of the grid, kJ/mol."""
        bias = self._bias
        for v, value in zip(self.settings.along, values, strict=True):
            grid = v.grid()
            index = min(max((value - grid[0]) / (grid[1] - grid[0]), 0.0), len(grid) - 1.0)
            below = min(int(index), len(grid) - 2)
            bias = bias[below] + (index - below) * (bias[below + 1] - bias[below])
        return float(bias)

    def values(self, geometry: Geometry) -> list[float]:
        """Return the values of the variables at a geometry, nm."""
        return [float(v.variable(geometry)) for v in self.settings.along]

    def _update(self, context: openmm.Context | None) -> None:
        self._force.getTabulatedFunction(0).setFunctionParameters(*self._table())
        if context is not None:
            self._force.updateParametersInContext(context)


def _kept_inside(name: str, low: float, high: float) -> str:
    """Return the expression of a variable, limited to a range."""
    inside = INSIDE * (high - low)
    return f"max({low + inside!r},min({high - inside!r},{name}))"
