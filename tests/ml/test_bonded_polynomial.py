from __future__ import annotations

import torch

from qmmlmm.ml.bonded_polynomial import BondedPolynomial, pair_classes

# Methanol: C, O, three H on C, one H on O.
METHANOL = (6, 8, 1, 1, 1, 1)
METHANOL_BONDS = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 5))
NUMBERS = [6, 8, 1, 1, 9]
BONDS = [(0, 1), (0, 2), (0, 3)]
ROUND_OFF = 1e-11
# hartree/bohr, of gradients up to 0.25. With four powers the error outside is 0.23, with two 0.043.
NOISE, OUTSIDE = 1e-3, 0.05


def test_the_polynomial_recovers_a_force_field_of_its_own_form():
    generator = torch.Generator().manual_seed(9)
    truth = BondedPolynomial(NUMBERS, BONDS)
    truth.coefficients.normal_(generator=generator)
    truth.coefficients *= truth.used
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


def test_angles_and_torsions_go_on_as_parabolas_outside_the_fitted_range():
    """Of a bent molecule whose ends repel each other like 1 / r, with errors as those of labels; looked at below."""
    generator = torch.Generator().manual_seed(3)
    polynomial = BondedPolynomial([8, 1, 1], [(0, 1), (0, 2)])
    wide = torch.linspace(1.0, 1.7, 36, dtype=torch.float64)
    height, zero = torch.sqrt(1.9**2 - wide**2), torch.zeros_like(wide)
    ends = [torch.stack([sign * wide, height, zero], -1) for sign in (1, -1)]
    positions = torch.stack([torch.zeros_like(ends[0]), *ends], 1)
    leaf = positions.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((1.0 / (leaf[:, 1] - leaf[:, 2]).norm(dim=-1)).sum(), leaf)
    fitted = wide > 1.3
    noise = NOISE * torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
    polynomial.fit(positions[fitted], (gradient + noise)[fitted])
    leaf = positions.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(polynomial(leaf).sum(), leaf)
    error = (found - gradient).norm(dim=-1)[:, 1]
    assert error[fitted].max() < 3 * NOISE
    assert error[~fitted].max() < OUTSIDE
    kinds = {(a, b): kind for a, b, kind, _ in pair_classes([8, 1, 1], [(0, 1), (0, 2)])}
    assert bool((polynomial.coefficients[kinds[1, 2], 2:] == 0.0).all())
    assert bool((polynomial.coefficients[kinds[0, 1]] != 0.0).any())


def test_no_bond_runs_away_where_nothing_was_fitted():
    polynomial = BondedPolynomial([1, 1], [(0, 1)])
    polynomial.coefficients.fill_(-1.0)
    polynomial.equilibrium.fill_(1.4)
    far = torch.tensor([[0.0, 0, 0], [0, 0, 500.0]], dtype=torch.float64)
    assert abs(polynomial(far).item() + 4.0) < ROUND_OFF


def test_pairs_up_to_three_bonds_apart_are_found_once():
    pairs = pair_classes(METHANOL, METHANOL_BONDS)
    assert len({(a, b) for a, b, *_ in pairs}) == len(pairs) == 15  # methanol: no two atoms are further apart
    assert all(a < b for a, b, *_ in pairs)
    assert len(pair_classes(METHANOL, METHANOL_BONDS, longest_path=1)) == len(METHANOL_BONDS)
    chain = [(i, i + 1) for i in range(4)]
    assert (0, 4) not in {(a, b) for a, b, *_ in pair_classes([6] * 5, chain)}


def test_pairs_of_equivalent_atoms_share_a_class_and_others_do_not():
    kinds = {(a, b): kind for a, b, kind, _ in pair_classes(METHANOL, METHANOL_BONDS)}
    assert kinds[0, 2] == kinds[0, 3] == kinds[0, 4] != kinds[0, 5]
    assert kinds[2, 3] == kinds[2, 4] == kinds[3, 4]
    assert kinds[2, 5] == kinds[3, 5] == kinds[4, 5] != kinds[2, 3]
    assert len(kinds) == 15
    assert sorted(set(kinds.values())) == list(range(7))
