"""A geometry to be labelled, and the contract of the store that keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from qmmlmm.geometry import Geometry

CANDIDATE, WAITING, CLAIMED, LABELLED, FAILED = "candidate", "waiting", "claimed", "labelled", "failed"


@dataclass(frozen=True, eq=False)
class Job:
    """A geometry that is a candidate for a label, waits for it, or has it.

    Parameters
    ----------
    round : int
        Round in which it was found.
    kind : str
        Reason of the selection: "start", "fresh" (drawn at random), "uncertain", "runaway" or "given".
    walker, step : int
        Walker that found it, and its step.
    geometry : Geometry or None, nm
        Positions of all particles; None for labels that were given to the loop.
    uncertainty : float, kJ/(mol nm)
        Largest expected error of a force; NaN without a model.
    variables : dict of str to float
        Values of the collective variables.
    id : int
        Number that the store assigns.
    status : str
    attempts : int
        Number of failed attempts, without those that ended with the loop.
    reason : str
        Reason of the last failure.
    seconds : float
        Computing time of the label.
    """

    round: int
    kind: str
    walker: int
    step: int
    geometry: Geometry | None
    uncertainty: float = float("nan")
    variables: dict[str, float] | None = None
    id: int = 0
    status: str = CANDIDATE
    attempts: int = 0
    reason: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Name of the labelled frame."""
        return f"{self.kind}-{self.id:06d}"


class JobStore(Protocol):
    """Store of jobs for a `LabelQueue`."""

    @property
    def directory(self) -> Path:
        """Directory of the store."""
        ...

    def jobs(self, *status: str, number: int | None = None) -> list[Job]:
        """Return jobs in the order of their numbers: with one of the given statuses if any, of one round if given."""
        ...

    def claim(self, job: Job) -> Job:
        """Mark a job as being computed, and return it with its new status."""
        ...

    def add_label(self, job: Job, text: str, seconds: float) -> None:
        """Store the label of a job."""
        ...

    def give_back(self, job: Job, reason: str, final: bool) -> None:
        """Record a failed attempt: the job waits again, or has finally failed."""
        ...
