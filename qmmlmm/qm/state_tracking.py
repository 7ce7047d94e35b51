"""Which state of the last geometry each state is, and with which sign."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from qmmlmm.units import FloatArray, IntArray

logger = logging.getLogger("qmmlmm.qm")

LEAST_CHARACTER = 0.3
"""Squared overlap with the last geometry below which a state that is followed has lost its character. Where two states
mix fully, it is one half."""


@dataclass(frozen=True)
class Match:
    """States matched with those of the last geometry.

    Parameters
    ----------
    overlaps : (m, m) float array
        Of the last states, in rows, with these after a change of signs.
    signs : (m,) float array
        By which these are multiplied.
    characters : tuple of int
        For each place in the order of energy the number that its state had at the first geometry.
    kept : (m,) float array
        Squared overlap of each with the last state of its character.
    """

    overlaps: FloatArray
    signs: FloatArray
    characters: tuple[int, ...]
    kept: FloatArray


def match(overlaps: FloatArray, last_characters: Sequence[int], term: str) -> Match:
    """Return the states by their characters; crossings are logged.

    Parameters
    ----------
    overlaps : (m, m) float array
        Of the last states, in rows, with these.
    last_characters : sequence of int
        Of the last states.
    term : str
        For messages.
    """
    rows, signs = _matched(overlaps)
    characters = tuple(last_characters[row] for row in rows)
    for place, (old, new) in enumerate(zip(last_characters, characters, strict=True)):
        if old != new:
            logger.warning(
                "%s: states have crossed: place %d in the order of energy is taken by the state that was number %d "
                "at the first geometry, before by number %d",
                *(term, place, new, old),
            )
    kept = overlaps[rows, np.arange(len(rows))] ** 2
    return Match(overlaps * signs, signs, characters, kept)


def _matched(overlaps: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return for each new state the old one of its character, and the sign of their overlap."""
    rows, columns = linear_sum_assignment(-(overlaps**2))
    order = rows[np.argsort(columns)]
    values = overlaps[order, np.arange(len(order))]
    return order, np.where(values < 0.0, -1.0, 1.0)
