"""Input files of the commands: TOML tables with checked keys and values."""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TypeVar

from qmmlmm.errors import InputFileError, MissingDependencyError, QmmlmmError, listed, nearest
from qmmlmm.setting_checks import check_finite_number, check_flag, check_whole_number, is_whole_number

Record = TypeVar("Record")


class Table:
    """A table of an input file.

    Parameters
    ----------
    name : str
        Name of the table in messages; empty for the file itself.
    content : mapping of str to object
    elsewhere : iterable of str
        Keys of the same table that another reader knows, for messages.

    Notes
    -----
    Every method raises InputFileError if a key is missing or its value has the wrong type. A key is required unless a
    default is given.
    """

    def __init__(self, name: str, content: Mapping[str, object], elsewhere: Iterable[str] = ()) -> None:
        self.name = name
        self._content = content
        self._elsewhere = tuple(elsewhere)

    def __contains__(self, key: object) -> bool:
        """Return whether the table has a key."""
        return key in self._content

    def __iter__(self) -> Iterator[str]:
        """Return the keys."""
        return iter(self._content)

    def is_word(self, key: str, word: str) -> bool:
        """Return whether the value of a key is a text that stands for something else, such as "none"."""
        return self._content.get(key) == word

    def is_text(self, key: str) -> bool:
        """Return whether the value of a key is a text, where it may also be a list."""
        return isinstance(self._content.get(key), str)

    def check_keys(self, known: Iterable[str]) -> None:
        """Raise InputFileError for a key that is not known."""
        names = list(known)
        for key in self._content:
            if key not in names:
                names = list(dict.fromkeys([*names, *self._elsewhere]))
                raise InputFileError(
                    f"{self.where} has the unknown key {key!r}; known are {listed(names, 40)}.{nearest(key, names)}"
                )

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text."""
        return self._checked_text(key, self._value(key, default))

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number."""
        return check_finite_number(self._label(key), self._value(key, default), error=InputFileError)

    def whole_number(self, key: str, default: int | None = None) -> int:
        """Return a whole number of either sign."""
        value = self._value(key, default)
        if not is_whole_number(value):
            raise InputFileError(f"{self._label(key)} is a whole number, got {value!r}")
        return int(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """Return true or false."""
        return check_flag(self._label(key), self._value(key, default), error=InputFileError)

    def texts(self, key: str, default: list[str] | None = None) -> list[str]:
        """Return a list of texts."""
        return [self._checked_text(key, value) for value in self._list(key, default)]

    def numbers(self, key: str) -> list[float]:
        """Return a list of finite numbers."""
        return [check_finite_number(self._label(key), value, error=InputFileError) for value in self._list(key)]

    def whole_numbers(self, key: str) -> list[int]:
        """Return a list of whole numbers, zero or more."""
        label = self._label(key)
        return [check_whole_number(label, value, at_least=0, error=InputFileError) for value in self._list(key)]

    def rows(self, key: str) -> list[list[object]]:
        """Return a list of lists."""
        rows = self._list(key)
        if not all(isinstance(row, list) for row in rows):
            raise InputFileError(f"{self._label(key)} is a list of lists, got {rows!r}")
        return rows  # type: ignore[return-value]

    def check(self, key: str, allowed: bool, what: str) -> None:
        """Raise InputFileError for a value that is not allowed.

        Parameters
        ----------
        key : str
        allowed : bool
        what : str
            What the value is, such as "is positive".
        """
        if not allowed:
            raise InputFileError(f"{self._label(key)} {what}, got {self._content.get(key)!r}")

    def table(self, key: str) -> Table:
        """Return a table that is required."""
        return self._checked_table(key, self._value(key, None))

    def optional_table(self, key: str) -> Table:
        """Return a table, empty if it is missing."""
        return self._checked_table(key, self._content.get(key, {}))

    def tables(self, key: str) -> list[Table]:
        """Return the tables of a list, ``[[key]]`` in the file; none if it is missing."""
        if isinstance(self._content.get(key), dict):
            raise InputFileError(f"{self._label(key)} is a list of tables: write [[{key}]], not [{key}]")
        found = [self._checked_table(key, value) for value in self._list(key, [])]
        for number, table in enumerate(found if len(found) > 1 else [], start=1):
            table.name += f" {number}"
        return found

    def entries(self, key: str) -> list[object]:
        """Return a list of anything."""
        return self._list(key)

    def content(self) -> dict[str, object]:
        """Return what the table holds, as the TOML has it."""
        return dict(self._content)

    def part(self, *keys: str) -> Table:
        """Return the table with some of its keys."""
        return Table(self.name, {key: value for key, value in self._content.items() if key in keys})

    def without(self, *keys: str) -> Table:
        """Return the table without some of its keys."""
        content = {key: value for key, value in self._content.items() if key not in keys}
        return Table(self.name, content, (*self._elsewhere, *keys))

    def build(
        self,
        kind: Callable[..., Record],
        defaults: Mapping[str, object] | None = None,
        optional: Iterable[str] = (),
    ) -> Record:
        """Return a dataclass whose fields are the keys of the table.

        Parameters
        ----------
        kind : type
        defaults : mapping of str to object, optional
            Values of fields that the table does not set.
        optional : iterable of str
            Fields for which "none" stands for None.
        """
        known = [field for field in fields(kind) if field.init]  # type: ignore[arg-type]
        self.check_keys(field.name for field in known)
        values = {**(defaults or {}), **self._content}
        values.update((name, None) for name in optional if self.is_word(name, "none"))
        for field in known:
            if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
                raise InputFileError(f"{self.where} lacks {field.name!r}")
        with self.place():
            try:
                return kind(**values)
            except TypeError as error:
                raise InputFileError(f"{self.where} {error}") from error

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Return a context in which the table is named in errors."""
        try:
            yield
        except (InputFileError, MissingDependencyError):
            raise
        except QmmlmmError as error:
            raise InputFileError(f"{self.where} {error}" if self.name else str(error)) from error

    @property
    def where(self) -> str:
        """The table as it stands in messages."""
        return f"[{self.name}]" if self.name else "the file"

    def _label(self, key: str) -> str:
        return f"[{self.name}] {key}" if self.name else key

    def _value(self, key: str, default: object) -> object:
        if key in self._content:
            return self._content[key]
        if default is None:
            raise InputFileError(f"{self.where} lacks {key!r}")
        return default

    def _list(self, key: str, default: object = None) -> list[object]:
        value = self._value(key, default)
        if not isinstance(value, list):
            raise InputFileError(f"{self._label(key)} is a list, got {value!r}")
        return value

    def _checked_text(self, key: str, value: object) -> str:
        if not isinstance(value, str):
            raise InputFileError(f"{self._label(key)} is a text in quotes, got {value!r}")
        return value

    def _checked_table(self, key: str, value: object) -> Table:
        name = f"{self.name}.{key}" if self.name else key
        if not isinstance(value, dict):
            raise InputFileError(f"{name} is a table: write [{name}] above its keys")
        return Table(name, value)


def read_toml(path: Path, known: Iterable[str]) -> Table:
    """Return the content of a file.

    Parameters
    ----------
    path : Path
    known : iterable of str
        Keys that the file may have at its top level.

    Raises
    ------
    InputFileError
        If there is no such file, it is not TOML or has another key.
    """
    if not path.is_file():
        raise InputFileError(f"there is no file {str(path)!r}; the working directory is {os.getcwd()!r}")
    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputFileError(f"{path} is not text in UTF-8 (byte {error.start}); save it in this encoding") from error
    except RecursionError as error:
        raise InputFileError(f"{path} is not valid TOML: its lists are nested too deeply") from error
    except ValueError as error:
        raise InputFileError(f"{path} is not valid TOML: {error}") from error
    _check_integers(values, "the file")
    content = Table("", values)
    content.check_keys(known)
    return content


def _check_integers(value: object, place: str) -> None:
    """Raise InputFileError for an integer that 64 bits do not hold, which TOML does not have."""
    if isinstance(value, dict):
        for key, entry in value.items():
            _check_integers(entry, str(key))
    elif isinstance(value, list):
        for entry in value:
            _check_integers(entry, place)
    elif isinstance(value, int) and value.bit_length() > 63:
        raise InputFileError(f"{place} has an integer of more than 64 bits")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Return a context in which errors of an input file name it."""
    try:
        yield
    except InputFileError as error:
        if str(path) in str(error):
            raise
        raise InputFileError(f"{path}: {error}") from error
