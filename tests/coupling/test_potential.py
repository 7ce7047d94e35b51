"""What a potential declares, and what an evaluator does that defines nothing but its energy."""

from __future__ import annotations

import numpy as np
import pytest

from qmmlmm.coupling.potential import Capabilities, EvaluatedPotential, Evaluation, Evaluator
from qmmlmm.coupling.state_results import StateResults
from qmmlmm.errors import EvaluationError, PotentialError
from qmmlmm.geometry import Geometry
from tests.toy_potentials import BOTH, SettingsOnly

MECHANICAL = frozenset({"mechanical"})
STATES = StateResults(1, np.array([-1.0, -0.5]), oscillator_strengths=np.array([0.0, 0.2]))


def test_what_is_not_declared_is_not_there():
    found = Capabilities(MECHANICAL)
    assert (found.n_states, found.state, found.mesh_order) == (1, 0, 5)
    assert found.splitting is None
    assert not any(
        (found.follows_state, found.long_range, found.smeared_charges, found.couplings, found.charge_energies)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embeddings": frozenset()}, "embeddings are among mechanical, electrostatic, got none"),
        ({"embeddings": frozenset({"electronic"})}, "got electronic"),
        ({"n_states": 0}, "n_states is a whole number of 1 or more, got 0"),
        ({"n_states": True}, "n_states is a whole number"),
        ({"state": -1}, "state is a whole number of 0 or more, got -1"),
        ({"n_states": 2, "state": 2}, "state 2 does not exist: there are states 0 to 1"),
        ({"mesh_order": 2}, "mesh_order is a whole number of 3 or more, got 2"),
        ({"splitting": 0.0}, "splitting is a number above zero, in 1/bohr, got 0.0"),
        ({"splitting": float("nan")}, "splitting is a number above zero"),
        ({"long_range": 1}, "long_range is True or False, got 1"),
        ({"couplings": "yes"}, "couplings is True or False, got 'yes'"),
        ({"embeddings": frozenset({"electrostatic"}), "long_range": True}, "long_range goes with mechanical embedding"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(PotentialError, match=message):
        Capabilities(**({"embeddings": MECHANICAL} | settings))


class Counting(Evaluator):
    """Has an energy and states, and counts."""

    def __init__(self):
        self.calls = self.resets = 0

    def evaluate(self, geometry, field):
        self.calls += 1
        return Evaluation(-0.5, np.zeros((1, 3)), results={"dipole": 0.3}, states=STATES)

    def forget(self):
        self.resets += 1


GEOMETRY = Geometry(np.zeros((1, 3)))


def test_energy_and_excitations_are_those_of_an_evaluation():
    evaluator = Counting()
    assert evaluator.energy(GEOMETRY, None) == -0.5
    assert evaluator.excitations(GEOMETRY, None) is STATES
    assert evaluator.calls == 2


def test_an_evaluator_without_memory_goes_on_from_nothing():
    evaluator = Counting()
    assert evaluator.memory() == evaluator.summary() == {}
    evaluator.prepare()
    evaluator.recall({})
    assert evaluator.resets == 1
    with pytest.raises(EvaluationError, match="Counting has no memory to restore, got orbitals"):
        evaluator.recall({"orbitals": np.eye(2)})


def test_an_evaluator_with_one_state_has_no_other():
    with pytest.raises(EvaluationError, match="Counting has one electronic state, and state 1 was selected"):
        Counting().select_state(1)


def test_a_report_holds_results_and_what_is_known_of_the_states():
    report = Counting().evaluate(GEOMETRY, None).report()
    assert list(report) == ["dipole", "state", "state_energies", "oscillator_strengths"]
    assert report["state"] == 1
    np.testing.assert_array_equal(report["state_energies"], [-1.0, -0.5])
    assert Evaluation(0.0, np.zeros((1, 3)), results={"sum": 1}).report() == {"sum": 1}


def test_a_potential_is_named_by_its_class_and_takes_any_region():
    assert SettingsOnly().method_name == "SettingsOnly"
    SettingsOnly(embeddings=BOTH).check(None)


@pytest.mark.parametrize("missing", ["level", "capabilities", "create_evaluator"])
def test_a_potential_has_to_define_the_contract(missing):
    parts = {"level": "QM", "capabilities": Capabilities(MECHANICAL), "create_evaluator": lambda self, _: Counting()}
    complete = type("Complete", (EvaluatedPotential,), dict(parts))
    complete()
    del parts[missing]
    with pytest.raises(TypeError, match=f"abstract.*{missing}"):
        type("Partial", (EvaluatedPotential,), parts)()
