"""Results of an end-state correction: stages, legs and their difference."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from openmm import unit

from qmmlmm.errors import SettingError, listed, nearest
from qmmlmm.free_energy.work_estimate import WorkEstimate
from qmmlmm.html_tables import html_table
from qmmlmm.setting_checks import check_quantity
from qmmlmm.units import FloatArray, Scalar

_KJ = unit.kilojoule_per_mole


@dataclass(frozen=True, eq=False)
class StageResult:
    """The free energy of one level less that of another, in one leg.

    Parameters
    ----------
    name : str
        Names of the two levels, such as ``"FF-XTB"``.
    estimate : WorkEstimate
    forward, reverse : (n,) and (m,) float arrays, kJ/mol
        Work of each trajectory.
    """

    name: str
    estimate: WorkEstimate
    forward: FloatArray
    reverse: FloatArray


@dataclass(frozen=True, eq=False)
class LegResult:
    """The free energy of the upper level less that of the lower one, in one leg.

    Parameters
    ----------
    stages : tuple of StageResult
        From the lower level to the upper one.
    """

    stages: tuple[StageResult, ...]

    @property
    def free_energy(self) -> unit.Quantity:
        """Sum of the stages, kJ/mol."""
        return math.fsum(stage.estimate.free_energy.value_in_unit(_KJ) for stage in self.stages) * _KJ

    @property
    def error(self) -> unit.Quantity:
        """Standard error, kJ/mol: the stages have no frame in common."""
        return math.hypot(*(stage.estimate.error.value_in_unit(_KJ) for stage in self.stages)) * _KJ


class LegFreeEnergy(Protocol):
    """A free energy with its standard error, kJ/mol."""

    @property
    def free_energy(self) -> unit.Quantity:
        """Free energy, kJ/mol."""
        ...

    @property
    def error(self) -> unit.Quantity:
        """Standard error, kJ/mol."""
        ...


class Cycle(ABC):
    """Free energies of the upper level less those of the lower one, in each leg of a cycle."""

    @property
    @abstractmethod
    def free_energies(self) -> Mapping[str, LegFreeEnergy]:
        """The legs by name."""

    def _repr_html_(self) -> str:
        """Return a table of the legs and of their differences from the first one, which notebooks show."""
        found = {name: (leg.free_energy, leg.error) for name, leg in self.free_energies.items()}
        first, *others = found
        found |= {f"{first} - {other}": self.difference(first, other) for other in others}
        rows = [
            (name, f"{value.value_in_unit(_KJ):.2f}", f"{error.value_in_unit(_KJ):.2f}")
            for name, (value, error) in found.items()
        ]
        return html_table(("leg", "free energy (kJ/mol)", "standard error (kJ/mol)"), rows)

    def difference(self, first: str, second: str) -> tuple[unit.Quantity, unit.Quantity]:
        """Return the free energy of a leg less that of another, and its standard error, kJ/mol.

        For the complex less the ligand in solvent it is the correction of the binding free energy; for a solute in
        solvent less that in vacuum the correction of the solvation free energy.

        Parameters
        ----------
        first, second : str
            Names of two legs.

        Raises
        ------
        SettingError
            If there is no such leg.
        """
        for name, given in (("first", first), ("second", second)):
            if not isinstance(given, str) or given not in self.free_energies:
                raise SettingError(
                    f"{name} is the name of a leg, {listed(self.free_energies)}, got {given!r}."
                    f"{nearest(str(given), list(self.free_energies))}"
                )
        value = self.free_energies[first].free_energy - self.free_energies[second].free_energy
        errors = (self.free_energies[name].error.value_in_unit(_KJ) for name in {first, second})
        return value, (math.hypot(*errors) if first != second else 0.0) * _KJ

    def corrected(
        self, free_energy: Scalar, error: Scalar, first: str, second: str
    ) -> tuple[unit.Quantity, unit.Quantity]:
        """Return a binding free energy at the upper level, and its standard error, kJ/mol.

        Parameters
        ----------
        free_energy : Quantity or float, kJ/mol
            Binding free energy at the lower level.
        error : Quantity or float, kJ/mol
            Its standard error.
        first, second : str
            Names of two legs, such as ``"complex"`` and ``"solvent"``.

        Raises
        ------
        SettingError
            If an argument is out of range, or there is no such leg.
        """
        lower = check_quantity("free_energy", free_energy, _KJ)
        lower_error = check_quantity("error", error, _KJ, at_least=0.0)
        value, own_error = self.difference(first, second)
        return lower * _KJ + value, math.hypot(lower_error, own_error.value_in_unit(_KJ)) * _KJ


@dataclass(frozen=True, eq=False)
class Correction(Cycle):
    """Free energies of the upper level less those of the lower one, from switching in each leg.

    Parameters
    ----------
    legs : mapping of str to LegResult
    """

    legs: Mapping[str, LegResult]

    @property
    def free_energies(self) -> Mapping[str, LegFreeEnergy]:
        """The legs by name."""
        return self.legs

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence with advice for each stage whose overlap is poor."""
        return tuple(
            f"leg {name!r}, stage {stage.name}: {stage.estimate.advice}"
            for name, leg in self.legs.items()
            for stage in leg.stages
            if stage.estimate.advice
        )

    def __str__(self) -> str:
        lines = [f"{'leg':10s} {'stage':14s} {'free energy':>14s} {'error':>8s} {'overlap':>8s}   (kJ/mol)"]
        for name, leg in self.legs.items():
            for stage in leg.stages:
                found = stage.estimate
                lines.append(
                    f"{name:10s} {stage.name:14s} {found.free_energy.value_in_unit(_KJ):14.3f} "
                    f"{found.error.value_in_unit(_KJ):8.3f} {found.overlap:8.3f}"
                )
            if len(leg.stages) > 1:
                lines.append(
                    f"{name:10s} {'sum':14s} {leg.free_energy.value_in_unit(_KJ):14.3f} "
                    f"{leg.error.value_in_unit(_KJ):8.3f}"
                )
        names = list(self.legs)
        for other in names[1:]:
            value, error = self.difference(names[0], other)
            lines.append(
                f"{names[0]} - {other}: {value.value_in_unit(_KJ):.3f} +- {error.value_in_unit(_KJ):.3f} kJ/mol"
            )
        return "\n".join(lines)
