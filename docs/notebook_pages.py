"""A notebook as a page: its text and code in Markdown, which the documentation includes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cell:
    """A cell of a notebook.

    Parameters
    ----------
    kind : {"markdown", "code"}
    text : str
    """

    kind: str
    text: str


def cells_of(path: Path) -> list[Cell]:
    """Return the cells of a notebook, format 4."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["nbformat"] != 4:
        raise ValueError(f"{path} has format {content['nbformat']}, expected 4")
    return [Cell(cell["cell_type"], "".join(cell["source"])) for cell in content["cells"]]


def notebook_page(path: Path) -> str:
    """Return a notebook as Markdown, without its title."""
    first, *rest = cells_of(path)
    title, _, text = first.text.partition("\n")
    if not title.startswith("# "):
        raise ValueError(f"{path} begins with a title, got {title!r}")
    blocks = [text.strip()]
    blocks += [cell.text if cell.kind == "markdown" else f"```python\n{cell.text}\n```" for cell in rest]
    return "\n\n".join(blocks) + "\n"
