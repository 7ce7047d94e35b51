"""Calculations of one region with tblite in a potential at its atoms."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from tblite.exceptions import TBLiteRuntimeError
from tblite.interface import Calculator

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import ConvergenceError, EvaluationError
from qmmlmm.units import FloatArray
from qmmlmm.xtb.multipoles import AtomicMultipoles, AtomicPotential
from qmmlmm.xtb.settings import XTBSettings
from qmmlmm.xtb.tblite_container import PotentialContainer, loaded_library

_one_at_a_time = threading.Lock()
"""Nothing is known about calculations with tblite in several threads of one process."""

SAME_CHARGE = 1e-6
"""Largest deviation of numbers of electrons, which are whole."""


@dataclass(frozen=True)
class Solution:
    """A converged density in a potential.

    Parameters
    ----------
    energy : float, hartree
        Free energy at the electronic temperature, including the energy of the multipoles in the potential.
    gradient : (n, 3) float array, hartree/bohr
        Derivative with respect to the atoms at a fixed potential, gradient and curvature at each of them.
    multipoles : AtomicMultipoles
    cycles : int
        Cycles of the self-consistent field.
    """

    energy: float
    gradient: FloatArray
    multipoles: AtomicMultipoles
    cycles: int


class TBLiteCalculation:
    """Computes one region at one geometry after another, each from a fresh guess.

    Parameters
    ----------
    settings : XTBSettings
    specification : RegionSpecification
    """

    def __init__(self, settings: XTBSettings, specification: RegionSpecification) -> None:
        self._settings = settings
        self._specification = specification

    def solve(self, positions: FloatArray, potential: AtomicPotential) -> Solution:
        """Return the density in a potential at the atoms, with energy and gradient.

        Parameters
        ----------
        positions : (n, 3) float array, bohr
        potential : AtomicPotential

        Raises
        ------
        ConvergenceError
            If the self-consistent field does not converge.
        EvaluationError
            If tblite fails.
        """
        term = f"term {self._specification.name!r}"
        with _one_at_a_time, _threads(self._settings.threads):
            calculator = self._calculator(positions)
            container = PotentialContainer(calculator, len(positions))
            container.set(potential)
            try:
                result = calculator.singlepoint()
            except TBLiteRuntimeError as error:
                if container.error is not None:
                    raise container.error from error
                raise _failure(term, str(error), self._specification, self._settings) from error
            multipoles = container.multipoles
            electrons = float(np.sum(result.get("orbital-occupations")))
            self._check_occupation(term, electrons, float(multipoles.charges.sum()))
            gradient = np.array(result.get("gradient"), dtype=float)
            return Solution(float(result.get("energy")), gradient, multipoles, container.cycles)

    def _check_occupation(self, term: str, electrons: float, charge: float) -> None:
        """Raise EvaluationError if the minimal basis cannot have this multiplicity, which tblite does not notice."""
        specification = self._specification
        unpaired = specification.multiplicity - 1
        if unpaired > electrons + SAME_CHARGE or abs(charge - specification.charge) > SAME_CHARGE:
            raise EvaluationError(
                f"{term}: {self._settings.method} has {electrons:.0f} valence electrons in a minimal basis here, which "
                f"cannot have multiplicity {specification.multiplicity} with charge {specification.charge}"
            )

    def _calculator(self, positions: FloatArray) -> Calculator:
        settings, specification = self._settings, self._specification
        calculator = Calculator(
            settings.tblite_name,
            np.asarray(specification.atomic_numbers),
            positions,
            charge=float(specification.charge),
            uhf=specification.multiplicity - 1,
            logger=_ignore,
        )
        calculator.set("verbosity", 0)
        calculator.set("accuracy", settings.accuracy)
        calculator.set("temperature", settings.thermal_energy)
        calculator.set("mixer-damping", settings.damping)
        return calculator


def _ignore(message: str) -> None:
    """Drop a line of tblite's log."""


def _failure(term: str, message: str, specification: RegionSpecification, settings: XTBSettings) -> EvaluationError:
    if "not converge" in message.lower():
        return ConvergenceError(
            f"{term}: the self-consistent field of {settings.method} does not converge ({message}). Check geometry, "
            f"charge {specification.charge} and multiplicity {specification.multiplicity} of the region. Large regions "
            "with charges of both signs have small gaps: they need a smaller damping than "
            f"{settings.damping:g}, such as 0.2, a higher electronic_temperature than "
            f"{settings.electronic_temperature:g} K, or less in the region, such as a part of a cofactor (--cut of "
            "qmmlmm site)"
        )
    return EvaluationError(f"{term}: tblite fails: {message}")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Give OpenMP in the library a number of threads, and the number before it back to the user."""
    library = loaded_library()
    before = library.max_threads
    library.set_threads(count)
    try:
        yield
    finally:
        library.set_threads(before)
