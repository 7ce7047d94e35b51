from __future__ import annotations

import torch

from qmmlmm.ml.bonded_polynomial import BondedPolynomial, pair_classes

# Methanol: C, O, three H on C, one H on O.
METHANOL = (6, 8, 1, 1, 1, 1)
METHANOL_BONDS = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 5))
NUMBERS = [6, 8, 1, 1, 9]
BONDS = [(0, 1), (0, 2), (0, 3)]
ROUND_OFF = 1e-11


def test_the_polynomial_recovers_a_force_field_of_its_own_form():
    generator = torch.Generator().manual_seed(9)
    truth = BondedPolynomial(NUMBERS, BONDS)
    truth.coefficients.normal_(generator=generator)
    start = torch.tensor([[0.0, 0, 0], [0, 0, 2.3], [1.8, 0, -1], [-1.7, 0, -1.1], [0, 9, 0]], dtype=torch.float64)
    positions = start + 0.15 * torch.randn(40, 5, 3, generator=generator, dtype=torch.float64)
    fitted = BondedPolynomial(NUMBERS, BONDS)
    fitted.fit(positions, torch.zeros_like(positions))  # finds the equilibrium
    truth.equilibrium = fitted.equilibrium
    leaf = positions.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(truth(leaf).sum(), leaf)
    fitted.fit(positions, gradient, ridge=1e-13)
    torch.testing.assert_close(fitted(positions), truth(positions), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.jit.script(fitted)(positions), fitted(positions), rtol=0, atol=ROUND_OFF)


def test_no_bond_runs_away_where_nothing_was_fitted():
    polynomial = BondedPolynomial([1, 1], [(0, 1)])
    polynomial.coefficients.fill_(-1.0)
    polynomial.equilibrium.fill_(1.4)
    far = torch.tensor([[0.0, 0, 0], [0, 0, 500.0]], dtype=torch.float64)
    assert abs(polynomial(far).item() + 4.0) < ROUND_OFF


def test_pairs_up_to_three_bonds_apart_are_found_once():
    pairs = pair_classes(METHANOL, METHANOL_BONDS)
    assert len({(a, b) for a, b, _ in pairs}) == len(pairs) == 15  # methanol: no two atoms are further apart
    assert all(a < b for a, b, _ in pairs)
    assert len(pair_classes(METHANOL, METHANOL_BONDS, longest_path=1)) == len(METHANOL_BONDS)
    chain = [(i, i + 1) for i in range(4)]
    assert (0, 4) not in {(a, b) for a, b, _ in pair_classes([6] * 5, chain)}


def test_pairs_of_equivalent_atoms_share_a_class_and_others_do_not():
    kinds = {(a, b): kind for a, b, kind in pair_classes(METHANOL, METHANOL_BONDS)}
    assert kinds[0, 2] == kinds[0, 3] == kinds[0, 4] != kinds[0, 5]
    assert kinds[2, 3] == kinds[2, 4] == kinds[3, 4]
    assert kinds[2, 5] == kinds[3, 5] == kinds[4, 5] != kinds[2, 3]
    assert len(kinds) == 15
    assert sorted(set(kinds.values())) == list(range(7))
