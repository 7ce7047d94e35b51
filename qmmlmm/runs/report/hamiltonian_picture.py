"""The Hamiltonian drawn as levels: what is added and subtracted on which region, above the force field."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from qmmlmm.runs.report.colours import LEVEL_COLOURS, MORE_COLOURS

ORDER = ("QM", "ML", "XTB", "MM")
LONGEST_POTENTIAL = 160


def hamiltonian_picture(description: Mapping[str, object]) -> str:
    """Return a row for each level with its terms, from the most expensive to the force field, HTML.

    Parameters
    ----------
    description : mapping of str to object
        Result of `MixedSystem.describe`; what it lacks is left out.
    """
    terms = mappings(description.get("terms"))
    levels = sorted({_level(term) for term in terms}, key=lambda name: ORDER.index(name) if name in ORDER else -1)
    rows = [
        _row(level, [_term(term) for term in terms if _level(term) == level], LEVEL_COLOURS.get(level, MORE_COLOURS[0]))
        for level in levels
    ]
    particles = description.get("particles")
    count = f"{particles:,} particles" if isinstance(particles, int) else "all particles"
    regions = " and ".join(str(region.get("name")) for region in mappings(description.get("regions")))
    rest = f"everything but the inside of {html.escape(regions)}" if regions else "the whole System"
    base = f'<p><span class="sign">+</span>Force field, {count}<small>{rest}</small></p>'
    rows.append(_row("MM", [base], LEVEL_COLOURS["MM"]))
    return f'<div class="levels">{"".join(rows)}</div>'


def mappings(found: object) -> list[Mapping[str, object]]:
    """Return the mappings in a list of a JSON file; none if it is no list."""
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, Sequence) else []


def pairs(found: object) -> Mapping[str, object]:
    """Return an object of a JSON file; empty if it is none."""
    return found if isinstance(found, Mapping) else {}


def _level(term: Mapping[str, object]) -> str:
    level = term.get("level")
    return str(level) if level else str(term.get("name", "")).rpartition("/")[2].removeprefix("-")


def _row(level: str, terms: Sequence[str], colour: str) -> str:
    return f'<div class="level" style="--level:{colour}"><b>{html.escape(level)}</b><div>{"".join(terms)}</div></div>'


def _term(term: Mapping[str, object]) -> str:
    coefficient = term.get("coefficient", 1.0)
    if isinstance(coefficient, int | float):
        sign = "\N{MINUS SIGN}" if coefficient < 0.0 else "+"
        factor = "" if abs(coefficient) == 1.0 else f"{abs(coefficient):g} \N{MULTIPLICATION SIGN} "
    else:
        sign, factor = "+", f"({coefficient}) \N{MULTIPLICATION SIGN} "
    details = [str(term[key]) + ending for key, ending in (("atoms", " atoms"),) if key in term]
    if term.get("link_atoms"):
        details.append(f"{term['link_atoms']} link atoms")
    if term.get("embedding"):
        details.append(f"{term['embedding']} embedding")
    if term.get("backend"):
        details.append(f"runs through {term['backend']}")
    if term.get("correction"):
        details.append(f"difference {term['correction']}")
    potential = str(term.get("potential", ""))
    if len(potential) > LONGEST_POTENTIAL:
        potential = potential[: LONGEST_POTENTIAL - 3] + "..."
    name = f"{factor}{term.get('name', '')}"
    below = html.escape(", ".join(details))
    return (
        f'<p><span class="sign">{sign}</span>{html.escape(name)}<small>{html.escape(potential)}</small>'
        f"<small>{below}</small></p>"
    )
