"""Progress of a running loop: a live table on a terminal, lines elsewhere, or nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from qmmlmm.learning.labels.label_job import CLAIMED, FAILED, LABELLED, WAITING
from qmmlmm.learning.loop.round_record import Round
from qmmlmm.learning.loop.settings import LoopSettings
from qmmlmm.progress_display import is_hidden

PAUSE = 30.0
"""Seconds between two lines of the same kind where there is no terminal."""


class LoopProgress:
    """Shows nothing; subclasses show progress."""

    def __enter__(self) -> LoopProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restore the terminal."""

    def phase(self, number: int, phase: str, counts: Mapping[str, int], rounds: Sequence[Round]) -> None:
        """Show the start of a phase."""

    def walker(self, walker: int, step: int, uncertainty: float, event: str = "") -> None:
        """Show the step of a walker, or the reason for which it was stopped."""

    def labels(self, counts: Mapping[str, int]) -> None:
        """Show the numbers of labels."""

    def training(self, frames: int) -> None:
        """Show the start of a training."""


class LinesOfProgress(LoopProgress):
    """Writes lines at changes and at intervals of `PAUSE`.

    Parameters
    ----------
    console : rich.console.Console
    settings : LoopSettings
    """

    def __init__(self, console: Console, settings: LoopSettings) -> None:
        self._console, self._settings = console, settings
        self._last = 0.0

    def _write(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._last = time.monotonic()

    def phase(self, number: int, phase: str, counts: Mapping[str, int], rounds: Sequence[Round]) -> None:
        """Write the phase, and the last error."""
        error = last_error(rounds)
        ending = f", last error {error} kJ/(mol nm)" if error else ""
        self._write(f"round {number} of {self._settings.max_rounds}: {phase}; {label_counts(counts)}{ending}")

    def walker(self, walker: int, step: int, uncertainty: float, event: str = "") -> None:
        """Write the reason for which a walker was stopped, or its step."""
        if event:
            self._write(f"walker {walker} stopped at {event}")
        elif time.monotonic() - self._last > PAUSE:
            self._write(f"walker {walker}: step {step}, uncertainty {uncertainty:.0f} kJ/(mol nm)")

    def labels(self, counts: Mapping[str, int]) -> None:
        """Write the numbers of labels."""
        if time.monotonic() - self._last > PAUSE:
            self._write(label_counts(counts))

    def training(self, frames: int) -> None:
        """Write the number of training labels."""
        self._write(f"training on {frames} labels")


class TableOfProgress(LoopProgress):
    """Shows a live table.

    Parameters
    ----------
    console : rich.console.Console
    walkers : int
    settings : LoopSettings
    """

    def __init__(self, console: Console, walkers: int, settings: LoopSettings) -> None:
        self._settings = settings
        self._live = Live(console=console, refresh_per_second=4, transient=False)
        self._walkers = [("", "", "") for _ in range(walkers)]
        self._round, self._phase = 0, ""
        self._counts: Mapping[str, int] = {}
        self._rounds: Sequence[Round] = []
        self._begun = self._round_begun = time.monotonic()
        self._lengths: list[float] = []

    def __enter__(self) -> LoopProgress:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Show the last table."""
        self._live.update(self.table(), refresh=True)
        self._live.stop()

    def phase(self, number: int, phase: str, counts: Mapping[str, int], rounds: Sequence[Round]) -> None:
        """Show the start of a phase."""
        if number != self._round:
            now = time.monotonic()
            if self._round > 0:
                self._lengths.append(now - self._round_begun)
            self._round_begun = now
            self._walkers = [("", "", "") for _ in self._walkers]
        self._round, self._phase, self._counts, self._rounds = number, phase, counts, rounds
        self._live.update(self.table())

    def walker(self, walker: int, step: int, uncertainty: float, event: str = "") -> None:
        """Show the step of a walker, or the reason for which it was stopped."""
        spread = "" if math.isnan(uncertainty) else f"{uncertainty:.0f}"
        self._walkers[walker] = (f"{step}/{self._settings.steps_per_round}", spread, event)
        self._live.update(self.table())

    def labels(self, counts: Mapping[str, int]) -> None:
        """Show the numbers of labels."""
        self._counts = counts
        self._live.update(self.table())

    def training(self, frames: int) -> None:
        """Show the start of a training."""
        self._phase = f"train on {frames} labels"
        self._live.update(self.table())

    def table(self) -> Table:
        """Return the table."""
        left = time_left(self._lengths, self._settings.max_rounds - self._round)
        title = f"round {self._round} of {self._settings.max_rounds}: {self._phase}"
        caption = f"{label_counts(self._counts)}; at most {left} left" if left else label_counts(self._counts)
        error = last_error(self._rounds)
        if error:
            bound = f"{self._settings.force_error:g} kJ/(mol nm)"
            caption += f"\nerror of forces on fresh configurations {error}, bound {bound}"
        table = Table(title=title, caption=caption)
        for name in ("walker", "step", "uncertainty, kJ/(mol nm)", "stopped"):
            table.add_column(name)
        for k, row in enumerate(self._walkers):
            table.add_row(str(k), *row)
        return table


def label_counts(counts: Mapping[str, int]) -> str:
    """Return a text with the numbers of labels."""
    waiting = counts.get(WAITING, 0) + counts.get(CLAIMED, 0)
    return f"labels: {counts.get(LABELLED, 0)} made, {waiting} waiting, {counts.get(FAILED, 0)} failed"


def last_error(rounds: Sequence[Round]) -> str:
    """Return the last error of forces with its upper limit, or an empty text."""
    found = [result["error"] for _, _, result in rounds if "error" in result]
    if not found or found[-1]["count"] == 0:
        return ""
    return f"{found[-1]['force_error']:.1f} (below {found[-1]['force_limit']:.1f})"


def time_left(lengths: list[float], rounds: int) -> str:
    """Return the duration of the remaining rounds as a text, from the mean of the last three rounds.

    Parameters
    ----------
    lengths : list of float, s
        Durations of the rounds so far.
    rounds : int
        Number of remaining rounds.
    """
    if not lengths:
        return ""
    seconds = sum(lengths[-3:]) / len(lengths[-3:]) * max(0, rounds)
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min"


def create_progress(
    wanted: bool | None, walkers: int, settings: LoopSettings, console: Console | None = None
) -> LoopProgress:
    """Return an object that shows progress.

    Parameters
    ----------
    wanted : bool or None
        Whether to show progress; None for only if standard error is a terminal.
    walkers : int
        Number of walkers.
    settings : LoopSettings
    console : rich.console.Console, optional
        Console for the progress; standard error by default.
    """
    if wanted is False or (wanted is None and console is None and is_hidden()):
        return LoopProgress()
    console = console or Console(stderr=True)
    return TableOfProgress(console, walkers, settings) if console.is_terminal else LinesOfProgress(console, settings)
