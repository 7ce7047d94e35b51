"""Assignment of states to those of the last geometry, with signs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from qmmlmm.errors import EvaluationError
from qmmlmm.units import FloatArray, IntArray

logger = logging.getLogger("qmmlmm.qm")

LEAST_CHARACTER = 0.3
"""Squared overlap with the last geometry below which a followed state has lost its character. It is one half if two
states mix fully."""


@dataclass(frozen=True)
class Match:
    """States matched with those of the last geometry.

    Parameters
    ----------
    overlaps : (m, m) float array
        Overlaps of the last states, in rows, with these after a change of signs.
    signs : (m,) float array
        Signs by which these are multiplied.
    characters : tuple of int
        Index at the first geometry of the state with the same character, for each state in the order of energy.
    kept : (m,) float array
        Squared overlap of each state with the last state of its character.
    """

    overlaps: FloatArray
    signs: FloatArray
    characters: tuple[int, ...]
    kept: FloatArray


@dataclass
class StateChoice:
    """The choice of the state with energy and forces.

    Parameters
    ----------
    state : int
        Index in the order of energy; with `follow` that at the first geometry.
    follow : bool
        Whether the state keeps its character when states cross.
    term : str
        Name of the term, for messages.
    """

    state: int
    follow: bool
    term: str

    def position(self, characters: Sequence[int]) -> int:
        """Return the index of the state in the order of energy, given the characters of all states."""
        return tuple(characters).index(self.state) if self.follow else self.state

    def check_kept(self, matched: Match, save: Callable[[], str]) -> None:
        """Raise EvaluationError if a followed state is not among those that were computed."""
        kept = float(matched.kept[self.position(matched.characters)])
        if self.follow and kept < LEAST_CHARACTER:
            raise EvaluationError(
                f"{self.term}: the followed state has lost its character: of the states computed, the nearest has a "
                f"squared overlap of {kept:.2f} with it; {save()}. Raise n_states, so that the state is among those "
                "computed, or take shorter steps"
            )

    def warn_of_jump(self) -> None:
        """Log that states cannot be followed over a jump of the geometry."""
        logger.warning(
            "%s: the geometry jumped, and states cannot be followed: state %d is counted by energy again",
            *(self.term, self.state),
        )


def match(overlaps: FloatArray, last_characters: Sequence[int], term: str) -> Match:
    """Assign states to those of the last geometry; crossings are logged.

    Parameters
    ----------
    overlaps : (m, m) float array
        Overlaps of the last states, in rows, with these.
    last_characters : sequence of int
        Characters of the last states.
    term : str
        Name of the term, for messages.
    """
    rows, signs = _matched(overlaps)
    characters = tuple(last_characters[row] for row in rows)
    for position, (old, new) in enumerate(zip(last_characters, characters, strict=True)):
        if old != new:
            logger.warning(
                "%s: states have crossed: position %d in the order of energy is taken by the state that was number %d "
                "at the first geometry, before by number %d",
                *(term, position, new, old),
            )
    kept = overlaps[rows, np.arange(len(rows))] ** 2
    return Match(overlaps * signs, signs, characters, kept)


def _matched(overlaps: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return for each new state the old one of its character, and the sign of their overlap."""
    rows, columns = linear_sum_assignment(-(overlaps**2))
    order = rows[np.argsort(columns)]
    values = overlaps[order, np.arange(len(order))]
    return order, np.where(values < 0.0, -1.0, 1.0)
