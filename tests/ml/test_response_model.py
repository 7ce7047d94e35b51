"""A trained response as the embedding of any potential."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from qmmlmm import Hamiltonian, MLPotential, Region, Term, check_potential, create_mixed_system
from qmmlmm.coupling import Difference, ExternalField, LevelOfTheory, RegionSpecification
from qmmlmm.errors import HamiltonianError, PotentialError
from qmmlmm.geometry import Geometry
from qmmlmm.ml import (
    EmbeddedPotential,
    FixedResponse,
    ResponseModel,
    ResponseNetwork,
    ResponseSettings,
    load_network,
    region_potential,
    save_network,
)
from qmmlmm.ml.model_file import CHECKSUMS_FILE, SETTINGS_FILE, WEIGHTS_FILE
from qmmlmm.units import BOHR_IN_NM
from tests.contexts import make_context, term_differences, term_forces
from tests.ml.networks import network as whole_network
from tests.quick_torch import quick_torch
from tests.toy_potentials import ELEMENTS, Springs
from tests.toy_systems import molecule_among_ions

SMALL = ResponseSettings(features=8, layers=1, radial_functions=6, near_features=4, tensor_features=4)
WATER, X = [1, 8, 1], np.array([[0.0, 0.1, 0.2], [1.5, 0.9, 0.0], [2.8, -0.2, 0.4]])  # bohr
RELATIVE = 1e-6  # of the largest force, in float64
ROUND_OFF = 1e-13  # hartree, of sums of numbers of the order of 0.1
SAME_FORCE = 1e-12  # hartree/bohr


def network(members=1, charge=0, dtype=torch.float64, settings=SMALL):
    torch.manual_seed(3)
    conditions = [(charge, 1, 0)]
    return ResponseNetwork(WATER, [(0, 1), (1, 2)], settings, conditions, members, dtype, response_only=True).eval()


@pytest.fixture(scope="module", autouse=True)
def _quick():
    with quick_torch():
        yield


@pytest.fixture(scope="module")
def model():
    """Return a response, which is recorded once."""
    return ResponseModel(network())


def springs():
    return MLPotential(Springs(0.01), elements=ELEMENTS, multiplicity=None, charge=None)


def field_of(charges, places):
    return ExternalField(np.array(places, dtype=float), np.array(charges, dtype=float), np.zeros(len(charges)), 1.0)


def evaluated(potential, field, positions=X, charge=0):
    specification = RegionSpecification("mol", np.array(WATER), charge, 1)
    return potential.create_evaluator(specification).evaluate(Geometry(positions), field)


def in_box(potential, embedding="electrostatic"):
    case = molecule_among_ions()
    term = Term(potential, Region("mol", [0, 1, 2]), embedding=embedding, name="mol")
    return create_mixed_system(case.topology, case.system, Hamiltonian([term])), case.positions


def inputs(positions, potential, field, charge=0.0):
    """Return the inputs of a geometry without near charges."""
    return {
        "atomic_numbers": torch.tensor(WATER),
        "charge": torch.tensor(charge, dtype=torch.float64),
        "multiplicity": torch.tensor(1.0, dtype=torch.float64),
        "positions": torch.tensor(positions),
        "potential": potential,
        "field": field,
        "near_positions": torch.zeros(0, 3, dtype=torch.float64),
        "near_charges": torch.zeros(0, dtype=torch.float64),
    }


def test_it_obeys_the_contract_of_a_potential(model, capsys):
    check_potential(EmbeddedPotential(springs(), model), WATER, X * BOHR_IN_NM)
    assert "total charge in a constant potential" in capsys.readouterr().out


@pytest.mark.parametrize(
    "atoms", [[0, 1, 2, 5, 13, 22], pytest.param(list(range(23)), id="all", marks=pytest.mark.slow)]
)
def test_in_a_periodic_box_forces_on_region_and_surroundings_are_derivatives(model, atoms):
    mixed, positions = in_box(EmbeddedPotential(springs(), model))
    forces = term_forces(mixed, "mol", positions)
    numerical = term_differences(mixed, "mol", positions, atoms, 1e-4)
    np.testing.assert_allclose(forces[atoms], numerical, rtol=0, atol=RELATIVE * np.abs(forces).max())
    alone, _ = in_box(springs(), "mechanical")
    difference = forces - term_forces(alone, "mol", positions)
    assert np.abs(difference[:3]).max() > 10.0
    assert np.abs(difference[3:]).max(axis=1).min() > 0.0


def test_without_field_it_is_exactly_the_base(model):
    base, potential = springs(), EmbeddedPotential(springs(), model)
    alone = evaluated(base, None)
    for field in (None, field_of([0.0, 0.0], [[4.0, 0.0, 0.0], [0.0, 7.0, 0.0]])):
        found = evaluated(potential, field)
        assert found.energy == alone.energy
        np.testing.assert_array_equal(found.gradient, alone.gradient)


def test_a_constant_potential_acts_on_the_total_charge():
    for charge in (0, -2):
        given = inputs(X, torch.full((3,), 0.3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64), charge)
        assert network(charge=charge)(given)["energy"].item() == pytest.approx(0.3 * charge, abs=ROUND_OFF)


def test_a_weak_field_acts_on_the_dipole_of_its_charges_and_atomic_dipoles(model):
    found = model.network.properties(torch.tensor(X)[None, None], torch.zeros(1, dtype=torch.int64))
    dipoles = found["dipoles"] + found["polarisabilities"].unsqueeze(-1) * found["internal_field"]
    dipole = (found["charges"][0, 0] @ torch.tensor(X) + dipoles[0, 0].sum(0)).detach()
    direction = torch.tensor([0.6, -0.3, 0.7], dtype=torch.float64)

    def energy(strength):
        field = (strength * direction).expand(3, 3).clone()
        return model(inputs(X, -(torch.tensor(X) * field).sum(-1), field))["energy"].item()

    # What is even in the field is polarisation, which only lowers the energy; there is no third order.
    assert 0.5 * (energy(0.01) - energy(-0.01)) == pytest.approx(-0.01 * float(dipole @ direction), abs=ROUND_OFF)
    assert energy(0.01) + energy(-0.01) < 0.0


def test_the_recorded_response_is_that_of_the_network(model):
    given = inputs(X, torch.tensor([0.1, -0.2, 0.05]).double(), torch.tensor(0.1 * X[:, [1, 2, 0]]))
    assert model(given)["energy"].item() == pytest.approx(model.network(given)["energy"].item(), abs=ROUND_OFF)
    alone = {key: given[key] for key in ("atomic_numbers", "charge", "multiplicity", "positions")}
    assert model(alone)["energy"].item() == model.network(alone)["energy"].item() == 0.0


def test_equivalent_atoms_may_be_exchanged(model):
    swapped = [2, 1, 0]
    potential, field = torch.tensor([0.1, -0.2, 0.05]).double(), torch.tensor(0.1 * X[:, [1, 2, 0]])
    given = inputs(X, potential, field)
    around = {"near_positions": torch.tensor([[3.0, 4.0, 1.0]]).double(), "near_charges": torch.tensor([0.5]).double()}
    one = model(given | around)["energy"]
    other = model(inputs(X[swapped], potential[swapped], field[swapped]) | around)["energy"]
    assert one.item() == pytest.approx(other.item(), abs=ROUND_OFF)
    assert abs((one - model(given)["energy"]).item()) > 1e-6


@pytest.mark.slow
def test_a_committee_is_the_mean_of_its_members_and_has_an_uncertainty_in_the_field(tmp_path):
    committee = network(members=3)
    potential = EmbeddedPotential(springs(), ResponseModel(committee))
    field = field_of([0.5, -0.4], [[6.0, 0.0, 0.0], [0.0, 7.0, 1.0]])
    found = evaluated(potential, field).energy - evaluated(springs(), None).energy
    energies = []
    for k in range(3):
        member = network()
        state = {
            n: v[k : k + 1] if n in dict(member.named_parameters()) else v for n, v in committee.state_dict().items()
        }
        member.load_state_dict(state)
        single = EmbeddedPotential(springs(), ResponseModel(member))
        energies.append(evaluated(single, field).energy - evaluated(springs(), None).energy)
    assert found == pytest.approx(np.mean(energies), abs=ROUND_OFF)
    assert np.std(energies) > 1e-4
    mixed, positions = in_box(potential)
    spread = mixed.force_uncertainty(make_context(mixed.system, positions), "mol")._value
    assert spread.shape == (3,)
    assert spread.min() > 0.0
    without, _ = in_box(single)
    with pytest.raises(PotentialError, match="the model is no committee"):
        without.force_uncertainty(make_context(without.system, positions), "mol")
    mechanical, _ = in_box(potential, "mechanical")
    with pytest.raises(HamiltonianError, match="has no committee"):
        mechanical.force_uncertainty(make_context(mechanical.system, positions), "mol")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_comes_back_from_its_file_which_has_no_code(tmp_path, dtype):
    model = ResponseModel(network(members=2, dtype=dtype))
    path = tmp_path / "response.pt"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == sorted([SETTINGS_FILE, WEIGHTS_FILE, CHECKSUMS_FILE])
    for found in (ResponseModel.load(path), pickle.loads(pickle.dumps(model))):
        assert found.fingerprint() == model.fingerprint()
        assert found.members == 2
        assert repr(found) == repr(model)
    assert load_network(path).response_only
    assert ResponseModel(network(dtype=dtype)).fingerprint() != model.fingerprint()


def test_response_and_potential_are_not_taken_for_each_other(tmp_path):
    ResponseModel(network()).save(tmp_path / "response.pt")
    save_network(whole_network(), tmp_path / "network.pt")
    with pytest.raises(PotentialError, match=r"a response to surroundings without an energy .* ResponseModel\.load"):
        MLPotential.load(tmp_path / "response.pt")
    with pytest.raises(PotentialError, match=r"a response to surroundings without an energy"):
        region_potential(network())
    with pytest.raises(PotentialError, match=r"network\.pt' is a potential with an energy in a vacuum and no response"):
        ResponseModel.load(tmp_path / "network.pt")
    with pytest.raises(PotentialError, match=r"network: it has an energy in a vacuum"):
        ResponseModel(whole_network())
    with pytest.raises(PotentialError, match="network is an instance of ResponseNetwork"):
        ResponseModel("response.pt")
    with pytest.raises(FileNotFoundError, match="no model file"):
        ResponseModel.load(tmp_path / "none.pt")


def test_it_is_a_level_of_its_own():
    levels = [
        EmbeddedPotential(springs(), response).level_of_theory
        for response in (ResponseModel(network()), ResponseModel(network(2)), FixedResponse(WATER, [(0, 1), (1, 2)]))
    ]
    assert all(a != b for k, a in enumerate(levels) for b in levels[:k])


def test_other_molecules_charges_and_states_are_refused():
    potential = EmbeddedPotential(springs(), ResponseModel(network()))
    with pytest.raises(PotentialError, match="the response is for the atoms 1, 8, 1; the region has 8, 1, 1"):
        potential.check(RegionSpecification("mol", np.array([8, 1, 1]), 0, 1))
    for charge, multiplicity in ((1, 2), (0, 3)):
        with pytest.raises(PotentialError, match=rf"not trained for .* \({charge}, {multiplicity}, 0\); it knows"):
            potential.check(RegionSpecification("mol", np.array(WATER), charge, multiplicity))
    conditions = [(0, 1, 0), (0, 1, 1)]
    excited = MLPotential(Springs(0.01), elements=ELEMENTS, conditions=conditions, state=1)
    with pytest.raises(PotentialError, match=r"not trained for .* \(0, 1, 1\); it knows \(0, 1, 0\)"):
        EmbeddedPotential(excited, potential.response).check(RegionSpecification("mol", np.array(WATER), 0, 1))


def test_a_network_of_a_response_has_nothing_else():
    own = Difference(LevelOfTheory("a"), LevelOfTheory("b"))
    with pytest.raises(PotentialError, match="the network is the difference a - b"):
        ResponseNetwork(WATER, [], SMALL, difference=own, response_only=True)
    with pytest.raises(PotentialError, match="response=False leaves nothing"):
        ResponseNetwork(WATER, [], replace(SMALL, response=False), response_only=True)
    with pytest.raises(PotentialError, match="dispersion='b3lyp-d3bj' is a part of the energy in a vacuum"):
        ResponseNetwork(WATER, [], replace(SMALL, dispersion="b3lyp-d3bj"), response_only=True)
    with pytest.raises(PotentialError, match="response_only is True or False, got 1"):
        ResponseNetwork(WATER, [], SMALL, response_only=1)
