"""The contract of a solver for electronic states of a region."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qmmlmm.coupling.potential import Memory
from qmmlmm.coupling.state_results import StateResults
from qmmlmm.errors import EvaluationError
from qmmlmm.qm.scf.reference import Reference
from qmmlmm.qm.states.electronic_state import ElectronicState, ground_state


def _nothing() -> None:
    """Store nothing."""


@dataclass(frozen=True)
class SolvedState:
    """The state that has energy and forces.

    Parameters
    ----------
    state : ElectronicState
    accept : callable
        Function that is called when the result is accepted; the solver then stores the start of the next geometry.
    """

    state: ElectronicState
    accept: Callable[[], None] = _nothing


class StateSolver(ABC):
    """Computes electronic states at one geometry after another."""

    keeps_reference = True
    """Whether the density of the reference is a guess for the next geometry."""

    @abstractmethod
    def solve(self, reference: Reference) -> SolvedState:
        """Return the state that has energy and forces.

        Raises
        ------
        ConvergenceError
            If the reference or the states do not converge.
        EvaluationError
            If a state that is followed is lost.
        """

    @abstractmethod
    def energy(self, reference: Reference) -> float:
        """Return the energy of the state with this index in the order of energy, hartree; nothing is kept."""

    def excitations(self, reference: Reference) -> StateResults | None:
        """Return all states in the order of energy, from the reference only; nothing is kept."""
        return self.solve(reference).state.states

    def coupling(self, first: int, second: int) -> ElectronicState:
        """Return the derivative coupling of two states of the last geometry as a state.

        Its energy is E(second) - E(first), gradient and density are those of <first | d/dR second> times that.
        """
        raise EvaluationError(f"{type(self).__name__} has no derivative couplings between {first} and {second}")

    def select(self, state: int) -> None:
        """Select the state that has energy and forces from the next geometry on."""
        raise EvaluationError(f"{type(self).__name__} has one electronic state, and state {state} was selected")

    def forget(self) -> None:  # noqa: B027  (the ground state keeps nothing)
        """Reset: the next geometry is computed as the first one."""

    def memory(self) -> Memory:
        """Return the states of the last geometry as arrays for `recall`; empty if it needs none."""
        return {}

    def recall(self, molecule: Any, memory: Memory) -> None:  # noqa: B027  (the ground state needs nothing)
        """Continue from what `memory` returned, with a molecule at its positions."""

    def summary(self) -> dict[str, object]:
        """Return counts besides those of the reference."""
        return {}


class GroundState(StateSolver):
    """The ground state.

    Parameters
    ----------
    method : str
        ``"hf"`` or a functional.
    accelerated : bool
        See `PySCFPotential`.
    """

    def __init__(self, method: str, accelerated: bool) -> None:
        self._method = method
        self._accelerated = accelerated

    def solve(self, reference: Reference) -> SolvedState:
        """Return the ground state, see `StateSolver.solve`."""
        return SolvedState(ground_state(reference.converge(), self._method, self._accelerated))

    def energy(self, reference: Reference) -> float:
        """Return the energy, hartree."""
        return float(reference.converge().e_tot)
