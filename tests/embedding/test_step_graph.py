"""When a step is recorded and when it is replayed, with a recorder that records nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.embedding.static_field import Capacity
from qmmlmm.embedding.static_term import StaticTerm
from qmmlmm.embedding.step_graph import GraphRecorder, StepGraph
from qmmlmm.embedding.torch_term import TorchTerm
from qmmlmm.errors import EvaluationError, HamiltonianError
from qmmlmm.geometry import Geometry
from qmmlmm.ml.response_network import ResponseNetwork
from qmmlmm.ml.response_settings import ResponseSettings
from tests.quick_torch import quick_torch
from tests.toy_systems import chains_among_ions

# Without its profiling executor TorchScript leaves energies made under no_grad in the graph.
pytestmark = [
    pytest.mark.usefixtures("without_profiling"),
    pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True to a scalar"),
]

SAME_NUMBERS = 1e-9  # relative; the same sums in another order, in double precision
SITE = (0, 1, 2, 3, 4, 5)
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")


@pytest.fixture(scope="module")
def without_profiling():
    """The network runs a few times alone."""
    with quick_torch():
        yield


class FakeRecorder(GraphRecorder):
    """Runs the function at each replay and puts the results in the places of the recording, as a graph does."""

    def __init__(self):
        self.recordings = self.replays = 0

    def record(self, function):
        self.recordings += 1
        # What a recording leaves there is no result.
        places = tuple(torch.full_like(result, torch.nan) for result in function())

        def replay():
            self.replays += 1
            for place, result in zip(places, function(), strict=True):
                place.copy_(result)

        return places, replay


class Square(torch.nn.Module):
    def forward(self, positions):
        return (positions**2).sum(), 2.0 * positions, positions.new_zeros(6)


def test_one_recording_serves_all_positions_in_the_same_places():
    recorder = FakeRecorder()
    graph = StepGraph(Square(), recorder)
    places = set()
    for k in range(3):
        positions = torch.full((2, 3), 1.0 + k, dtype=torch.float64)
        energy, forces, _ = graph(positions)
        assert float(energy) == pytest.approx(6.0 * (1.0 + k) ** 2)
        assert torch.equal(forces, 2.0 * positions)
        places.add(forces.data_ptr())
    assert (recorder.recordings, recorder.replays, len(places)) == (1, 3, 1)


def test_the_callers_positions_are_not_those_that_are_recorded():
    graph = StepGraph(Square(), FakeRecorder())
    positions = torch.ones(2, 3, dtype=torch.float64)
    graph(positions)
    positions += 1.0
    assert float(graph(torch.ones(2, 3, dtype=torch.float64))[0]) == 6.0


@pytest.fixture(scope="module")
def potential(without_profiling):
    torch.manual_seed(3)
    settings = ResponseSettings(
        features=4, layers=1, near_cutoff=4.5, near_functions=2, tensor_features=0, near_features=0
    )
    model = ResponseNetwork([6] * 6, [], settings, [(1, 1, 0)], dtype=torch.float64)
    found = MLPotential(
        model, atomic_numbers=[6] * 6, conditions=[(1, 1, 0)], embeddings=["electrostatic", "mechanical"]
    )
    recorded = {}
    original = found.create_static_model

    def once(specification, surrounded=True, compiled_for=None):
        if surrounded not in recorded:
            recorded[surrounded] = original(specification, surrounded, compiled_for)
        return recorded[surrounded]

    found.create_static_model = once
    return found


def term_of(potential, shape="triclinic", embedding="electrostatic", alpha=1.5, **options):
    case = chains_among_ions(shape, 1, 2, alpha=alpha)
    hamiltonian = Hamiltonian([Term(potential, Region("site", SITE, charge=1), embedding=embedding)])
    mixed = create_mixed_system(case.topology, case.system, hamiltonian, ml_backend="pythonforce")
    layout = mixed.terms["site/ML"].layout
    return case, TorchTerm(layout, potential), StaticTerm(layout, potential, **options)


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=SAME_NUMBERS)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=SAME_NUMBERS * np.abs(expected[1]).max())


def test_a_term_records_once_and_follows_positions_and_box(potential):
    case, ordinary, static = term_of(potential, graph=True)
    static.recorder = recorder = FakeRecorder()
    rng = np.random.default_rng(1)
    # Enough from the beginning, so that nothing grows.
    static.capacity = Capacity(1024, 512, (2, 2, 2))
    for scale in (1.0, 1.0, 1.03, 0.98):
        moved = case.positions + 0.005 * rng.standard_normal(case.positions.shape)
        geometry = Geometry(scale * moved, scale * case.box)
        assert_same(static.compute(geometry), ordinary.compute(geometry))
    assert (recorder.recordings, recorder.replays) == (1, 4)


@pytest.mark.slow
def test_a_term_records_again_when_a_capacity_grows(potential, monkeypatch):
    monkeypatch.setattr("qmmlmm.embedding.static_field.STEP", 4)
    case, ordinary, static = term_of(potential, graph=True)
    static.recorder = recorder = FakeRecorder()
    static.capacity = Capacity(4, 1)
    geometry = Geometry(case.positions, case.box)
    assert_same(static.compute(geometry), ordinary.compute(geometry))
    grown = recorder.recordings
    assert grown > 1
    assert_same(static.compute(geometry), ordinary.compute(geometry))
    assert recorder.recordings == grown


@pytest.mark.slow
def test_forces_that_were_returned_do_not_change_with_the_next_step(potential):
    case, _, static = term_of(potential, graph=True)
    static.recorder = FakeRecorder()
    _, forces = static.compute(Geometry(case.positions, case.box))
    kept = forces.copy()
    static.compute(Geometry(case.positions + 0.01 * np.eye(*case.positions.shape), case.box))
    np.testing.assert_array_equal(forces, kept)


@pytest.mark.parametrize("shape", ["triclinic", pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize("graph", [False, True])
def test_mechanical_terms_have_static_steps(potential, shape, graph):
    case, ordinary, static = term_of(potential, shape, "mechanical", graph=graph)
    static.recorder = recorder = FakeRecorder()
    # The chain lies across the border of the box.
    positions = case.positions.copy()
    if shape is not None:
        positions[1] += case.box[0]
    geometry = Geometry(positions, case.box)
    assert_same(static.compute(geometry), ordinary.compute(geometry))
    assert recorder.recordings == int(graph)


def test_a_mechanical_region_wider_than_half_the_box_is_an_error(potential):
    case, _, static = term_of(potential, "cubic", "mechanical")
    moved = case.positions.copy()
    moved[5] = moved[0] + 0.5 * case.box[0] + np.array([0.02, 0.3, 0.3])
    with pytest.raises(EvaluationError, match="wider than half the box"):
        static.compute(Geometry(moved, case.box))


@NO_CUDA
def test_without_cuda_there_is_no_graph_and_nothing_in_its_place(potential):
    case, _, static = term_of(potential, graph=True)
    with pytest.raises(EvaluationError, match="ml_step='graph', which needs a CUDA device, and runs on cpu"):
        static.compute(Geometry(case.positions, case.box))
    hamiltonian = Hamiltonian([Term(potential, Region("site", SITE, charge=1), embedding="electrostatic")])
    with pytest.raises(HamiltonianError, match="torch finds no CUDA device"):
        create_mixed_system(case.topology, case.system, hamiltonian, ml_step="graph")


def test_a_graph_does_not_run_through_torchforce(potential):
    case, _, _ = term_of(potential)
    hamiltonian = Hamiltonian([Term(potential, Region("site", SITE, charge=1), embedding="electrostatic")])
    with pytest.raises(HamiltonianError, match="ml_step='graph' runs through PythonForce"):
        create_mixed_system(case.topology, case.system, hamiltonian, ml_backend="torchforce", ml_step="graph")


@pytest.mark.parametrize("embedding", ["electrostatic", "mechanical"])
def test_a_static_term_of_either_embedding_is_in_the_system(potential, embedding):
    case = chains_among_ions("cubic", 1, 2)
    hamiltonian = Hamiltonian([Term(potential, Region("site", SITE, charge=1), embedding=embedding)])
    mixed = create_mixed_system(case.topology, case.system, hamiltonian, ml_step="static")
    term = mixed.terms["site/ML"].runner.region_term
    assert isinstance(term, StaticTerm)
    assert not term.graph
