"""What an inspection found: refused, to decide, done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from qmmlmm.errors import PreparationError

Kind = Literal["refused", "decide", "done"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_HEADINGS = {
    "refused": "Refused",
    "decide": "To decide (what is taken if you say nothing)",
    "done": "Done",
}


@dataclass(frozen=True)
class Finding:
    """One thing that a structure has, and what follows.

    Parameters
    ----------
    kind : {"refused", "decide", "done"}
        Whether the preparation stops, goes on with a choice that the user should look at, or did what is usual.
    topic : str
        One word, such as ``"gap"`` or ``"pKa"``.
    text : str
        What was found and, for what is refused, what to do.
    """

    kind: Kind
    topic: str
    text: str

    def as_dict(self) -> dict[str, str]:
        """Return the fields, for a JSON file."""
        return asdict(self)


@dataclass(frozen=True)
class Report:
    """All findings of an inspection.

    Parameters
    ----------
    findings : tuple of Finding
    """

    findings: tuple[Finding, ...]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def of_kind(self, kind: Kind) -> tuple[Finding, ...]:
        """Return the findings of one kind."""
        return tuple(finding for finding in self.findings if finding.kind == kind)

    @property
    def refused(self) -> tuple[Finding, ...]:
        """What has to be changed before a System can be made."""
        return self.of_kind("refused")

    @property
    def decide(self) -> tuple[Finding, ...]:
        """Choices that were made and that the user should look at."""
        return self.of_kind("decide")

    @property
    def done(self) -> tuple[Finding, ...]:
        """What is done as usual."""
        return self.of_kind("done")

    def text(self) -> str:
        """Return the findings as lines, those that stop first."""
        lines = []
        for kind in KINDS:
            found = self.of_kind(kind)
            if found:
                lines += [f"{_HEADINGS[kind]}:", *(f"  {item.topic}: {item.text}" for item in found)]
        return "\n".join(lines) + "\n"

    def check(self) -> None:
        """Raise if anything was refused.

        Raises
        ------
        PreparationError
            With every refused finding, one in each line.
        """
        refused = self.refused
        if refused:
            lines = "\n".join(f"  {item.topic}: {item.text}" for item in refused)
            plural = "thing has" if len(refused) == 1 else "things have"
            raise PreparationError(f"{len(refused)} {plural} to be changed before a System can be made:\n{lines}")


class Findings:
    """A list of findings that grows while a structure is inspected."""

    def __init__(self) -> None:
        self._found: list[Finding] = []

    def refuse(self, topic: str, text: str) -> None:
        """Add what stops the preparation."""
        self._found.append(Finding("refused", topic, text))

    def decide(self, topic: str, text: str) -> None:
        """Add a choice that the user should look at."""
        self._found.append(Finding("decide", topic, text))

    def done(self, topic: str, text: str) -> None:
        """Add what was done."""
        self._found.append(Finding("done", topic, text))

    @property
    def stop(self) -> bool:
        """Whether anything was refused."""
        return any(finding.kind == "refused" for finding in self._found)

    def report(self) -> Report:
        """Return the findings so far, each once."""
        return Report(tuple(dict.fromkeys(self._found)))
