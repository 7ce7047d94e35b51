"""Third derivatives of functionals, where they are finite."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf.dft.numint import NumInt

LEAST_DENSITY = 1e-11
"""Density, electrons per cubic bohr, below which third derivatives are zero: some of libxc's (r2SCAN) are NaN there."""


class FiniteThirdDerivatives(NumInt):
    """PySCF's integrator of the functional, without third derivatives at negligible density."""

    def eval_xc_eff(self, xc_code: str, rho: Any, deriv: int = 1, *arguments: Any, **named: Any) -> Any:
        """Return energy and derivatives as PySCF does; the third ones are zero at negligible density."""
        found = super().eval_xc_eff(xc_code, rho, deriv, *arguments, **named)
        if deriv < 3 or found[3] is None:
            return found
        third = found[3]
        values = np.asarray(rho)
        # One spin or both; for a local functional the density may be the only variable.
        density = values.reshape(2 if third.ndim == 7 else 1, -1, values.shape[-1])[:, 0].sum(axis=0)
        third[..., density < LEAST_DENSITY] = 0.0
        return *found[:3], third
