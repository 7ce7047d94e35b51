"""The pages of the documentation and the code blocks in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GENERATED = DOCS / "reference" / "generated"
PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if GENERATED not in path.parents)]

_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>\S*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A block of code in a page.

    Parameters
    ----------
    page : Path
    line : int
        Line of the page before the first one of the block.
    language : str
    text : str
    mark : str
        Comment directly above the block, ``<!-- mark -->``; empty without one.
    """

    page: Path
    line: int
    language: str
    text: str
    mark: str

    @property
    def runs(self) -> bool:
        """Whether the block runs, because no ``<!-- not run: reason -->`` is above it."""
        return not self.mark.startswith("not run: ")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path, language: str) -> list[Block]:
    """Return the blocks of a language in a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start("text")), found["language"], found["text"], found["mark"] or "")
        for found in _FENCE.finditer(text)
        if found["language"] == language
    ]


def is_slow(page: Path) -> bool:
    """Return whether the blocks of a page take long, which ``<!-- slow page -->`` says."""
    return "<!-- slow page -->" in page.read_text(encoding="utf-8")
