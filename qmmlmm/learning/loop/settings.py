"""What a user chooses for a learning loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np
from openmm import unit

from qmmlmm.learning.loop.errors import LoopError
from qmmlmm.units import FloatArray, in_unit

FREE_TO_CHANGE = ("force_error", "energy_error", "confidence", "max_rounds", "walkers_at_once")
"""Settings that may be others when a loop goes on."""


@dataclass(frozen=True)
class Walker:
    """One of the simulations that look for new configurations.

    Parameters
    ----------
    parameters : mapping of str to float
        Global parameters of the Context, for example the centre and the force constant of its umbrella.
    positions : (n, 3) array or Quantity, nm, optional
        Where it starts; those of the loop by default.
    """

    parameters: Mapping[str, float] = field(default_factory=dict)
    positions: Any = None

    def start(self, default: FloatArray) -> FloatArray:
        """Return the positions in nm."""
        return default if self.positions is None else np.array(in_unit(self.positions, unit.nanometer), dtype=float)


@dataclass(frozen=True)
class LoopSettings:
    """How a loop samples, labels, trains and stops.

    Parameters
    ----------
    force_error : float, kJ/(mol nm)
        The bound: root mean square error of the force components of the region on fresh configurations.
    energy_error : float, kJ/mol, optional
        A bound for the standard deviation of the energy's error as well.
    confidence : float
        With which the bounds hold, one-sided.
    fresh_labels : int
        Configurations of each round that are drawn at random among all that were visited, before anything is known
        about them. They alone tell whether the bounds hold; then they are trained on.
    labels_per_round : int
        Besides these, at most: uncertain, far from the data and diverse.
    max_rounds : int
        After so many rounds of ML dynamics the loop ends, bound or no bound.
    start_labels, start_steps : int
        Labels, and steps of each walker with the force field, to start from without a model.
    start_displacement : float, nm
        Standard deviation of random displacements of the region's atoms in the starting configurations, on average.
    steps_per_round : int
        Of each walker.
    check_interval : int
        Steps between two looks at energy, forces, uncertainty and geometry.
    uncertain_above : float, kJ/(mol nm), optional
        Expected error of a force above which a configuration may be labelled; twice `force_error` by default.
    stop_above : float, kJ/(mol nm), optional
        Expected error above which a walker is stopped; ten times `uncertain_above` by default.
    force_limit : float, kJ/(mol nm)
        Largest force on an atom of the region before a walker is stopped.
    heat_limit : float
        Largest kinetic energy of the region, in units of its mean at the temperature.
    bond_limit : float or None
        Largest length of the region's bonds in units of the sum of covalent radii. None where bonds may break.
    contact_limit : float
        Smallest distance of two atoms of the region in the same units.
    walkers_at_once : int
        Walkers that run side by side, each in a thread with a Context and a model of its own. On the CPU platform they
        share the cores, unless its properties say how many threads each has; with ``{"Threads": "1"}`` the course is
        that of one after another. Not on Reference, where all Contexts of a process share their random numbers.
    candidates_per_walker : int
        Uncertain configurations of a walker and round that are kept for the choice, at most.
    temperature : float, K
    friction : float, 1/ps
    time_step : float, ps
    members : int
        Of the committee.
    validation : float
        Share of the labels that are not trained on.
    retrain : {"anew", "continue"}
        Whether each training starts from random weights or from the last model.
    seed : int
        Of everything that is drawn.

    Raises
    ------
    LoopError
        If a value makes no sense.
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
            _check(name, getattr(self, name), at_least=1)
        for name in ("labels_per_round", "start_steps"):
            _check(name, getattr(self, name), at_least=0)
        _check("members", self.members, at_least=2)
        for name in ("force_error", "force_limit", "heat_limit", "contact_limit", "temperature", "time_step"):
            if not 0 < getattr(self, name) < math.inf:
                raise LoopError(f"{name} is a number above zero, got {getattr(self, name)!r}")
        if not 0.5 < self.confidence < 1:
            raise LoopError(f"confidence lies between 0.5 and 1, got {self.confidence!r}")
        if not 0 < self.validation < 0.5:
            raise LoopError(f"validation is a share between 0 and 0.5, got {self.validation!r}")
        if self.steps_per_round < self.check_interval:
            raise LoopError(
                f"steps_per_round is at least check_interval, got {self.steps_per_round} and {self.check_interval}"
            )
        if not self.threshold < self.limit:
            raise LoopError(f"uncertain_above lies below stop_above, got {self.threshold} and {self.limit}")
        if self.retrain not in ("anew", "continue"):
            raise LoopError(f"retrain is 'anew' or 'continue', got {self.retrain!r}")
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

    def course(self) -> dict[str, Any]:
        """Return what the course of the loop depends on."""
        course = {key: value for key, value in asdict(self).items() if key not in FREE_TO_CHANGE}
        return {**course, "uncertain_above": self.threshold, "stop_above": self.limit}


def _check(name: str, value: object, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise LoopError(f"{name} is a whole number of {at_least} or more, got {value!r}")


def setting_names() -> list[str]:
    """Return the names of all settings."""
    return [f.name for f in fields(LoopSettings)]
