from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from qmmlmm.errors import PotentialError
from qmmlmm.ml.near_moments import N_MOMENTS, NearMoments
from qmmlmm.ml.recorded_network import RecordedNetwork
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings
from qmmlmm.ml.short_range_repulsion import ShortRangeRepulsion
from qmmlmm.units import ANGSTROM_IN_BOHR, FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL
from tests.finite_differences import central_difference
from tests.ml.networks import BONDS, NUMBERS, SMALL, network, network_inputs

ROUND_OFF = 1e-11
SINGLE_ROUND_OFF = 3e-6  # hartree; sums of some hundred terms of the order of 0.1 in float32
DIFFERENTIATED = ("positions", "potential", "field", "near_positions")
# Central differences with steps of 1e-4 bohr: their error is of the order of 1e-8 in these units.
DIFFERENCE_TOLERANCE = 2e-7
# Forces of a float32 network differ from those of the same weights in float64 by about 1e-3 of their size.
SINGLE_PRECISION_ENERGY = 5e-3  # kJ/mol
SINGLE_PRECISION_FORCE = 0.5  # kJ/(mol nm)


pytestmark = pytest.mark.usefixtures("without_profiling")


@pytest.fixture
def inputs():
    return network_inputs()


@functools.cache
def recorded(settings=SMALL) -> torch.jit.ScriptModule:
    """What a model file holds, of `network(settings)`; it takes seconds to make."""
    return torch.jit.script(RecordedNetwork(network(settings)).eval())


def energy(model, inputs) -> torch.Tensor:
    return model(inputs)["energy"]


def rotated(inputs, matrix, shift):
    moved = dict(inputs)
    for key in ("positions", "near_positions"):
        moved[key] = inputs[key] @ matrix.T + shift
    moved["field"] = inputs["field"] @ matrix.T
    return moved


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, ROUND_OFF), (torch.float32, SINGLE_ROUND_OFF)])
def test_energy_does_not_depend_on_place_and_orientation(inputs, dtype, tolerance):
    model = network(dtype=dtype)
    matrix, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    for sign in (1.0, -1.0):  # one of the two is a reflection
        moved = rotated(inputs, sign * matrix, torch.tensor([3.0, -2.0, 11.0], dtype=torch.float64))
        assert energy(model, moved).item() == pytest.approx(energy(model, inputs).item(), abs=tolerance)
        in_the_old_field = {**moved, "field": inputs["field"]}
        assert abs(energy(model, in_the_old_field) - energy(model, inputs)).item() > 100 * tolerance


def test_dipoles_and_axes_turn_with_the_molecule_and_the_rest_stays(inputs):
    model = network()
    matrix, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    condition = torch.tensor([1])
    before = model.properties(inputs["positions"].expand(2, 1, 5, 3), condition)
    after = model.properties((inputs["positions"] @ matrix.T).expand(2, 1, 5, 3), condition)
    for key in ("energies", "charges", "polarisabilities", "flow", "near_scalars"):
        torch.testing.assert_close(after[key], before[key], rtol=0, atol=ROUND_OFF)
    for key in ("dipoles", "internal_field"):
        torch.testing.assert_close(after[key], before[key] @ matrix.T, rtol=0, atol=ROUND_OFF)
    for key in ("axes", "near_vectors"):
        torch.testing.assert_close(after[key], matrix @ before[key], rtol=0, atol=ROUND_OFF)
    assert before["dipoles"].abs().max() > 1e-3
    assert (before["polarisabilities"] > 0).all()


def test_energy_does_not_depend_on_the_order_of_like_atoms_and_of_near_charges(inputs):
    model = network()
    order, near = torch.tensor([0, 1, 3, 2, 4]), torch.tensor([2, 0, 1])
    moved = dict(inputs)
    for key in ("positions", "potential", "field"):
        moved[key] = inputs[key][order]
    for key in ("near_positions", "near_charges"):
        moved[key] = inputs[key][near]
    assert energy(model, moved).item() == pytest.approx(energy(model, inputs).item(), abs=ROUND_OFF)


def test_atoms_that_are_not_alike_can_be_told_apart(inputs):
    model = network()
    order = torch.tensor([0, 1, 4, 3, 2])
    moved = {**inputs, **{key: inputs[key][order] for key in ("positions", "potential", "field")}}
    assert abs(energy(model, moved) - energy(model, inputs)).item() > 1e-3


@pytest.mark.parametrize("key", ["positions", "potential", "field", "near_positions"])
def test_first_derivatives_are_those_of_central_differences(inputs, key):
    model = network()
    leaf = inputs[key].clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(energy(model, {**inputs, key: leaf}), leaf)
    for k in range(slope.numel()):
        direction = torch.zeros(slope.numel(), dtype=torch.float64)
        direction[k] = 1.0
        difference = central_difference(
            lambda x: energy(model, {**inputs, key: x}), inputs[key], direction.view(slope.shape), 1e-4
        )
        assert abs(difference - slope.flatten()[k]) < DIFFERENCE_TOLERANCE
    assert slope.abs().max() > 1e-4


def test_second_derivatives_are_those_of_central_differences_of_the_first(inputs):
    model = network()

    def gradient(positions):
        leaf = positions.clone().requires_grad_(True)
        return torch.autograd.grad(energy(model, {**inputs, "positions": leaf}), leaf)[0].flatten()

    hessian = torch.autograd.functional.hessian(
        lambda x: energy(model, {**inputs, "positions": x}), inputs["positions"]
    ).reshape(15, 15)
    differences = torch.stack(
        [
            central_difference(gradient, inputs["positions"], torch.eye(15, dtype=torch.float64)[k].view(5, 3), 1e-4)
            for k in range(15)
        ]
    )
    assert (hessian - differences).abs().max() < 10 * DIFFERENCE_TOLERANCE
    assert (hessian - hessian.T).abs().max() < ROUND_OFF


def test_a_recorded_network_has_no_second_derivatives_that_could_be_taken_for_zero(inputs):
    def of_positions(positions):
        return energy(recorded(), {**inputs, "positions": positions})

    assert torch.autograd.functional.hessian(of_positions, inputs["positions"]).isnan().all()


@pytest.mark.parametrize("reach", ["message", "near"])
def test_first_and_second_derivative_are_continuous_at_the_cutoffs(inputs, reach):
    model = network()
    positions = inputs["positions"].clone()
    near = inputs["near_positions"].clone()
    values = []
    for offset in (-1e-6, 1e-6):
        distance = torch.tensor((5.0 + offset) * ANGSTROM_IN_BOHR, dtype=torch.float64, requires_grad=True)
        direction = torch.tensor([0.6, 0.8, 0.0], dtype=torch.float64)
        if reach == "message":
            moved = {**inputs, "positions": torch.cat([positions[:4], (positions[0] + distance * direction)[None]])}
        else:
            moved = {**inputs, "near_positions": torch.cat([near[:2], (positions[0] + distance * direction)[None]])}
        value = energy(model, moved)
        (first,) = torch.autograd.grad(value, distance, create_graph=True)
        (second,) = torch.autograd.grad(first, distance)
        values.append((value.item(), first.item(), second.item()))
    # The third derivative is bounded, so that over 4e-6 bohr the second changes by less than this.
    np.testing.assert_allclose(values[0], values[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("tensor_features", "same"), [(0, True), (4, False)])
def test_an_atom_on_an_axis_of_symmetry_tells_the_planes_through_it_apart(tensor_features, same):
    """A charge beside the oxygen of formaldehyde is in the plane of the lone pairs or above it."""
    settings = ResponseSettings(
        features=12, near_cutoff=2.0, near_functions=4, near_features=0, tensor_features=tensor_features
    )
    torch.manual_seed(3)
    model = ResponseNetwork([6, 8, 1, 1], [(0, 1), (0, 2), (0, 3)], settings, dtype=torch.float64).eval()
    places = torch.tensor([[0, 0, 0], [0, 0, 1.2], [0.94, 0, -0.58], [-0.94, 0, -0.58]], dtype=torch.float64)
    place = torch.tensor([[0.8, 0.0, 2.2], [0.0, 0.8, 2.2], [-0.8, 0.0, 2.2]], dtype=torch.float64)
    energies = []
    for spot in place:
        inputs = {
            "charge": torch.tensor(0.0),
            "multiplicity": torch.tensor(1.0),
            "positions": places * ANGSTROM_IN_BOHR,
            "potential": torch.zeros(4, dtype=torch.float64),
            "field": torch.zeros(4, 3, dtype=torch.float64),
            "near_positions": spot.reshape(1, 3) * ANGSTROM_IN_BOHR,
            "near_charges": torch.tensor([0.4], dtype=torch.float64),
        }
        energies.append(energy(model, inputs).item())
    assert energies[2] == pytest.approx(energies[0], abs=ROUND_OFF)
    difference = abs(energies[1] - energies[0])
    assert difference < ROUND_OFF if same else difference > 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_charges_add_up_to_the_charge_of_the_condition(inputs, dtype):
    model = network(dtype=dtype)
    positions = inputs["positions"].expand(2, 3, 5, 3)
    charges = model.properties(positions, torch.tensor([0, 1, 2]))["charges"]
    expected = torch.tensor([0.0, -1.0, -1.0], dtype=torch.float64).expand(2, 3)
    torch.testing.assert_close(charges.sum(-1), expected, rtol=0, atol=1e-14)
    assert charges.std() > 1e-3


def test_the_first_response_is_that_of_the_charges_and_dipoles(inputs):
    model = network(settings=ResponseSettings(features=12, near_cutoff=0.0))
    condition = torch.tensor([1])
    positions = inputs["positions"].expand(2, 1, 5, 3)
    properties = model.properties(positions, condition)
    potential = torch.zeros(2, 1, 5, dtype=torch.float64, requires_grad=True)
    field = torch.zeros(2, 1, 5, 3, dtype=torch.float64, requires_grad=True)
    interaction = model.field_energy(properties, potential, field).sum()
    by_potential, by_field = torch.autograd.grad(interaction, [potential, field])
    induced = properties["polarisabilities"].unsqueeze(-1) * properties["internal_field"]
    torch.testing.assert_close(by_potential, properties["charges"], rtol=0, atol=ROUND_OFF)
    torch.testing.assert_close(by_field, -(properties["dipoles"] + induced), rtol=0, atol=ROUND_OFF)


def test_geometries_together_give_what_each_gives_alone(inputs):
    model = network()
    generator = torch.Generator().manual_seed(4)
    positions = inputs["positions"] + 0.1 * torch.randn(3, 5, 3, generator=generator, dtype=torch.float64)
    condition = torch.tensor([0, 2, 1])
    batch = positions.expand(2, 3, 5, 3)
    together = model.intrinsic_energy(batch, model.properties(batch, condition), condition)
    for k in range(3):
        one, row = batch[:, k : k + 1], condition[k : k + 1]
        alone = model.intrinsic_energy(one, model.properties(one, row), row)
        torch.testing.assert_close(together[:, k : k + 1], alone, rtol=0, atol=ROUND_OFF)


def test_no_surroundings_are_surroundings_of_zero(inputs):
    model = network()
    bare = {key: inputs[key] for key in ("atomic_numbers", "charge", "multiplicity", "positions")}
    nothing = {**bare, "potential": 0 * inputs["potential"], "field": 0 * inputs["field"]}
    nothing |= {"near_positions": inputs["near_positions"], "near_charges": 0 * inputs["near_charges"]}
    assert energy(model, bare).item() == pytest.approx(energy(model, nothing).item(), abs=ROUND_OFF)
    assert abs(energy(model, bare) - energy(model, inputs)).item() > 1e-3


def test_a_single_ion_has_its_charge_and_no_bonds():
    torch.manual_seed(5)
    model = ResponseNetwork([17], [], ResponseSettings(features=12), [(-1, 1, 0)], dtype=torch.float64)
    inputs = {
        "charge": torch.tensor(-1.0), "multiplicity": torch.tensor(1.0),
        "positions": torch.zeros(1, 3, dtype=torch.float64), "potential": torch.tensor([0.2], dtype=torch.float64),
        "field": torch.zeros(1, 3, dtype=torch.float64), "near_positions": torch.zeros(0, 3, dtype=torch.float64),
        "near_charges": torch.zeros(0, dtype=torch.float64),
    }  # fmt: skip
    # A script whose weights can be trained gives later calls wrong gradients if the first had inputs without one.
    script = torch.jit.script(model.requires_grad_(False))
    at_zero = {**inputs, "potential": 0 * inputs["potential"]}
    assert (script(inputs)["energy"] - script(at_zero)["energy"]).item() == pytest.approx(-0.2, abs=ROUND_OFF)


def test_a_field_only_lowers_the_energy_of_response(inputs):
    model = network()
    positions = inputs["positions"].expand(2, 1, 5, 3)
    properties = model.properties(positions, torch.tensor([0]))
    potential, field = inputs["potential"].expand(2, 1, 5), inputs["field"].expand(2, 1, 5, 3)
    properties["internal_field"] = torch.zeros_like(properties["internal_field"])
    both = model.field_energy(properties, potential, field) + model.field_energy(properties, -potential, -field)
    assert (both < 0).all()


def test_a_shift_of_the_potential_costs_the_total_charge_times_the_shift(inputs):
    model = network()
    shifted = {**inputs, "potential": inputs["potential"] + 0.37}
    difference = energy(model, shifted) - energy(model, inputs)
    assert difference.item() == pytest.approx(-0.37, abs=ROUND_OFF)


def test_far_fragments_interact_by_their_charges(inputs):
    # Both halves of the region are out of each other's network; what is left is q/r.
    model = network(settings=ResponseSettings(features=12), conditions=[(0, 1, 0)])

    def apart(distance):
        moved = inputs["positions"].clone()
        moved[4] = torch.tensor([0.0, distance, 0.0], dtype=torch.float64)
        return moved.expand(2, 1, 5, 3)

    condition = torch.tensor([0])
    far, farther = apart(300.0), apart(600.0)
    properties = model.properties(far, condition)
    energies = [
        model.intrinsic_energy(x, model.properties(x, condition), condition).squeeze(-1) for x in (far, farther)
    ]
    charge = properties["charges"][:, 0, 4]
    expected = -(charge**2) * (1 / 300.0 - 1 / 600.0)
    torch.testing.assert_close(energies[0] - energies[1], expected, rtol=0.03, atol=1e-9)


def test_conditions_differ_and_unknown_ones_are_refused(inputs):
    model = network()
    charged = energy(model, inputs)
    neutral = energy(model, {**inputs, "charge": 0 * inputs["charge"], "multiplicity": torch.tensor(1.0)})
    excited = energy(model, {**inputs, "state": torch.tensor(1.0)})
    assert len({round(x.item(), 6) for x in (charged, neutral, excited)}) == 3
    with pytest.raises(RuntimeError, match="not trained for this charge"):
        energy(model, {**inputs, "multiplicity": torch.tensor(4.0)})


def test_members_are_networks_of_their_own(inputs):
    both = network()
    energies = both(inputs)["member_energies"]
    for k in range(2):
        one = network(members=1)
        state = {
            key: value[k : k + 1] if key in dict(both.named_parameters()) else value
            for key, value in both.state_dict().items()
        }
        one.load_state_dict(state)
        assert energy(one, inputs).item() == pytest.approx(energies[k].item(), abs=ROUND_OFF)
    assert (energies[0] - energies[1]).abs() > 1e-4


def test_the_script_gives_what_python_gives_and_single_precision_is_close(inputs):
    model = network()
    single = network(dtype=torch.float32)
    single.load_state_dict({key: v.float() if v.is_floating_point() else v for key, v in model.state_dict().items()})
    for key in ("constants", "bonded.coefficients", "bonded.equilibrium"):
        model.get_submodule(key.rpartition(".")[0]).get_buffer(key.rpartition(".")[2]).copy_(single.state_dict()[key])
    values = []
    for form in (model, torch.jit.script(model), torch.jit.script(single)):
        leaf = inputs["positions"].clone().requires_grad_(True)
        value = form({**inputs, "positions": leaf})["energy"]
        values.append((value.item(), torch.autograd.grad(value, leaf)[0]))
    assert values[1][0] == pytest.approx(values[0][0], abs=ROUND_OFF)
    torch.testing.assert_close(values[1][1], values[0][1], rtol=0, atol=ROUND_OFF)
    assert abs(values[2][0] - values[0][0]) * HARTREE_IN_KJ_PER_MOL < SINGLE_PRECISION_ENERGY
    assert (values[2][1] - values[0][1]).abs().max() * FORCE_AU_IN_OPENMM < SINGLE_PRECISION_FORCE


@pytest.mark.parametrize(
    "surroundings",
    [
        "all",
        "none",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in (
                "no term of near charges",
                "no second rank",
                "no response",
                "neither response nor long range",
            )
        ),
    ],
)
@pytest.mark.parametrize("state", [0, 1])
def test_the_recorded_energy_and_gradient_are_those_of_the_network(inputs, surroundings, state):
    settings = ResponseSettings(
        features=12,
        near_functions=4,
        near_cutoff=0.0 if surroundings == "no term of near charges" else 5.0,
        response=surroundings not in ("no response", "neither response nor long range"),
        long_range=surroundings != "neither response nor long range",
        tensor_features=0 if surroundings == "no second rank" else 16,
    )
    model = network(settings=settings)
    inputs["state"] = torch.tensor(float(state), dtype=torch.float64)
    if surroundings == "none":
        for key in ("potential", "field", "near_positions", "near_charges"):
            del inputs[key]
    script = torch.jit.freeze(recorded(settings))
    assert '"cpu"' not in str(script.inlined_graph)  # no place is fixed: it runs on a GPU too
    for shift in (0.0, 0.05):  # not where it was recorded, and not twice in the same place
        found = []
        for form in (model, script):
            leaves = {key: inputs[key].clone().requires_grad_(True) for key in DIFFERENTIATED if key in inputs}
            moved = {key: leaf + shift * torch.sin(7 * leaf) for key, leaf in leaves.items()}
            value = form({**inputs, **moved})
            slopes = torch.autograd.grad(value["energy"], list(leaves.values()), allow_unused=True)
            found.append((value["energy"], value["member_energies"], slopes))
        torch.testing.assert_close(found[1][:2], found[0][:2], rtol=0, atol=ROUND_OFF)
        for here, there, leaf in zip(found[1][2], found[0][2], leaves.values(), strict=True):
            filled = [torch.zeros_like(leaf) if slope is None else slope for slope in (here, there)]
            torch.testing.assert_close(*filled, rtol=0, atol=ROUND_OFF)


@pytest.mark.parametrize("asked_for", [["positions"], ["positions", "near_positions"]])
def test_of_a_recorded_committee_each_member_can_be_differentiated_on_demand(inputs, asked_for):
    """With the charges around and without: the derivative by the atoms takes another way then."""
    model = network()
    script = recorded()
    leaves = [inputs[key].clone().requires_grad_(True) for key in asked_for]
    asked = {**inputs, **dict(zip(asked_for, leaves, strict=True)), "each_member": torch.ones(())}
    assert script(asked)["member_energies"].shape == (2,)
    for k in range(2):
        slopes = [torch.autograd.grad(form(asked)["member_energies"][k], leaves) for form in (model, script)]
        for here, there in zip(*slopes, strict=True):
            torch.testing.assert_close(there, here, rtol=0, atol=ROUND_OFF)
            assert here.abs().max() > 1e-4
    assert "uncertainty_scale" in [name.split(".")[-1] for name, _ in script.named_buffers()]


def test_moments_of_near_charges_beside_an_atom_are_differentiated_alike_in_both_ways():
    moments = NearMoments(4.0, 3, torch.float64)
    generator = torch.Generator().manual_seed(4)
    atoms, near = (torch.randn(count, 3, generator=generator, dtype=torch.float64) for count in (3, 7))
    near = 2.0 * near + torch.tensor([0.0, 0.0, 6.0], dtype=torch.float64)
    near[6] = torch.tensor([0.0, 0.0, 40.0], dtype=torch.float64)  # beyond the cutoff
    charges = torch.randn(7, generator=generator, dtype=torch.float64)
    slopes = torch.randn(5, 3, N_MOMENTS, 3, generator=generator, dtype=torch.float64)
    leaf = atoms.clone().requires_grad_(True)
    value = moments(leaf, near, charges)
    found = moments.atom_gradient(atoms, near, charges, slopes)
    for slope, here in zip(slopes, found, strict=True):
        (expected,) = torch.autograd.grad(value, leaf, slope, retain_graph=True)
        torch.testing.assert_close(here, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(moments.gradient(atoms, near, charges, slope)[0], expected, rtol=0, atol=1e-12)
    assert found.abs().amax((1, 2)).min() > 0.1


def test_a_network_is_recorded_where_it_is():
    # The device "meta" has no values, but an operation with a tensor from elsewhere fails on it as on a GPU.
    on_meta = RecordedNetwork(network(replace(SMALL, layers=1)).to("meta"))
    places = torch.zeros(len(NUMBERS), 3, dtype=torch.float64, device="meta")
    with torch.jit.optimized_execution(False):
        energies, slopes = on_meta.each_alone(torch.zeros(1, dtype=torch.int64, device="meta"), places)
    assert energies.device.type == slopes.device.type == "meta"
    assert slopes.shape == (2, len(NUMBERS), 3)


def test_recording_leaves_the_network_trainable():
    model = network(replace(SMALL, layers=1, near_cutoff=0.0), members=1)
    RecordedNetwork(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_without_response_the_surroundings_do_nothing(inputs):
    model = network(settings=ResponseSettings(features=12, response=False))
    bare = {key: value for key, value in inputs.items() if key not in ("potential", "field")}
    assert energy(model, inputs).item() == energy(model, bare).item()


def test_the_repulsion_follows_its_formula_and_ends_at_contact():
    repulsion = ShortRangeRepulsion([6, 8])
    r = 0.5
    a = 0.8854 / (6**0.23 + 8**0.23)
    x = r / a
    screening = 0.1818 * np.exp(-3.2 * x) + 0.5099 * np.exp(-0.9423 * x)
    screening += 0.2802 * np.exp(-0.4029 * x) + 0.02817 * np.exp(-0.2016 * x)
    s = r / (1.2 * (0.76 + 0.66) * ANGSTROM_IN_BOHR)
    switch = 1 - 28 * s**6 + 48 * s**7 - 21 * s**8

    def at(distance):
        return repulsion(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, distance]], dtype=torch.float64)).item()

    assert at(r) == pytest.approx(48 / r * screening * switch, rel=1e-12)
    assert at(0.2) > at(0.5) > at(1.5) > 0
    assert at(1.71 * ANGSTROM_IN_BOHR) == pytest.approx(0.0, abs=1e-12)
    bonded = ShortRangeRepulsion([6, 8], [(1, 0)])
    stretched = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.15 * ANGSTROM_IN_BOHR]], dtype=torch.float64)
    assert bonded(stretched).item() == pytest.approx(0.0, abs=1e-12)
    assert repulsion(stretched).item() > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": 0}, "a number of committee members of 1 or more"),
        ({"conditions": []}, "different triples"),
        ({"conditions": [(0, 1, 0), (0, 1, 0)]}, "different triples"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(PotentialError, match=message):
        ResponseNetwork(NUMBERS, BONDS, **changes)
    with pytest.raises(PotentialError, match="no covalent radius"):
        ResponseNetwork([99, 1], [])
