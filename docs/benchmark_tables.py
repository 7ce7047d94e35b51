"""The tables of measurements in the pages, from the records in ``docs/results/data``.

    python docs/benchmark_tables.py

A page has ``<!-- benchmark: NAME -->`` and ``<!-- end of benchmark -->``. What is between them is replaced by the
tables of ``NAME.json``, which ``python tests/benchmarks/NAME.py --json docs/results/data/NAME.json`` writes, with other
options ``NAME__OPTIONS.json``; it is kept where there is no such file. The documentation is not built with a page that
differs from its record.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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
    lines = [record["notes"], ""] if record["notes"] else []
    for table in record["tables"]:
        lines += [*table_lines(table), ""]
    return "\n".join([*lines, _measured(record), ""])


def table_lines(table: Mapping[str, Any]) -> list[str]:
    """Return the lines of a table of a record."""
    lines = [f"{table['title']}:", ""] if table["title"] else []
    lines += [_row(table["columns"]), "|" + "---|" * len(table["columns"])]
    decimals = [max((_decimals(cell) for cell in column), default=0) for column in zip(*table["rows"], strict=True)]
    return [*lines, *(_row(map(shown, row, decimals)) for row in table["rows"])]


def shown(cell: object, decimals: int = 0) -> str:
    """Return a cell as text: of two numbers a value with its error, of three the median with the quartiles.

    Numbers have three digits, and as many of the decimals of their column as that allows.
    """
    if isinstance(cell, list) and len(cell) == 2:
        return _with_error(*cell)
    if isinstance(cell, list):
        low, middle, high = (shown(value, decimals) for value in cell)
        return f"{middle} ({low} to {high})"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return _three_digits(cell, decimals)
    return "" if cell is None else str(cell).replace("|", "\\|")


def _three_digits(value: float, decimals: int) -> str:
    text = f"{value:,.0f}" if abs(value) >= 1000.0 else f"{value:.3g}"
    if value == 0.0 or "e" in text or abs(value) >= 1000.0:
        return text
    most = 2 - math.floor(math.log10(abs(float(text))))
    return f"{value:.{max(_places(text), min(decimals, most))}f}"


def _decimals(cell: object) -> int:
    """Return the most decimals of the numbers of a cell."""
    numbers = cell if isinstance(cell, list) and len(cell) == 3 else [cell]
    return max(_places(_three_digits(number, 0)) if isinstance(number, float) else 0 for number in numbers)


def _places(text: str) -> int:
    return 0 if "e" in text else len(text.partition(".")[2])


def _with_error(value: float, error: float) -> str:
    """Return a value with the decimals of the first two digits of its error."""
    if not (math.isfinite(error) and error > 0.0):
        return f"{shown(value)} ± {shown(error)}"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    # Adding zero takes the sign from a rounded zero.
    return f"{round(value, decimals) + 0.0:,.{decimals}f} ± {error:.{decimals}f}"


def _measured(record: Mapping[str, object]) -> str:
    """Return where the numbers come from; a record of an earlier run may lack the machine or the versions.

    A transcribed record has rounded numbers that a page had before the script wrote records; its date is that of the
    page.
    """
    if record.get("transcribed"):
        return (
            f"Transcribed from the documentation of {record['date']}: rounded, from the printed output of earlier runs "
            f"on a shared virtual machine. To measure again: `{record['command']}`."
        )
    parts = [f"Measured on {record['date']} by `{record['command']}`"]
    for key in ("machine", "versions"):
        if record[key]:
            parts.append(", ".join(f"{name} {value}" for name, value in dict(record[key]).items()))
    return "; ".join(parts) + "."


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
