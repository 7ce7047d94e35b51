"""Settings of a learning loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Literal

from qmmlmm.errors import LoopError
from qmmlmm.geometry import Geometry
from qmmlmm.setting_checks import (
    check_between,
    check_choice,
    check_finite_number,
    check_not_negative,
    check_positive,
    check_whole_number,
)
from qmmlmm.units import FloatArray, Vectors

FREE_TO_CHANGE = ("force_error", "energy_error", "confidence", "max_rounds", "walkers_at_once")
"""Settings that may change when a loop is continued."""


@dataclass(frozen=True)
class Walker:
    """One of the simulations that sample new configurations.

    Parameters
    ----------
    parameters : mapping of str to float
        Global parameters of the Context, for example the centre and the force constant of an umbrella.
    positions : (n, 3) Quantity or float array, nm, optional
        Positions at the start; those of the loop by default.

    Raises
    ------
    SettingError
        If a parameter is no finite number, or the positions are no (n, 3) array of lengths.
    """

    parameters: Mapping[str, float] = field(default_factory=dict)
    positions: Vectors | None = None

    def __post_init__(self) -> None:
        for name, value in self.parameters.items():
            check_finite_number(f"Walker: parameter {name!r}", value)
        if self.positions is not None:
            Geometry.from_quantities(self.positions)

    def start_positions(self, default: FloatArray) -> FloatArray:
        """Return the positions at the start, (n, 3) nm.

        Parameters
        ----------
        default : (n, 3) float array, nm
            Positions of the loop.
        """
        return default if self.positions is None else Geometry.from_quantities(self.positions).positions


@dataclass(frozen=True)
class LoopSettings:
    """Settings of sampling, labels, training and convergence.

    Parameters
    ----------
    force_error : float, kJ/(mol nm)
        Bound of the root mean square error of force components of the region on fresh configurations.
    energy_error : float, kJ/mol, optional
        Bound of the standard deviation of the error of the energy.
    confidence : float
        Confidence with which the bounds hold, one-sided.
    fresh_labels : int
        Number of configurations of each round that are drawn at random among all checks, before the round. Only their
        errors decide whether the bounds hold; the next model is trained on them.
    labels_per_round : int
        Largest number of other labels of a round, for configurations that are uncertain, far from the data and diverse.
    max_rounds : int
        Number of rounds of ML dynamics after which the loop ends, also if the bounds do not hold.
    start_labels, start_steps : int
        Number of labels, and of steps of each walker with the force field, before the first model.
    start_displacement : float, nm
        Mean standard deviation of random displacements of the atoms of the region in these first configurations.
    steps_per_round : int
        Number of steps of each walker in a round.
    check_interval : int
        Number of steps between two checks of energy, forces, uncertainty and geometry.
    uncertain_above : float, kJ/(mol nm), optional
        Expected error of a force above which a configuration may be labelled; twice `force_error` by default.
    stop_above : float, kJ/(mol nm), optional
        Expected error above which a walker is stopped; ten times `uncertain_above` by default.
    force_limit : float, kJ/(mol nm)
        Largest force on an atom of the region before a walker is stopped.
    heat_limit : float
        Largest kinetic energy of the region, in units of its mean at the temperature.
    bond_limit : float or None
        Largest length of a bond in the region, in units of the sum of covalent radii; None if bonds may break.
    contact_limit : float
        Smallest distance of two atoms of the region, in the same units.
    walkers_at_once : int
        Number of walkers that run in parallel, each in a thread with its own Context and model. On the CPU platform
        they share the cores unless its properties set the number of threads; with ``{"Threads": "1"}`` the results are
        the same as one after another. Not on the Reference platform, whose Contexts share one stream of random numbers
        in a process.
    candidates_per_walker : int
        Largest number of uncertain configurations of a walker in a round among which labels are selected.
    temperature : float, K
    friction : float, 1/ps
    time_step : float, ps
    members : int
        Number of committee members.
    validation : float
        Fraction of the labels for validation.
    retrain : {"anew", "continue"}
        Whether each training starts from random weights or from the last model.
    seed : int
        Seed of all random numbers.

    Raises
    ------
    LoopError
        If a value is out of range.
    """

    force_error: float = 30.0
    energy_error: float | None = None
    confidence: float = 0.95
    fresh_labels: int = 10
    labels_per_round: int = 20
    max_rounds: int = 20
    start_labels: int = 24
    start_steps: int = 2000
    start_displacement: float = 0.004
    steps_per_round: int = 4000
    check_interval: int = 20
    uncertain_above: float | None = None
    stop_above: float | None = None
    force_limit: float = 50_000.0
    heat_limit: float = 12.0
    bond_limit: float | None = 2.0
    contact_limit: float = 0.5
    walkers_at_once: int = 1
    candidates_per_walker: int = 40
    temperature: float = 300.0
    friction: float = 1.0
    time_step: float = 0.0005
    members: int = 4
    validation: float = 0.15
    retrain: Literal["anew", "continue"] = "anew"
    seed: int = 1

    def __post_init__(self) -> None:
        counts = ("fresh_labels", "max_rounds", "start_labels", "steps_per_round", "check_interval",
                  "candidates_per_walker", "walkers_at_once")  # fmt: skip
        for name in counts:
            check_whole_number(name, vars(self)[name], error=LoopError)
        for name in ("labels_per_round", "start_steps", "seed"):
            check_whole_number(name, vars(self)[name], at_least=0, error=LoopError)
        check_whole_number("members", self.members, at_least=2, error=LoopError)
        for name in ("force_error", "force_limit", "heat_limit", "contact_limit", "temperature", "time_step"):
            check_positive(name, vars(self)[name], error=LoopError)
        for name in ("energy_error", "uncertain_above", "stop_above", "bond_limit"):
            if vars(self)[name] is not None:
                check_positive(name, vars(self)[name], error=LoopError)
        for name in ("friction", "start_displacement"):
            check_not_negative(name, vars(self)[name], error=LoopError)
        check_between("confidence", self.confidence, 0.5, 1.0, error=LoopError)
        check_between("validation", self.validation, 0.0, 0.5, error=LoopError)
        if self.steps_per_round < self.check_interval:
            raise LoopError(
                f"steps_per_round is at least check_interval, got {self.steps_per_round} and {self.check_interval}"
            )
        if not self.threshold < self.limit:
            raise LoopError(f"uncertain_above lies below stop_above, got {self.threshold} and {self.limit}")
        check_choice("retrain", self.retrain, ("anew", "continue"), error=LoopError)
        if self.start_labels < 8:
            raise LoopError(f"a first committee needs 8 start_labels or more, got {self.start_labels}")

    @property
    def threshold(self) -> float:
        """Expected error above which a configuration may be labelled, kJ/(mol nm)."""
        return 2.0 * self.force_error if self.uncertain_above is None else self.uncertain_above

    @property
    def limit(self) -> float:
        """Expected error above which a walker is stopped, kJ/(mol nm)."""
        return 10.0 * self.threshold if self.stop_above is None else self.stop_above

    def identity(self) -> dict[str, object]:
        """Return the settings that determine the results of the loop."""
        found = {key: value for key, value in asdict(self).items() if key not in FREE_TO_CHANGE}
        return {**found, "uncertain_above": self.threshold, "stop_above": self.limit}


def setting_names() -> list[str]:
    """Return the names of all settings."""
    return [f.name for f in fields(LoopSettings)]
