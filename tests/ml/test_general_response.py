"""A response of many molecules as the embedding of any potential."""

from __future__ import annotations

import pickle
import zipfile

import numpy as np
import pytest
import torch

from qmmlmm import Hamiltonian, MLPotential, Region, Term, check_potential, create_mixed_system
from qmmlmm.coupling import RegionSpecification
from qmmlmm.errors import PotentialError
from qmmlmm.ml import EmbeddedPotential, GeneralResponse, ResponseModel, ResponseNetwork, ResponseSettings
from qmmlmm.ml.model_file import CHECKSUMS_FILE, SETTINGS_FILE, WEIGHTS_FILE
from qmmlmm.units import BOHR_IN_NM
from tests.contexts import make_context, term_differences, term_forces
from tests.quick_torch import quick_torch
from tests.toy_potentials import ELEMENTS, Springs
from tests.toy_systems import molecule_among_ions

SMALL = ResponseSettings(features=8, layers=1, radial_functions=6, near_features=4, tensor_features=4)
WATER, X = [1, 8, 1], np.array([[0.0, 0.1, 0.2], [1.5, 0.9, 0.0], [2.8, -0.2, 0.4]])  # bohr
FAR = 25.0  # bohr, beyond the reach of the network
RELATIVE = 1e-6  # of the largest force, in float64
ROUND_OFF = 1e-12  # hartree


@pytest.fixture(scope="module", autouse=True)
def _quick():
    with quick_torch():
        yield


def network(members=1, elements=(1, 6, 8), charges=(0, 1)):
    torch.manual_seed(3)
    conditions = [(charge, 1, 0) for charge in charges]
    return ResponseNetwork(
        [elements[0]], (), SMALL, conditions, members, torch.float64, response_only=True, elements=elements
    ).eval()


@pytest.fixture(scope="module")
def response():
    """Return a response, whose molecules are recorded once."""
    return GeneralResponse(network())


def springs():
    return MLPotential(Springs(0.01), elements=ELEMENTS, multiplicity=None, charge=None)


def response_energy(response, numbers, positions):
    """Return the energy of a molecule in the potential and field of charges, hartree."""
    x, near = torch.tensor(positions), torch.tensor([[6.0, 0.0, 0.0], [0.0, 7.0, 1.0]], dtype=torch.float64)
    charges, delta = torch.tensor([0.5, -0.4], dtype=torch.float64), x[:, None] - near
    r = delta.norm(dim=-1)
    inputs = {
        "charge": torch.zeros(()),
        "multiplicity": torch.ones(()),
        "positions": x,
        "potential": (charges / r).sum(-1),
        "field": (delta * (charges / r**3)[..., None]).sum(-2),
        "near_positions": near,
        "near_charges": charges,
    }
    return response.of_molecule(numbers).network(inputs)["energy"].item()


def test_it_obeys_the_contract_of_a_potential(response, capsys):
    check_potential(EmbeddedPotential(springs(), response), WATER, X * BOHR_IN_NM)
    assert "total charge in a constant potential" in capsys.readouterr().out


def test_in_a_periodic_box_forces_on_region_and_surroundings_are_derivatives(response):
    case = molecule_among_ions()
    potential = EmbeddedPotential(springs(), response)
    term = Term(potential, Region("mol", [0, 1, 2]), embedding="electrostatic", name="mol")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    atoms = [0, 1, 2, 5, 13, 22]
    forces = term_forces(mixed, "mol", case.positions)
    numerical = term_differences(mixed, "mol", case.positions, atoms, 1e-4)
    np.testing.assert_allclose(forces[atoms], numerical, rtol=0, atol=RELATIVE * np.abs(forces).max())


def test_each_molecule_has_the_same_weights_whatever_the_order_of_its_atoms(response):
    swapped = [1, 2, 0]
    one = response_energy(response, WATER, X)
    other = response_energy(response, [WATER[k] for k in swapped], X[swapped])
    assert one == pytest.approx(other, abs=ROUND_OFF)
    carbon = response_energy(response, [1, 6, 1], X)
    assert abs(one - carbon) > 1e-7


def test_molecules_far_from_each_other_are_two_molecules():
    # The network of one charge: its missing charge is shared by all atoms of a region.
    response = GeneralResponse(network(charges=(0,)))
    single = response.of_molecule(WATER).network
    double = response.of_molecule([*WATER, *WATER]).network
    pair = torch.tensor(np.concatenate([X, X + np.array([FAR, 0.0, 0.0])]))[None, None]
    zero = torch.zeros(1, dtype=torch.int64)
    alone, together = single.properties(torch.tensor(X)[None, None], zero), double.properties(pair, zero)
    for name in ("charges", "polarisabilities", "near_scalars"):
        torch.testing.assert_close(together[name][0, 0, :3], alone[name][0, 0], rtol=0, atol=ROUND_OFF)


def test_the_charge_of_a_region_counts_by_its_sum_alone(response):
    model = response.of_molecule(WATER).network
    found = [model.properties(torch.tensor(X)[None, None], torch.tensor([row])) for row in (0, 1)]
    assert [float(properties["charges"].sum()) for properties in found] == pytest.approx([0.0, 1.0], abs=ROUND_OFF)
    torch.testing.assert_close(found[0]["dipoles"], found[1]["dipoles"], rtol=0, atol=0)


def test_it_comes_back_from_its_file_which_has_no_code(tmp_path):
    response = GeneralResponse(network(members=2))
    path = tmp_path / "response.pt"
    response.save(path)
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == sorted([SETTINGS_FILE, WEIGHTS_FILE, CHECKSUMS_FILE])
    for found in (GeneralResponse.load(path), pickle.loads(pickle.dumps(response))):
        assert found.fingerprint() == response.fingerprint()
        assert repr(found) == repr(response)
        assert found.of_molecule(WATER).fingerprint() == response.of_molecule(WATER).fingerprint()
    assert "elements='H, C, O'" in repr(response)
    with pytest.raises(
        PotentialError, match=r"response\.pt' is for many molecules; read it with GeneralResponse\.load"
    ):
        ResponseModel.load(path)
    response.of_molecule(WATER).save(tmp_path / "water.pt")
    assert ResponseModel.load(tmp_path / "water.pt").atomic_numbers == WATER
    with pytest.raises(PotentialError, match=r"water\.pt' is of one molecule; read it with ResponseModel\.load"):
        GeneralResponse.load(tmp_path / "water.pt")


def test_its_file_is_the_same_whatever_molecule_was_last():
    used, fresh = network(), network()
    used.become([8, 1, 1, 6])
    assert GeneralResponse(used).fingerprint() == GeneralResponse(fresh).fingerprint()
    assert used.atomic_numbers == [8, 1, 1, 6]


@pytest.mark.slow
def test_a_committee_has_an_uncertainty_in_the_field():
    case = molecule_among_ions()
    potential = EmbeddedPotential(springs(), GeneralResponse(network(members=2)))
    term = Term(potential, Region("mol", [0, 1, 2]), embedding="electrostatic", name="mol")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    spread = mixed.force_uncertainty(make_context(mixed.system, case.positions), "mol")._value
    assert spread.shape == (3,)
    assert spread.min() > 0.0


def test_what_it_does_not_know_is_refused(response):
    potential = EmbeddedPotential(springs(), response)
    with pytest.raises(PotentialError, match=r"the response knows the elements H, C, O, and there is N; label this"):
        response.check(RegionSpecification("mol", np.array([7, 1, 1]), 0, 1))
    with pytest.raises(PotentialError, match="the molecule: the response knows the elements H, C, O"):
        response.of_molecule([7, 1, 1])
    with pytest.raises(PotentialError, match="knows molecules with the charges 0, 1, and this one has -1"):
        potential.check(RegionSpecification("mol", np.array(WATER), -1, 1))
    with pytest.raises(
        PotentialError, match="closed shells in their lowest state, and this is multiplicity 3, state 0"
    ):
        potential.check(RegionSpecification("mol", np.array(WATER), 0, 3))


def test_networks_of_one_and_of_many_molecules_are_not_taken_for_each_other():
    single = ResponseNetwork(WATER, (), SMALL, response_only=True)
    with pytest.raises(PotentialError, match="network: it is for one molecule; train_general_response"):
        GeneralResponse(single)
    with pytest.raises(PotentialError, match="a network of one molecule cannot take another"):
        single.become([8, 1, 1])
    with pytest.raises(PotentialError, match="network: it is for many molecules; GeneralResponse"):
        ResponseModel(network())
    with pytest.raises(PotentialError, match=r"knows the elements 1, 6, 8, and there are atoms of \[7\]"):
        network().become([7])
    with pytest.raises(PotentialError, match="a network of many molecules is that of the response alone"):
        ResponseNetwork(WATER, (), SMALL, elements=[1, 8])
    with pytest.raises(PotentialError, match="bonds are those of one molecule; a network of many has none"):
        ResponseNetwork(WATER, [(0, 1)], SMALL, response_only=True, elements=[1, 8])
