"""Tables in HTML, for notebooks and reports, with everything in them escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def html_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in HTML.

    Parameters
    ----------
    head : sequence of str
        Names of the columns; no row of names if all are empty.
    rows : iterable of sequences of object
        Cells, which are escaped; None is an empty cell.
    """
    names = f"<thead>{_row(head, 'th')}</thead>" if any(head) else ""
    return f"<table>{names}<tbody>{''.join(_row(cells, 'td') for cells in rows)}</tbody></table>"


def _row(cells: Sequence[object], tag: str) -> str:
    texts = ("" if cell is None else html.escape(str(cell)) for cell in cells)
    return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in texts) + "</tr>"
