"""Steps of fixed shapes, against the term that TorchForce runs."""

from __future__ import annotations

import functools
import itertools
import pickle

import numpy as np
import pytest
import torch

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.embedding.static_field import STEP, Capacity, places_of
from qmmlmm.embedding.static_mesh import StaticMesh
from qmmlmm.embedding.static_term import StaticTerm
from qmmlmm.embedding.torch_term import EmbeddedTermModule, TorchTerm
from qmmlmm.errors import EvaluationError, HamiltonianError, NonFiniteError, PotentialError
from qmmlmm.geometry import Geometry
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings
from qmmlmm.mm.model_exchange import exchange_model
from tests.contexts import system_energy_and_forces
from tests.embedding.torch_modules import evaluate
from tests.toy_potentials import FixedCharges
from tests.toy_systems import chains_among_ions

SAME_NUMBERS = 1e-9  # relative; the same sums in another order, in double precision
SINGLE_MESH = 2e-6  # relative; float32 holds 6e-8, and the mesh adds up some of it

WHOLE, CUT = (0, 1, 2, 3, 4, 5), (0, 1, 2, 3)
# shape, splitting times 0.9 nm, atoms, scheme of cut bonds, chains, options of the term
CASES = {
    "cubic box": ("cubic", 6.0, WHOLE, "rcd", 1, {}),
    "truncated octahedron": ("octahedron", 6.0, WHOLE, "rcd", 1, {}),
    "triclinic, several images": ("triclinic", 1.5, WHOLE, "rcd", 1, {}),
    "no box": (None, 6.0, WHOLE, "rcd", 1, {}),
    "cut bonds": ("triclinic", 6.0, CUT, "rcd", 1, {}),
    "cut bonds, shift": ("cubic", 6.0, CUT, "shift", 1, {}),
    "cut bonds, no box": (None, 6.0, CUT, "rc", 1, {}),
    "smeared charges": ("triclinic", 6.0, WHOLE, "rcd", 1, {"smeared_charges": 0.13}),
    "smeared charges, no box": (None, 6.0, CUT, "rcd", 1, {"smeared_charges": 0.13}),
    "two embedded regions": ("triclinic", 6.0, WHOLE, "rcd", 2, {}),
}
ELECTROSTATIC = {"embeddings": ["electrostatic"]}


@functools.cache
def potential_of(n_atoms, n_links=0, members=1, **settings):
    """A potential of a chain of carbon atoms with hydrogen link atoms, whose term of near charges is not small."""
    numbers = [6] * n_atoms + [1] * n_links
    torch.manual_seed(3)
    options = {"features": 8, "layers": 1, "near_cutoff": 4.5, "near_functions": 4} | settings
    options = {"tensor_features": 0, "near_features": 0} | options
    conditions = [(0, 1, 0), (1, 1, 0), (1, 1, 1)]
    model = ResponseNetwork(numbers, [], ResponseSettings(**options), conditions, members, dtype=torch.float64)
    if model.near_cutoff > 0.0:
        with torch.no_grad():
            for weights in model.near_head.parameters():
                weights.mul_(10.0)
    potential = MLPotential(model, atomic_numbers=numbers, conditions=conditions, **ELECTROSTATIC)
    # Recorded once for all tests, because it takes seconds.
    specification = RegionSpecification("site/ML", np.array(numbers), 1, 1)
    recorded = potential.create_static_model(specification)
    potential.create_static_model = lambda *_: recorded
    return potential


def own_charges(case):
    """A module of a user's own."""
    return MLPotential(FixedCharges(case.charges[:6]), atomic_numbers=[6] * 6, charge=None, **ELECTROSTATIC)


def layouts(case, potential, atoms, scheme="rcd", options=None, ml_step="default"):
    """The System of a case and the layout of its first region."""
    terms = [
        Term(
            potential,
            Region("site", atoms, charge=1),
            embedding="electrostatic",
            boundary_charges=scheme,
            **(options or {}),
        )
    ]
    for k, chain in enumerate(case.chains[1:]):
        other = MLPotential(
            FixedCharges(case.charges[list(chain)]), atomic_numbers=[6] * 6, charge=None, **ELECTROSTATIC
        )
        terms.append(Term(other, Region(f"other{k}", chain, charge=-1), embedding="electrostatic"))
    mixed = create_mixed_system(
        case.topology, case.system, Hamiltonian(terms), ml_backend="pythonforce", ml_step=ml_step
    )
    return mixed, mixed.terms["site/ML"].layout


def pair_of_terms(name, precision="double"):
    shape, alpha, atoms, scheme, n_chains, options = CASES[name]
    case = chains_among_ions(shape, 1, 2, n_chains=n_chains, alpha=alpha)
    potential = potential_of(len(atoms), int(atoms == CUT))
    _, layout = layouts(case, potential, atoms, scheme, options)
    return case, EmbeddedTermModule(layout, potential.module, precision), StaticTerm(layout, potential, precision)


def computed(module, geometry):
    """Energy and forces of a term with free shapes."""
    return evaluate(module, geometry.positions, geometry.box)


def assert_same(found, expected, tolerance=SAME_NUMBERS):
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=tolerance * abs(expected[1]).max())


@pytest.mark.parametrize("name", CASES)
def test_energy_and_forces_are_those_of_the_term_with_free_shapes(name):
    case, term, static = pair_of_terms(name)
    rng = np.random.default_rng(1)
    for _ in range(2):
        geometry = Geometry(case.positions + 0.005 * rng.standard_normal(case.positions.shape), case.box)
        assert_same(static.compute(geometry), computed(term, geometry))


def test_a_single_precision_mesh_has_the_error_of_single_precision():
    case, term, static = pair_of_terms("triclinic, several images", "mixed")
    geometry = Geometry(case.positions, case.box)
    assert_same(static.compute(geometry), computed(term, geometry), SINGLE_MESH)


def test_the_electronic_state_of_the_potential_is_that_of_the_step():
    case = chains_among_ions("cubic", 1, 2)
    ground = potential_of(6)
    excited = MLPotential(
        ground.network, atomic_numbers=[6] * 6, conditions=ground.conditions, state=1, **ELECTROSTATIC
    )
    _, layout = layouts(case, ground, WHOLE)
    geometry = Geometry(case.positions, case.box)
    energy, forces = StaticTerm(layout, excited).compute(geometry)
    term = EmbeddedTermModule(layout, ground.module, state=1)
    assert_same((energy, forces), computed(term, geometry))
    assert energy != StaticTerm(layout, ground).compute(geometry)[0]


@pytest.mark.parametrize("settings", [{"near_cutoff": 0.0}, {"response": False}], ids=["no near charges", "blind"])
def test_networks_without_a_part_give_the_same(settings):
    case = chains_among_ions("cubic", 1, 2)
    potential = potential_of(6, **settings)
    _, layout = layouts(case, potential, WHOLE)
    geometry = Geometry(case.positions, case.box)
    assert_same(
        StaticTerm(layout, potential).compute(geometry),
        TorchTerm(layout, potential, potential.module).compute(geometry),
    )


def test_a_changed_box_is_noticed():
    case, term, static = pair_of_terms("cut bonds")
    first = None
    for scale in (1.0, 1.04, 0.97, 1.0):
        geometry = Geometry(scale * case.positions, scale * case.box)
        found = static.compute(geometry)
        assert_same(found, computed(term, geometry))
        first = found if first is None else first
    assert found[0] == first[0]


def test_capacities_grow_with_what_is_found(monkeypatch):
    monkeypatch.setattr("qmmlmm.embedding.static_field.STEP", 4)
    case, term, static = pair_of_terms("triclinic, several images")
    static.capacity = Capacity(4, 1)
    geometry = Geometry(case.positions, case.box)
    expected = computed(term, geometry)
    assert_same(static.compute(geometry), expected)
    grown = static.capacity
    assert grown.sources > 100
    assert grown.charges > 1
    assert grown.shells == (2, 2, 1)
    # What is large enough stays.
    assert_same(static.compute(geometry), expected)
    assert static.capacity == grown


def test_a_capacity_has_room_to_spare_and_never_shrinks():
    assert Capacity().for_numbers(STEP, 3, (0, 0, 0)) == Capacity()
    assert Capacity().for_numbers(STEP + 1, 0, (0, 1, 0)) == Capacity(2 * STEP, STEP, (0, 1, 0))
    assert Capacity(4 * STEP, STEP, (1, 0, 2)).for_numbers(5, 5, (0, 1, 0)) == Capacity(4 * STEP, STEP, (1, 1, 2))


@pytest.mark.parametrize("capacity", [1, 3, 5, 8])
def test_the_places_of_true_entries_are_cut_at_the_capacity_and_filled_up(capacity):
    keep = torch.tensor([False, True, True, False, False, True])
    places, number = places_of(keep, capacity)
    assert places.tolist() == ([1, 2, 5] + 8 * [6])[:capacity]
    assert int(number) == 3


def test_a_region_wider_than_half_the_box_is_the_same_error():
    case, term, static = pair_of_terms("cubic box")
    moved = case.positions.copy()
    moved[5] = moved[0] + 0.5 * case.box[0] + np.array([0.02, 0.3, 0.3])
    texts = []
    for one in (functools.partial(computed, term), static.compute):
        with pytest.raises(EvaluationError, match="wider than half the box") as error:
            one(Geometry(moved, case.box))
        texts.append(str(error.value))
    assert texts[0] == texts[1]


def test_positions_that_are_not_numbers_are_an_error():
    case, _, static = pair_of_terms("cubic box")
    moved = case.positions.copy()
    moved[7, 1] = np.nan
    with pytest.raises(NonFiniteError, match="positions that are not numbers .* on atoms 7"):
        static.compute(Geometry(moved, case.box))


def test_forces_that_are_not_numbers_are_an_error():
    case, _, static = pair_of_terms("no box")
    moved = case.positions.copy()
    moved[8] = moved[1]
    with pytest.raises(NonFiniteError, match="'site/ML' has an energy or forces that are not numbers"):
        static.compute(Geometry(moved, case.box))


def test_a_periodic_term_without_a_box_is_an_error():
    case, _, static = pair_of_terms("cubic box")
    with pytest.raises(EvaluationError, match="was given no box"):
        static.compute(Geometry(case.positions, None))


def test_a_capacity_that_is_never_enough_is_an_error(monkeypatch):
    case, _, static = pair_of_terms("cubic box")
    counter = itertools.count(1)

    def greedy(positions, box):
        return 0.0, np.zeros_like(case.positions), np.array([1000.0 * next(counter), 0, 0, 0, 0, 0])

    monkeypatch.setattr(static, "_evaluate", greedy)
    with pytest.raises(EvaluationError, match="no capacity was large enough"):
        static.compute(Geometry(case.positions, case.box))


def test_a_term_can_be_pickled():
    case, _, static = pair_of_terms("cut bonds")
    geometry = Geometry(case.positions, case.box)
    expected = static.compute(geometry)
    assert_same(pickle.loads(pickle.dumps(static)).compute(geometry), expected)


def test_a_step_on_a_device_leaves_the_weights_of_the_potential_where_they_are():
    case = chains_among_ions("cubic", 1, 2)
    potential = potential_of(6)
    _, layout = layouts(case, potential, WHOLE)
    static = StaticTerm(layout, potential)
    static.compute(Geometry(case.positions, case.box))
    kept = {tensor.data_ptr() for tensor in potential.network.state_dict().values() if tensor.numel()}
    moved = {tensor.data_ptr() for tensor in static._step.state_dict().values() if tensor.numel()}
    assert not kept & moved


def test_many_points_are_spread_and_gathered_in_parts(monkeypatch):
    box = torch.tensor([[9.0, 0.0, 0.0], [1.0, 8.0, 0.0], [-2.0, 1.5, 10.0]], dtype=torch.float64)
    mesh = StaticMesh(0.35, (20, 21, 24), 5)
    mesh.set_box(box)
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(50, 3, generator=generator, dtype=torch.float64) @ box
    charges = torch.randn(50, generator=generator, dtype=torch.float64)
    dipoles = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    found = []
    for at_once in (1000, 7):
        monkeypatch.setattr("qmmlmm.embedding.static_mesh.AT_ONCE", at_once)
        spread = mesh.spread(points, charges, dipoles, box)
        found.append([spread, *mesh.gather(mesh.convolve(spread, box), points, box)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-13 * float(other.abs().max()))


def test_a_mixed_system_with_static_steps_has_the_same_forces():
    case = chains_among_ions("triclinic", 1, 2)
    potential = potential_of(6)
    found = []
    for ml_step in ("default", "static"):
        mixed, _ = layouts(case, potential, WHOLE, ml_step=ml_step)
        found.append(system_energy_and_forces(mixed.system, case.positions))
    assert isinstance(mixed.terms["site/ML"].runner.region_term, StaticTerm)
    assert_same(found[1], found[0])
    # Another model keeps the kind of step.
    exchange_model(mixed, "site/ML", potential_of(6, near_cutoff=0.0))
    assert isinstance(mixed.terms["site/ML"].runner.region_term, StaticTerm)
    assert system_energy_and_forces(mixed.system, case.positions)[0] != found[1][0]
    with pytest.raises(PotentialError, match="only a ResponseNetwork has a static step"):
        exchange_model(mixed, "site/ML", own_charges(case))


def test_a_static_term_has_committee_and_interaction_of_the_ordinary_one():
    case = chains_among_ions("cubic", 1, 2)
    potential = potential_of(6, members=2)
    _, layout = layouts(case, potential, WHOLE)
    static, term = StaticTerm(layout, potential), TorchTerm(layout, potential, potential.module)
    geometry = Geometry(case.positions, case.box)
    assert torch.equal(static.committee().member_forces(geometry), term.committee().member_forces(geometry))
    assert static.interaction(geometry).embedded_energy == term.interaction(geometry).embedded_energy
    assert_same(static.compute(geometry), term.compute(geometry))


def test_only_a_network_has_a_static_step():
    case = chains_among_ions("cubic", 1, 2)
    own = own_charges(case)
    with pytest.raises(PotentialError, match="only a ResponseNetwork has a static step"):
        layouts(case, own, WHOLE, ml_step="static")
    with pytest.raises(PotentialError, match="only a ResponseNetwork has a static step"):
        own.create_static_model(RegionSpecification("site/ML", np.array([6] * 6), 1, 1))


def test_a_static_step_does_not_run_through_torchforce():
    case = chains_among_ions("cubic", 1, 2)
    hamiltonian = Hamiltonian([Term(potential_of(6), Region("site", WHOLE, charge=1), embedding="electrostatic")])
    with pytest.raises(HamiltonianError, match="runs through PythonForce"):
        create_mixed_system(case.topology, case.system, hamiltonian, ml_backend="torchforce", ml_step="static")
    with pytest.raises(HamiltonianError, match="ml_step"):
        create_mixed_system(case.topology, case.system, hamiltonian, ml_step="fast")
