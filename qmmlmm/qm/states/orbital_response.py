"""The response of the orbitals to an excitation, by a solver that reaches its tolerance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, gmres

from qmmlmm.units import FloatArray

LARGEST_SPACE = 80
"""Number of stored vectors, after which the iteration restarts from its result."""

RESTARTS = 3


class OrbitalResponse:
    """Solves (e_a - e_i) z_ai + G(z)_ai = -w_ai instead of `pyscf.scf.cphf` and `pyscf.scf.ucphf`.

    Parameters
    ----------
    tolerance : float
        Largest norm of the error of z/(1 + G/(e_a - e_i)).

    Attributes
    ----------
    error : float
        That norm for the last solution.

    Notes
    -----
    PySCF's own solver does not normalise its trial vectors. They shrink until it stops, with an error of 1e-6 to 1e-4
    in z and without a message.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self.error = np.inf

    def solve(
        self,
        fvind: Callable[[FloatArray], FloatArray],
        mo_energy: FloatArray,
        mo_occ: FloatArray,
        h1: Any,
        max_cycle: int = 0,
        tol: float = 0.0,
    ) -> tuple[Any, None]:
        """Return z in the shape of w, and None. The arguments have PySCF's names; the last two are not used."""
        both = isinstance(h1, tuple)
        right = np.concatenate([part.ravel() for part in h1]) if both else h1.ravel()
        energies, occupations = (mo_energy, mo_occ) if both else ((mo_energy,), (mo_occ,))
        gaps = np.concatenate(
            [(e[n == 0][:, None] - e[n > 0]).ravel() for e, n in zip(energies, occupations, strict=True)]
        )

        def apply(vector: FloatArray) -> FloatArray:
            vector = np.asarray(vector).ravel()
            return vector + np.asarray(fvind(vector[None] if both else vector)).ravel() / gaps

        operator = LinearOperator((len(right), len(right)), matvec=apply, dtype=float)
        goal = -right / gaps
        space = min(LARGEST_SPACE, len(right))
        found, _ = gmres(operator, goal, rtol=0.0, atol=self._tolerance, restart=space, maxiter=RESTARTS)
        self.error = float(np.linalg.norm(apply(found) - goal))
        if not both:
            return found.reshape(h1.shape), None
        cut = h1[0].size
        return (found[:cut].reshape(h1[0].shape), found[cut:].reshape(h1[1].shape)), None


def with_solver(
    function: Callable[..., Any], solver: OrbitalResponse, others: Mapping[str, Callable[..., Any]]
) -> Callable[..., Any]:
    """Return PySCF's function for the gradient of an excited state with another solver, and other functions by name.

    The function finds its solver in the globals of its module. The returned function has a changed copy of them, and
    PySCF is not changed.
    """
    # PySCF decorates some of these functions and not others.
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    names = {**function.__globals__, "cphf": solver, "ucphf": solver, **others}
    code, defaults = function.__code__, function.__defaults__
    return FunctionType(code, names, function.__name__, defaults)
