from __future__ import annotations

import math

import numpy as np
import pytest
from openmm import unit

from qmmlmm.errors import HamiltonianError, SelectionError, SettingError
from qmmlmm.setting_checks import (
    as_float,
    check_array,
    check_atoms,
    check_between,
    check_callable,
    check_choice,
    check_count,
    check_finite_number,
    check_flag,
    check_instance,
    check_items,
    check_length,
    check_mapping,
    check_names,
    check_not_negative,
    check_number,
    check_path,
    check_positive,
    check_quantity,
    check_seed,
    check_steps,
    check_text,
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


@pytest.mark.parametrize("value", [0.5, 0.5 * unit.picosecond, 500 * unit.femtosecond, np.float32(0.5)])
def test_quantities_and_bare_numbers(value):
    found = check_quantity("friction", value, unit.picosecond, above=0.0)
    assert found == pytest.approx(0.5, rel=1e-12)
    assert type(found) is float


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.0 * unit.kelvin, "t has a unit like picosecond, got "),
        ("1", "t is a finite number, in picosecond, or a Quantity, got '1'"),
        (True, "t is a finite number, in picosecond"),
        (None, "t is a finite number, in picosecond"),
        (math.nan * unit.picosecond, "t is a finite number, in picosecond"),
        (unit.Quantity([1.0, 2.0], unit.picosecond), "t is a finite number, in picosecond"),
        (unit.Quantity("x", unit.picosecond), "t is a finite number, in picosecond"),
        (10**400, "t is a finite number, in picosecond"),
        (0.0, "t is a number above zero, in picosecond, got 0"),
        (-1.0 * unit.picosecond, "t is a number above zero, in picosecond, got "),
    ],
)
def test_what_is_no_positive_time_is_refused(value, message):
    with pytest.raises(SettingError, match=message):
        check_quantity("t", value, unit.picosecond, above=0.0)


def test_a_limit_that_may_be_equalled():
    assert check_quantity("t", 0, unit.picosecond, at_least=0.0) == 0.0
    with pytest.raises(SettingError, match="t is zero or a number above, in picosecond, got -1"):
        check_quantity("t", -1, unit.picosecond, at_least=0.0)
    assert check_quantity("t", 0.1, unit.picosecond, at_most=0.1) == 0.1
    with pytest.raises(SettingError, match="t is at most 0.1 picosecond, got 4; a number without a unit is in"):
        check_quantity("t", 4, unit.picosecond, at_most=0.1)
    for keyword, text in (("above", "a number above 2, in"), ("at_least", "2 or a number above, in")):
        with pytest.raises(SettingError, match=f"t is {text} picosecond, got 1"):
            check_quantity("t", 1, unit.picosecond, **{keyword: 2.0})


def test_integers_that_no_float_holds_are_infinite():
    assert as_float(10**400) == math.inf
    assert as_float(-(10**400)) == -math.inf
    assert as_float(np.int64(3)) == 3.0
    for check in (check_positive, check_not_negative, check_finite_number):
        with pytest.raises(SettingError, match="^x is "):
            check("x", 10**400)


def test_a_length_is_in_nanometres():
    assert check_length("d", 1.0 * unit.angstrom) == pytest.approx(0.1)
    assert check_length("d", 0.1) == 0.1
    with pytest.raises(SettingError, match="d has a unit like nanometer"):
        check_length("d", 1.0 * unit.picosecond)
    with pytest.raises(SettingError, match="d is at most 0.2 nanometer, got 1.5"):
        check_length("d", 1.5, at_most=0.2)


def test_numbers_of_steps_are_those_of_openmm():
    assert check_steps("steps", np.int64(0)) == 0
    for value in (-1, 1.5, True, None, math.nan, "1"):
        with pytest.raises(SettingError, match="^steps is a whole number of steps of 0 or more, got "):
            check_steps("steps", value)
    with pytest.raises(SettingError, match="^steps is a whole number of steps from 0 to 2147483647, got 2147483648"):
        check_steps("steps", 2**31)


def test_numbers_that_are_not_finite_are_accepted_on_request():
    np.testing.assert_array_equal(check_array("x", [1.0, math.inf], finite=False), [1.0, math.inf])
    with pytest.raises(SettingError, match="x is finite, but is not at 1"):
        check_array("x", [1.0, math.inf])
    with pytest.raises(SettingError, match="x is an array of numbers"):
        check_array("x", unit.Quantity("a", unit.nanometer), default=unit.nanometer)


def test_lists_of_names():
    assert check_names("terms", ("a", "b")) == ("a", "b")
    for value in (None, 5, "ab", {"a": 1}):
        with pytest.raises(SettingError, match="^terms is a list of names, got "):
            check_names("terms", value)
    for value in ([], ["a", "a"]):
        with pytest.raises(SettingError, match="^terms has one or more different names, got "):
            check_names("terms", value)
    for value in ([5], [" "]):
        with pytest.raises(SettingError, match="^each of terms is a text, got "):
            check_names("terms", value)


def test_lists_of_objects():
    assert check_items("values", (item for item in [1.0, 2.0]), float) == (1.0, 2.0)
    assert check_items("values", [], float, empty=True) == ()
    for value in (None, 5, "ab", {"a": 1}, 1.0):
        with pytest.raises(SettingError, match="^values is a list of float objects, got "):
            check_items("values", value, float)
    with pytest.raises(SettingError, match="^each of values is an instance of float, got None"):
        check_items("values", [1.0, None], float)
    with pytest.raises(SettingError, match="^values has one float or more, got none"):
        check_items("values", [], float)


def test_functions():
    assert check_callable("f", len) is len
    with pytest.raises(SettingError, match="^f is a function, got 5"):
        check_callable("f", 5)


@pytest.mark.parametrize(
    "value",
    [
        [[0, 1, 2], [3, 4, 5]],
        np.arange(6).reshape(2, 3) * unit.nanometer,
        [unit.Quantity([0, 10, 20], unit.angstrom), unit.Quantity([30, 40, 50], unit.angstrom)],
    ],
)
def test_arrays_with_and_without_unit(value):
    found = check_array("positions", value, (None, 3), unit.nanometer)
    np.testing.assert_allclose(found, np.arange(6.0).reshape(2, 3), rtol=1e-12)
    assert found.dtype == float


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("abc", "x is an array of numbers, got 'abc'"),
        (None, "x is an array of numbers"),
        ([[1, 2], [3]], "x is an array of numbers"),
        ([[True, False, True]], "x is an array of numbers"),
        ([[1.0, math.nan, 0.0]], r"x is finite, but is not at \(0, 1\)"),
        ([1.0, 2.0, 3.0], r"x has the shape \(any, 3\), got \(3,\)"),
        ([[1.0, 2.0]], r"x has the shape \(any, 3\), got \(1, 2\)"),
        ([[1.0, 2.0, 3.0]] * unit.kelvin, "x has a unit like nanometer"),
        ([[1.0, 2.0, 3.0] * unit.kelvin], "x has a unit like nanometer"),
        ([[1.0, 2.0, 3.0] * unit.nanometer, 5], "x has a unit like nanometer"),
    ],
)
def test_what_is_no_array_of_positions_is_refused(value, message):
    with pytest.raises(SettingError, match=message):
        check_array("x", value, (None, 3), unit.nanometer)


def test_an_array_without_unit_refuses_one():
    with pytest.raises(SettingError, match="x has no unit"):
        check_array("x", [1.0] * unit.nanometer)


@pytest.mark.parametrize("value", [[3, 1], np.array([3, 1]), (np.int32(3), 1), iter([3, 1]), range(3, 0, -2)])
def test_atoms_keep_their_order(value):
    assert check_atoms("atoms", value, 4) == (3, 1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("01", "atoms is a list of atom indices, got '01'"),
        (b"01", "atoms is a list of atom indices"),
        (5, "atoms is a list of atom indices, got 5"),
        (None, "atoms is a list of atom indices"),
        ({0: 1}, "atoms is a list of atom indices"),
        ([0.0], "atoms has atom indices from 0 to 3, got 0.0"),
        ([True], "atoms has atom indices from 0 to 3, got True"),
        ([-1], "atoms has atom indices from 0 to 3, got -1"),
        ([4], "atoms has atom indices from 0 to 3, got 4"),
        (["0"], "atoms has atom indices from 0 to 3, got '0'"),
        ([0, 2, 0], "atoms has an atom twice: 0"),
        ([], "atoms has no atom"),
    ],
)
def test_what_is_no_list_of_atoms_is_refused(value, message):
    with pytest.raises(SelectionError, match=message):
        check_atoms("atoms", value, 4)


def test_a_count_of_atoms_and_an_empty_list():
    assert check_atoms("atoms", [], empty=True) == ()
    with pytest.raises(SelectionError, match="atoms has 2 atoms, got 3"):
        check_atoms("atoms", [0, 1, 2], count=2)
    with pytest.raises(SelectionError, match="atoms has atom indices of 0 or more, got -1"):
        check_atoms("atoms", [-1])


def test_texts_paths_and_mappings():
    assert check_text("name", "site A") == "site A"
    assert check_path("file", "a/b.txt").name == "b.txt"
    assert check_mapping("settings", {"a": 1}) == {"a": 1}
    for value in ("", "  ", None, 5, b"x"):
        with pytest.raises(SettingError, match="name is a text"):
            check_text("name", value)
    for value in ("a\nb", "a\x1b[0m", "a\0"):
        with pytest.raises(SettingError, match="name has a line break or another control character"):
            check_text("name", value)
    for value in ("", None, 5, b"x", "a\0b"):
        with pytest.raises(SettingError, match="file is a path"):
            check_path("file", value)
    for value in (None, 5, [1], {1: 2}, "a"):
        with pytest.raises(SettingError, match="settings maps names to values"):
            check_mapping("settings", value)


def test_seeds():
    assert check_seed("seed", np.int64(7)) == 7
    for value in (-1, 1.5, True, "1", None, 2**32):
        with pytest.raises(SettingError, match="seed is a whole number from 0 to 4294967295"):
            check_seed("seed", value)


def test_an_instance_of_a_class():
    assert check_instance("x", 1.0, float) == 1.0
    with pytest.raises(SettingError, match="x is an instance of float, got 'a'"):
        check_instance("x", "a", float)
    with pytest.raises(SettingError, match="x is a real number, got the class float itself"):
        check_instance("x", float, float, "a real number")


@pytest.mark.parametrize("value", [1, 2.0, np.float32(1.5), np.int64(2)])
def test_a_number_within_limits_is_a_float(value):
    found = check_number("x", value, above=0.0, at_least=1.0, below=3.0, at_most=2.0)
    assert found == value
    assert type(found) is float


@pytest.mark.parametrize("value", [*NO_NUMBERS, *NOT_FINITE, 10**400, 0.0, 0.5, 2.5, 3.0])
def test_a_number_beyond_a_limit_is_refused_with_all_limits(value):
    with pytest.raises(SettingError, match="^x is a finite number above 0 and at least 1 and at most 2, in nm, got "):
        check_number("x", value, above=0.0, at_least=1.0, at_most=2.0, unit_name="nm")
    with pytest.raises(SettingError, match="^x is a finite number above 3, got 3"):
        check_number("x", 3.0, above=3.0)
    with pytest.raises(HamiltonianError, match="^x is a finite number below 3, got 3"):
        check_number("x", 3.0, below=3.0, error=HamiltonianError)


def test_a_count_is_a_whole_number_of_32_bits():
    assert check_count("x", np.int64(2**31 - 1)) == 2**31 - 1
    assert check_count("x", 0, at_least=0) == 0
    for value, message in ((0, "of 1 or more, got 0"), (True, "got True"), (2**31, "from 1 to 2147483647")):
        with pytest.raises(SettingError, match=f"^x is a whole number .*{message}"):
            check_count("x", value)
