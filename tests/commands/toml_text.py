"""Values as TOML, for tests that change one value of an input file."""

from __future__ import annotations

import copy
import json
import math


def toml_text(content: dict) -> str:
    """Return a mapping as TOML, with tables in one line each."""
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in content.items())


def changed(content: dict, place: tuple[str, ...], value: object) -> dict:
    """Return a mapping in which the value at a place, keys from the outside to the inside, is another one."""
    found = copy.deepcopy(content)
    table = found
    for key in place[:-1]:
        table = table.setdefault(key, {}) if not isinstance(table.get(key), list) else table[key][0]
    table[place[-1]] = value
    return found


def _key(key: str) -> str:
    return json.dumps(key)


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_value(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value)
