"""Rounds of a loop: their phases and results, as the store keeps them."""

from __future__ import annotations

from typing import NamedTuple, TypedDict

from qmmlmm.learning.training.error_bound import ErrorBound

SAMPLE, LABEL, TRAIN, DONE = "sample", "label", "train", "done"
PHASES = (SAMPLE, LABEL, TRAIN, DONE)


class ErrorRecord(TypedDict):
    """The fields of an `ErrorBound`."""

    count: int
    force_error: float
    force_limit: float
    energy_error: float
    energy_limit: float


def error_record(bound: ErrorBound) -> ErrorRecord:
    """Return the fields of an `ErrorBound`."""
    return {
        "count": bound.count,
        "force_error": bound.force_error,
        "force_limit": bound.force_limit,
        "energy_error": bound.energy_error,
        "energy_limit": bound.energy_limit,
    }


class Calibration(TypedDict):
    """Expected and true errors of the forces on all atoms of the fresh configurations, kJ/(mol nm)."""

    expected: list[float]
    true: list[float]


class RoundResult(TypedDict, total=False):
    """Results of a round so far.

    Notes
    -----
    ``error``, ``calibration`` and ``stopped``, the number of walkers that were stopped, belong to the model that ran in
    the round; ``passed`` is whether the bounds hold for it. ``frames`` is the number of labels on which the next model
    was trained, ``validation`` its errors on validation frames, and ``network`` the checksum of its file.
    """

    error: ErrorRecord
    calibration: Calibration
    stopped: int
    passed: bool
    frames: int
    validation: dict[str, float]
    network: str


class Round(NamedTuple):
    """Number, phase and results of a round."""

    number: int
    phase: str
    result: RoundResult


def round_fault(number: object, phase: object, result: object) -> str:
    """Return what is wrong with a round that was read from the store, or an empty text."""
    if not isinstance(number, int) or phase not in PHASES or not isinstance(result, dict):
        return f"number {number!r}, phase {phase!r}, result {result!r:.80}"
    error = result.get("error")
    if "error" in result and (not isinstance(error, dict) or set(error) != set(ErrorRecord.__annotations__)):
        return f"error {error!r:.80}"
    if "error" in result and "stopped" not in result:
        return "an error without the number of walkers that were stopped"
    return ""
