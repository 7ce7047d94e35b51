"""Runners of terms in OpenMM, with one interface for all kinds of Forces."""

from __future__ import annotations

from abc import ABC, abstractmethod

import openmm

from qmmlmm.coupling.potential import Memory
from qmmlmm.embedding.region_term import RegionTerm
from qmmlmm.embedding.torch_term import TorchTerm
from qmmlmm.errors import EvaluationError, HamiltonianError
from qmmlmm.mm.force_field_potential import force_field_energy


class TermRunner(ABC):
    """Runs one term of a mixed System.

    Parameters
    ----------
    name : str
        Name of the term.
    region_term : RegionTerm or None
        Evaluation of the term without a Context; None for the force field's own term.

    Attributes
    ----------
    failure : BaseException or None
        Exception of the last call, if it failed.
    evaluations : int
        Number of evaluations in Python, without cached results.
    seconds : float
        Total wall time of these evaluations.
    """

    runs_in_python = False

    def __init__(self, name: str, region_term: RegionTerm | None) -> None:
        self.name = name
        self.failure: BaseException | None = None
        self.evaluations = 0
        self.seconds = 0.0
        self._region_term = region_term

    @property
    @abstractmethod
    def backend(self) -> str:
        """Class of the Force, for reports."""

    @property
    def region_term(self) -> RegionTerm:
        """Evaluation of the term without a Context.

        Raises
        ------
        HamiltonianError
            If it is the force field's own term.
        """
        if self._region_term is None:
            raise HamiltonianError(f"term {self.name!r} is the force field itself, which only OpenMM computes")
        return self._region_term

    @property
    def n_states(self) -> int:
        """Number of electronic states that the term can switch between; 1 if it cannot."""
        return 1 if self._region_term is None else self._region_term.potential.capabilities.n_states

    def compiled(self) -> dict[str, str]:
        """Return ``"yes"`` for each part of an ML term that is compiled, and else why it is not; empty for others."""
        term = self._region_term
        reasons = term.not_compiled_because if isinstance(term, TorchTerm) else {}
        return {part: reason or "yes" for part, reason in reasons.items()}

    @abstractmethod
    def energy_without_weight(self, context: openmm.Context, force: openmm.Force) -> float:
        """Return the energy at the present geometry without a coefficient that depends on parameters, kJ/mol."""

    def forget(self) -> None:  # noqa: B027  (a Force of OpenMM has nothing to forget)
        """Reset: the next geometry is computed as the first one."""

    def summary(self) -> dict[str, object]:
        """Return counts since the term was created, as JSON values; empty for Forces that do not run in Python."""
        return {}

    def memory(self) -> Memory:
        """Return the arrays from which `recall` continues; empty if there are none."""
        return {}

    def recall(self, memory: Memory) -> None:
        """Continue from what `memory` returned; like a new term if it is empty."""
        if memory:
            raise EvaluationError(f"term {self.name!r} has no memory to restore")


class TorchForceRunner(TermRunner):
    """Runs a term as a `TorchForce` of openmm-torch."""

    @property
    def backend(self) -> str:
        """``"TorchForce"``."""
        return "TorchForce"

    def energy_without_weight(self, context: openmm.Context, force: openmm.Force) -> float:
        """Return the energy at the present geometry, kJ/mol; terms of TorchForce have coefficients that are numbers."""
        state = context.getState(energy=True, groups={force.getForceGroup()})
        return float(state.getPotentialEnergy()._value)


class ForceFieldRunner(TermRunner):
    """Runs the force field's own term as a `CustomCVForce`."""

    def __init__(self, name: str) -> None:
        super().__init__(name, None)

    @property
    def backend(self) -> str:
        """``"CustomCVForce"``."""
        return "CustomCVForce"

    def energy_without_weight(self, context: openmm.Context, force: openmm.Force) -> float:
        """Return the energy at the present geometry without its coefficient, kJ/mol."""
        assert isinstance(force, openmm.CustomCVForce)
        return force_field_energy(force, context)
