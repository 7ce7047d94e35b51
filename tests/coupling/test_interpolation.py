"""The way between two Hamiltonians: its ends, what is between, and ends that do not fit."""

from __future__ import annotations

import pytest

from qmmlmm import Hamiltonian, Region, Term
from qmmlmm.coupling.interpolation import interpolated_hamiltonian
from qmmlmm.errors import HamiltonianError
from tests.toy_potentials import SettingsOnly

SITE, CORE = Region("site", range(6)), Region("core", range(3))
ML, QM, XTB = SettingsOnly("ML"), SettingsOnly("QM"), SettingsOnly("XTB")


def hamiltonian(*terms):
    """Return a Hamiltonian of (potential, region, coefficient)."""
    return Hamiltonian([Term(p, region, embedding="electrostatic", coefficient=c) for p, region, c in terms])


LOWER = hamiltonian((XTB, SITE, 1.0))
UPPER = hamiltonian((ML, SITE, 1.0), (QM, CORE, 1.0), (ML, CORE, -1.0))


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
def test_coefficients_are_those_of_the_ends_and_linear_between(value):
    found = interpolated_hamiltonian(LOWER, UPPER, "lam")
    assert dict(found.parameters) == {"lam": 0.0}
    weights = [(term.potential, term.region, term.weight.value({"lam": value})) for term in found.terms]
    assert weights == [
        (XTB, SITE, 1.0 - value),
        (ML, SITE, value),
        (QM, CORE, value),
        (ML, CORE, -value),
    ]


def test_coefficients_of_any_size_and_names_that_both_have_are_kept_apart():
    first = Hamiltonian(
        [
            Term(ML, SITE, embedding="mechanical", coefficient=1.5, name="a", force_group=3),
            Term(QM, SITE, embedding="mechanical", coefficient=-0.5, name="b"),
        ]
    )
    found = interpolated_hamiltonian(first, first, "lam")
    assert len(set(found.term_names())) == 4
    for value in (0.0, 0.3, 1.0):
        sums = [sum(t.weight.value({"lam": value}) for t in found.terms if t.potential is p) for p in (ML, QM)]
        assert sums == pytest.approx([1.5, -0.5])


def test_a_region_of_another_charge_or_other_atoms_is_refused():
    charged = Region("site", range(6), charge=1, multiplicity=2)
    with pytest.raises(HamiltonianError, match="net charge changes .* region 'site' has the charge 0 .* and 1"):
        interpolated_hamiltonian(LOWER, hamiltonian((ML, charged, 1.0)), "lam")
    with pytest.raises(HamiltonianError, match="different outermost regions, lower site and upper core"):
        interpolated_hamiltonian(LOWER, hamiltonian((ML, CORE, 1.0)), "lam")


def test_levels_with_parameters_and_other_objects_are_refused():
    terms = [Term(p, SITE, embedding="mechanical", coefficient=c) for p, c in ((ML, "1-s"), (QM, "s"))]
    own = Hamiltonian(terms, parameters={"s": 0.5})
    with pytest.raises(HamiltonianError, match="the lower level has the parameters s"):
        interpolated_hamiltonian(own, LOWER, "lam")
    with pytest.raises(HamiltonianError, match="upper is an instance of Hamiltonian"):
        interpolated_hamiltonian(LOWER, None, "lam")
    with pytest.raises(HamiltonianError, match="parameter is a text"):
        interpolated_hamiltonian(LOWER, UPPER, "")
