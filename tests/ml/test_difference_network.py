"""A network of the difference between two levels."""

from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest
import torch

from qmmlmm import MLPotential, check_potential
from qmmlmm.coupling import Difference, LevelOfTheory
from qmmlmm.errors import PotentialError
from qmmlmm.ml import ResponseNetwork, ResponseSettings, load_network, region_potential, save_network
from qmmlmm.units import BOHR_IN_NM
from tests.toy_potentials import ELEMENTS, Springs

DIFFERENCE = Difference(LevelOfTheory("qm", {"grid": 2}), LevelOfTheory("xtb", {"multipoles": 1}))
NUMBERS, X = [8, 1, 1, 6], torch.tensor([[0.0, 0.0, 0.0], [1.8, 0.2, 0.0], [-0.5, 1.75, 0.1], [-1.2, -1.9, 0.8]])
SMALL = ResponseSettings(features=8, layers=1, radial_functions=6, near_features=4, tensor_features=4)
ZERO_CHARGE = 1e-12  # e, of four charges in float64
TOLERANCE = 1e-6  # hartree/bohr


def network(charge=0, members=1, difference=DIFFERENCE, **settings):
    torch.manual_seed(3)
    chosen = ResponseSettings(**{**vars(SMALL), **settings})
    conditions = [(charge, 1, 0)]
    return ResponseNetwork(NUMBERS, [(0, 1), (0, 2), (0, 3)], chosen, conditions, members, torch.float64, difference)


def properties(model):
    with torch.no_grad():
        return model.properties(X.to(torch.float64)[None, None], torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize("charge", [0, -2])
def test_charges_of_a_difference_add_up_to_zero(charge):
    assert abs(float(properties(network(charge))["charges"].sum())) < ZERO_CHARGE
    assert abs(float(properties(network(charge, difference=None))["charges"].sum()) - charge) < ZERO_CHARGE


def test_a_difference_may_lower_and_raise_the_energy_in_a_field():
    found = [float(properties(network_of(seed))["polarisabilities"].sum()) for seed in range(8)]
    assert min(found) < 0.0 < max(found)


def network_of(seed):
    torch.manual_seed(seed)
    return ResponseNetwork(NUMBERS, [], SMALL, [(0, 1, 0)], 1, torch.float64, DIFFERENCE)


def test_a_difference_has_no_repulsion_and_no_electrostatics_of_its_own():
    model = network()
    assert not model.long_range
    close = X.to(torch.float64) * 0.3
    assert float(model.fixed_energy(close)) == 0.0
    assert float(network(difference=None).fixed_energy(close)) > 0.0


@pytest.mark.slow
@pytest.mark.usefixtures("without_profiling")
def test_its_forces_and_response_are_derivatives_and_an_ion_of_it_has_no_charge(capsys):
    check_potential(region_potential(network(-2)), NUMBERS, X.numpy() * BOHR_IN_NM, charge=-2, tolerance=TOLERANCE)
    assert "total charge in a constant potential" in capsys.readouterr().out


def test_file_and_pickle_keep_the_two_levels(tmp_path):
    model = network(members=2)
    save_network(model, tmp_path / "network.pt")
    region_potential(model).save(tmp_path / "model.pt")
    assert load_network(tmp_path / "network.pt").difference == DIFFERENCE
    for found in (
        MLPotential.load(tmp_path / "network.pt"),
        MLPotential.load(tmp_path / "model.pt"),
        pickle.loads(pickle.dumps(region_potential(model))),
    ):
        assert found.difference == DIFFERENCE
        assert found.fingerprint() == region_potential(model).fingerprint()
        assert "difference='qm - xtb'" in repr(found)
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        assert json.loads(archive.read("qmmlmm.json"))["network"]["difference"] == DIFFERENCE.as_json()


def test_the_file_of_a_full_network_is_what_it_was(tmp_path):
    region_potential(network(difference=None)).save(tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        assert "difference" not in json.loads(archive.read("qmmlmm.json"))["network"]
    assert MLPotential.load(tmp_path / "model.pt").difference is None


def test_a_module_of_ones_own_may_be_a_difference(tmp_path):
    potential = MLPotential(Springs(), elements=ELEMENTS, difference=DIFFERENCE)
    potential.save(tmp_path / "own.pt")
    assert MLPotential.load(tmp_path / "own.pt", trust_code=True).difference == DIFFERENCE
    assert pickle.loads(pickle.dumps(potential)).difference == DIFFERENCE


def test_what_does_not_go_together_is_refused():
    with pytest.raises(PotentialError, match="leave dispersion out"):
        network(dispersion="b3lyp-d3bj")
    with pytest.raises(PotentialError, match="difference is an instance of Difference"):
        network(difference="qm - xtb")
    with pytest.raises(PotentialError, match="difference is a Difference of two levels, or None, got 5"):
        MLPotential(Springs(), elements=ELEMENTS, difference=5)
    full = network(difference=None)
    with pytest.raises(PotentialError, match="the network is the energy of one level; leave difference out"):
        MLPotential(full, atomic_numbers=NUMBERS, conditions=[(0, 1, 0)], difference=DIFFERENCE)


def test_a_file_with_damaged_levels_is_refused(tmp_path):
    model = network()
    model.difference = Difference(LevelOfTheory("a"), LevelOfTheory("b"))
    object.__setattr__(model.difference.base, "method", 5)
    save_network(model, tmp_path / "network.pt")
    with pytest.raises(PotentialError, match="has no network that this qmmlmm can read.*the method of a LevelOfTheory"):
        load_network(tmp_path / "network.pt")


@pytest.mark.slow
@pytest.mark.usefixtures("without_profiling")
def test_recorded_it_has_the_same_energy():
    model = network().eval()
    inputs = {
        "charge": torch.zeros(()), "multiplicity": torch.ones(()), "state": torch.zeros(()),
        "positions": X.to(torch.float64).requires_grad_(True),
        "potential": torch.tensor([0.1, -0.2, 0.3, 0.0], dtype=torch.float64),
        "field": torch.tensor(np.random.default_rng(1).normal(size=(4, 3)) * 0.02),
        "near_positions": torch.tensor([[4.0, 3.0, 1.0], [-5.0, 1.0, 2.0]], dtype=torch.float64),
        "near_charges": torch.tensor([0.4, -0.8], dtype=torch.float64),
    }  # fmt: skip
    recorded = region_potential(model).module(inputs)["energy"]
    torch.testing.assert_close(recorded, model(inputs)["energy"], rtol=0, atol=1e-12)
