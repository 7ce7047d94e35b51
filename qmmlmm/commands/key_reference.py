"""Keys of input files with type, default and meaning, read from the records that check them."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from qmmlmm.commands.measures import Duration
from qmmlmm.setting_checks import is_number

_ENTRY = re.compile(r"^(?P<names>\w+(?:, \w+)*)(?: : (?P<type>.+))?$")
_PLAIN_TYPES = (
    (r"\bQuantity or float\b", "number"),
    (r"\bfloat or None\b", "number"),
    (r"\bint\b", "whole number"),
    (r"\bfloat\b", "number"),
    (r"\bbool\b", "true or false"),
    (r"\bstr or path\b", "path"),
    (r"\bstr or mapping of str to str\b", "text or table of texts"),
    (r"\bstr\b", "text"),
)
"""Types of Python and the words for them in TOML."""


@dataclass(frozen=True)
class Key:
    """A key of a table.

    Parameters
    ----------
    name : str
    type : str
        With the unit of a bare number.
    required : bool
    default : str
        As TOML; empty if there is none.
    text : str
        What it means.
    """

    name: str
    type: str
    required: bool
    default: str
    text: str


def keys_of(record: type, without: Iterable[str] = ()) -> tuple[Key, ...]:
    """Return the keys of the fields of a dataclass, with what its docstring says of them.

    Parameters
    ----------
    record : type
        Dataclass whose docstring, or that of a class above it, has each field among its Parameters.
    without : iterable of str
        Fields that are no keys.
    """
    described = _described(record)
    left_out = set(without)
    found = []
    for field in fields(record):
        if not field.init or field.name in left_out:
            continue
        kind, text = described[field.name]
        value = field.default
        if field.default_factory is not MISSING:
            value = field.default_factory()
        required = value is MISSING
        found.append(Key(field.name, kind, required, "" if required else toml_value(value), text))
    return tuple(found)


def toml_value(value: object) -> str:
    """Return a value as TOML; empty for None and for empty tables and lists."""
    if isinstance(value, Duration):
        value = value.given
    if value is None or value == {} or value == ():
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {toml_value(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if is_number(value) and math.isfinite(value):
        return repr(value)
    raise TypeError(f"no TOML for {value!r}")


def key_table(keys: Iterable[Key]) -> str:
    """Return keys as a table in Markdown."""
    rows = ["| key | type, unit | default | |", "|---|---|---|---|"]
    for key in keys:
        default = "required" if key.required else f"`{key.default}`" if key.default else ""
        rows.append(f"| `{key.name}` | {key.type} | {default} | {key.text} |")
    return "\n".join(rows)


def with_tables(text: str, tables: Mapping[str, Iterable[Key]]) -> str:
    """Return Markdown with the tables of the keys between ``<!-- keys: NAME -->`` and ``<!-- end -->``."""

    def filled(match: re.Match[str]) -> str:
        return f"{match[1]}\n{key_table(tables[match[2]])}\n{match[3]}"

    return re.sub(r"(<!-- keys: (\S+) -->)\n.*?(<!-- end -->)", filled, text, flags=re.DOTALL)


def write_tables(path: Path, tables: Mapping[str, Iterable[Key]]) -> None:
    """Write the tables of keys into a file of Markdown."""
    path.write_text(with_tables(path.read_text(encoding="utf-8"), tables), encoding="utf-8")


def _described(record: type) -> dict[str, tuple[str, str]]:
    """Return type and text of each parameter of a docstring in numpydoc."""
    doc = next(found for kind in record.__mro__ if "\nParameters\n" in (found := inspect.cleandoc(kind.__doc__ or "")))
    body = doc.split("\nParameters\n----------\n", 1)[1]
    body = re.split(r"\n\n\w+\n-{3,}\n", body, maxsplit=1)[0]
    described: dict[str, tuple[str, str]] = {}
    names: list[str] = []
    for line in body.splitlines():
        entry = _ENTRY.match(line)
        if entry is not None:
            names = entry["names"].split(", ")
            described.update(dict.fromkeys(names, (_plain(entry["type"] or ""), "")))
        elif line.startswith(" "):
            for name in names:
                kind, text = described[name]
                described[name] = kind, f"{text} {_unmarked(line.strip())}".strip()
    return described


def _plain(kind: str) -> str:
    """Return a type in the words of input files."""
    for pattern, word in _PLAIN_TYPES:
        kind = re.sub(pattern, word, kind)
    kind = kind.removesuffix(", optional").replace(", optional,", ",")
    return "one of " + kind.strip("{}") if kind.startswith("{") else kind


def _unmarked(text: str) -> str:
    return text.replace("``", "`")
