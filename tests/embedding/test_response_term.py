"""A base in a vacuum with a response in the field, in the time of a torch module."""

from __future__ import annotations

import pickle
from typing import Dict  # noqa: UP035  (TorchScript reads it)

import numpy as np
import pytest
import torch
from torch import Tensor

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.embedding.response_term import ResponseTerm
from qmmlmm.errors import EvaluationError, NonFiniteError
from qmmlmm.geometry import Geometry
from qmmlmm.ml import EmbeddedPotential, ModelCharges, ResponseModel, ResponseNetwork, ResponseSettings
from tests.ml.responses import methyl
from tests.toy_potentials import ELEMENTS, NotANumberBeyond, Springs
from tests.toy_systems import SIDE_CHAIN, peptide_in_vacuum, peptide_in_water

SAME_FIELD = 1e-6
"""Relative: the evaluator of `EvaluatedTerm` gets the field of the smooth part by differences."""
SAME = 1e-11
"""Relative: the same sums in another order."""
SINGLE_MESH = 1e-4
"""Relative: the mesh in single precision."""


def response_model():
    torch.manual_seed(2)
    small = ResponseSettings(features=8, layers=1, radial_functions=6, near_features=4, tensor_features=4)
    network = ResponseNetwork([6, 1, 1, 1, 1], [(0, k) for k in range(1, 5)], small, response_only=True)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return ResponseModel(network)


class Charged(torch.nn.Module):
    """Springs, and charges that follow the distances; without the second they do not add up."""

    def __init__(self, excess: float = 0.0) -> None:
        super().__init__()
        self.springs, self.excess = Springs(0.01), excess

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        x = inputs["positions"]
        delta = x[:, None, :] - x[None, :, :]
        spread = torch.exp(-(delta * delta).sum(-1) / 20.0).sum(-1) * inputs["atomic_numbers"]
        close = float((x[0] - x[1]).norm() < 2.4)
        charges = 0.4 * (spread - spread.mean()) + self.excess * close
        return {"energy": self.springs(x), "charges": charges}


def springs():
    return MLPotential(Springs(0.01), elements=ELEMENTS)


def charged(excess=0.0):
    return MLPotential(Charged(excess), elements=ELEMENTS)


KINDS = {
    "fixed": lambda: EmbeddedPotential(springs(), methyl()),
    "trained": lambda: EmbeddedPotential(springs(), response_model()),
    "charges": lambda: EmbeddedPotential(charged(), ModelCharges()),
}


def term_of(case, potential, **options):
    term = Term(potential, Region("site", SIDE_CHAIN), embedding="electrostatic", name="site", **options)
    return create_mixed_system(case.topology, case.system, Hamiltonian([term])).terms["site"].runner.region_term


def geometry_of(case):
    box = case.system.getDefaultPeriodicBoxVectors()
    periodic = case.system.usesPeriodicBoundaryConditions()
    return Geometry(case.positions, np.array([list(v._value) for v in box]) if periodic else None)


@pytest.fixture(scope="module")
def in_water():
    return peptide_in_water()


def assert_same(found, wanted, tolerance):
    assert found[0] == pytest.approx(wanted[0], rel=tolerance)
    np.testing.assert_allclose(found[1], wanted[1], rtol=0, atol=tolerance * np.abs(wanted[1]).max())
    assert np.abs(wanted[1]).max() > 1.0


@pytest.mark.parametrize(
    ("kind", "smeared"),
    [
        ("fixed", None),
        ("fixed", {22: 0.05, 25: 0.05}),
        ("charges", None),
        pytest.param("trained", None, marks=pytest.mark.slow),
        pytest.param("trained", {22: 0.05, 25: 0.05}, marks=pytest.mark.slow),
    ],
)
def test_energy_and_forces_are_those_with_the_field_for_an_evaluator(in_water, kind, smeared):
    term = term_of(in_water, KINDS[kind](), smeared_charges=smeared)
    assert isinstance(term, ResponseTerm)
    geometry = geometry_of(in_water)
    assert_same(term.compute(geometry), EvaluatedTerm(term.layout, term.potential).compute(geometry), SAME_FIELD)


@pytest.mark.parametrize("kind", ["fixed", "charges"])
def test_without_a_box_they_are_the_same_too(kind):
    case = peptide_in_vacuum()
    term = term_of(case, KINDS[kind]())
    geometry = geometry_of(case)
    assert_same(term.compute(geometry), EvaluatedTerm(term.layout, term.potential).compute(geometry), SAME)


def test_the_coefficient_is_that_of_the_whole_energy(in_water):
    potential = KINDS["fixed"]()
    whole = term_of(in_water, potential)
    region = Region("site", SIDE_CHAIN)
    halves = [Term(potential, region, embedding="electrostatic", coefficient=0.5, name=name) for name in "ab"]
    mixed = create_mixed_system(in_water.topology, in_water.system, Hamiltonian(halves))
    geometry = geometry_of(in_water)
    energy, forces = mixed.terms["a"].runner.region_term.compute(geometry)
    assert_same((2.0 * energy, 2.0 * forces), whole.compute(geometry), SAME)


def test_the_mesh_may_be_in_single_precision_and_the_term_is_pickled(in_water):
    layout, potential = term_of(in_water, KINDS["fixed"]()).layout, KINDS["fixed"]()
    geometry = geometry_of(in_water)
    mixed = ResponseTerm(layout, potential, "mixed")
    found = mixed.compute(geometry)
    assert_same(found, ResponseTerm(layout, potential).compute(geometry), SINGLE_MESH)
    again = pickle.loads(pickle.dumps(mixed)).compute(geometry)
    assert again[0] == found[0]
    np.testing.assert_array_equal(again[1], found[1])


def test_with_mechanical_embedding_there_is_no_response():
    case = peptide_in_vacuum()
    term = Term(KINDS["fixed"](), Region("site", SIDE_CHAIN), embedding="mechanical", name="site")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    assert type(mixed.terms["site"].runner.region_term) is EvaluatedTerm


def test_what_is_wrong_is_said_in_its_class(in_water):
    geometry = geometry_of(in_water)
    no_number = MLPotential(NotANumberBeyond(), elements=ELEMENTS)
    stretched = geometry.positions.copy()
    stretched[11] += 2.0 * (stretched[11] - stretched[10])
    with pytest.raises(NonFiniteError, match="'site"):
        term_of(in_water, EmbeddedPotential(no_number, methyl())).compute(Geometry(stretched, geometry.box))
    with pytest.raises(EvaluationError, match=r"'site': the charges of the model add up to .* e"):
        term_of(in_water, EmbeddedPotential(charged(0.5), ModelCharges())).compute(geometry)
    positions = geometry.positions.copy()
    positions[30] = np.nan
    with pytest.raises(NonFiniteError, match="positions that are not numbers reached term 'site', on atoms 30"):
        term_of(in_water, KINDS["fixed"]()).compute(Geometry(positions, geometry.box))
