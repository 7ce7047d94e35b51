"""Settings of a learning loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Literal

from openmm import unit

from qmmlmm.errors import SettingError, shown
from qmmlmm.setting_checks import (
    check_array,
    check_atoms,
    check_between,
    check_choice,
    check_count,
    check_finite_number,
    check_mapping,
    check_number,
    check_quantity,
    check_seed,
    check_text,
)
from qmmlmm.units import FloatArray, Vectors

FREE_TO_CHANGE = ("force_error", "energy_error", "confidence", "max_rounds", "walkers_at_once")
"""Settings that may change when a loop is continued."""
FEWEST_START_LABELS = 8
"""Smallest number of labels for a first committee."""
LARGEST_TIME_STEP = 0.01
"""Largest time step, ps; a larger one is a number in fs."""
LARGEST_DISPLACEMENT = 0.1
"""Largest mean displacement of atoms in the first configurations, nm."""


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
        If a parameter is no finite number, or the positions are no (n, 3) array of finite lengths.
    """

    parameters: Mapping[str, float] = field(default_factory=dict)
    positions: Vectors | None = None

    def __post_init__(self) -> None:
        parameters = {
            check_text("Walker: name of a parameter", name): check_finite_number(f"Walker: parameter {name!r}", value)
            for name, value in check_mapping("Walker: parameters", self.parameters).items()
        }
        object.__setattr__(self, "parameters", parameters)
        if self.positions is not None:
            check_array("Walker: positions", self.positions, (None, 3), unit.nanometer)

    def start_positions(self, default: FloatArray) -> FloatArray:
        """Return the positions at the start, (n, 3) nm.

        Parameters
        ----------
        default : (n, 3) float array, nm
            Positions of the loop.
        """
        if self.positions is None:
            return default
        return check_array("Walker: positions", self.positions, (None, 3), unit.nanometer)


@dataclass(frozen=True)
class LoopSettings:
    """Settings of sampling, labels, training and convergence.

    Parameters
    ----------
    force_error : Quantity or float, kJ/(mol nm)
        Bound of the root mean square error of force components of the region on fresh configurations.
    energy_error : Quantity or float, kJ/mol, optional
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
    start_displacement : Quantity or float, nm
        Mean standard deviation of random displacements of the atoms of the region in these first configurations.
    steps_per_round : int
        Number of steps of each walker in a round.
    check_interval : int
        Number of steps between two checks of energy, forces, uncertainty and geometry.
    uncertain_above : Quantity or float, kJ/(mol nm), optional
        Expected error of a force above which a configuration may be labelled; twice `force_error` by default.
    stop_above : Quantity or float, kJ/(mol nm), optional
        Expected error above which a walker is stopped; ten times `uncertain_above` by default.
    force_limit : Quantity or float, kJ/(mol nm)
        Largest force on an atom of the region before a walker is stopped.
    heat_limit : float
        Largest kinetic energy of the region, in units of its mean at the temperature; above one.
    bond_limit : float or None
        Largest length of a bond in the region, in units of the sum of covalent radii, above one; None if all bonds may
        break.
    reacting_bonds : sequence of (int, int), optional
        Bonds of the region to which `bond_limit` does not apply, each two atoms of the Topology. By default those whose
        lengths are in a biased variable; an empty list for none.
    contact_limit : float
        Smallest distance of two atoms of the region, in the same units, below one.
    walkers_at_once : int
        Number of walkers that run in parallel, each in a thread with its own Context and model. On the CPU platform
        they share the cores unless its properties set the number of threads; with ``{"Threads": "1"}`` the results are
        the same as one after another. Not on the Reference platform, whose Contexts share one stream of random numbers
        in a process.
    candidates_per_walker : int
        Largest number of uncertain configurations of a walker in a round among which labels are selected.
    temperature : Quantity or float, K
    friction : Quantity or float, 1/ps
    time_step : Quantity or float, ps
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
    SettingError
        If a value has the wrong type or unit, is out of range, or does not go with another.
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
    reacting_bonds: Sequence[Sequence[int]] | None = None
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
        for name, value in {**self._checked_counts(), **self._checked_quantities()}.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "reacting_bonds", _checked_bonds(self.reacting_bonds))
        check_choice("retrain", self.retrain, ("anew", "continue"))
        if self.steps_per_round < self.check_interval:
            raise SettingError(
                f"steps_per_round is at least check_interval, got {self.steps_per_round} and {self.check_interval}"
            )
        if not self.threshold < self.limit:
            raise SettingError(f"uncertain_above lies below stop_above, got {self.threshold} and {self.limit}")

    def _checked_counts(self) -> dict[str, int]:
        lowest = {"labels_per_round": 0, "start_steps": 0, "members": 2, "start_labels": FEWEST_START_LABELS}
        names = ("fresh_labels", "labels_per_round", "max_rounds", "start_labels", "start_steps", "steps_per_round",
                 "check_interval", "candidates_per_walker", "walkers_at_once", "members")  # fmt: skip
        found = {name: check_count(name, vars(self)[name], at_least=lowest.get(name, 1)) for name in names}
        return {**found, "seed": check_seed("seed", self.seed)}

    def _checked_quantities(self) -> dict[str, float | None]:
        force, energy = unit.kilojoule_per_mole / unit.nanometer, unit.kilojoule_per_mole
        found: dict[str, float | None] = {
            "confidence": check_between("confidence", self.confidence, 0.5, 1.0),
            "validation": check_between("validation", self.validation, 0.0, 0.5),
            "heat_limit": check_number("heat_limit", self.heat_limit, above=1.0),
            "contact_limit": check_number("contact_limit", self.contact_limit, above=0.0, below=1.0),
            "temperature": check_quantity("temperature", self.temperature, unit.kelvin, above=0.0),
            "friction": check_quantity("friction", self.friction, unit.picosecond**-1, at_least=0.0),
            "time_step": check_quantity(
                "time_step", self.time_step, unit.picosecond, above=0.0, at_most=LARGEST_TIME_STEP
            ),
            "start_displacement": check_quantity(
                "start_displacement",
                self.start_displacement,
                unit.nanometer,
                at_least=0.0,
                at_most=LARGEST_DISPLACEMENT,
            ),
            "force_error": check_quantity("force_error", self.force_error, force, above=0.0),
            "force_limit": check_quantity("force_limit", self.force_limit, force, above=0.0),
        }
        for name, kind in (("energy_error", energy), ("uncertain_above", force), ("stop_above", force)):
            if vars(self)[name] is not None:
                found[name] = check_quantity(name, vars(self)[name], kind, above=0.0)
        if self.bond_limit is not None:
            found["bond_limit"] = check_number("bond_limit, unless None,", self.bond_limit, above=1.0)
        return found

    @property
    def threshold(self) -> float:
        """Expected error above which a configuration may be labelled, kJ/(mol nm)."""
        return 2.0 * self.force_error if self.uncertain_above is None else self.uncertain_above

    @property
    def limit(self) -> float:
        """Expected error above which a walker is stopped, kJ/(mol nm)."""
        return 10.0 * self.threshold if self.stop_above is None else self.stop_above

    def identity(self) -> dict[str, object]:
        """Return the settings that determine the results of the loop, without the reacting bonds.

        Those depend on the variables too.
        """
        found = {key: value for key, value in asdict(self).items() if key not in (*FREE_TO_CHANGE, "reacting_bonds")}
        return {**found, "uncertain_above": self.threshold, "stop_above": self.limit}


def _checked_bonds(bonds: object) -> tuple[tuple[int, int], ...] | None:
    """Return pairs of atoms, each with the lower index first and once."""
    if bonds is None:
        return None
    if isinstance(bonds, str | bytes | Mapping) or not isinstance(bonds, Iterable):
        raise SettingError(f"reacting_bonds is a list of bonds, such as [[4, 9]], got {shown(bonds)}")
    pairs = [check_atoms("reacting_bonds: a bond", bond, count=2, error=SettingError) for bond in bonds]
    return tuple(dict.fromkeys((min(pair), max(pair)) for pair in pairs))


def setting_names() -> list[str]:
    """Return the names of all settings."""
    return [f.name for f in fields(LoopSettings)]
