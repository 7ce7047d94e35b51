"""Convergence of the self-consistent field: a ladder of attempts, and an error when all have failed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qmmlmm.errors import ConvergenceError
from qmmlmm.units import FloatArray

logger = logging.getLogger("qmmlmm.qm")


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


def converge(mean_field: Any, last_density: FloatArray | None, term: str, save: Callable[[], str]) -> dict[str, object]:
    """Converge the mean-field object from the last density, a fresh guess, or to second order.

    Parameters
    ----------
    mean_field : pyscf.scf.hf.SCF
        Holds the converged orbitals afterwards.
    last_density : float array or None
        Density matrix of the last geometry.
    term : str
        For messages.
    save : callable
        Saves the geometry and returns a sentence that says where.

    Returns
    -------
    dict
        ``scf_cycles``, all attempts together, and ``scf_guess``, the attempt that converged.

    Raises
    ------
    ConvergenceError
        If all attempts fail.
    """
    attempts: list[tuple[str, Callable[[_Monitor], bool]]] = [
        ("fresh guess", lambda monitor: _iterate(mean_field, None, monitor)),
        ("second order", lambda monitor: _second_order(mean_field, monitor)),
    ]
    if last_density is not None:
        attempts.insert(0, ("last density", lambda monitor: _iterate(mean_field, last_density, monitor)))
    cycles = 0
    failures = []
    for name, attempt in attempts:
        monitor = _Monitor()
        try:
            converged = attempt(monitor)
            reason = f"last energy change {monitor.change:.2e} hartree"
        except (np.linalg.LinAlgError, ArithmeticError, ValueError, RuntimeError) as error:
            # Broken numerics in one attempt, such as a singular subspace; the next one starts afresh.
            converged, reason = False, f"{type(error).__name__}: {error}"
        cycles += monitor.cycles
        if converged:
            return {"scf_cycles": cycles, "scf_guess": name}
        failures.append(f"{name}: {monitor.cycles} cycles, {reason}")
        logger.warning("%s: no self-consistent field from %s", term, failures[-1])
    raise ConvergenceError(
        f"{term}: the self-consistent field did not converge in {cycles} cycles ({'; '.join(failures)}); "
        f"{save()}. Look at the geometry, charge and multiplicity first; then raise max_cycle"
    )


def _iterate(mean_field: Any, density: FloatArray | None, monitor: _Monitor) -> bool:
    mean_field.callback = monitor
    mean_field.kernel(dm0=density)
    mean_field.callback = None
    return bool(mean_field.converged)


def _second_order(mean_field: Any, monitor: _Monitor) -> bool:
    """Run the second-order solver from the orbitals of the failed attempt and take over its result."""
    solver = mean_field.newton()
    solver.callback = monitor
    start = (mean_field.mo_coeff, mean_field.mo_occ)
    if start[0] is None or not np.all(np.isfinite(start[0])):
        start = (None, None)
    solver.kernel(*start)
    for name in ("mo_coeff", "mo_occ", "mo_energy", "e_tot", "converged", "scf_summary"):
        setattr(mean_field, name, getattr(solver, name))
    return bool(solver.converged)
