"""Labels of a difference: a base is evaluated on labelled frames, in the field that the labels felt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import openmm
import pytest
from openmm import unit

from qmmlmm import Hamiltonian, MLPotential, OpenMMPotential, Region, Term, XTBPotential, create_mixed_system
from qmmlmm.coupling import Difference, LevelOfTheory, RegionSpecification
from qmmlmm.errors import DataSetError, SettingError
from qmmlmm.geometry import Geometry
from qmmlmm.learning import Labeller, append_frames, difference_labels, read_frames
from qmmlmm.learning.labels.frame_field import RestPotential, field_of_frame
from systems import acetone_water
from tests.finite_differences import central_differences
from tests.learning.loop.water_case import make_source, springs, waters
from tests.toy_potentials import ELEMENTS, EvaluatedSprings, PolarisableModel, Springs

# hartree and hartree/bohr: round-off of the near charges' potential and of its interpolation.
SAME = 1e-10
# The same, where the field at the atoms comes from differences over 0.02 bohr, whose second order errs by 1e-4 of the
# third derivative of the rest: at most 1e-5 hartree/(e bohr^3) beyond 6.5 angstrom.
SAME_BY_STENCIL = 1e-7
# The same from a file: six digits of the field gradient in eV and angstrom.
SAME_FROM_FILE = 2e-6
DERIVATIVE = 1e-8  # hartree/(e bohr), of values of the order of 0.1 with a step of 1e-4 bohr


def acetone_frames(potential, smeared_charges=None, count=2):
    """Return labels of a molecule under PME by any potential."""
    structure = acetone_water.build()
    region = Region("acetone", range(10))
    term = Term(potential, region, embedding="electrostatic", smeared_charges=smeared_charges, name="acetone")
    mixed = create_mixed_system(structure.topology, structure.system, Hamiltonian([term]), ml_backend="pythonforce")
    labeller = Labeller(mixed.evaluated_term("acetone"), "labels of a test")
    start = np.array(structure.positions.value_in_unit(unit.nanometer))
    box = np.array(structure.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer))
    rng = np.random.default_rng(5)
    return [labeller.label(Geometry(start + 0.003 * rng.normal(size=start.shape), box), f"a-{k}") for k in range(count)]


def largest(frames):
    """Return the largest label of frames in atomic units."""
    parts = [[f.energy, f.vacuum_energy, f.forces, f.vacuum_forces, f.near.forces] for f in frames]
    return max(np.abs(value).max() for part in parts for value in part)


@pytest.mark.parametrize("smeared", [None, 0.07 * unit.nanometer])
def test_a_base_that_made_the_labels_leaves_nothing(smeared, tmp_path):
    frames = acetone_frames(XTBPotential(), smeared)
    assert largest(frames) > 10.0
    labels = difference_labels(frames, XTBPotential())
    assert largest(labels.frames) < SAME_BY_STENCIL
    assert all(frame.charges is None and np.abs(frame.dipole).max() < 1e-5 for frame in labels.frames)
    append_frames(tmp_path / "labels.xyz", frames)
    assert largest(difference_labels(read_frames(tmp_path / "labels.xyz"), XTBPotential()).frames) < SAME_FROM_FILE


def test_fixed_charges_without_a_box_leave_nothing():
    topology, system, positions = waters()
    source = make_source(topology, system, Term(springs(), Region("water", [0, 1, 2]), embedding="electrostatic"))
    frames = [source.label(Geometry(positions + 0.001 * k), f"w-{k}") for k in range(2)]
    labels = difference_labels(frames, springs())
    assert largest(labels.frames) < SAME
    assert labels.difference == Difference(LevelOfTheory("springs"), springs().level_of_theory)
    assert labels.frames[0].method == labels.difference.method == "springs - OpenMMPotential"


def test_a_base_with_polarisabilities_feels_the_same_field():
    """The labels are of the base with other charges on top: what is left are these charges in the same field."""
    frames = acetone_frames(XTBPotential(), count=1)
    base = MLPotential(PolarisableModel(), elements=ELEMENTS, embeddings=["electrostatic", "mechanical"])
    left = difference_labels(frames, base).frames[0]
    evaluator = base.create_evaluator(RegionSpecification("a", frames[0].atomic_numbers, 0, 1))
    inside = evaluator.evaluate(Geometry(frames[0].positions), field_of_frame(frames[0]))
    np.testing.assert_allclose(frames[0].energy - left.energy, inside.energy, rtol=0, atol=SAME)
    assert left.dipole is None  # the base has none


def test_the_field_of_a_frame_is_that_of_the_label():
    frame = acetone_frames(XTBPotential(), count=1)[0]
    field = field_of_frame(frame)
    smooth, slope = field.smooth_potential(frame.positions)
    delta = frame.positions[:, None] - field.positions
    r = np.linalg.norm(delta, axis=-1)
    np.testing.assert_allclose((field.point_charges / r).sum(1) + smooth, frame.potential, rtol=0, atol=SAME)
    gradient = -(field.point_charges / r**3)[..., None] * delta
    np.testing.assert_allclose(gradient.sum(1) + slope, -frame.field, rtol=0, atol=SAME)


def test_the_rest_is_a_smooth_function_with_the_derivatives_that_are_known():
    rng = np.random.default_rng(2)
    positions, value, gradient = 3.0 * rng.normal(size=(5, 3)), rng.normal(size=5), rng.normal(size=(5, 3))
    curvature = rng.normal(size=(5, 3, 3))
    curvature = 0.5 * (curvature + curvature.transpose(0, 2, 1))
    rest = RestPotential(positions, value, gradient, curvature)
    np.testing.assert_allclose(rest(positions)[0], value, rtol=0, atol=1e-12)
    np.testing.assert_allclose(rest(positions)[1], gradient, rtol=0, atol=1e-12)
    points = np.concatenate([positions + 1e-3, 4.0 * rng.normal(size=(6, 3))])
    numerical = central_differences(lambda x: float(rest(x)[0].sum()), points, range(len(points)), 1e-4, points=4)
    np.testing.assert_allclose(rest(points)[1], numerical, rtol=0, atol=DERIVATIVE)
    bent = central_differences(lambda x: float(rest(x)[1][:, 0].sum()), positions, range(5), 1e-3, points=4)
    np.testing.assert_allclose(bent, curvature[:, 0], rtol=0, atol=1e-5)
    many = rng.normal(size=(50_001, 3))
    np.testing.assert_allclose(rest(many)[0][-1:], rest(many[-1:])[0], rtol=1e-12)


def test_frames_in_a_vacuum_are_subtracted_in_a_vacuum():
    frame = acetone_frames(XTBPotential(), count=1)[0].without_surroundings()
    assert field_of_frame(frame) is None
    left = difference_labels([frame], XTBPotential()).frames[0]
    assert abs(left.energy) < SAME
    assert np.abs(left.forces).max() < SAME


def test_what_cannot_be_a_base_is_refused(make_frame):
    frames = [make_frame()]
    with pytest.raises(SettingError, match="base is a potential such as XTBPotential"):
        difference_labels(frames, "gfn2-xtb")
    own = Difference(LevelOfTheory("a"), LevelOfTheory("b"))
    with pytest.raises(SettingError, match="base is the difference a - b and no energy of a level; take b"):
        difference_labels(frames, MLPotential(Springs(), elements=ELEMENTS, difference=own))
    level = XTBPotential().level_of_theory
    with pytest.raises(SettingError, match="labels of the base itself leave nothing to learn"):
        difference_labels(frames, XTBPotential(), target=level)


def test_frames_that_the_base_cannot_compute_are_named(make_frame):
    with pytest.raises(DataSetError, match="frame 'water-1' has no gradient of the field"):
        difference_labels([make_frame(field_gradient=None)], XTBPotential())
    mechanical = MLPotential(Springs(), elements=ELEMENTS)
    with pytest.raises(
        DataSetError, match="'water-1': the base MLPotential cannot be evaluated: it has no electrostat"
    ):
        difference_labels([make_frame()], mechanical)
    empty = openmm.System()
    empty.addForce(openmm.NonbondedForce())
    with pytest.raises(DataSetError, match="the System of the OpenMMPotential has 0 particles"):
        difference_labels([make_frame()], OpenMMPotential(empty))
    with pytest.raises(DataSetError, match="is of the electronic state 1, the base gfn2-xtb of state 0"):
        difference_labels([make_frame(electronic_state=1)], XTBPotential())
    near = make_frame().near
    smeared = make_frame(near=replace(near, widths=np.full(4, 0.5)))
    with pytest.raises(DataSetError, match="cannot feel smeared charges"):
        difference_labels([smeared], EvaluatedSprings(np.zeros(3)))
