from __future__ import annotations

import math

import numpy as np
import pytest

from qmmlmm import MLPotential, OpenMMPotential, PySCFPotential, XTBPotential
from qmmlmm.coupling import Difference, LevelOfTheory
from qmmlmm.errors import PotentialError
from tests.toy_potentials import ELEMENTS, Springs, fixed_in_openmm

XTB = LevelOfTheory("gfn2-xtb", {"multipoles": 1})
QM = LevelOfTheory("b3lyp/6-31g*")


def test_a_level_is_the_same_after_a_file():
    level = LevelOfTheory("x", {"shape": (1, 2), "fit": None, "temperature": 300.0})
    assert LevelOfTheory.from_json(level.as_json()) == level
    assert Difference.from_json(Difference(QM, XTB).as_json()) == Difference(QM, XTB)
    assert level.settings["shape"] == [1, 2]


def test_a_difference_is_named_like_one():
    assert str(Difference(QM, XTB)) == Difference(QM, XTB).method == "b3lyp/6-31g* - gfn2-xtb"


def test_what_differs_is_said():
    assert XTB.differences_to(XTB) == []
    assert XTB.differences_to(QM) == ["gfn2-xtb, not b3lyp/6-31g*"]
    assert XTB.differences_to(LevelOfTheory("gfn2-xtb", {"multipoles": 0})) == ["multipoles 1, not 0"]


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"threads": 2}, True),
        ({"accuracy": 0.001}, True),
        ({"multipoles": 1}, True),
        ({"multipoles": 2}, False),
        ({"electronic_temperature": 500.0}, False),
    ],
)
def test_xtb_is_another_level_only_with_other_energies(changed, same):
    assert (XTBPotential("gfn2-xtb").level_of_theory == XTBPotential("gfn2-xtb", **changed).level_of_theory) == same


def test_each_potential_says_its_level():
    levels = [
        XTBPotential("gfn1-xtb"), PySCFPotential("hf", "sto-3g"), PySCFPotential("hf", "sto-3g", density_fit=False),
        fixed_in_openmm([0.1, -0.1]), fixed_in_openmm([0.2, -0.2]),
        MLPotential(Springs(), elements=ELEMENTS), MLPotential(Springs(0.2), elements=ELEMENTS),
    ]  # fmt: skip
    found = [potential.level_of_theory for potential in levels]
    assert all(a != b for k, a in enumerate(found) for b in found[:k])
    again = OpenMMPotential(fixed_in_openmm([0.1, -0.1]).system, platform="CPU")
    assert again.level_of_theory == fixed_in_openmm([0.1, -0.1]).level_of_theory


@pytest.mark.parametrize("value", [None, 5, "", "  "])
def test_a_method_is_a_text(value):
    with pytest.raises(PotentialError, match="the method of a LevelOfTheory"):
        LevelOfTheory(value)


@pytest.mark.parametrize("settings", [{"a": np.zeros(2)}, {"a": math.nan}, {"a": object()}])
def test_settings_are_json_values(settings):
    with pytest.raises(PotentialError, match="the settings of a LevelOfTheory are JSON values"):
        LevelOfTheory("x", settings)


@pytest.mark.parametrize("values", [None, {}, {"method": "x"}, {"method": "x", "settings": {}, "more": 1}])
def test_a_damaged_level_is_refused(values):
    with pytest.raises(PotentialError, match="a level of theory has the keys method and settings"):
        LevelOfTheory.from_json(values)


@pytest.mark.parametrize("values", [None, {}, {"target": {}}, 5])
def test_a_damaged_difference_is_refused(values):
    with pytest.raises(PotentialError, match="a difference has the keys target and base"):
        Difference.from_json(values)


def test_a_difference_is_of_two_levels():
    with pytest.raises(PotentialError, match="two levels, got gfn2-xtb for both"):
        Difference(XTB, XTB)
    with pytest.raises(PotentialError, match="base is an instance of LevelOfTheory"):
        Difference(QM, "gfn2-xtb")
