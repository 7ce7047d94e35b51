"""The response of one molecule that is linear in its coefficients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qmmlmm.coupling import RegionSpecification
from qmmlmm.errors import PotentialError
from qmmlmm.ml import FixedResponse
from qmmlmm.ml.fixed_response import NEAR_REACH
from tests.ml.responses import BONDS, NUMBERS, X, response

SAME = 1e-12  # hartree


def surroundings(seed=2):
    rng = np.random.default_rng(seed)
    parts = rng.normal(size=6), rng.normal(size=(6, 3)), 6.0 * rng.normal(size=(4, 3)), rng.normal(size=4)
    return [torch.tensor(part) for part in parts]


def test_the_energy_is_linear_in_the_coefficients():
    one, two = response(1), response(2)
    around = surroundings()
    energies = [float(one.energy(c, X, *around)) for c in (one.coefficients, two.coefficients)]
    both = float(one.energy(2.0 * one.coefficients - two.coefficients, X, *around))
    assert abs(both - (2.0 * energies[0] - energies[1])) < 100 * SAME


def test_equivalent_atoms_are_the_same():
    model, (potential, field, near, charges) = response(), surroundings()
    turned = torch.tensor([0, 1, 2, 4, 5, 3])
    energy = model.energy(model.coefficients, X, potential, field, near, charges)
    other = model.energy(model.coefficients, X[turned], potential[turned], field[turned], near, charges)
    assert abs(float(energy - other)) < 100 * SAME
    swapped = torch.tensor([0, 1, 3, 2, 4, 5])
    other = model.energy(model.coefficients, X[swapped], potential[swapped], field[swapped], near, charges)
    assert abs(float(energy - other)) > 1e-3


@pytest.mark.parametrize("charge", [0, -1])
def test_charges_add_up_to_the_total_charge(charge):
    model, (_, field, near, charges) = response(charge=charge), surroundings()
    energies = [model.energy(model.coefficients, X, v + torch.zeros(6), field, near, charges) for v in (0.0, 1.0)]
    assert abs(float(energies[1] - energies[0]) - charge) < 100 * SAME


def test_there_is_no_energy_without_surroundings():
    model = response()
    assert float(model({"positions": X})["energy"]) == 0.0
    silent = torch.zeros(6, dtype=torch.float64), torch.zeros(6, 3, dtype=torch.float64), X[:0], X[:0, 0]
    assert float(model.energy(model.coefficients, X, *silent)) == 0.0


def test_far_charges_act_only_through_the_potential():
    model, (potential, field, _, charges) = response(), surroundings()
    far = torch.full((4, 3), 17.0 / 3**0.5, dtype=torch.float64) + X[1]
    near = [model.energy(model.coefficients, X, potential, field, place, charges) for place in (far, far + 100.0)]
    assert abs(float(near[0] - near[1])) < 1e-5


def test_a_file_has_the_same_response(tmp_path):
    model = response(charge=1)
    model.save(tmp_path / "response.json")
    again = FixedResponse.load(tmp_path / "response.json")
    assert again.fingerprint() == model.fingerprint() != response(5).fingerprint()
    with pytest.raises(FileNotFoundError):
        FixedResponse.load(tmp_path / "none.json")
    for text in ("", "[]", "{}", '{"format": 1}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(PotentialError, match="is no file of a FixedResponse"):
            FixedResponse.load(tmp_path / "bad.json")
    (tmp_path / "new.json").write_text('{"format": 2}')
    with pytest.raises(PotentialError, match="has the format 2, this qmmlmm reads 1"):
        FixedResponse.load(tmp_path / "new.json")
    with pytest.raises(PotentialError, match="cannot be written"):
        model.save(tmp_path / "none" / "response.json")


def test_what_is_no_molecule_is_refused():
    with pytest.raises(PotentialError, match="the bonds do not connect all atoms"):
        FixedResponse(NUMBERS, BONDS[:-1])
    with pytest.raises(PotentialError, match="coefficients"):
        FixedResponse(NUMBERS, BONDS, coefficients=np.zeros(3))
    with pytest.raises(PotentialError, match="charge"):
        FixedResponse(NUMBERS, BONDS, charge=0.5)
    with pytest.raises(PotentialError, match="bonds"):
        FixedResponse(NUMBERS, [(0, 9)])


def test_another_region_is_refused():
    for numbers, charge in (([6, 8, 1], 0), (NUMBERS, 1)):
        with pytest.raises(
            PotentialError, match="the response is for the atoms 6, 8, 1, 1, 1, 1 and charge 0; the region"
        ):
            response().check(RegionSpecification("a", np.array(numbers), charge, 1))


def test_charges_that_are_too_far_for_the_term_of_near_charges_are_left_out():
    found = response()
    rng = np.random.default_rng(6)
    x = X.clone().requires_grad_(True)
    near = torch.tensor(rng.uniform(-30.0, 30.0, size=(60, 3)), requires_grad=True)
    charges = torch.tensor(rng.normal(size=60))
    none = {"potential": torch.zeros(6, dtype=torch.float64), "field": torch.zeros(6, 3, dtype=torch.float64)}
    energies = [
        found(none | {"positions": x, "near_positions": near, "near_charges": charges})["energy"],
        found.energy(found.coefficients, x, none["potential"], none["field"], near, charges),
    ]
    assert 10 < int((torch.cdist(near, x) < NEAR_REACH).any(1).sum()) < 50
    assert energies[0].item() == pytest.approx(energies[1].item(), rel=1e-12)
    for one, other in zip(*(torch.autograd.grad(energy, [x, near]) for energy in energies), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * float(other.abs().max()))
