from __future__ import annotations

import pytest

from qmmlmm import Hamiltonian, Region, Term
from qmmlmm.coupling.coefficient import Coefficient, parse_coefficient
from qmmlmm.errors import HamiltonianError
from tests.toy_potentials import SettingsOnly

SITE, CORE = Region("site", range(6)), Region("core", range(3))


def term(level, coefficient, region=SITE):
    return Term(SettingsOnly(level), region, embedding="mechanical", coefficient=coefficient)


@pytest.mark.parametrize(
    ("text", "constant", "slopes"),
    [
        ("1-lambda_qm", 1.0, {"lambda_qm": -1.0}),
        (" - lambda_qm ", 0.0, {"lambda_qm": -1.0}),
        ("lambda_ml - 0.5*lambda_qm + 2", 2.0, {"lambda_ml": 1.0, "lambda_qm": -0.5}),
        ("1e-1*a + .5 - 1.5e+2 * b2", 0.5, {"a": 0.1, "b2": -150.0}),
        ("a + a - 0.5*b", 0.0, {"a": 2.0, "b": -0.5}),
        ("a + 3 - a", 3.0, {}),
        ("-1", -1.0, {}),
    ],
)
def test_texts(text, constant, slopes):
    found = parse_coefficient(text)
    assert found.constant == pytest.approx(constant)
    assert dict(found.slopes) == pytest.approx(slopes)
    values = {name: 0.3 * k for k, name in enumerate(slopes, start=1)}
    assert found.value(values) == pytest.approx(constant + sum(slopes[name] * values[name] for name in slopes))


@pytest.mark.parametrize("text", ["", "1-", "a b", "2a", "a*b", "a*2", "(1-a)", "1--a", "a/2", "a**2", "1-λ*"])
def test_texts_that_are_no_sums_are_refused(text):
    with pytest.raises(HamiltonianError, match="cannot be read from"):
        parse_coefficient(text)


@pytest.mark.parametrize("number", [0.0, float("nan"), float("inf"), True, None, [1.0], "a-a", "0"])
def test_numbers_that_are_no_coefficients_are_refused(number):
    with pytest.raises(HamiltonianError, match="coefficient of a term is"):
        parse_coefficient(number)


def test_numbers():
    assert parse_coefficient(-1) == Coefficient(-1.0)
    assert parse_coefficient(0.25).parameters == ()


def test_parameters_cancel_in_the_sum_of_a_region():
    Hamiltonian([term("FF", "1-l"), term("ML", "l-m"), term("QM", "m")], parameters={"l": 0.0, "m": 0.0})
    with pytest.raises(HamiltonianError, match=r"'site' add up to -0.5 times 'l'"):
        Hamiltonian([term("FF", "1-l"), term("ML", "0.5*l")], parameters={"l": 0.0})
    with pytest.raises(HamiltonianError, match="add up to 2; they must add up to 1"):
        Hamiltonian([term("FF", "1-l"), term("ML", "1+l")], parameters={"l": 0.0})
    with pytest.raises(HamiltonianError, match=r"'core' add up to \+1 times 'm'"):
        Hamiltonian([term("ML", 1.0), term("QM", "m", CORE)], parameters={"m": 0.0})


def test_each_parameter_has_a_first_value():
    terms = [term("FF", "1-l"), term("ML", "l")]
    assert Hamiltonian(terms, parameters={"l": 1}).parameters == {"l": 1.0}
    with pytest.raises(HamiltonianError, match="no value for l"):
        Hamiltonian(terms)
    with pytest.raises(HamiltonianError, match="no coefficient names k"):
        Hamiltonian(terms, parameters={"l": 0.0, "k": 1.0})
    with pytest.raises(HamiltonianError, match="the value of parameter 'l' is a finite number"):
        Hamiltonian(terms, parameters={"l": float("nan")})


def test_names_of_terms_do_not_hold_parameters():
    hamiltonian = Hamiltonian(
        [
            term("FF", "1-l"),
            term("ML", "l"),
            term("QM", "m", CORE),
            term("ML", "-m", CORE),
        ],
        parameters={"l": 0.0, "m": 0.0},
    )
    assert hamiltonian.term_names() == ("site/FF", "site/ML", "core/QM", "core/-ML")
    assert hash(hamiltonian) == hash(hamiltonian)
