"""A report in Markdown as one HTML file with its figures inside.

Only what the reports of this package have is read: headings, paragraphs, tables, lists, bold text, code between
backticks, and figures in the same folder.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path

from qmmlmm.durable_files import replace_file
from qmmlmm.runs.report.harmless import harmless
from qmmlmm.runs.report.page import page
from qmmlmm.runs.report.run_report import REPORT_NAME

_FIGURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
_RULE = re.compile(r"\|(?:\s*:?-+:?\s*\|)+")


def write_markdown_page(report: Path, more: Sequence[str] = ()) -> Path:
    """Write ``report.html`` beside a report in Markdown and return its path; a failure is a warning.

    Parameters
    ----------
    report : Path
        Report, whose figures are PNG files in the same folder.
    more : sequence of str
        Further sections, HTML.
    """
    path = report.with_name(REPORT_NAME)
    with harmless(path):
        text = report.read_text(encoding="utf-8")
        replace_file(path, markdown_page(text, report.parent, more).encode("utf-8"))
    return path


def markdown_page(text: str, folder: Path, more: Sequence[str] = ()) -> str:
    """Return a report in Markdown as HTML.

    Parameters
    ----------
    text : str
        Its first line is the title.
    folder : Path
        Folder of its figures.
    more : sequence of str
        Further sections, HTML.
    """
    blocks = [block.splitlines() for block in re.split(r"\n\s*\n", text.strip())]
    title = blocks[0][0].removeprefix("# ")
    rest = [block for block in [blocks[0][1:], *blocks[1:]] if block]
    return page(title, f"Folder {folder.resolve().name}.", [*(_block(block, folder) for block in rest), *more])


def embedded_image(path: Path, text: str) -> str:
    """Return a PNG file as a figure, HTML.

    Parameters
    ----------
    path : Path
    text : str
        What it shows, for readers who cannot see it.
    """
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<figure><img alt="{html.escape(text, quote=True)}" src="data:image/png;base64,{data}"></figure>'


def _block(lines: Sequence[str], folder: Path) -> str:
    heading = re.match(r"(#{2,4}) (.*)", lines[0])
    if heading:
        level = len(heading[1])
        below = _block(lines[1:], folder) if lines[1:] else ""
        return f"<h{level}>{_inline(heading[2])}</h{level}>{below}"
    if len(lines) > 1 and _RULE.fullmatch(lines[1].strip()):
        head = "".join(f"<th>{_inline(cell)}</th>" for cell in _cells(lines[0]))
        rows = ("".join(f"<td>{_inline(cell)}</td>" for cell in _cells(line)) for line in lines[2:])
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    if all(line.startswith("- ") for line in lines):
        return "<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in lines) + "</ul>"
    found = _FIGURE.fullmatch(" ".join(lines).strip())
    if found:
        return embedded_image(folder / found[2], found[1])
    return f"<p>{_inline(' '.join(lines))}</p>"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _inline(text: str) -> str:
    escaped = html.escape(text)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escaped)
