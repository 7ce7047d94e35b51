from __future__ import annotations

import copy
import pickle

import numpy as np
import openmm
import pytest
from openmm import unit

from qmmlmm.errors import SelectionError, SettingError
from qmmlmm.geometry import Geometry
from qmmlmm.sampling import (
    RMSD,
    Angle,
    Combination,
    CoordinationNumber,
    Distance,
    DistanceDifference,
    PathDistance,
    PathProgress,
    Torsion,
)
from qmmlmm.sampling.reference_variables import square_deviation
from tests.contexts import energy_and_forces, make_context
from tests.finite_differences import central_differences
from tests.toy_systems import OCTAHEDRON

ROUND_OFF = 1e-12
DIFFERENCES = 1e-6
"""Relative error of four-point differences with a step of 1e-4 nm, and of the requirement."""
OPENMM = 1e-9
"""The Reference platform computes in double precision."""

rng = np.random.default_rng(3)
CHAIN = np.array(
    [[0.0, 0.1, 0.0], [0.0, 0.0, 0.0], [0.15, 0.0, 0.0], [0.2, 0.05, 0.1], [0.3, 0.02, 0.16], [0.33, 0.14, 0.2]]
)
IMAGES = CHAIN[1:] + 0.02 * np.arange(4)[:, None, None] * rng.normal(size=(5, 3))
LENGTHS = Combination([(1.0, Distance(0, 3)), (-0.5, Distance(1, 4)), (2.0, Distance(2, 5))])
TURNS = Combination([(1.0, Torsion(0, 1, 2, 3)), (-2.0, Torsion(1, 2, 3, 4))])
RATIONAL = CoordinationNumber([0, 1], [3, 4, 5], 0.25, 6)
DEVIATION = RMSD([1, 2, 3, 4, 5], IMAGES[2])
PROGRESS = PathProgress([1, 2, 3, 4, 5], IMAGES)
AWAY = PathDistance([1, 2, 3, 4, 5], IMAGES, sharpness=900.0)
VARIABLES = [
    Distance(0, 3),
    DistanceDifference(0, 1, 2),
    Angle(0, 2, 3),
    Torsion(0, 1, 2, 3),
    Torsion(4, 1, 0, 2),
    LENGTHS,
    TURNS,
    Combination([(0.3, Angle(0, 1, 2)), (1.5, Distance(3, 5)), (2.0, DistanceDifference(1, 2, 4))]),
    RATIONAL,
    DEVIATION,
    PROGRESS,
    AWAY,
    Combination([(2.0, RATIONAL), (-1.0, DEVIATION), (0.5, LENGTHS)]),
]
BOXES = [1.0 * np.eye(3), 1.3 * OCTAHEDRON, np.array([[1.2, 0, 0], [0.4, 1.1, 0], [-0.5, 0.5, 1.3]])]


def cut_by(box, generator):
    """Return a shaken chain at a corner of a box, each particle in an image of its own."""
    whole = CHAIN + 0.02 * generator.normal(size=CHAIN.shape)
    return whole, whole + generator.integers(-2, 3, CHAIN.shape) @ box


def context_of(force, positions, box, platform="Reference"):
    system = openmm.System()
    for _ in positions:
        system.addParticle(12.0)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*box)
    system.addForce(force)
    return make_context(system, positions, platform=platform)


def test_the_nearest_image_in_a_cubic_box_with_an_edge_of_one_nanometer():
    """The unit matrix is a box like any other."""
    positions = np.array([[0.05, 0.5, 0.5], [0.95, 0.5, 0.5]])
    assert Distance(0, 1)(Geometry(positions, np.eye(3))) == pytest.approx(0.100, abs=ROUND_OFF)
    assert Distance(0, 1)(Geometry(positions)) == pytest.approx(0.900, abs=ROUND_OFF)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("variable", VARIABLES)
def test_a_molecule_that_the_box_cuts_has_the_value_and_gradient_of_the_whole_one(variable, box):
    generator = np.random.default_rng(1)
    for _ in range(5):
        whole, cut = cut_by(box, generator)
        expected, gradient = variable.value_and_gradient(Geometry(whole))
        value, derivatives = variable.value_and_gradient(Geometry(cut, box))
        assert value == pytest.approx(expected, abs=1e4 * ROUND_OFF)
        assert derivatives == pytest.approx(gradient, abs=1e6 * ROUND_OFF)
        assert variable(Geometry(cut, box)) == value


@pytest.mark.parametrize("box", [None, BOXES[2]])
@pytest.mark.parametrize("variable", VARIABLES)
def test_gradients_are_those_of_central_differences(truth, variable, box):
    generator = np.random.default_rng(2)
    whole, cut = cut_by(BOXES[2], generator)
    positions = whole if box is None else cut
    value, gradient = variable.value_and_gradient(Geometry(positions, box))

    def near(moved):
        return variable.difference(variable(Geometry(moved, box)), value)

    expected = central_differences(near, positions, range(len(positions)), 1e-4, points=4)
    error = abs(gradient - expected).max() / abs(expected).max()
    check = "gradients of variables, also across faces of a box: central differences"
    truth.below(check, error, DIFFERENCES, "relative")
    assert not gradient[[k for k in range(len(positions)) if k not in variable.particles]].any()


@pytest.mark.parametrize("box", [None, BOXES[2]])
@pytest.mark.parametrize("variable", VARIABLES)
def test_openmm_has_the_same_value_forces_and_umbrella(truth, variable, box):
    generator = np.random.default_rng(4)
    whole, cut = cut_by(BOXES[2], generator)
    positions = whole if box is None else cut
    value, gradient = variable.value_and_gradient(Geometry(positions, box))
    context = context_of(variable.value_force(box is not None), positions, box)
    energy, forces = energy_and_forces(context)
    scale = max(1.0, abs(gradient).max())
    assert energy == pytest.approx(value, abs=OPENMM)
    error = abs(forces + gradient).max() / scale
    truth.below("gradients of variables against OpenMM's forces", error, OPENMM, "relative")

    outer = openmm.CustomCVForce("3*value^2")  # as hills and other biases have it
    outer.addCollectiveVariable("value", variable.value_force(box is not None))
    energy, forces = energy_and_forces(context_of(outer, positions, box))
    assert energy == pytest.approx(3.0 * value**2, abs=10 * OPENMM)
    assert forces == pytest.approx(-6.0 * value * gradient, abs=100 * OPENMM * scale)

    context = context_of(variable.umbrella("u", box is not None), positions, box)
    context.setParameter("u_k", 50.0)
    for centre in (value - 0.1, 0.4, -3.0, 5.0):
        context.setParameter("u_centre", centre)
        energy, forces = energy_and_forces(context)
        away = float(variable.difference(value, centre))
        assert energy == pytest.approx(25.0 * away**2, abs=1e3 * OPENMM)
        assert forces == pytest.approx(-50.0 * away * gradient, abs=1e4 * OPENMM * scale)


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_is_copied_by_pickle_and_its_force_by_xml(variable):
    assert pickle.loads(pickle.dumps(variable)) == variable
    force = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(variable.umbrella("u", True)))
    context = context_of(copy.deepcopy(force), CHAIN, BOXES[0])
    context.setParameter("u_k", 2.0)
    value = variable(Geometry(CHAIN, BOXES[0]))
    assert energy_and_forces(context)[0] == pytest.approx(value**2, abs=10 * OPENMM)


def test_units_and_periods():
    assert [variable.unit for variable in VARIABLES[:4]] == [unit.nanometer] * 2 + [unit.radian] * 2
    assert (LENGTHS.unit, VARIABLES[7].unit, RATIONAL.unit, PROGRESS.unit) == (unit.nanometer, None, None, None)
    assert (DEVIATION.unit, AWAY.unit) == (unit.nanometer, unit.nanometer**2)
    assert [v.period for v in (Torsion(0, 1, 2, 3), TURNS)] == [pytest.approx(2 * np.pi)] * 2
    assert {v.period for v in VARIABLES if v not in (*VARIABLES[3:5], TURNS)} == {None}
    assert Combination([(0.5, Torsion(0, 1, 2, 3))]).period == pytest.approx(np.pi)


def test_a_difference_goes_the_shorter_way():
    assert Torsion(0, 1, 2, 3).difference(3.0, -3.0) == pytest.approx(6.0 - 2.0 * np.pi)
    assert Distance(0, 1).difference([3.0, 1.0], -3.0).tolist() == [6.0, 4.0]


def test_a_linear_angle_and_particles_at_one_place_have_no_gradient_and_no_nan():
    line = Geometry(np.array([[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [0.1, 0, 0]]))
    value, gradient = Angle(0, 1, 2).value_and_gradient(line)
    assert (value, gradient.any()) == (pytest.approx(np.pi), False)
    assert not Torsion(0, 1, 2, 3).value_and_gradient(line)[1].any()
    assert Distance(1, 3).value_and_gradient(line)[0] == 0.0
    assert not Distance(1, 3).value_and_gradient(line)[1].any()
    assert RATIONAL.value_and_gradient(Geometry(np.zeros((6, 3))))[0] == 6.0


def test_the_deviation_is_zero_for_a_turned_structure_and_not_for_its_mirror_image():
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    turn[0] *= np.sign(np.linalg.det(turn))
    assert square_deviation(CHAIN @ turn + 7.0, CHAIN)[0] < 1e-28
    assert square_deviation(CHAIN * [1, 1, -1], CHAIN)[0] > 1e-4
    value, gradient = DEVIATION.value_and_gradient(Geometry(np.concatenate([CHAIN[:1], IMAGES[2]])))
    assert value < 1e-12
    assert np.isfinite(gradient).all()


def test_the_deviation_is_that_of_openmm_for_a_whole_molecule():
    positions = CHAIN + 0.05 * np.random.default_rng(6).normal(size=CHAIN.shape)
    theirs = openmm.RMSDForce(np.concatenate([CHAIN[:1], IMAGES[2]]), list(DEVIATION.particles))
    energy, forces = energy_and_forces(context_of(theirs, positions, None))
    value, gradient = DEVIATION.value_and_gradient(Geometry(positions))
    assert value == pytest.approx(energy, abs=1e-9)
    assert gradient == pytest.approx(-forces, abs=1e-6)  # OpenMM's Reference RMSD has single precision in places


def test_progress_goes_from_zero_to_one_along_the_path_and_the_distance_stays_small():
    found = [PROGRESS(Geometry(np.concatenate([CHAIN[:1], image]))) for image in IMAGES]
    assert found == sorted(found)
    assert found[0] < 0.1
    assert found[-1] > 0.9
    along = [AWAY(Geometry(np.concatenate([CHAIN[:1], image]))) for image in IMAGES]
    beside = AWAY(Geometry(CHAIN + 0.2 * np.random.default_rng(7).normal(size=CHAIN.shape)))
    assert max(along) < 0.01 * beside


def test_a_coordination_number_counts_near_pairs():
    positions = np.array([[0.0, 0, 0], [0.05, 0, 0], [0.1, 0, 0], [5.0, 0, 0]])
    counted = CoordinationNumber([0], [1, 2, 3], 0.1 * unit.nanometer, 12)(Geometry(positions))
    assert counted == pytest.approx(1.0 + 0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Angle(0, 1, 0), SettingError, "Angle needs different particles, got first=0, second=1, third=0"),
        (lambda: Combination([]), SettingError, "one .weight, variable. or more"),
        (lambda: Combination(Distance(0, 1)), SettingError, "terms are a list of .weight, variable."),
        (lambda: Combination([Distance(0, 1)]), SettingError, "each of terms is .weight, variable."),
        (lambda: Combination([(0.0, Distance(0, 1))]), SettingError, "weight of a term is not zero"),
        (lambda: Combination([(np.nan, Distance(0, 1))]), SettingError, "weight of a term is a finite number"),
        (lambda: Combination([(1.0, Distance(0, 1)), (2.0, Distance(0, 1))]), SettingError, "a variable twice"),
        (lambda: Combination([(1.0, Torsion(0, 1, 2, 3)), (1, Distance(0, 1))]), SettingError, "torsions only"),
        (
            lambda: Combination([(1.0, Torsion(0, 1, 2, 3)), (1.5, Torsion(1, 2, 3, 4))]),
            SettingError,
            "multiples of the smallest",
        ),
        (lambda: CoordinationNumber([0, 1], [1, 2], 0.3), SettingError, "share no particle, got 1"),
        (lambda: CoordinationNumber([0], [], 0.3), SelectionError, "second has no atom"),
        (lambda: CoordinationNumber([0], [1], 0.0), SettingError, "distance is a number above zero"),
        (lambda: CoordinationNumber([0], [1], 0.3, 1), SettingError, "exponent is a whole number from 2"),
        (lambda: RMSD([0, 1], CHAIN[:2]), SettingError, "3 atoms or more, got 2"),
        (lambda: RMSD([0, 1, 2], CHAIN), SettingError, "reference has the shape"),
        (lambda: PathProgress([0, 1, 2], [CHAIN[:3]]), SettingError, "two images or more, got 1"),
        (lambda: PathProgress([0, 1, 2], [CHAIN[:3], CHAIN[1:4], CHAIN[1:4]]), SettingError, "images 1 and 2"),
        (lambda: PathDistance([1, 2, 3, 4, 5], IMAGES, sharpness=-1.0), SettingError, "sharpness is a number above"),
        (lambda: LENGTHS(Geometry(CHAIN[:4])), SettingError, "the particle 5, and the geometry 4 particles"),
        (lambda: DEVIATION(CHAIN), SettingError, "geometry is an instance of Geometry"),
        (lambda: LENGTHS.umbrella("a b"), SettingError, "the name of an umbrella"),
        (lambda: DEVIATION.umbrella("a-b"), SettingError, "the name of an umbrella"),
    ],
)
def test_variables_that_cannot_be(make, error, message):
    with pytest.raises(error, match=message):
        make()
