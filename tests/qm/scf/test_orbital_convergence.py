"""When orbitals are converged: at the tight tolerance, or where round-off ends the progress below the loose one."""

from __future__ import annotations

import pytest

from qmmlmm.qm.scf.orbital_convergence import PATIENCE, OrbitalConvergence

TIGHT, LOOSE = 1e-9, 1e-6


def cycles_of(gradients, change=0.0, number="cycle"):
    """Return the number of cycles that are taken, None if the criterion never holds."""
    criterion = OrbitalConvergence(TIGHT, LOOSE)
    for k, gradient in enumerate(gradients):
        found = {"e_tot": -1.0, "last_hf_e": -1.0 - change, "norm_gorb": gradient, "scf_conv": False, "conv_tol": 1e-10}
        if criterion(found | {number: k}):
            return k + 1
    return None


def test_gradients_that_become_small_end_at_the_tight_tolerance():
    assert cycles_of([10.0**-k for k in range(12)]) == 11


@pytest.mark.parametrize("number", ["cycle", "imacro"])
def test_gradients_that_stop_above_it_are_taken_below_the_loose_one(number):
    falling = [10.0**-k for k in range(8)]
    assert cycles_of([*falling, *[0.9e-7] * 50], number=number) == len(falling) + PATIENCE
    assert cycles_of([*falling[:6], *[1.1e-6] * 50]) is None


def test_slow_progress_is_progress():
    gradients = [1e-7 * 0.49 ** (k // PATIENCE) for k in range(100)]
    assert cycles_of(gradients) == next(k for k, gradient in enumerate(gradients) if gradient < TIGHT) + 1


def test_an_energy_that_changes_is_not_converged():
    assert cycles_of([1e-12] * 30, change=1e-9) is None


def test_a_new_calculation_forgets_the_last_one():
    criterion = OrbitalConvergence(TIGHT, LOOSE)
    same = {"e_tot": -1.0, "last_hf_e": -1.0, "norm_gorb": 1e-7, "scf_conv": False, "conv_tol": 1e-10}
    for _ in range(3):
        assert not any(criterion(same | {"cycle": k}) for k in range(PATIENCE))


def test_the_cycle_after_the_last_one_has_the_tolerances_of_pyscf():
    criterion = OrbitalConvergence(TIGHT, LOOSE)
    after = {"e_tot": -1.0, "last_hf_e": -1.1, "norm_gorb": 2e-9, "scf_conv": True, "conv_tol": 1e-9}
    assert criterion(after | {"conv_tol_grad": 3e-9})
    assert not criterion(after | {"conv_tol_grad": 1e-9})
