"""Orbital and auxiliary basis sets by name, with their effective core potentials."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence

from pyscf import gto
from pyscf.data import elements
from pyscf.gto.basis import bse
from pyscf.lib.exceptions import BasisNotFoundError

from qmmlmm.errors import PotentialError, RegionError, listed, nearest
from qmmlmm.qm.basis_by_element import DEFAULT, BasisByElement, basis_of

COULOMB_ONLY = frozenset({"weigend", "weigend+etb", "demon", "ahlrichs"})
"""Auxiliary basis sets that fit the Coulomb term and not exact exchange, which their names do not show."""


def symbols_of(atomic_numbers: Iterable[int], term: str) -> list[str]:
    """Return the element symbols.

    Raises
    ------
    RegionError
        If an atomic number is not that of an element.
    """
    symbols = []
    for index, number in enumerate(atomic_numbers):
        if not 1 <= int(number) < len(elements.ELEMENTS):
            raise RegionError(
                f"{term}: atom {index} has atomic number {int(number)}, which is no element "
                f"(1 to {len(elements.ELEMENTS) - 1}); leave virtual sites out of the region"
            )
        symbols.append(str(elements.ELEMENTS[int(number)]))
    return symbols


def check_basis(basis: str | Mapping[str, str]) -> None:
    """Raise PotentialError if PySCF has no Gaussian basis set of a name."""
    if isinstance(basis, Mapping):
        for symbol, name in basis.items():
            if symbol != DEFAULT and symbol not in elements.ELEMENTS:
                raise PotentialError(f"the basis by element has an entry for {symbol!r}, which is no element")
            check_basis_name(name, f"basis of {symbol}", ("H", "C") if symbol == DEFAULT else (symbol,))
    else:
        check_basis_name(basis)


def check_basis_name(basis: str, kind: str = "basis", symbols: Sequence[str] = ("H", "C")) -> None:
    """Raise PotentialError if PySCF has no Gaussian basis set of this name.

    Names that PySCF does not have are looked up in the basis set exchange, if the package basis-set-exchange is
    installed.

    Parameters
    ----------
    basis : str
    kind : str
        ``"basis"`` or ``"auxiliary_basis"``, for the message.
    symbols : sequence of str
        Elements of which it has one, if it is not a name that PySCF lists.
    """
    if not isinstance(basis, str) or not basis.strip():
        raise PotentialError(f"{kind} is the name of a basis set such as 'def2-svp', got {basis!r}")
    if os.path.isfile(basis):
        raise PotentialError(
            f"{kind} {basis!r} is also the name of a file in the current directory, which PySCF would read "
            "instead of its own basis set; run elsewhere or rename the file"
        )
    name = _normalised(basis)
    known = gto.basis.ALIAS
    if "gth" in name or name in gto.basis.GTH_ALIAS:
        raise PotentialError(
            f"{kind} {basis!r} belongs to pseudopotentials of periodic calculations; choose a molecular one "
            "such as 'def2-svp'"
        )
    if name not in known and not any(_has_element(basis, symbol) for symbol in symbols):
        where = "and the basis set exchange have" if _exchange_is_installed() else "has"
        advice = "" if _exchange_is_installed() else " The package basis-set-exchange has more."
        raise PotentialError(
            f"unknown {kind} {basis!r}: PySCF {where} no basis set of this name.{nearest(name, list(known))}{advice}"
        )


def check_elements(basis: str | BasisByElement, symbols: Iterable[str], term: str, kind: str = "basis") -> None:
    """Raise PotentialError, naming the elements, if a basis set does not have all of its elements."""
    by_name: dict[str | None, list[str]] = {}
    for symbol in sorted(set(symbols)):
        by_name.setdefault(basis_of(basis, symbol), []).append(symbol)
    for name, members in by_name.items():
        if name is None:
            raise PotentialError(
                f"{term}: {kind} {basis!r} names no basis set for {listed(members)}; add them, or a 'default'"
            )
        missing = [symbol for symbol in members if not _has_element(name, symbol)]
        if missing:
            raise PotentialError(
                f"{term}: {kind} {name!r} has no functions for {listed(missing)}; choose one that has, for example "
                "'def2-svp', for all elements or for this one: basis={'Zn': 'def2-svp', 'default': '6-31g*'}"
            )


def check_auxiliary_exchange(auxiliary_basis: str, method: str) -> None:
    """Raise PotentialError for a Coulomb-only auxiliary basis with a method that has exact exchange."""
    name = _normalised(auxiliary_basis)
    coulomb = (name.endswith(("jfit", "cfit")) and not name.endswith("jkfit")) or name in COULOMB_ONLY
    if coulomb:
        raise PotentialError(
            f"auxiliary_basis {auxiliary_basis!r} fits the Coulomb term only, but {method!r} has exact "
            "exchange; choose one ending in 'jkfit', such as 'def2-universal-jkfit'"
        )


def core_potentials(basis: str | BasisByElement, symbols: Iterable[str], term: str) -> dict[str, str]:
    """Return the elements for which the basis set has an effective core potential.

    Without it PySCF would treat such an element with all its electrons in the valence basis, which is wrong and gives
    no message.

    Returns
    -------
    dict of str to str
        Name of the potential by element symbol, in the form of `pyscf.gto.Mole.ecp`.

    Raises
    ------
    PotentialError
        If the basis set has no functions for the core and no core potential is known under its name.
    """
    potentials = {}
    for symbol in sorted(set(symbols)):
        name = basis_of(basis, symbol)
        if name is None:
            raise PotentialError(f"{term}: basis {basis!r} names no basis set for {symbol}")
        if _has_core_potential(name, symbol):
            potentials[symbol] = name
        elif not _reaches_core(name, symbol):
            raise PotentialError(
                f"{term}: basis {name!r} has no functions for the core of {symbol} and PySCF knows no "
                "effective core potential of that name; choose another one, for example 'def2-svp'"
            )
    return potentials


def _exchange_is_installed() -> bool:
    return bse.basis_set_exchange is not None


def _normalised(basis: str) -> str:
    return str(gto.basis._format_basis_name(basis))


def _has_element(basis: str, symbol: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PySCF advises to install the basis set exchange
        try:
            return len(gto.basis.load(basis, symbol)) > 0
        except (BasisNotFoundError, KeyError, IndexError, OSError):
            return False


def _has_core_potential(basis: str, symbol: str) -> bool:
    name = _normalised(basis)
    if name in gto.basis.ALIAS:
        entry = gto.basis.ALIAS[name]
        if not isinstance(entry, str) or not entry.endswith(".dat"):
            return False
    elif gto.basis._is_pople_basis(name) or not _exchange_is_installed():
        return False
    try:
        return bool(gto.basis.load_ecp(basis, symbol))
    except (BasisNotFoundError, KeyError, IndexError):
        return False


def _reaches_core(basis: str, symbol: str) -> bool:
    """Return whether the basis set has s functions for a 1s core.

    Notes
    -----
    A 1s orbital decays as exp(-Z r), so a Gaussian that resolves it has an exponent above Z**2: 1.6 Z**2 in
    STO-3G, the smallest all-electron basis set in use, and below 0.4 Z**2 in all valence basis sets of PySCF.
    """
    number = elements.charge(symbol)
    if number <= 2:
        return True
    exponents = []
    for shell in gto.basis.load(basis, symbol):
        if shell[0] == 0:
            primitives = shell[1:] if isinstance(shell[1], list | tuple) else shell[2:]
            exponents += [float(primitive[0]) for primitive in primitives]
    return max(exponents, default=0.0) > float(number) ** 2
