"""Statistics of correlated series."""

from __future__ import annotations

import logging
from types import ModuleType

import numpy as np
import numpy.typing as npt

CONSTANT = 1e-12
"""Range of a series, relative to its largest value, below which it does not fluctuate."""


def statistical_inefficiency(series: npt.ArrayLike) -> float:
    """Return the number of frames of a series for each independent frame, 1 or more.

    Parameters
    ----------
    series : (n,) float array
        Values in the order of time.

    Notes
    -----
    1 + 2 times the sum of the normalised autocorrelation, as pymbar estimates it. Source: Chodera et al., J. Chem.
    Theory Comput. 3, 26 (2007), eqs. 20-22.
    """
    values = np.asarray(series, dtype=np.float64)
    if np.ptp(values) <= CONSTANT * max(1.0, float(np.abs(values).max())):
        return 1.0
    return max(1.0, float(import_pymbar().timeseries.statistical_inefficiency(values)))


def import_pymbar() -> ModuleType:
    """Import pymbar without its messages about packages that could make it faster."""
    logger = logging.getLogger("pymbar")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import pymbar
        import pymbar.other_estimators
        import pymbar.timeseries
    finally:
        logger.setLevel(level)
    return pymbar
