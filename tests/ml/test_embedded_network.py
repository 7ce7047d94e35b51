from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.ml.embedded_network import EmbeddedNetwork, NetworkSettings, pair_classes
from qmmlmm.ml.term_module import EmbeddedTermModule
from qmmlmm.units import ANGSTROM_IN_BOHR

INVARIANCE_TOLERANCE = 1e-12  # hartree, of energies of the order of one; a few thousand terms in float64
SINGLE_TOLERANCE = 1e-6  # the same in float32
CHARGE_TOLERANCE = 1e-14  # e; charges of the order of 0.1 that are shifted to add up
STEP = 1e-4  # bohr
DIFFERENCE_TOLERANCE = 1e-7  # of the largest derivative; third derivatives times STEP^2 / 6
FIT_TOLERANCE = 1e-6  # relative; the ridge of 1e-8 on a design matrix with powers one to four

# Methanol: C, O, three H on C, one H on O; angstrom.
NUMBERS = (6, 8, 1, 1, 1, 1)
BONDS = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 5))
METHANOL = np.array(
    [
        [-0.047, 0.664, 0.0],
        [-0.047, -0.758, 0.0],
        [-1.093, 0.969, 0.0],
        [0.438, 1.071, 0.889],
        [0.438, 1.071, -0.889],
        [0.862, -1.057, 0.0],
    ]
)
PRECISIONS = [(torch.float64, INVARIANCE_TOLERANCE), (torch.float32, SINGLE_TOLERANCE)]
SMALL = NetworkSettings(features=8, layers=2, radial_functions=6)


def network(dtype=torch.float64, numbers=NUMBERS, bonds=BONDS):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = EmbeddedNetwork(numbers, bonds, SMALL, dtype)
        made.coefficients = 0.1 * torch.randn(made.coefficients.shape, dtype=torch.float64)
    return made.requires_grad_(False)


def case(seed=2, batch=1):
    """A shaken molecule in a potential and field that belong to no particular surroundings."""
    rng = np.random.default_rng(seed)
    positions = METHANOL * ANGSTROM_IN_BOHR + 0.1 * rng.standard_normal((batch, 6, 3))
    potential = 0.1 * rng.standard_normal((batch, 6))
    field = 0.05 * rng.standard_normal((batch, 6, 3))
    return [torch.tensor(array) for array in (positions, potential, field)]


CHARGE = torch.tensor(-1.0, dtype=torch.float64)


def rotation(seed):
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    return torch.tensor(q * np.sign(np.diag(r)))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, INVARIANCE_TOLERANCE), (torch.float32, SINGLE_TOLERANCE)]
)
def test_the_energy_does_not_change_when_all_is_moved(dtype, tolerance):
    model = network(dtype)
    positions, potential, field = case()
    shift = torch.tensor([3.0, -7.0, 11.0], dtype=torch.float64)
    before = model.energy(positions, CHARGE, potential, field)
    after = model.energy(positions + shift, CHARGE, potential, field)
    np.testing.assert_allclose(after, before, rtol=0, atol=tolerance)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["turned", "turned and mirrored"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, INVARIANCE_TOLERANCE), (torch.float32, SINGLE_TOLERANCE)]
)
def test_the_energy_does_not_change_when_molecule_and_field_are_turned(dtype, tolerance, sign):
    model = network(dtype)
    positions, potential, field = case()
    turn = sign * rotation(1)
    before = model.energy(positions, CHARGE, potential, field)
    after = model.energy(positions @ turn, CHARGE, potential, field @ turn)
    np.testing.assert_allclose(after, before, rtol=0, atol=tolerance)
    unturned = model.energy(positions @ turn, CHARGE, potential, field)
    assert abs(float(unturned - before)) > 1e2 * tolerance, "the field does not act"


def test_dipoles_turn_with_the_molecule_and_the_rest_stays():
    model = network()
    positions, _, _ = case()
    turn = rotation(3)
    energies, charges, dipoles, polarisabilities = model.atom_properties(positions, CHARGE)
    turned = model.atom_properties(positions @ turn, CHARGE)
    for found, expected in zip(turned, (energies, charges, dipoles @ turn, polarisabilities), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=INVARIANCE_TOLERANCE)
    assert dipoles.abs().max() > 1e-3
    assert (polarisabilities > 0).all()


@pytest.mark.parametrize("order", list(itertools.permutations((2, 3, 4)))[1:])
def test_equivalent_atoms_can_be_exchanged(order):
    model = network()
    positions, potential, field = case()
    index = [0, 1, *order, 5]
    before = model.energy(positions, CHARGE, potential, field)
    after = model.energy(positions[:, index], CHARGE, potential[:, index], field[:, index])
    np.testing.assert_allclose(after, before, rtol=0, atol=INVARIANCE_TOLERANCE)


def test_atoms_that_are_not_equivalent_can_be_told_apart():
    model = network()
    positions, potential, field = case()
    index = [0, 1, 5, 3, 4, 2]
    before = model.energy(positions, CHARGE, potential, field)
    after = model.energy(positions[:, index], CHARGE, potential[:, index], field[:, index])
    assert abs(float(after - before)) > 1e-3


@pytest.mark.parametrize("charge", [-2.0, 0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_charges_add_up_to_the_total_charge(dtype, charge):
    positions, _, _ = case(batch=4)
    total = torch.tensor(charge, dtype=torch.float64)
    _, charges, _, _ = network(dtype).atom_properties(positions, total)
    np.testing.assert_allclose(charges.sum(-1), charge, rtol=0, atol=6 * CHARGE_TOLERANCE)
    assert charges.std() > 1e-3


def test_the_response_to_the_field_is_charges_dipoles_and_polarisabilities():
    model = network()
    positions, potential, field = case()
    potential.requires_grad_(True)
    field.requires_grad_(True)
    energy = model.energy(positions, CHARGE, potential, field).sum()
    by_potential, by_field = torch.autograd.grad(energy, (potential, field))
    _, charges, dipoles, polarisabilities = model.atom_properties(positions, CHARGE)
    induced = dipoles + polarisabilities[..., None] * field.detach()
    np.testing.assert_allclose(by_potential, charges, rtol=0, atol=INVARIANCE_TOLERANCE)
    np.testing.assert_allclose(by_field, -induced, rtol=0, atol=INVARIANCE_TOLERANCE)


def test_forces_are_the_derivative_of_the_energy():
    model = network()
    positions, potential, field = case()
    positions.requires_grad_(True)
    energy = model.energy(positions, CHARGE, potential, field).sum()
    gradient = torch.autograd.grad(energy, positions)[0].numpy()
    start = positions.detach()
    for atom in range(6):
        for axis in range(3):
            step = torch.zeros_like(start)
            step[0, atom, axis] = STEP
            above = model.energy(start + step, CHARGE, potential, field)
            below = model.energy(start - step, CHARGE, potential, field)
            numerical = float(above - below) / (2.0 * STEP)
            scale = abs(gradient).max()
            assert gradient[0, atom, axis] == pytest.approx(numerical, abs=DIFFERENCE_TOLERANCE * scale)


def test_the_energy_is_smooth_where_an_atom_leaves_the_cutoff():
    model = network(numbers=(1, 1), bonds=[(0, 1)])
    model.coefficients.zero_()
    cutoff = SMALL.cutoff * ANGSTROM_IN_BOHR
    nothing = torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, 2, 3, dtype=torch.float64)
    slopes = []
    for r in (cutoff - 1e-5, cutoff + 1e-5):
        positions = torch.tensor([[[0.0, 0, 0], [r, 0, 0]]], dtype=torch.float64, requires_grad=True)
        energy = model.energy(positions, CHARGE, *nothing).sum()
        slopes.append(float(torch.autograd.grad(energy, positions)[0][0, 1, 0]))
    # The envelope and two derivatives vanish there: what is left is (1e-5 bohr)^2.
    assert slopes == pytest.approx([0.0, 0.0], abs=1e-9)


def test_a_batch_is_its_geometries_one_by_one():
    model = network()
    positions, potential, field = case(batch=3)
    together = model.energy(positions, CHARGE, potential, field)
    for k in range(3):
        alone = model.energy(positions[k : k + 1], CHARGE, potential[k : k + 1], field[k : k + 1])
        np.testing.assert_allclose(together[k], alone[0], rtol=0, atol=INVARIANCE_TOLERANCE)


def contract(positions, potential, field, embedded=True):
    inputs = {"positions": positions[0], "charge": CHARGE, "atomic_numbers": torch.tensor(NUMBERS)}
    inputs["multiplicity"] = torch.tensor(1.0, dtype=torch.float64)
    return inputs | ({"potential": potential[0], "field": field[0]} if embedded else {})


def test_without_surroundings_potential_and_field_are_zero():
    model = network()
    positions, potential, field = case()
    alone = model(contract(positions, potential, field, embedded=False))["energy"]
    expected = model.energy(positions, CHARGE, 0.0 * potential, 0.0 * field)
    np.testing.assert_array_equal(alone, expected)


def test_torchscript_gives_the_same():
    model = network()
    scripted = torch.jit.script(network())
    inputs = contract(*case())
    for _ in range(3):
        np.testing.assert_allclose(
            scripted(inputs)["energy"], model(inputs)["energy"], rtol=0, atol=INVARIANCE_TOLERANCE
        )


def test_it_runs_in_a_system_saved_and_loaded(models, tmp_path):
    solution = models.solution("box")
    # Water among the ions; a network of another molecule than above.
    water = network(numbers=(1, 8, 1), bonds=[(0, 1), (1, 2)])
    MLPotential(water, atomic_numbers=(1, 8, 1), embeddings=["mechanical", "electrostatic"]).save(tmp_path / "w.pt")
    potential = MLPotential.load(tmp_path / "w.pt")
    region = Region("water", [0, 1, 2])
    mixed = create_mixed_system(
        solution.topology, solution.system, Hamiltonian([Term(potential, region, embedding="electrostatic")])
    )
    term = EmbeddedTermModule(mixed.layouts["water/ML"], potential.module)
    positions, box = torch.tensor(solution.positions), torch.tensor(solution.box)
    _, forces = term(positions, box)
    total, _ = models.energy_and_forces(mixed.system, solution.positions)
    assert np.isfinite(total)
    step = 1e-5  # nm
    rng = np.random.default_rng(3)
    for group in (slice(0, 3), slice(3, None)):
        direction = torch.zeros_like(positions)
        direction[group] = torch.tensor(rng.standard_normal(direction[group].shape))
        above, _ = term(positions + step * direction, box)
        below, _ = term(positions - step * direction, box)
        expected = -float(above - below) / (2.0 * step)
        scale = float(forces[group].abs().max())
        assert float((forces * direction).sum()) == pytest.approx(expected, abs=10 * DIFFERENCE_TOLERANCE * scale)


def bonded(positions, strengths):
    """Harmonic in the distances of all pairs up to three bonds apart, of equivalent pairs alike."""
    pairs = pair_classes(NUMBERS, BONDS)
    energy = torch.zeros(len(positions), dtype=torch.float64)
    for a, b, kind in pairs:
        r = (positions[:, a] - positions[:, b]).norm(dim=-1)
        energy = energy + 0.5 * strengths[kind] * (r - 2.0 - 0.3 * kind) ** 2
    return energy


def test_the_fit_recovers_a_harmonic_bonded_energy():
    positions, _, _ = case(batch=60)
    strengths = torch.linspace(0.4, 0.05, 7, dtype=torch.float64)
    leaf = positions.clone().requires_grad_(True)
    energies = bonded(leaf, strengths) - 115.0
    gradients = torch.autograd.grad(energies.sum(), leaf)[0]
    model = network()
    model.fit_bonded(positions, energies.detach(), gradients)
    fresh, _, _ = case(seed=9, batch=5)
    expected = bonded(fresh, strengths) - 115.0
    found = model.constant + model.pair_terms(fresh) @ model.coefficients.flatten()
    spread = float(energies.detach().std())
    np.testing.assert_allclose(found, expected, rtol=0, atol=FIT_TOLERANCE * spread)
    leaf = fresh.clone().requires_grad_(True)
    slope = torch.autograd.grad((model.pair_terms(leaf) @ model.coefficients.flatten()).sum(), leaf)[0]
    other = fresh.clone().requires_grad_(True)
    truth = torch.autograd.grad(bonded(other, strengths).sum(), other)[0]
    np.testing.assert_allclose(slope, truth, rtol=0, atol=FIT_TOLERANCE * float(truth.abs().max()))


def test_a_fitted_network_can_be_scripted_and_keeps_its_fit():
    positions, potential, field = case(batch=40)
    model = network()
    strengths = torch.linspace(0.4, 0.05, 7, dtype=torch.float64)
    leaf = positions.clone().requires_grad_(True)
    energies = bonded(leaf, strengths)
    model.fit_bonded(positions, energies.detach(), torch.autograd.grad(energies.sum(), leaf)[0])
    potential = MLPotential(model, atomic_numbers=NUMBERS, embeddings=["electrostatic"], charge=-1)
    inputs = contract(*case())
    np.testing.assert_allclose(
        potential.module(inputs)["energy"], model(inputs)["energy"], rtol=0, atol=INVARIANCE_TOLERANCE
    )


def test_pairs_up_to_three_bonds_apart_are_found_once():
    pairs = pair_classes(NUMBERS, BONDS)
    assert len({(a, b) for a, b, _ in pairs}) == len(pairs) == 15  # methanol: no two atoms are further apart
    assert all(a < b for a, b, _ in pairs)
    assert len(pair_classes(NUMBERS, BONDS, longest_path=1)) == len(BONDS)
    chain = [(i, i + 1) for i in range(4)]
    assert (0, 4) not in {(a, b) for a, b, _ in pair_classes([6] * 5, chain)}


def test_pairs_of_equivalent_atoms_share_a_class_and_others_do_not():
    kinds = {(a, b): kind for a, b, kind in pair_classes(NUMBERS, BONDS)}
    assert kinds[0, 2] == kinds[0, 3] == kinds[0, 4] != kinds[0, 5]
    assert kinds[2, 3] == kinds[2, 4] == kinds[3, 4]
    assert kinds[2, 5] == kinds[3, 5] == kinds[4, 5] != kinds[2, 3]
    assert len(kinds) == 15
    assert sorted(set(kinds.values())) == list(range(7))


def test_an_ion_has_no_bonded_energy():
    ion = network(numbers=(17,), bonds=[])
    potential = torch.tensor([[0.2]], dtype=torch.float64)
    field = torch.zeros(1, 1, 3, dtype=torch.float64)
    here = torch.zeros(1, 1, 3, dtype=torch.float64)
    difference = ion.energy(here, CHARGE, potential, field) - ion.energy(here, CHARGE, 0.0 * potential, field)
    assert float(difference) == pytest.approx(-0.2, abs=INVARIANCE_TOLERANCE)
    torch.jit.script(ion)
