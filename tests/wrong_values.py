"""Values that an argument of a kind must refuse, for tests that go through all arguments."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from openmm import unit

NO_NUMBER = [True, None, "1", "x", [1.0], {}, 1j, object(), b"1"]
NOT_FINITE = [math.nan, math.inf, -math.inf]
WRONG = {
    "count": [*NO_NUMBER, *NOT_FINITE, 0, -1, 1.5, 10**30, 3 * unit.kelvin],
    "count or zero": [*NO_NUMBER, *NOT_FINITE, -1, 1.5, 10**30, 3 * unit.kelvin],
    "seed": [*NO_NUMBER, *NOT_FINITE, -1, 1.5, 2**32],
    "positive": [*NO_NUMBER, *NOT_FINITE, 0, 0.0, -1.0, 10**400, 3 * unit.mole],
    "not negative": [*NO_NUMBER, *NOT_FINITE, -1e-9, -1, 10**400, 3 * unit.mole],
    "flag": [0, 1, "yes", "no", "true", None, [], math.nan],
    "text": [True, None, 5, 1.5, b"x", [], "", " ", "a\nb", "a\0b"],
    "name": [True, 5, 1.5, b"x", [], {}],
    "record": [None, True, 5, "x", {}, [], object()],
    "list": [None, True, 5, "x", {}, [5], ["x"], [None]],
}
"""Wrong values by the kind of an argument."""

NUMPY = {"count": np.int64, "count or zero": np.int32, "seed": np.int64, "positive": np.float64, "flag": np.bool_,
         "not negative": np.float32}  # fmt: skip
"""NumPy's class of right values by kind."""


def wrong_values(kinds: dict[str, str], more: dict[str, list[object]]) -> Iterator[tuple[str, object]]:
    """Yield names of arguments with wrong values.

    Parameters
    ----------
    kinds : dict of str to str
        Kind of each argument; with the ending " or None", None is right.
    more : dict of str to list
        Further wrong values of an argument.
    """
    for name, kind in kinds.items():
        values = WRONG[kind.removesuffix(" or None")]
        yield from ((name, value) for value in values if value is not None or not kind.endswith(" or None"))
        yield from ((name, value) for value in more.get(name, []))


def short(value: object) -> str:
    """Return a name for a value in the name of a test."""
    text = repr(value)
    return type(value).__name__ if " at 0x" in text else text[:20].replace("\0", "0")
