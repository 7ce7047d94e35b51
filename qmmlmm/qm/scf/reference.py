"""The mean field of one geometry, the start of all electronic states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qmmlmm.qm.scf.convergence import ScfRecord, converge
from qmmlmm.units import FloatArray


class Reference:
    """A mean-field object of PySCF that converges at its first use.

    Parameters
    ----------
    mean_field : pyscf.scf.hf.SCF
        Mean-field object with the surroundings in its one-electron operator.
    guesses : sequence of (str, float array)
        Names and density matrices to start from, the best first.
    term : str
        Name of the term, for messages.
    save : callable
        Function that saves the geometry and returns a sentence with the path.
    record : ScfRecord
        Record of cycles and attempts.
    create_unrestricted : callable
        Function that returns an unrestricted mean-field object with the same operators.

    Attributes
    ----------
    outcome : dict
        Result of `converge`: ``scf_cycles`` and ``scf_guess``; empty before.
    """

    def __init__(
        self,
        mean_field: Any,
        guesses: Sequence[tuple[str, FloatArray]],
        term: str,
        save: Callable[[], str],
        record: ScfRecord,
        create_unrestricted: Callable[[], Any],
    ) -> None:
        self.mean_field = mean_field
        self.term = term
        self.save = save
        self.record = record
        self.outcome: dict[str, object] = {}
        self._guesses = guesses
        self._create_unrestricted = create_unrestricted

    def converge(self) -> Any:
        """Return the converged mean-field object.

        Raises
        ------
        ConvergenceError
            If it does not converge in any attempt.
        """
        if not self.outcome:
            self.outcome = converge(self.mean_field, self._guesses, self.term, self.save, self.record)
        return self.mean_field

    def unrestricted(self) -> Any:
        """Return an unrestricted mean-field object with the same operators, not converged."""
        return self._create_unrestricted()
