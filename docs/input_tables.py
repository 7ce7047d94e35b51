"""The tables of all input files with their keys, as `qmmlmm new` has them, and the kinds of levels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from qmmlmm.commands.key_reference import keys_of
from qmmlmm.commands.run_keys import COORDINATION, PATH, RMSD, run_keys
from qmmlmm.commands.templates import (
    Section,
    correct_sections,
    learn_sections,
    reaction_sections,
    run_sections,
    spectrum_sections,
)
from qmmlmm.xtb import XTBPotential

_LEVELS = {
    "pyscf": "[[term]], a method of PySCF",
    "xtb": "[[term]], GFN1-xTB or GFN2-xTB",
    "model": "[[term]], a model file",
    "pretrained": "[[term]], a model of openmm-ml",
}
_TOP = "Top of the file"


def _with_levels() -> list[Section]:
    """Return the tables of ``qmmlmm run``, with those of the kinds of levels after [[term]]."""
    keys = run_keys()
    found = run_sections()
    place = next(number for number, section in enumerate(found) if section.header == "[[term]]") + 1
    levels = [Section(title, "Keys of this kind of level.", keys[name]) for name, title in _LEVELS.items()]
    variable = next(number for number, section in enumerate(found) if section.header == "[[variable]]") + 1
    kinds = [
        Section("[[variable]], coordination", "Keys of this table.", COORDINATION),
        Section("[[variable]], rmsd", "Keys of this table.", RMSD),
        Section("[[variable]], path_progress and path_distance", "Keys of these tables.", PATH),
    ]
    return [*found[:place], *levels, *found[place:variable], *kinds, *found[variable:]]


def _with_xtb(sections: Sequence[Section]) -> list[Section]:
    """Return tables with that of xTB after [qm]."""
    place = next(number for number, section in enumerate(sections) if section.header == "[qm]") + 1
    xtb = Section("[qm], GFN1-xTB or GFN2-xTB", "Keys of this kind of level.", keys_of(XTBPotential))
    return [*sections[:place], xtb, *sections[place:]]


COMMANDS = {
    "run": _with_levels(),
    "learn": _with_xtb(learn_sections()),
    "spectrum": spectrum_sections(),
    "correct": correct_sections(),
    "reaction": reaction_sections(),
}
"""Tables by the command that reads them; those of a reaction are read by all commands of `REACTION`."""
REACTION = ("optimise", "scan", "path", "saddle", "frequencies", "umbrella", "profile")


def heading(kind: str) -> str:
    """Return the commands that read a kind of file, as a heading."""
    return ", ".join(f"`qmmlmm {command}`" for command in (REACTION if kind == "reaction" else (kind,)))


def title(section: Section) -> str:
    """Return the heading of a table."""
    return section.header or _TOP


def all_names(sections: Iterable[Section]) -> set[str]:
    """Return the names of all keys and tables."""
    found: set[str] = set()
    for section in sections:
        found.update(re.findall(r"\w+", section.header))
        found.update(key.name for key in section.keys)
    return found
