"""Upper limits of the errors of a model, from fresh configurations that were drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from qmmlmm.units import FloatArray

FEWEST = 4
"""Number of fresh configurations below which there is no limit."""


@dataclass(frozen=True)
class ErrorBound:
    """Errors on fresh configurations with upper limits.

    Parameters
    ----------
    count : int
        Number of configurations.
    force_error : float, kJ/(mol nm)
        Root mean square error of the components.
    force_limit : float, kJ/(mol nm)
        Upper limit of the force error.
    energy_error : float, kJ/mol
        Standard deviation of the error.
    energy_limit : float, kJ/mol
        Upper limit of the energy error.
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
        Errors of the energy; their mean is ignored.
    confidence : float
        Probability with which a limit holds.

    Notes
    -----
    The mean squares of the configurations are independent. Their mean follows a chi-squared distribution whose number
    of degrees of freedom comes from their scatter (Satterthwaite, Biometrics Bull. 2, 110 (1946)). The variance of the
    energy errors follows the chi-squared distribution of normal errors. Where few configurations have most of the
    error, the limits are too low: for twelve configurations whose errors differ by a factor of three, 88 % of the
    limits of 90 % hold. Fewer than `FEWEST` configurations have no limit.
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
