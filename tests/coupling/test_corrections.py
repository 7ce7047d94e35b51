"""Learned corrections in a Hamiltonian: a difference is added to its base, and counts in no sum."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from qmmlmm.coupling import Difference, Hamiltonian, LevelOfTheory, Region, Term
from qmmlmm.errors import HamiltonianError
from qmmlmm.sampling.slow_terms import correction_terms
from tests.toy_potentials import SettingsOnly

SITE, CORE = Region("site", range(10)), Region("core", [2, 3, 4])


@dataclass(frozen=True)
class Level(SettingsOnly):
    """A level by name, or a difference between two."""

    method: str = "qm"
    base: str = ""
    settings: str = ""

    @property
    def method_name(self):
        return self.method

    @property
    def level_of_theory(self):
        return LevelOfTheory(self.method, {"settings": self.settings})

    @property
    def difference(self):
        if not self.base:
            return None
        return Difference(LevelOfTheory(self.method), LevelOfTheory(self.base, {"settings": self.settings}))


XTB, OTHER_XTB, GUESS = (
    Level("XTB", method="xtb"),
    Level("XTB", method="xtb", settings="hot"),
    Level("XTB", method="pm6"),
)
QM = Level("QM", method="qm")
DELTA, DELTA_2 = Level("ML", method="qm", base="xtb"), Level("ML", method="cc", base="xtb")


def term(potential, coefficient=1.0, region=SITE, **options):
    correction = potential.difference is not None
    return Term(
        potential, region, embedding="electrostatic", coefficient=coefficient, **{"correction": correction} | options
    )


def test_a_base_and_its_correction_are_one_surface():
    hamiltonian = Hamiltonian([term(XTB), term(DELTA)])
    assert hamiltonian.term_names() == ("site/XTB", "site/correction")
    assert hamiltonian.outermost == (SITE,)


def test_a_hamiltonian_is_printed_with_levels_and_corrections():
    assert str(Hamiltonian([term(XTB), term(DELTA)])).splitlines() == [
        "E = force field without site",
        "  + (1.0) site/XTB         xtb: XTB, electrostatic embedding",
        "  + (1.0) site/correction  qm - xtb: a correction, which counts in no sum, electrostatic embedding",
    ]


GOOD = {
    "part of it": [(XTB, 1.0), (DELTA, 0.5)],
    "two are averaged": [(XTB, 1.0), (DELTA, 0.5), (DELTA_2, 0.5)],
    "switched on": [(XTB, 1.0), (DELTA, "l")],
    "switched to QM": [(XTB, "1-l"), (DELTA, "1-l"), (QM, "l")],
    "QM corrects both": [(XTB, 1.0), (DELTA, 1.0), (QM, 1.0), (XTB, -1.0), (DELTA, -1.0)],
    "cancelled": [(XTB, 1.0), (DELTA, 1.0), (DELTA, -1.0)],
    "two bases": [(XTB, 0.5), (DELTA, 0.5), (GUESS, 0.5)],
}


@pytest.mark.parametrize("terms", GOOD.values(), ids=GOOD)
def test_sums_that_are_one_surface(terms):
    parameters = {"l": 0.0} if any(isinstance(c, str) for _, c in terms) else {}
    Hamiltonian([term(*one) for one in terms], parameters=parameters)


def test_a_base_inside_another_region_is_subtracted_with_its_correction():
    outside = [term(XTB), term(DELTA)]
    inside = [term(QM, 1.0, CORE), term(XTB, -1.0, CORE), term(DELTA, -1.0, CORE)]
    assert Hamiltonian([*outside, *inside]).term_names()[-2:] == ("core/-XTB", "core/-correction")


def test_base_and_correction_stay_fast_where_qm_corrects_both():
    hamiltonian = Hamiltonian([term(*one) for one in GOOD["QM corrects both"]])
    assert correction_terms(hamiltonian) == ("site/QM", "site/-XTB", "site/-correction")


BAD = {
    "without its base": ([(QM, 1.0), (DELTA, 1.0)], r"no term of its base xtb; it has qm \(xtb, not qm\)"),
    "alone": ([(DELTA, 1.0)], "no term of its base xtb; it has no other term"),
    "with other settings": ([(OTHER_XTB, 1.0), (DELTA, 1.0)], r"it has xtb \(settings '', not 'hot'\)"),
    "twice": ([(XTB, 1.0), (DELTA, 1.0), (DELTA_2, 1.0)], "corrections to xtb add up to 2, those of xtb to 1"),
    "more than the base": ([(XTB, 0.5), (QM, 0.5), (DELTA, 1.0)], "add up to 1, those of xtb to 0.5"),
    "of the other sign": ([(XTB, 1.0), (DELTA, -1.0)], "add up to -1, those of xtb to 1"),
    "left behind": ([(XTB, "1-l"), (QM, "l"), (DELTA, 1.0)], r"add up to 1, those of xtb to 1 -1\*l"),
}


@pytest.mark.parametrize(("terms", "message"), BAD.values(), ids=BAD)
def test_sums_that_are_not(terms, message):
    parameters = {"l": 0.0} if any(isinstance(c, str) for _, c in terms) else {}
    with pytest.raises(HamiltonianError, match=message):
        Hamiltonian([term(*one) for one in terms], parameters=parameters)


def test_a_correction_that_lacks_its_base_in_an_inner_region_is_refused():
    with pytest.raises(HamiltonianError, match="region 'core' has a correction .* no term of its base"):
        Hamiltonian([term(XTB), term(DELTA, 1.0, CORE)])


def test_the_coefficients_of_full_levels_still_add_up_to_one():
    with pytest.raises(HamiltonianError, match="coefficients of region 'site' add up to 2"):
        Hamiltonian([term(XTB), term(QM), term(DELTA)])


def test_a_difference_is_no_full_potential():
    with pytest.raises(HamiltonianError, match=r"is the difference qm - xtb .* correction=True\) beside a term of xtb"):
        term(DELTA, correction=False)


def test_a_full_potential_is_no_correction():
    with pytest.raises(HamiltonianError, match="correction=True is for a difference .* full energy of qm. Leave"):
        term(QM, correction=True)


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_correction_is_a_flag(value):
    with pytest.raises(HamiltonianError, match="correction is True or False"):
        term(QM, correction=value)


def test_all_terms_of_a_region_have_the_same_surroundings():
    with pytest.raises(HamiltonianError, match="differ in embedding"):
        Hamiltonian([Term(XTB, SITE, embedding="mechanical"), term(DELTA)])
