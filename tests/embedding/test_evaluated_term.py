from __future__ import annotations

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.coupling.potential import Evaluation
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.embedding.surroundings_field import SurroundingsField
from qmmlmm.errors import NonFiniteError
from qmmlmm.mm.openmm_potential import charges_in_field
from qmmlmm.units import NM_IN_BOHR

SAME = 1e-12  # relative; the same sums in another order
STEP = 1e-4  # bohr
DIFFERENCE_TOLERANCE = 1e-7  # of the largest component; third derivatives times STEP^2 / 6 are 1e-9
FINER_MESH = 3e-6  # hartree, hartree/bohr: errors of the two meshes for charges of 0.9 e
MOMENTS = np.array([0.4, -0.3, 0.2, -0.1, 0.3, -0.5])


@dataclass(frozen=True)
class Recorded:
    """Fixed charges in whatever field; sums that are not numbers on demand."""

    bad: str = ""
    short_range_splitting: float | None = None
    level: str = "MM"
    embeddings: frozenset[str] = frozenset({"mechanical", "electrostatic"})

    def check(self, specification):
        pass

    def create_evaluator(self, specification):
        return self

    def evaluate(self, positions, external_field):
        gradient = 0.02 * positions
        if self.bad == "force":
            gradient = gradient.copy()
            gradient[3] = np.nan
        energy = float("nan") if self.bad == "energy" else 0.01 * float((positions**2).sum())
        if external_field is None:
            return Evaluation(energy, gradient, results={"sum": 1})
        inside = charges_in_field(positions, MOMENTS, external_field)
        return Evaluation(
            energy + inside.energy,
            gradient + inside.gradient,
            inside.charge_gradient,
            inside.smooth_points,
            inside.smooth_charges,
            {"sum": 2},
        )


def term_of(tools, shape, embedding="electrostatic", bad="", alpha=6.0, splitting=None):
    case = tools.solution(shape, 0, 1, alpha=alpha)
    potential = Recorded(bad, splitting)
    hamiltonian = Hamiltonian([Term(potential, Region("site", case.chains[0]), embedding=embedding)])
    mixed = create_mixed_system(case.topology, case.system, hamiltonian)
    return (
        EvaluatedTerm(mixed.layouts["site/MM"], potential),
        case.positions * NM_IN_BOHR,
        case.box * NM_IN_BOHR,
    )


@pytest.mark.parametrize(("shape", "alpha"), [("triclinic", 6.0), ("cubic", 1.5), (None, 6.0)])
def test_the_external_field_is_the_potential_that_a_learned_model_gets(tools, shape, alpha):
    term, positions, box = term_of(tools, shape, alpha=alpha)
    sites, field = term.external_field(positions, box)
    torch_field = SurroundingsField(term.layout)
    expected_sites = torch_field.prepare(torch.tensor(positions), torch.tensor(box))
    expected, slope, _ = torch_field.potential()
    np.testing.assert_array_equal(sites, expected_sites)
    for k in range(len(sites)):
        unit = np.eye(len(sites))[k]
        one = charges_in_field(sites, unit, field)
        assert one.energy == pytest.approx(float(expected[k]), rel=SAME)
        np.testing.assert_allclose(one.gradient[k], slope[k], rtol=0, atol=SAME * float(slope.abs().max()))


def test_a_label_holds_the_field_of_the_surroundings_and_what_the_evaluator_says(tools):
    term, positions, box = term_of(tools, "triclinic")
    label = term.label(positions, box)
    assert label.energy == pytest.approx(0.01 * (label.positions**2).sum() + MOMENTS @ label.potential, rel=SAME)
    np.testing.assert_allclose(
        label.gradient,
        0.02 * label.positions + MOMENTS[:, None] * label.potential_gradient,
        rtol=0,
        atol=SAME * abs(label.gradient).max(),
    )
    assert label.potential_curvature.shape == (6, 3, 3)
    assert label.results == {"sum": 2}


@pytest.mark.parametrize(
    ("shape", "splitting", "tolerance"), [("triclinic", None, SAME), ("triclinic", 0.6, FINER_MESH), (None, None, SAME)]
)
def test_a_label_holds_the_pull_on_near_charges_without_that_on_their_images(tools, shape, splitting, tolerance):
    term, positions, box = term_of(tools, shape, splitting=splitting)
    label = term.label(positions, box, near_reach=12.0)
    near = label.near
    assert (splitting is not None) == (term._near_mesh is not None)
    delta = near.positions[:, None] - label.positions[None]
    r = np.linalg.norm(delta, axis=-1)
    expected = -near.charges[:, None] * ((MOMENTS / r**3)[..., None] * delta).sum(1)
    scale = abs(expected).max() if splitting is None else 1.0
    np.testing.assert_allclose(near.gradient, expected, rtol=0, atol=tolerance * scale)
    assert 2 < len(near.charges) < len(positions)
    assert r.min(axis=1).max() < 12.0


def test_a_label_without_embedding_has_no_field(tools):
    term, positions, box = term_of(tools, "triclinic", "mechanical")
    label = term.label(positions, box)
    assert label.near is None
    assert not label.potential.any()
    assert not label.potential_gradient.any()
    assert not label.potential_curvature.any()
    assert label.energy == pytest.approx(0.01 * (label.positions**2).sum(), rel=SAME)


@pytest.mark.parametrize(
    ("shape", "embedding"),
    [("octahedron", "electrostatic"), (None, "electrostatic"), ("cubic", "mechanical")],
)
def test_the_gradient_is_the_derivative_of_the_energy(tools, shape, embedding):
    term, positions, box = term_of(tools, shape, embedding)
    _, gradient = term.compute(positions, box)
    rng = np.random.default_rng(3)
    for group in (slice(0, 6), slice(6, 26), slice(26, None), slice(None)):
        direction = np.zeros_like(positions)
        direction[group] = rng.standard_normal(direction[group].shape)
        above, _ = term.compute(positions + STEP * direction, box)
        below, _ = term.compute(positions - STEP * direction, box)
        expected = (above - below) / (2.0 * STEP)
        scale = abs(gradient).max()
        assert (gradient * direction).sum() == pytest.approx(expected, abs=DIFFERENCE_TOLERANCE * scale)
    if embedding == "mechanical":
        assert not gradient[6:].any()


@pytest.mark.parametrize("shape", ["cubic", "triclinic"])
def test_a_larger_splitting_leaves_fewer_compact_charges_and_the_same_energy_and_forces(tools, shape):
    # alpha is 0.16/bohr: images of the own atoms and of near charges are in the list of near sources.
    plain, positions, box = term_of(tools, shape, alpha=3.0)
    finer, _, _ = term_of(tools, shape, alpha=3.0, splitting=0.35)
    energy, gradient = plain.compute(positions, box)
    same_energy, same_gradient = finer.compute(positions, box)
    assert same_energy == pytest.approx(energy, abs=FINER_MESH)
    np.testing.assert_allclose(same_gradient, gradient, rtol=0, atol=FINER_MESH)
    fewer, more = len(finer.external_field(positions, box)[1].positions), len(plain.last.charge_gradient)
    assert fewer < more / 3
    rng = np.random.default_rng(3)
    for group in (slice(0, 6), slice(6, 26), slice(26, None), slice(None)):
        direction = np.zeros_like(positions)
        direction[group] = rng.standard_normal(direction[group].shape)
        above, _ = finer.compute(positions + STEP * direction, box)
        below, _ = finer.compute(positions - STEP * direction, box)
        scale = abs(gradient).max()
        slope = (above - below) / (2.0 * STEP)
        assert (same_gradient * direction).sum() == pytest.approx(slope, abs=DIFFERENCE_TOLERANCE * scale)


@pytest.mark.parametrize(("shape", "alpha"), [(None, 6.0), ("cubic", 6.0)])
def test_a_splitting_that_is_not_larger_changes_nothing(tools, shape, alpha):
    plain, positions, box = term_of(tools, shape, alpha=alpha)
    finer, _, _ = term_of(tools, shape, alpha=alpha, splitting=0.35)
    assert finer.compute(positions, box)[0] == plain.compute(positions, box)[0]


def test_the_last_evaluation_is_kept(tools):
    term, positions, box = term_of(tools, None)
    assert term.last is None
    term.compute(positions, box)
    assert term.last.results == {"sum": 2}


def test_a_term_survives_pickling(tools):
    term, positions, box = term_of(tools, "cubic")
    copy = pickle.loads(pickle.dumps(term))
    assert copy.name == "site/MM"
    assert copy.compute(positions, box)[0] == term.compute(positions, box)[0]


def test_without_embedding_there_is_no_external_field(tools):
    term, positions, box = term_of(tools, None, "mechanical")
    with pytest.raises(TypeError, match="'site/MM' has mechanical embedding: there is no external field"):
        term.external_field(positions, box)


def test_an_energy_that_is_not_a_number_is_an_error_that_names_the_term(tools):
    term, positions, box = term_of(tools, None, bad="energy")
    with pytest.raises(NonFiniteError, match="term 'site/MM' has the energy nan"):
        term.compute(positions, box)


def test_a_force_that_is_not_a_number_is_an_error_that_names_the_atom(tools):
    term, positions, box = term_of(tools, None, "mechanical", bad="force")
    with pytest.raises(NonFiniteError, match=r"'site/MM' has forces that are not numbers on atoms 3$"):
        term.compute(positions, box)
