from dataclasses import replace

import numpy as np
import pytest

from qmmlmm.errors import PotentialError
from qmmlmm.geometry import Geometry
from qmmlmm.qm import PySCFPotential
from qmmlmm.qm.scf.density_history import JUMP, LONGEST, DensityHistory, coefficients

SAME_STATE = 1e-8  # hartree: both converged to conv_tol
STEP = 0.05  # of a vibration of unit frequency: 0.5 fs for a hydrogen


def vibration(case, time, amplitude=0.08):
    """Positions at a time of a smooth motion; a common drift, as of a molecule in a liquid, is in it."""
    random = np.random.default_rng(8)
    directions = random.normal(size=(2, *case.positions.shape))
    moved = amplitude * (np.sin(time) * directions[0] + np.cos(0.7 * time) * directions[1])
    return case.positions + moved + 3.0 * time


def run(case, steps, potential, field=None, start=0.0):
    evaluator = potential.create_evaluator(case.specification)
    times = start + STEP * np.arange(steps)
    return evaluator, [evaluator.evaluate(Geometry(vibration(case, t)), field) for t in times]


@pytest.fixture
def histories(monkeypatch):
    """The histories of all evaluators that are made."""
    made = []

    class Noted(DensityHistory):
        def __init__(self):
            super().__init__()
            made.append(self)

    monkeypatch.setattr("qmmlmm.qm.evaluator.DensityHistory", Noted)
    return made


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_the_predictor_is_exact_for_a_straight_line_and_reversible(length):
    weights = coefficients(length)
    assert weights.sum() == pytest.approx(1.0)
    if length > 1:
        assert weights @ np.arange(1, length + 1) == pytest.approx(0.0, abs=1e-12)
    # Kolafa (2004), table for k = 0 and k = 1.
    expected = {2: [2.0, -1.0], 3: [2.5, -2.0, 0.5]}
    if length in expected:
        np.testing.assert_allclose(weights, expected[length])


@pytest.mark.parametrize("spin", ["restricted", "unrestricted"])
def test_extrapolation_needs_at_most_half_the_cycles_of_a_fresh_guess(water, radical, spin):
    case = water if spin == "restricted" else radical
    _, fresh = run(case, 12, PySCFPotential("hf", "6-31g", guess="fresh"))
    _, results = run(case, 12, PySCFPotential("hf", "6-31g"))
    late = [result.results["scf_cycles"] for result in results[LONGEST:]]
    reference = [result.results["scf_cycles"] for result in fresh[LONGEST:]]
    assert {result.results["scf_guess"] for result in results[2:]} == {"extrapolated guess"}
    assert 2 * np.mean(late) <= np.mean(reference)
    for first, second in zip(results, fresh, strict=True):
        assert first.energy == pytest.approx(second.energy, abs=SAME_STATE)


def test_a_jump_starts_anew_from_a_fresh_guess(water, histories):
    evaluator, results = run(water, 4, PySCFPotential("hf", "sto-3g"))
    assert results[0].results["scf_guess"] == "fresh guess"
    assert results[1].results["scf_guess"] == "last density"
    moved = vibration(water, 4 * STEP)
    moved[1] += [0.0, 0.0, 1.7 * JUMP]
    assert evaluator.evaluate(Geometry(moved), None).results["scf_guess"] == "fresh guess"
    assert [len(history) for history in histories] == [1]


def test_a_shift_of_the_whole_region_is_no_jump(water):
    evaluator, _ = run(water, 4, PySCFPotential("hf", "sto-3g"))
    shifted = vibration(water, 4 * STEP) + np.array([40.0, 0.0, -40.0])
    assert evaluator.evaluate(Geometry(shifted), None).results["scf_guess"] == "extrapolated guess"


def test_a_rejected_trial_leaves_the_history_as_it_was(water):
    potential = PySCFPotential("hf", "sto-3g")
    evaluator, _ = run(water, 7, potential)
    undisturbed, _ = run(water, 7, potential)
    kept = vibration(water, 6 * STEP)
    trial = kept + 0.05 * np.random.default_rng(1).normal(size=kept.shape)
    evaluator.evaluate(Geometry(trial), None)
    again = evaluator.evaluate(Geometry(kept), None)
    assert again.results["scf_guess"] == "last density"
    assert again.results["scf_cycles"] <= 3
    after = vibration(water, 7 * STEP)
    result, expected = (e.evaluate(Geometry(after), None).results for e in (evaluator, undisturbed))
    assert result["scf_guess"] == "extrapolated guess"
    assert result["scf_cycles"] == expected["scf_cycles"]


def test_displacements_for_central_differences_start_from_the_nearest_geometry(water):
    evaluator, _ = run(water, 7, PySCFPotential("hf", "sto-3g"))
    here = vibration(water, 6 * STEP)
    for sign in (1, -1):
        displaced = here.copy()
        displaced[0, 0] += 1e-3 * sign
        result = evaluator.evaluate(Geometry(displaced), None).results
        assert result["scf_guess"] == "last density"
        assert result["scf_cycles"] <= 6


def test_a_change_of_the_field_alone_starts_from_the_last_density(water, histories):
    evaluator = PySCFPotential("hf", "6-31g").create_evaluator(water.specification)
    evaluator.evaluate(water.geometry, water.field)
    field = replace(water.field, positions=water.field.positions + 0.05)
    for _ in range(3):
        assert evaluator.evaluate(water.geometry, field).results["scf_guess"] == "last density"
    assert [len(history) for history in histories] == [1]


def test_after_forgetting_the_next_result_is_bit_by_bit_that_of_a_new_evaluator(water):
    potential = PySCFPotential("hf", "6-31g")
    evaluator, _ = run(water, 5, potential, water.field)
    evaluator.forget()
    positions = vibration(water, 5 * STEP)
    result = evaluator.evaluate(Geometry(positions), water.field)
    new = potential.create_evaluator(water.specification).evaluate(Geometry(positions), water.field)
    assert result.results["scf_guess"] == "fresh guess"
    assert result.energy == new.energy
    np.testing.assert_array_equal(result.gradient, new.gradient)
    np.testing.assert_array_equal(result.charge_gradient, new.charge_gradient)


@pytest.mark.parametrize(("guess", "expected"), [("fresh", "fresh guess"), ("last density", "last density")])
def test_the_guess_can_be_chosen(water, guess, expected):
    _, results = run(water, 4, PySCFPotential("hf", "sto-3g", guess=guess))
    assert results[-1].results["scf_guess"] == expected


def test_an_unknown_guess_is_refused():
    with pytest.raises(PotentialError, match="guess is one of 'extrapolated', 'last density', 'fresh', got 'aspc'"):
        PySCFPotential("hf", "sto-3g", guess="aspc")
