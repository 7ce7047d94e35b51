"""Properties of the chemical elements."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping

from qmmlmm.errors import PotentialError, nearest
from qmmlmm.units import ANGSTROM_IN_BOHR

SYMBOLS = (
    "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K", "Ca",
    "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",
    "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I", "Xe", "Cs", "Ba", "La", "Ce",
    "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W", "Re", "Os", "Ir",
    "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U", "Np", "Pu", "Am", "Cm",
    "Bk", "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh", "Fl", "Mc",
    "Lv", "Ts", "Og",
)  # fmt: skip
"""Symbols of the elements in the order of their atomic numbers, from 1."""

COVALENT_RADII = (
    0.31, 0.28, 1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41, 1.21, 1.11, 1.07, 1.05, 1.02, 1.06, 2.03,
    1.76, 1.70, 1.60, 1.53, 1.39, 1.39, 1.32, 1.26, 1.24, 1.32, 1.22, 1.22, 1.20, 1.19, 1.20, 1.20, 1.16, 2.20, 1.95,
    1.90, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45, 1.44, 1.42, 1.39, 1.39, 1.38, 1.39, 1.40, 2.44, 2.15, 2.07,
    2.04, 2.03, 2.01, 1.99, 1.98, 1.98, 1.96, 1.94, 1.92, 1.92, 1.89, 1.90, 1.87, 1.87, 1.75, 1.70, 1.62, 1.51, 1.44,
    1.41, 1.36, 1.36, 1.32, 1.45, 1.46, 1.48, 1.40, 1.50, 1.50,
)  # fmt: skip
"""Single-bond covalent radii of hydrogen to radon, angstrom; carbon as sp3, manganese, iron and cobalt with low spin.

Source: Cordero et al., Dalton Trans. 2008, 2832, table 2.
"""


def covalent_radius(atomic_number: int) -> float:
    """Return the covalent radius of an element in bohr.

    Raises
    ------
    PotentialError
        If there is none in the table.
    """
    if not 1 <= atomic_number <= len(COVALENT_RADII):
        raise PotentialError(f"no covalent radius of the element {atomic_number}; there are radii of 1 to 86")
    return COVALENT_RADII[atomic_number - 1] * ANGSTROM_IN_BOHR


def multiplicity_fault(atomic_numbers: Iterable[int], charge: int, multiplicity: int) -> str:
    """Return why a molecule cannot have a multiplicity, or an empty text.

    Parameters
    ----------
    atomic_numbers : iterable of int
    charge, multiplicity : int
    """
    protons = sum(int(z) for z in atomic_numbers)
    electrons = protons - charge
    # No molecule has more than that: the hydride ion has twice as many electrons as protons.
    if not 0 <= electrons <= 2 * protons:
        return f"charge {charge} leaves {electrons} electrons of {protons} protons"
    if multiplicity < 1 or multiplicity > electrons + 1 or (electrons - multiplicity) % 2 == 0:
        kind = "an even" if electrons % 2 else "an odd"
        highest = f"{kind} multiplicity up to {electrons + 1}"
        return f"{electrons} electrons (charge {charge}) have {highest}, got {multiplicity}"
    return ""


def check_elements(name: str, given: object) -> tuple[int, ...]:
    """Return atomic numbers, in the given order.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    given : iterable of int or str
        Atomic numbers or symbols.

    Raises
    ------
    PotentialError
        If it is no list, is empty, or one of them is no element.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise PotentialError(
            f'{name} is a list of atomic numbers or symbols, such as [6, 1] or ["C", "H"], got {given!r}'
        )
    numbers = tuple(_atomic_number(name, value) for value in given)
    if not numbers:
        raise PotentialError(f"{name} has one atomic number or more, got none")
    return numbers


def _atomic_number(name: str, value: object) -> int:
    if isinstance(value, str):
        if value not in SYMBOLS:
            raise PotentialError(
                f"{name}: {value!r} is no symbol of an element; write it as in the periodic table, such as 'Cl'."
                f"{nearest(value, SYMBOLS)}"
            )
        return SYMBOLS.index(value) + 1
    try:
        # Also integers of NumPy and PyTorch; a bool is none.
        number = 0 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if not 1 <= number <= len(SYMBOLS):
        raise PotentialError(f"{name}: atomic numbers are 1 to {len(SYMBOLS)}, or symbols, got {value!r}")
    return number
