"""Wall time of a loop by kind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

QM, ML, OPENMM, OTHER = "QM", "ML", "OpenMM", "other"
"""Labels; training and evaluation of committees; dynamics, including the ML forces in it; everything else."""


class Timer:
    """Measures wall time by kind; time that is not measured has the kind "other"."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._spent: dict[str, float] = {}

    @contextlib.contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Return a context whose duration is added to a kind."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(kind, time.perf_counter() - start)

    def add(self, kind: str, seconds: float) -> None:
        """Add a duration to a kind."""
        self._spent[kind] = self._spent.get(kind, 0.0) + seconds

    def take(self, kind: str) -> float:
        """Return the time of a kind, and remove it."""
        return self._spent.pop(kind, 0.0)

    def restart(self) -> dict[str, float]:
        """Return the time of each kind since the last restart, with the rest as "other", and start again."""
        now = time.perf_counter()
        spent, self._spent = self._spent, {}
        rest = now - self._since - sum(spent.values())
        self._since = now
        return {**spent, OTHER: max(0.0, rest)}


def overhead(times: Mapping[str, float]) -> float:
    """Return the fraction of time that was not QM, ML or OpenMM."""
    total = sum(times.values())
    return times.get(OTHER, 0.0) / total if total > 0 else 0.0
