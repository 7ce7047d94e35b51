"""Colours of levels and elements in figures."""

from __future__ import annotations

# Colours of Okabe and Ito, and wine of Tol, distinguishable with any colour vision.
MM_COLOUR = "#8c8c8c"
LEVEL_COLOURS = {"QM": "#d55e00", "ML": "#0072b2", "XTB": "#882255", "MM": MM_COLOUR}
MORE_COLOURS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DIFFERENCE_COLOUR = "#6a3d9a"

ELEMENT_COLOURS = {
    "H": "#d9d9d9",
    "C": "#5a5a5a",
    "N": "#3060d0",
    "O": "#d03030",
    "F": "#5fae3f",
    "Na": "#8f50c8",
    "Mg": "#2f8f2f",
    "P": "#e08020",
    "S": "#d4b020",
    "Cl": "#3fae3f",
    "Fe": "#c06030",
    "Zn": "#7d80b0",
}
OTHER_ELEMENT = "#b060a0"


def term_colours(names: list[str]) -> dict[str, str]:
    """Return one colour per term: that of the level for its first region, others for further regions.

    Parameters
    ----------
    names : list of str
        Names of terms, such as ``"ligand/QM"`` and ``"ligand/-ML"``.
    """
    more = iter(MORE_COLOURS * len(names))
    taken: dict[str, str] = {}
    for name in names:
        level = name.rpartition("/")[2].removeprefix("-")
        colour = LEVEL_COLOURS.get(level, "")
        subtracted = "/-" in name
        others = {taken[other] for other in taken if ("/-" in other) == subtracted}
        taken[name] = colour if colour and colour not in others else next(more)
    return taken
