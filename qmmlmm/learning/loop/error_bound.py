"""Whether a model keeps its bounds, from fresh configurations that nothing was chosen by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from qmmlmm.units import FloatArray

FEWEST = 4
"""Fresh configurations without which nothing is said."""


@dataclass(frozen=True)
class ErrorBound:
    """Errors on fresh configurations with upper limits.

    Parameters
    ----------
    count : int
        Configurations.
    force_error : float, kJ/(mol nm)
        Root mean square of the components.
    force_limit : float, kJ/(mol nm)
        Upper limit of it.
    energy_error : float, kJ/mol
        Standard deviation.
    energy_limit : float, kJ/mol
        Upper limit of it.
    """

    count: int
    force_error: float
    force_limit: float
    energy_error: float
    energy_limit: float

    def holds(self, force_error: float, energy_error: float | None) -> bool:
        """Return whether both upper limits lie within the bounds."""
        return self.force_limit <= force_error and (energy_error is None or self.energy_limit <= energy_error)


def error_bound(force_errors: FloatArray, energy_errors: FloatArray, confidence: float) -> ErrorBound:
    """Return the errors and their one-sided upper limits.

    Parameters
    ----------
    force_errors : (count, n, 3) float array, kJ/(mol nm)
    energy_errors : (count,) float array, kJ/mol
        Their mean does not matter.
    confidence : float

    Notes
    -----
    The mean squares of the configurations are independent values whose mean goes with chi-squared, of as many degrees
    of freedom as their scatter tells: Satterthwaite, Biometrics Bull. 2, 110 (1946). The variance of the energy errors
    goes with chi-squared as that of normal ones. Where few configurations have most of the error, the limits are too
    low: of twelve whose errors differ by a factor of three, 88 % of limits of 90 % hold. Too few have no limit.
    """
    count = len(energy_errors)
    nan = float("nan")
    if count == 0:
        return ErrorBound(0, nan, float("inf"), nan, float("inf"))
    squares = np.mean(np.asarray(force_errors) ** 2, axis=(1, 2))
    mean = float(squares.mean())
    if count < FEWEST:
        return ErrorBound(count, mean**0.5, float("inf"), float(np.std(energy_errors)), float("inf"))
    freedom = 2.0 * count * mean**2 / max(float(squares.var(ddof=1)), 1e-12 * mean**2 + 1e-300)
    above = mean * float(freedom / stats.chi2.ppf(1.0 - confidence, freedom))
    spread = float(np.std(energy_errors, ddof=1))
    widened = spread * float((count - 1) / stats.chi2.ppf(1.0 - confidence, count - 1)) ** 0.5
    return ErrorBound(count, mean**0.5, above**0.5, spread, widened)
