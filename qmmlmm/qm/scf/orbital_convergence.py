"""Convergence of orbitals as far as round-off lets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PATIENCE = 8
"""Number of cycles in a row without progress after which the orbitals are as good as they become."""

PROGRESS = 0.5
"""Share of the smallest gradient so far that counts as progress."""


class OrbitalConvergence:
    """A criterion of PySCF: orbital gradients below a tight tolerance, or a looser one where they do not get smaller.

    Round-off and nearly degenerate solutions keep gradients of some molecules above what energies of excited states
    ask for.

    Parameters
    ----------
    tight, loose : float, hartree
        Tolerances of the norm of the gradient.
    """

    def __init__(self, tight: float, loose: float) -> None:
        self._tight, self._loose = tight, loose
        self._smallest = float("inf")
        self._without_progress = 0

    def __call__(self, variables: Mapping[str, Any]) -> bool:
        """Return whether a cycle is the last one, from the variables of PySCF's loop."""
        change = abs(variables["e_tot"] - variables["last_hf_e"])
        gradient = float(variables["norm_gorb"])
        if variables["scf_conv"]:  # in the cycle after the last one, whose tolerances PySCF has raised
            return bool(change < variables["conv_tol"] or gradient < variables["conv_tol_grad"])
        if variables.get("cycle", variables.get("imacro")) == 0:
            self._smallest, self._without_progress = float("inf"), 0
        if gradient < PROGRESS * self._smallest:
            self._smallest, self._without_progress = gradient, 0
        else:
            self._without_progress += 1
        if not change < variables["conv_tol"]:
            return False
        return gradient < self._tight or (gradient < self._loose and self._without_progress >= PATIENCE)
