"""The page of a report: one HTML file with its style, readable on a desktop, on a phone and on paper."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from qmmlmm.html_tables import html_table

STYLE = """
:root { color-scheme: light dark; --ink: #1d2127; --soft: #5b6470; --line: #d5dae1; --paper: #ffffff; --panel: #f5f7f9;
  --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #a3adb9; --line: #3a424d; --paper: #14181d;
  --panel: #1d232a; --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; padding-top: .9rem; border-top: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 48rem; }
.lead, figcaption, .note { color: var(--soft); }
.note, figcaption { font-size: .875rem; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem; margin: 1rem 0; }
.numbers div { background: var(--panel); border-radius: .5rem; padding: .6rem .8rem; }
.numbers dt { color: var(--soft); font-size: .8rem; }
.numbers dd { margin: 0; font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); gap: 1.2rem 2rem;
  margin: 1rem 0; }
figure { margin: 0; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; }
figure img { max-width: 100%; height: auto; background: #fff; border-radius: .4rem; }
figure h3 { font-size: .95rem; margin: 0 0 .2rem; }
svg text { fill: var(--ink); font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
svg .tick { fill: var(--soft); font-size: 11px; }
svg .grid { stroke: var(--line); stroke-width: 1; }
.key { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .85rem; color: var(--soft); }
.key i { display: inline-block; width: 1.1rem; height: .22rem; margin-right: .35rem; vertical-align: middle; }
.levels { display: grid; gap: .4rem; }
.level { display: grid; grid-template-columns: 3.6rem 1fr; border-radius: .5rem; overflow: hidden;
  background: var(--panel); }
.level > b { display: grid; place-items: center; color: #fff; background: var(--level); }
.level > div { padding: .5rem .8rem; display: grid; gap: .4rem; min-width: 0; }
.level p { margin: 0; max-width: none; overflow-wrap: anywhere; }
.level .sign { font-weight: 700; color: var(--level); margin-right: .2rem; }
.level small { color: var(--soft); display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
td:first-child { min-width: 7.5rem; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); }
td { font-variant-numeric: tabular-nums; }
pre { background: var(--panel); border-radius: .5rem; padding: .8rem 1rem; overflow-x: auto; font-size: .85rem; }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
a { color: var(--accent); }
.bar { display: flex; height: 1.6rem; border-radius: .4rem; overflow: hidden; margin: .6rem 0; }
.bar span { display: block; min-width: 2px; }
@media print { body { font-size: 12px; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def page(title: str, lead: str, sections: Iterable[str]) -> str:
    """Return a whole HTML file.

    Parameters
    ----------
    title : str
    lead : str
        Sentence below the title.
    sections : iterable of str
        HTML; empty ones are left out.
    """
    body = "\n".join(text for text in sections if text)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{html.escape(title)}</h1>\n<p class="lead">{html.escape(lead)}</p>\n{body}\n</main>\n</body>\n</html>\n'
    )


def section(title: str, *parts: str) -> str:
    """Return a section, HTML; empty if it has no parts.

    Parameters
    ----------
    title : str
    *parts : str
        HTML; empty ones are left out.
    """
    kept = [part for part in parts if part]
    return "\n".join(["<section>", f"<h2>{html.escape(title)}</h2>", *kept, "</section>"]) if kept else ""


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of text, HTML."""
    return f"<p{_class(kind)}>{html.escape(text)}</p>"


def code(text: str) -> str:
    """Return a block of code, HTML."""
    return f"<pre>{html.escape(text)}</pre>"


def numbers(rows: Mapping[str, str]) -> str:
    """Return numbers in large type with their names, HTML."""
    cells = (f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd></div>" for name, text in rows.items())
    return f'<dl class="numbers">{"".join(cells)}</dl>'


def wide_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table that scrolls sideways on a narrow screen, HTML; empty without rows."""
    return f'<div class="wide">{html_table(head, rows)}</div>' if rows else ""


def figure(title: str, drawing: str, caption: str = "") -> str:
    """Return a figure with its title, HTML.

    Parameters
    ----------
    title : str
    drawing : str
        HTML or SVG.
    caption : str
    """
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f"<figure><h3>{html.escape(title)}</h3>{drawing}{below}</figure>"


def figures(drawn: Sequence[str]) -> str:
    """Return figures side by side where there is room, HTML; empty without any."""
    return f'<div class="figures">{"".join(drawn)}</div>' if drawn else ""


def items(texts: Iterable[str]) -> str:
    """Return a list of texts, HTML."""
    return "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in texts) + "</ul>"


def links(targets: Mapping[str, str]) -> str:
    """Return a list of links to files beside the page by their texts, HTML; empty without any."""
    shown = (
        f'<li><a href="{html.escape(path, quote=True)}">{html.escape(text)}</a></li>' for text, path in targets.items()
    )
    return f"<ul>{''.join(shown)}</ul>" if targets else ""


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
