"""Electronic amplitudes along one step, against a numerical solution of the Schroedinger equation."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from qmmlmm.errors import EvaluationError
from qmmlmm.nonadiabatic.amplitudes import coupled_step, damped, diabatic_step, orthonormal, propagate
from qmmlmm.units import HBAR_IN_OPENMM

DURATION = 0.002  # ps
SOLVED = 1e-8
"""What is left of the error of the numerical solution."""


def solved(hamiltonian, amplitudes):
    """Return amplitudes after DURATION of i hbar dc/dt = H(t) c."""
    found = solve_ivp(
        lambda t, c: -1j / HBAR_IN_OPENMM * hamiltonian(t / DURATION) @ c,
        (0.0, DURATION),
        amplitudes,
        rtol=1e-11,
        atol=1e-12,
        method="DOP853",
    )
    return found.y[:, -1]


def amplitudes_of_three():
    random = np.random.default_rng(3)
    values = random.normal(size=3) + 1j * random.normal(size=3)
    return values / np.linalg.norm(values)


def test_local_diabatisation_solves_a_hamiltonian_that_is_linear_in_the_old_states():
    random = np.random.default_rng(0)
    before, after = np.array([0.0, 40.0, 90.0]), np.array([5.0, 30.0, 100.0])
    turn, _ = np.linalg.qr(np.eye(3) + 0.2 * random.normal(size=(3, 3)))
    turn *= np.sign(np.diag(turn))
    start = amplitudes_of_three()
    last = turn @ np.diag(after) @ turn.T
    expected = solved(lambda s: (1 - s) * np.diag(before) + s * last, start)
    (propagator,) = diabatic_step(before, after, turn, DURATION, 400)
    found = turn @ propagator @ start
    # The phase that all states share is left out.
    phase = np.vdot(found, expected)
    assert abs(abs(phase) - 1.0) < 1e-6
    assert abs(found * phase - expected).max() < 1e-5


def test_couplings_and_energies_are_interpolated_linearly():
    before, after = np.array([0.0, 40.0, 90.0]), np.array([5.0, 30.0, 100.0])
    rates = np.random.default_rng(1).normal(size=(2, 3, 3)) * 200.0
    rates -= rates.transpose(0, 2, 1)
    start = amplitudes_of_three()
    expected = solved(
        lambda s: np.diag((1 - s) * before + s * after) - 1j * HBAR_IN_OPENMM * ((1 - s) * rates[0] + s * rates[1]),
        start,
    )
    found, _ = propagate(start, coupled_step(before, after, (rates[0], rates[1]), DURATION, 400), 0)
    phase = np.vdot(found, expected)
    assert abs(abs(phase) - 1.0) < 1e-6
    assert abs(found * phase - expected).max() < 1e-5


def test_probabilities_add_up_to_what_the_active_state_loses():
    before, after = np.array([0.0, 10.0, 12.0]), np.array([1.0, 9.0, 15.0])
    turn, _ = np.linalg.qr(np.eye(3) + 0.3 * np.random.default_rng(5).normal(size=(3, 3)))
    turn *= np.sign(np.diag(turn))
    start = np.array([0.0, 1.0, 0.0], dtype=complex)
    after_step, probabilities = propagate(start, diabatic_step(before, after, turn, DURATION, 20), 1)
    assert probabilities.min() >= 0.0
    assert probabilities[1] == 0.0
    assert probabilities.sum() == pytest.approx(1.0 - abs(after_step[1]) ** 2, abs=SOLVED)
    assert probabilities.sum() > 0.05


def test_a_swap_of_two_states_is_a_certain_hop():
    swap = np.array([[0.0, 1.0], [-1.0, 0.0]])
    start = np.array([1.0, 0.0], dtype=complex)
    _, probabilities = propagate(start, diabatic_step(np.zeros(2), np.zeros(2), swap, DURATION, 20), 0)
    assert probabilities == pytest.approx([0.0, 1.0])


def test_decoherence_keeps_the_norm_and_the_active_state_gains():
    start = amplitudes_of_three()
    after = damped(start, 2, np.array([0.0, 100.0, 250.0]), 50.0, DURATION)
    assert np.linalg.norm(after) == pytest.approx(1.0, abs=SOLVED)
    assert abs(after[2]) > abs(start[2])
    assert abs(after[0]) < abs(start[0])
    assert (damped(start, 2, np.array([0.0, 100.0, 250.0]), 0.0, DURATION) == start).all()


def test_a_state_from_outside_is_an_error():
    with pytest.raises(EvaluationError, match="little in common"):
        orthonormal(np.diag([1.0, 0.01]))
