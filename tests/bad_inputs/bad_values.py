"""Bad values for parameters, by the annotation of the parameter."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from openmm import unit


@dataclass(frozen=True)
class Bad:
    """A bad value, or a function that makes one of the valid value of the same parameter."""

    label: str
    value: object = None
    make: Callable[[object], object] | None = None

    def instead_of(self, valid: object) -> object:
        return self.value if self.make is None else self.make(valid)


def _listed(values: dict[str, object]) -> list[Bad]:
    return [Bad(label, value) for label, value in values.items()]


NOTHING = [Bad("None", None)]
NO_NUMBERS = _listed({"True": True, "text": "1", "list": [], "nan": math.nan, "infinity": math.inf})
LIMITS = _listed({"zero": 0, "minus one": -1})
UNIT = [Bad("another unit", 1.0 * unit.ampere), Bad("text with a unit", unit.Quantity("x", unit.ampere))]

WHOLE = [*NOTHING, *NO_NUMBERS, *LIMITS, Bad("fraction", 1.5), Bad("huge", 10**30), Bad("array", np.arange(2))]
REAL = [*NOTHING, *NO_NUMBERS, *LIMITS, *UNIT, Bad("huge", 10**400), Bad("complex", 1j), Bad("array", np.arange(2.0))]
FLAG = [*NOTHING, *_listed({"one": 1, "zero": 0, "text": "yes", "list": [], "nan": math.nan})]
TEXT = [
    *NOTHING,
    *_listed(
        {"number": 5, "True": True, "bytes": b"x", "empty": "", "blank": "  ", "line break": "a\nb", "list": ["x"]}
    ),
]
CHOICE = [*TEXT, Bad("unknown", "no such choice")]
PATH = [*NOTHING, *_listed({"number": 5, "True": True, "bytes": b"x", "empty": "", "NUL": "a\0b", "list": ["x"]})]
FUNCTION = [*NOTHING, *_listed({"number": 5, "text": "x"})]
NAMES = [
    *NOTHING,
    *_listed({"number": 5, "empty": [], "numbers": [5], "blank": [" "], "twice": ["x", "x"], "mapping": {"x": 1}}),
]
ATOMS = [
    *NOTHING,
    *_listed(
        {"number": 1, "text": "0", "empty": [], "fraction": [0.5], "negative": [-1], "texts": ["0"], "True": [True]}
    ),
    *_listed({"nan": [math.nan], "beyond the last": [10**9], "twice": [0, 0], "mapping": {0: 1}, "None in it": [None]}),
]
ARRAY = [
    *NOTHING,
    *_listed({"text": "x", "texts": ["x"], "mapping": {}, "number": 1.0, "empty": [], "True": [True, False]}),
    *_listed({"another unit": np.ones(2) * unit.ampere, "four axes": np.zeros((2, 2, 2, 2)), "object": object()}),
    Bad("nan", make=lambda valid: np.full(np.shape(valid), math.nan)),
    Bad("infinity", make=lambda valid: np.full(np.shape(valid), math.inf)),
]
MAPPING = [*_listed({"number": 5, "text": "x", "list": [1], "True": True}), Bad("keys of another kind", {None: None})]
OBJECT = [
    *NOTHING,
    *_listed({"number": 5, "text": "x", "list": [], "mapping": {}, "object": object()}),
    Bad("class", make=type),
]
OBJECTS = [
    *NOTHING,
    *_listed({"number": 5, "text": "x", "empty": [], "None in it": [None], "mapping": {}}),
    Bad("one object", make=lambda valid: valid[0]),
]

# The first pattern that is found in an annotation decides.
KINDS: list[tuple[str, list[Bad]]] = [
    (r"PathLike|\bPath\b", PATH),
    (r"^Callable|Executor", FUNCTION),
    (r"Mapping", MAPPING),
    (r"(Sequence|Iterable)\[int\]", ATOMS),
    (r"(Sequence|Iterable)\[str\]", NAMES),
    (r"^(Vectors|FloatArray|IntArray|Sequence\[Vectors\]|Sequence\[float\])", ARRAY),
    (r"(Sequence|Iterable)\[", OBJECTS),
    (r"^int\b", WHOLE),
    (r"^(float|Scalar)\b", REAL),
    (r"^bool\b", FLAG),
    (r"^(LinkRule|MLBackend|MeshPrecision)\b", CHOICE),
    (r"^str\b", TEXT),
    (r"", OBJECT),
]


def bad_values(annotation: str, accepted: Iterable[str]) -> list[Bad]:
    """Return the bad values of a parameter, without those of these labels; None is none where it is declared."""
    kind = next(values for pattern, values in KINDS if re.search(pattern, annotation))
    left = set(accepted) | ({"None"} if "None" in annotation else set())
    return [bad for bad in kind if bad.label not in left]
