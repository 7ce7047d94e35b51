from __future__ import annotations

import math

import numpy as np
import pytest

from qmmlmm.errors import HamiltonianError, SettingError
from qmmlmm.setting_checks import (
    check_between,
    check_choice,
    check_finite_number,
    check_flag,
    check_not_negative,
    check_positive,
    check_whole_number,
    is_number,
    is_whole_number,
)

NO_NUMBERS = [True, False, np.bool_(True), None, "1", [1.0], 1j, np.array([1.0]), object()]
NOT_FINITE = [math.nan, math.inf, -math.inf, np.float64("nan"), np.float32("inf")]
NUMBERS = [1, 2.5, np.int64(3), np.int32(4), np.uint8(5), np.float64(1.5), np.float32(0.25)]


@pytest.mark.parametrize("value", NUMBERS)
def test_python_and_numpy_numbers_are_numbers(value):
    assert is_number(value)
    for check in (check_positive, check_not_negative, check_finite_number):
        found = check("x", value)
        assert found == value
        assert type(found) is float
    assert check_between("x", value, 0.0, 6.0) == value


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_a_bool_and_what_else_is_no_number_is_refused(value):
    assert not is_number(value)
    assert not is_whole_number(value)
    for check in (check_positive, check_not_negative, check_finite_number, check_whole_number):
        with pytest.raises(SettingError, match="^x is .*, got "):
            check("x", value)
    with pytest.raises(SettingError, match="^x lies between 0 and 1, got "):
        check_between("x", value, 0.0, 1.0)


@pytest.mark.parametrize("value", NOT_FINITE)
def test_what_is_not_finite_is_refused(value):
    assert is_number(value)
    for check in (check_positive, check_not_negative, check_finite_number, check_whole_number):
        with pytest.raises(SettingError, match="^x is .*, got "):
            check("x", value)
    with pytest.raises(SettingError, match="lies between 0 and 1"):
        check_between("x", value, 0.0, 1.0)


@pytest.mark.parametrize("value", [1, np.int64(1), np.uint8(1)])
def test_a_whole_number_is_an_integer(value):
    assert is_whole_number(value)
    found = check_whole_number("n", value)
    assert found == 1
    assert type(found) is int


@pytest.mark.parametrize("value", [0, -1, 1.0, np.float64(1.0), np.int64(0)])
def test_a_whole_number_below_its_limit_or_with_a_point_is_refused(value):
    with pytest.raises(SettingError, match="^n is a whole number of 1 or more, got "):
        check_whole_number("n", value)


def test_limits_of_a_whole_number():
    assert check_whole_number("n", 0, at_least=0) == 0
    assert [check_whole_number("n", k, at_least=2, at_most=4) for k in (2, 3, 4)] == [2, 3, 4]
    for value in (1, 5):
        with pytest.raises(SettingError, match=f"^n is a number of steps from 2 to 4, got {value}$"):
            check_whole_number("n", value, at_least=2, at_most=4, what="a number of steps")


def test_limits_of_numbers():
    assert check_not_negative("x", 0) == 0.0
    assert check_finite_number("x", -2.5) == -2.5
    for value in (0.0, -1e-300):
        with pytest.raises(SettingError, match="^x is a number above zero, got "):
            check_positive("x", value)
    with pytest.raises(SettingError, match="^x is zero or a number above, in ps, got -1e-300$"):
        check_not_negative("x", -1e-300, "ps")
    with pytest.raises(SettingError, match="^x is a number above zero, in K, got 0$"):
        check_positive("x", 0, "K")
    for value in (0.25, 0.75, 3):
        with pytest.raises(SettingError, match=r"^x lies between 0\.25 and 0\.75, got "):
            check_between("x", value, 0.25, 0.75)


@pytest.mark.parametrize("value", [True, False, np.bool_(True), np.bool_(False)])
def test_flags(value):
    found = check_flag("quiet", value)
    assert found == value
    assert type(found) is bool


@pytest.mark.parametrize("value", [0, 1, "True", None, 1.0, np.int64(1)])
def test_what_is_neither_true_nor_false_is_refused(value):
    with pytest.raises(SettingError, match="^quiet is True or False, got "):
        check_flag("quiet", value)


def test_choices():
    assert check_choice("rule", "ratio", ["ratio", "distance"]) == "ratio"
    with pytest.raises(SettingError, match="^rule is one of 'ratio', 'distance', got 'ratoi'.*Nearest names: ratio"):
        check_choice("rule", "ratoi", ["ratio", "distance"])
    for value in (None, 1, ["ratio"]):
        with pytest.raises(SettingError, match="rule is one of"):
            check_choice("rule", value, iter(["ratio", "distance"]))


@pytest.mark.parametrize(
    ("check", "arguments"),
    [
        (check_positive, (-1.0,)),
        (check_not_negative, (-1.0,)),
        (check_finite_number, (math.nan,)),
        (check_between, (5.0, 0.0, 1.0)),
        (check_flag, (1,)),
        (check_choice, ("a", ["b"])),
        (check_whole_number, (0,)),
    ],
)
def test_the_class_of_the_error_is_that_of_the_caller(check, arguments):
    with pytest.raises(HamiltonianError, match="^x "):
        check("x", *arguments, error=HamiltonianError)


def test_an_error_of_a_setting_is_a_value_error():
    with pytest.raises(ValueError, match="x is a number above zero"):
        check_positive("x", -1.0)
