"""Basis sets by element, such as one for a metal and another for the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from qmmlmm.errors import PotentialError

DEFAULT = "default"
"""Key of the basis set of all elements that have none of their own."""

_SYMBOL = re.compile(r"[A-Z][a-z]?")


class BasisByElement(Mapping[str, str]):
    """Names of basis sets by element symbol, and under ``"default"`` that of all other elements.

    Unlike a dict it cannot be changed and has a hash, as settings need it.

    Parameters
    ----------
    names : mapping of str to str
        For example ``{"Zn": "def2-tzvp", "default": "6-31g*"}``.

    Raises
    ------
    PotentialError
        If it is empty, or a key is no element symbol.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        found: dict[str, str] = {}
        for key, name in names.items():
            text = key.strip() if isinstance(key, str) else ""
            symbol = DEFAULT if text.lower() == DEFAULT else text.capitalize()
            if symbol != DEFAULT and not _SYMBOL.fullmatch(symbol):
                raise PotentialError(
                    "the keys of a basis by element are element symbols and 'default', such as "
                    f"{{'Zn': 'def2-tzvp', 'default': '6-31g*'}}, got {key!r}"
                )
            if symbol in found:
                raise PotentialError(f"the basis by element has two entries for {symbol!r}")
            found[symbol] = name
        if not found:
            raise PotentialError("the basis by element is empty; give {'default': '6-31g*'}, or a name")
        self._names = tuple(sorted(found.items(), key=lambda item: (item[0] == DEFAULT, item[0])))

    def __getitem__(self, key: str) -> str:
        """Return the name of a symbol, or of ``"default"``, without taking the default for a symbol."""
        return dict(self._names)[key]

    def __iter__(self) -> Iterator[str]:
        """Return the keys, the default last."""
        return iter(key for key, _ in self._names)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._names)

    def __hash__(self) -> int:
        return hash(self._names)

    def __repr__(self) -> str:
        return repr(dict(self._names))

    def __str__(self) -> str:
        return ",".join(f"{key}:{name}" for key, name in self._names)


def basis_of(basis: str | BasisByElement, symbol: str) -> str | None:
    """Return the name of an element's basis set, None if it has none."""
    if isinstance(basis, str):
        return basis
    return basis.get(symbol, basis.get(DEFAULT))
