from __future__ import annotations

import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.coupling.potential import Capabilities, EvaluatedPotential, Evaluation, Evaluator
from qmmlmm.embedding.evaluated_term import EvaluatedTerm
from qmmlmm.embedding.fixed_charges import charges_in_field
from qmmlmm.embedding.region_geometry import tensors_of
from qmmlmm.embedding.surroundings_field import SurroundingsField
from qmmlmm.errors import NonFiniteError
from qmmlmm.geometry import Geometry
from qmmlmm.units import FORCE_AU_IN_OPENMM, HARTREE_IN_KJ_PER_MOL
from tests.finite_differences import central_difference
from tests.toy_potentials import BOTH
from tests.toy_systems import chains_among_ions

SAME = 1e-12  # relative; the same sums in another order
STEP = 1e-4  # bohr
DIFFERENCE_TOLERANCE = 1e-7  # of the largest component; third derivatives times STEP^2 / 6 are 1e-9
FINER_MESH = 3e-6  # hartree, hartree/bohr: errors of the two meshes for charges of 0.9 e
MOMENTS = np.array([0.4, -0.3, 0.2, -0.1, 0.3, -0.5])


@dataclass(frozen=True)
class Recorded(EvaluatedPotential):
    """Fixed charges in whatever field; sums that are not numbers on demand."""

    bad: str = ""
    splitting: float | None = None
    level: str = "MM"

    @property
    def capabilities(self):
        return Capabilities(BOTH, splitting=self.splitting)

    def create_evaluator(self, specification):
        return RecordedEvaluator(self.bad)


class RecordedEvaluator(Evaluator):
    def __init__(self, bad):
        self.bad = bad

    def evaluate(self, geometry, field):
        positions = geometry.positions
        gradient = 0.02 * positions
        if self.bad == "force":
            gradient = gradient.copy()
            gradient[3] = np.nan
        energy = float("nan") if self.bad == "energy" else 0.01 * float((positions**2).sum())
        if field is None:
            return Evaluation(energy, gradient, results={"sum": 1})
        inside = charges_in_field(positions, MOMENTS, field)
        return Evaluation(
            energy + inside.energy,
            gradient + inside.gradient,
            inside.charge_gradient,
            inside.smooth_points,
            inside.smooth_charges,
            {"sum": 2},
        )


def term_of(shape, embedding="electrostatic", bad="", alpha=6.0, splitting=None, coefficient=1.0):
    """Return a term and a geometry, nm."""
    case = chains_among_ions(shape, 0, 1, alpha=alpha)
    potential = Recorded(bad, splitting)
    region = Region("site", case.chains[0])
    terms = [Term(potential, region, embedding=embedding, coefficient=coefficient)]
    if coefficient != 1.0:
        terms.append(Term(potential, region, embedding=embedding, coefficient=1.0 - coefficient))
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian(terms))
    name = next(iter(mixed.terms))
    return EvaluatedTerm(mixed.terms[name].layout, potential), Geometry(case.positions, case.box)


def assert_gradient(term, geometry):
    """Assert that the gradient is the derivative of the energy, for the region, near and far atoms; return it."""
    bohr = geometry.in_bohr()
    _, gradient = term.energy_and_gradient(bohr)
    scale = abs(gradient).max()

    def energy(positions):
        return term.energy_and_gradient(Geometry(positions, bohr.box))[0]

    rng = np.random.default_rng(3)
    for group in (slice(0, 6), slice(6, 26), slice(26, None), slice(None)):
        direction = np.zeros_like(gradient)
        direction[group] = rng.standard_normal(direction[group].shape)
        slope = central_difference(energy, bohr.positions, direction, STEP)
        assert (gradient * direction).sum() == pytest.approx(slope, abs=DIFFERENCE_TOLERANCE * scale)
    return gradient


@pytest.mark.parametrize(("shape", "alpha"), [("triclinic", 6.0), ("cubic", 1.5), (None, 6.0)])
def test_the_external_field_is_the_potential_that_a_learned_model_gets(shape, alpha):
    term, geometry = term_of(shape, alpha=alpha)
    field_at = term.field_at(geometry.in_bohr())
    sites, field = field_at.sites, field_at.external_field()
    torch_field = SurroundingsField(term.layout)
    prepared = torch_field.prepare(*tensors_of(geometry.in_bohr()))
    expected, slope, *_ = torch_field.potential(prepared)
    np.testing.assert_array_equal(sites, prepared.sites)
    for k in range(len(sites)):
        unit = np.eye(len(sites))[k]
        one = charges_in_field(sites, unit, field)
        assert one.energy == pytest.approx(float(expected[k]), rel=SAME)
        np.testing.assert_allclose(one.gradient[k], slope[k], rtol=0, atol=SAME * float(slope.abs().max()))


def test_a_label_holds_the_field_of_the_surroundings_and_what_the_evaluator_says():
    term, geometry = term_of("triclinic")
    label = term.label(geometry)
    evaluation = label.evaluation
    assert evaluation.energy == pytest.approx(0.01 * (label.positions**2).sum() + MOMENTS @ label.potential, rel=SAME)
    np.testing.assert_allclose(
        evaluation.gradient,
        0.02 * label.positions + MOMENTS[:, None] * label.potential_gradient,
        rtol=0,
        atol=SAME * abs(evaluation.gradient).max(),
    )
    assert label.potential_curvature.shape == (6, 3, 3)
    assert evaluation.results == {"sum": 2}


@pytest.mark.parametrize(
    ("shape", "splitting", "tolerance"), [("triclinic", None, SAME), ("triclinic", 0.6, FINER_MESH), (None, None, SAME)]
)
def test_a_label_holds_the_pull_on_near_charges_without_that_on_their_images(shape, splitting, tolerance):
    term, geometry = term_of(shape, splitting=splitting)
    label = term.label(geometry, near_reach=12.0)
    near = label.near
    # There is a finer mesh where the potential asks for one.
    force_fields = term.layout.surroundings.splitting if shape else None
    assert term.field_at(geometry.in_bohr()).external_field().splitting == (splitting or force_fields)
    delta = near.positions[:, None] - label.positions[None]
    r = np.linalg.norm(delta, axis=-1)
    expected = -near.charges[:, None] * ((MOMENTS / r**3)[..., None] * delta).sum(1)
    scale = abs(expected).max() if splitting is None else 1.0
    np.testing.assert_allclose(near.gradient, expected, rtol=0, atol=tolerance * scale)
    assert 2 < len(near.charges) < len(geometry.positions)
    assert r.min(axis=1).max() < 12.0


def test_a_label_without_embedding_has_no_field():
    term, geometry = term_of("triclinic", "mechanical")
    label = term.label(geometry)
    assert label.near is None
    assert not label.potential.any()
    assert not label.potential_gradient.any()
    assert not label.potential_curvature.any()
    assert label.evaluation.energy == pytest.approx(0.01 * (label.positions**2).sum(), rel=SAME)


@pytest.mark.parametrize(
    ("shape", "embedding"),
    [("octahedron", "electrostatic"), (None, "electrostatic"), ("cubic", "mechanical")],
)
def test_the_gradient_is_the_derivative_of_the_energy(shape, embedding):
    gradient = assert_gradient(*term_of(shape, embedding))
    if embedding == "mechanical":
        assert not gradient[6:].any()


@pytest.mark.parametrize("embedding", ["electrostatic", "mechanical"])
def test_energy_and_forces_in_the_units_of_openmm_have_the_coefficient(embedding):
    term, geometry = term_of("triclinic", embedding, coefficient=0.25)
    energy, gradient = term.energy_and_gradient(geometry.in_bohr())
    found, forces = term.compute(geometry)
    assert found == pytest.approx(0.25 * HARTREE_IN_KJ_PER_MOL * energy, rel=SAME)
    expected = -0.25 * FORCE_AU_IN_OPENMM * gradient
    np.testing.assert_allclose(forces, expected, rtol=0, atol=SAME * abs(expected).max())


@pytest.mark.parametrize("shape", ["cubic", "triclinic"])
def test_a_larger_splitting_leaves_fewer_compact_charges_and_the_same_energy_and_forces(shape):
    # alpha is 0.16/bohr: images of the own atoms and of near charges are in the list of near sources.
    plain, geometry = term_of(shape, alpha=3.0)
    finer, _ = term_of(shape, alpha=3.0, splitting=0.35)
    bohr = geometry.in_bohr()
    energy, gradient = plain.energy_and_gradient(bohr)
    same_energy, same_gradient = finer.energy_and_gradient(bohr)
    assert same_energy == pytest.approx(energy, abs=FINER_MESH)
    np.testing.assert_allclose(same_gradient, gradient, rtol=0, atol=FINER_MESH)
    fewer, more = len(finer.field_at(bohr).external_field().positions), len(plain.last.charge_gradient)
    assert fewer < more / 3
    assert_gradient(finer, geometry)


@pytest.mark.parametrize(("shape", "alpha"), [(None, 6.0), ("cubic", 6.0)])
def test_a_splitting_that_is_not_larger_changes_nothing(shape, alpha):
    plain, geometry = term_of(shape, alpha=alpha)
    finer, _ = term_of(shape, alpha=alpha, splitting=0.35)
    assert finer.compute(geometry)[0] == plain.compute(geometry)[0]


def test_the_last_evaluation_is_kept():
    term, geometry = term_of(None)
    assert term.last is None
    term.compute(geometry)
    assert term.last.results == {"sum": 2}


def test_a_term_survives_pickling():
    term, geometry = term_of("cubic")
    copy = pickle.loads(pickle.dumps(term))
    assert copy.name == "site/MM"
    assert copy.compute(geometry)[0] == term.compute(geometry)[0]


def test_without_embedding_there_is_no_external_field():
    term, geometry = term_of(None, "mechanical")
    assert term.field_at(geometry.in_bohr()) is None


def test_an_energy_that_is_not_a_number_is_an_error_that_names_the_term():
    term, geometry = term_of(None, bad="energy")
    with pytest.raises(NonFiniteError, match="term 'site/MM' has the energy nan"):
        term.compute(geometry)


def test_a_force_that_is_not_a_number_is_an_error_that_names_the_atom():
    term, geometry = term_of(None, "mechanical", bad="force")
    with pytest.raises(NonFiniteError, match=r"'site/MM' has forces that are not numbers on atoms 3$"):
        term.compute(geometry)
