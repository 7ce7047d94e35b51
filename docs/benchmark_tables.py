"""The tables of measurements in the pages, from the records in ``docs/results/data``.

    python docs/benchmark_tables.py

A page has ``<!-- benchmark: NAME -->`` and ``<!-- end of benchmark -->``. What is between them is replaced by the
tables of ``NAME.json``, which ``python tests/benchmarks/NAME.py --json docs/results/data/NAME.json`` writes, with other
options ``NAME__OPTIONS.json``; it is kept where there is no such file. The documentation is not built with a page that
differs from its record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parent
DATA = DOCS / "results" / "data"
FORMAT = 1
_BLOCK = re.compile(r"(<!-- benchmark: (\w+) -->\n)(.*?)(<!-- end of benchmark -->)", re.DOTALL)


def main() -> None:
    """Write the tables into all pages."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        fresh = with_tables(text)
        if fresh != text:
            page.write_text(fresh, encoding="utf-8")


def pages() -> list[Path]:
    """Return the pages that have a place for tables."""
    found = (path for path in sorted(DOCS.rglob("*.md")) if "generated" not in path.parts)
    return [path for path in found if _BLOCK.search(path.read_text(encoding="utf-8"))]


def differing() -> list[Path]:
    """Return the pages whose tables are not those of the records."""
    return [page for page in pages() if with_tables(text := page.read_text(encoding="utf-8")) != text]


def with_tables(text: str, data: Path = DATA) -> str:
    """Return the text of a page with the tables of the records that exist.

    Parameters
    ----------
    text : str
    data : Path
        Folder of the records.
    """

    def replaced(found: re.Match[str]) -> str:
        path = data / f"{found[2]}.json"
        return f"{found[1]}{tables_of(path)}{found[4]}" if path.is_file() else found[0]

    return _BLOCK.sub(replaced, text)


def tables_of(path: Path) -> str:
    """Return the tables of a record in Markdown, with what they were measured with.

    Raises
    ------
    ValueError
        If the record has another format.
    """
    record = json.loads(path.read_text(encoding="utf-8"))
    if record.get("format") != FORMAT:
        raise ValueError(f"{path} has format {record.get('format')!r}, expected {FORMAT}; write it again")
    lines = [_measured(record), ""]
    for table in record["tables"]:
        lines += [f"{table['title']}:", "", _row(table["columns"], str), "|" + "---|" * len(table["columns"])]
        lines += [*(_row(row, shown) for row in table["rows"]), ""]
    return "\n".join(lines)


def shown(cell: object) -> str:
    """Return a cell as text: of three numbers the median with the quartiles."""
    if isinstance(cell, list):
        low, middle, high = (shown(value) for value in cell)
        return f"{middle} ({low} to {high})"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000.0 else f"{cell:.3g}"
    return "" if cell is None else str(cell).replace("|", "\\|")


def _measured(record: Mapping[str, object]) -> str:
    machine, versions = (
        ", ".join(f"{name} {value}" for name, value in dict(record[key]).items()) for key in ("machine", "versions")
    )
    notes = f"{record['notes']} " if record["notes"] else ""
    return f"{notes}Measured on {record['date']} by `{record['command']}`; {machine}; {versions}."


def _row(cells: Sequence[object], text: Callable[[object], str]) -> str:
    return f"| {' | '.join(text(cell) for cell in cells)} |"


if __name__ == "__main__":
    main()
