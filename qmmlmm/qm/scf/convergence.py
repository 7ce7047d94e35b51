"""Convergence of the self-consistent field: several attempts, and an error if all fail."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from pyscf import dft

from qmmlmm.errors import ConvergenceError, EvaluationError
from qmmlmm.qm.functional.two_grids import TwoGridIntegrator
from qmmlmm.units import FloatArray

logger = logging.getLogger("qmmlmm.qm")

DAMPING = 0.5
"""Share of the last Fock matrix in the new one, before the subspace extrapolation starts."""

DAMPED_CYCLES = 10
"""Number of cycles with damping, before the subspace extrapolation starts."""

RENEWALS = 5
"""Largest number of times that a converged result is compared with the full grid; each brings it nearer by orders."""

LEVEL_SHIFT = 0.3
"""Shift of the empty orbitals, hartree, which makes the step of each cycle smaller; the converged density is the
same."""


@dataclass
class ScfRecord:
    """Counts of all self-consistent calculations of one evaluator.

    Parameters
    ----------
    cycles : int
        Number of cycles of all attempts.
    converged : Counter
        Number of successes of each attempt.
    failed : Counter
        Number of failures of each attempt.
    """

    cycles: int = 0
    converged: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    def summary(self) -> dict[str, object]:
        """Return the counts as JSON values."""
        results = self.converged.total()
        return {
            "scf_results": results,
            "scf_cycles": self.cycles,
            "scf_cycles_mean": round(self.cycles / results, 2) if results else None,
            "scf_converged_from": dict(self.converged),
            "scf_failed_from": dict(self.failed),
        }


@dataclass
class _Monitor:
    """Counts cycles and keeps the last change of the energy; a PySCF callback."""

    cycles: int = 0
    change: float = float("nan")
    _last: float = float("nan")

    def __call__(self, variables: dict[str, Any]) -> None:
        energy = float(variables["e_tot"])
        self.cycles += 1
        self.change, self._last = energy - self._last, energy


def converge(
    mean_field: Any,
    guesses: Sequence[tuple[str, FloatArray]],
    term: str,
    save: Callable[[], str],
    record: ScfRecord,
) -> dict[str, object]:
    """Converge the mean-field object, by a more expensive and more robust attempt after each failure.

    The attempts are the guesses, a fresh guess, the same with damping and level shift, and a second-order solver from
    the orbitals of the last attempt.

    Parameters
    ----------
    mean_field : pyscf.scf.hf.SCF
        Mean-field object, which has the converged orbitals afterwards.
    guesses : list of (str, float array)
        Names and density matrices, the best first.
    term : str
        Name of the term, for messages.
    save : callable
        Function that saves the geometry and returns a sentence with the path.
    record : ScfRecord
        Record of cycles and attempts.

    Returns
    -------
    dict
        ``scf_cycles``, all attempts together, and ``scf_guess``, the attempt that converged.

    Raises
    ------
    ConvergenceError
        If all attempts fail.
    EvaluationError
        If PySCF does not compute this method, or fails before the first cycle of each attempt.
    """
    attempts: list[tuple[str, Callable[[_Monitor], bool]]] = [
        *((name, partial(_iterate, mean_field, density)) for name, density in guesses),
        ("fresh guess", partial(_iterate, mean_field, None)),
        ("damping and level shift", partial(_damped, mean_field)),
        ("second order", partial(_second_order, mean_field)),
    ]
    cycles = 0
    failures: list[str] = []
    refusals = 0
    for name, attempt in attempts:
        monitor = _Monitor()
        try:
            converged = attempt(monitor) and _on_full_grid(mean_field, monitor)
            reason = f"last energy change {monitor.change:.2e} hartree"
        except NotImplementedError as error:
            raise EvaluationError(f"{term}: PySCF does not compute this: {error}") from error
        except (np.linalg.LinAlgError, ArithmeticError, ValueError, RuntimeError) as error:
            refusals += monitor.cycles == 0 and not isinstance(error, np.linalg.LinAlgError | ArithmeticError)
            # Numerical failure of one attempt, such as a singular subspace; the next one starts from scratch.
            converged, reason = False, f"{type(error).__name__}: {error}"
        cycles += monitor.cycles
        record.cycles += monitor.cycles
        if converged:
            record.converged[name] += 1
            if failures:
                logger.warning("%s: converged by %s after %d cycles", term, name, cycles)
            return {"scf_cycles": cycles, "scf_guess": name}
        if isinstance(mean_field, dft.rks.KohnShamDFT) and isinstance(mean_field._numint, TwoGridIntegrator):
            # Where densities are nearly degenerate, the grids may choose different ones.
            mean_field._numint.leave_out_coarse_grid()
        record.failed[name] += 1
        failures.append(f"{name}: {monitor.cycles} cycles, {reason}")
        logger.warning("%s: no self-consistent field from %s", term, failures[-1])
    if refusals == len(attempts):
        raise EvaluationError(
            f"{term}: PySCF fails before the first cycle, which is no matter of convergence: {failures[-1]}. Check "
            f"method and basis; {save()}"
        )
    raise ConvergenceError(
        f"{term}: the self-consistent field did not converge in {cycles} cycles ({'; '.join(failures)}); "
        f"{save()}. Check the geometry, charge and multiplicity first; then raise max_cycle"
    )


def _iterate(mean_field: Any, density: FloatArray | None, monitor: _Monitor) -> bool:
    if density is None:
        # Without a density PySCF would continue from the orbitals of the failed attempt.
        density = mean_field.get_init_guess(mean_field.mol, mean_field.init_guess)
    mean_field.callback = monitor
    try:
        mean_field.kernel(dm0=density)
    finally:
        mean_field.callback = None
    return bool(mean_field.converged)


def _on_full_grid(mean_field: Any, monitor: _Monitor) -> bool:
    """Return whether the result is that of the functional's full grid, and iterate on if it is not yet."""
    if not isinstance(mean_field, dft.rks.KohnShamDFT) or not isinstance(mean_field._numint, TwoGridIntegrator):
        return True
    integrator = mean_field._numint
    for _ in range(RENEWALS):
        density = mean_field.make_rdm1()
        if integrator.is_exact_enough(density):
            return True
        integrator.renew()
        if not _iterate(mean_field, density, monitor):
            return False
    return False


def _damped(mean_field: Any, monitor: _Monitor) -> bool:
    """Iterate from a fresh guess in small steps. PySCF takes the level shift out of the final orbital energies."""
    settings = {"damp": DAMPING, "diis_start_cycle": DAMPED_CYCLES, "level_shift": LEVEL_SHIFT}
    # The loop runs over names: PySCF's settings are attributes of its objects.
    before = {name: getattr(mean_field, name) for name in settings}
    try:
        for name, value in settings.items():
            setattr(mean_field, name, value)
        return _iterate(mean_field, None, monitor)
    finally:
        for name, value in before.items():
            setattr(mean_field, name, value)


def _second_order(mean_field: Any, monitor: _Monitor) -> bool:
    """Run the second-order solver from the orbitals of the failed attempt and use its result."""
    solver = mean_field.newton()
    solver.callback = monitor
    start = (mean_field.mo_coeff, mean_field.mo_occ)
    if start[0] is None or not np.all(np.isfinite(start[0])):
        start = (None, None)
    solver.kernel(*start)
    for name in ("mo_coeff", "mo_occ", "mo_energy", "e_tot", "converged", "scf_summary"):
        # The loop runs over names: PySCF's results are attributes of its objects.
        setattr(mean_field, name, getattr(solver, name))
    return bool(solver.converged)
