"""Where the wall time goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

QM, ML, OPENMM, OTHER = "QM", "ML", "OpenMM", "other"
"""Labels; training and looking at committees; dynamics, the ML forces in it included; all else."""


class TimeBook:
    """Books wall time by kind; what nobody books is "other"."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._spent: dict[str, float] = {}

    @contextlib.contextmanager
    def booking(self, kind: str) -> Iterator[None]:
        """Book what happens inside."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(kind, time.perf_counter() - start)

    def add(self, kind: str, seconds: float) -> None:
        """Book seconds."""
        self._spent[kind] = self._spent.get(kind, 0.0) + seconds

    def take(self, kind: str) -> float:
        """Return what was booked for a kind, and book it for none."""
        return self._spent.pop(kind, 0.0)

    def close(self) -> dict[str, float]:
        """Return all since the last call by kind, the rest as "other", and begin anew."""
        now = time.perf_counter()
        spent, self._spent = self._spent, {}
        rest = now - self._since - sum(spent.values())
        self._since = now
        return {**spent, OTHER: max(0.0, rest)}


def overhead(times: dict[str, float]) -> float:
    """Return the share of time that was not QM, ML or OpenMM."""
    total = sum(times.values())
    return times.get(OTHER, 0.0) / total if total > 0 else 0.0
