"""Texts of any kind: a coefficient or a selection is read, or refused with an error of the package."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmmlmm import Hamiltonian, Region, Term, select
from qmmlmm.coupling.coefficient import parse_coefficient
from qmmlmm.errors import QmmlmmError
from tests.toy_potentials import SettingsOnly
from tests.toy_systems import molecule_among_ions

REGION = Region("site", range(3))
TOPOLOGY = molecule_among_ions().topology
POSITIONS = molecule_among_ions().positions

coefficient_words = st.sampled_from(
    [
        "1",
        "-",
        "+",
        "*",
        "lambda_qm",
        "l",
        " ",
        "0.5",
        "1e999",
        "1e-400",
        ".",
        "e",
        "(",
        "λ",
        "٣",
        "nan",
        "inf",
        "\n",
        "\0",
    ]
)
coefficients = st.one_of(
    st.text(),
    st.lists(coefficient_words, max_size=12).map("".join),
    st.floats(),
    st.integers(),
    st.just(10**400),
    st.just(10**5000),
    st.just(-(10**400)),
    st.none(),
    st.booleans(),
    st.lists(st.integers(), max_size=2),
)
selection_words = st.sampled_from(
    [
        "(",
        "(",
        ")",
        ")",
        "and",
        "or",
        "not",
        "same",
        "residue",
        "as",
        "within",
        "of",
        "4",
        "angstrom",
        "nm",
        "resname",
        "MOL",
        "ION",
        "name",
        "A0",
        "NA",
        "index",
        "resSeq",
        "resid",
        "1",
        "5",
        "to",
        "1e999",
        "==",
        "!=",
        "<",
        ">",
        ">=",
        "<=",
        "=~",
        "&&",
        "||",
        "!",
        "water",
        "protein",
        "all",
        "none",
        "element",
        "H",
        "O",
        "mass",
        "'MOL'",
        '"NA',
        "'A0",
        "chainid",
        "-1",
        "0.5",
        ".*",
        "[",
        "\\",
        "Å",
        "half",
    ]
)
selections = st.one_of(st.text(), st.lists(selection_words, max_size=14).map(" ".join))


@settings(max_examples=400, deadline=None)
@given(coefficients, st.dictionaries(st.text(max_size=9), st.floats(), max_size=2))
@example("1" + "+l" * 5000, {"l": 0.0})
@example("9" * 5000, {})
def test_any_coefficient_is_read_or_refused(coefficient, parameters):
    with contextlib.suppress(QmmlmmError):
        found = parse_coefficient(coefficient)
        assert math.isfinite(found.constant)
        assert all(math.isfinite(slope) and slope != 0.0 for _, slope in found.slopes)
    with contextlib.suppress(QmmlmmError):
        Hamiltonian(
            [
                Term(SettingsOnly("ML"), REGION, embedding="mechanical", coefficient=coefficient),
                Term(SettingsOnly("QM"), REGION, embedding="mechanical", coefficient=1.0),
            ],
            parameters=parameters,
        )


@settings(max_examples=600, deadline=None)
@given(selections, st.booleans(), st.booleans())
@example("not " * 5000 + "water", False, False)
@example("same residue as " * 5000 + "water", True, False)
@example("within 1 nm of " * 5000 + "water", True, False)
@example("(" * 49 + "resname MOL" + ")" * 49, True, True)
@example("index " + " ".join(map(str, range(2000))), False, False)
def test_any_selection_is_read_or_refused(text, with_positions, whole):
    positions = POSITIONS if with_positions else None
    with contextlib.suppress(QmmlmmError):
        atoms = select(TOPOLOGY, text, positions=positions, whole_residues=whole)
        assert atoms
        assert list(atoms) == sorted(set(atoms))


@pytest.mark.parametrize("depth", [1, 40, 49])
def test_parentheses_may_be_nested(depth):
    assert select(TOPOLOGY, "(" * depth + "resname MOL" + ")" * depth) == (0, 1, 2)
