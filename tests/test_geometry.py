from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import unit

from qmmlmm.errors import SettingError
from qmmlmm.geometry import Geometry
from qmmlmm.units import BOHR_IN_NM, NM_IN_BOHR
from tests.contexts import make_context

POSITIONS = np.array([[0.1, 0.2, 0.3], [0.9, -0.4, 2.5]])
BOX = np.array([[2.0, 0.0, 0.0], [0.5, 2.5, 0.0], [-0.5, 1.0, 3.0]])
ROUND_OFF = 1e-15  # relative


def context(periodic, box=BOX):
    """A Context of two particles; all Contexts have box vectors, whether they mean something or not."""
    system, force = openmm.System(), openmm.NonbondedForce()
    for _ in POSITIONS:
        system.addParticle(1.0)
        force.addParticle(0.0, 0.1, 0.0)
    if periodic:
        force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
        force.setCutoffDistance(0.4)
    system.addForce(force)
    return make_context(system, POSITIONS, box=box)


def test_a_context_of_a_periodic_system_has_a_box():
    found = Geometry.from_context(context(True))
    np.testing.assert_array_equal(found.positions, POSITIONS)
    np.testing.assert_array_equal(found.box, BOX)


def test_a_box_with_an_edge_of_one_is_a_box():
    np.testing.assert_array_equal(Geometry.from_context(context(True, np.eye(3))).box, np.eye(3))
    np.testing.assert_array_equal(Geometry.from_quantities(POSITIONS, np.eye(3)).box, np.eye(3))


def test_a_context_of_another_system_has_none():
    found = Geometry.from_context(context(False))
    np.testing.assert_array_equal(found.positions, POSITIONS)
    assert found.box is None


@pytest.mark.parametrize("periodic", [True, False])
def test_a_state_has_a_box_if_its_system_is_periodic(periodic):
    state = context(True).getState(positions=True)
    assert (Geometry.from_state(state, periodic).box is not None) == periodic


def test_arrays_are_copies_that_do_not_change_with_the_context():
    running = context(True)
    found = Geometry.from_context(running)
    running.setPositions(POSITIONS + 0.1)
    running.setPeriodicBoxVectors(*(1.1 * BOX))
    np.testing.assert_array_equal(found.positions, POSITIONS)
    np.testing.assert_array_equal(found.box, BOX)


@pytest.mark.parametrize(
    ("positions", "box"),
    [
        (POSITIONS, BOX),
        (POSITIONS.tolist(), BOX.tolist()),
        (POSITIONS * unit.nanometer, BOX * unit.nanometer),
        (10.0 * POSITIONS * unit.angstrom, 10.0 * BOX * unit.angstrom),
        ([openmm.Vec3(*x) for x in POSITIONS] * unit.nanometer, [openmm.Vec3(*x) for x in BOX] * unit.nanometer),
    ],
    ids=["arrays", "lists", "nm", "angstrom", "Vec3"],
)
def test_what_users_have_is_read(positions, box):
    found = Geometry.from_quantities(positions, box)
    np.testing.assert_allclose(found.positions, POSITIONS, rtol=ROUND_OFF)
    np.testing.assert_allclose(found.box, BOX, rtol=ROUND_OFF)
    assert Geometry.from_quantities(positions).box is None


def test_what_was_given_is_not_shared():
    given = POSITIONS.copy()
    found = Geometry.from_quantities(given)
    given[0] = 7.0
    np.testing.assert_array_equal(found.positions, POSITIONS)


@pytest.mark.parametrize("wrong", [POSITIONS[0], POSITIONS[:, :2], POSITIONS[None], np.zeros(0), np.zeros((0, 3)), 0.3])
def test_positions_of_another_shape_are_refused(wrong):
    with pytest.raises(SettingError, match=r"positions are an \(n, 3\) array, nm, got one of shape"):
        Geometry.from_quantities(wrong)


@pytest.mark.parametrize("wrong", [BOX[0], BOX[:2], BOX[None], 2.0, np.diag(BOX)])
def test_a_box_of_another_shape_is_refused(wrong):
    with pytest.raises(SettingError, match=r"box vectors are a \(3, 3\) array, nm, got one of shape"):
        Geometry.from_quantities(POSITIONS, wrong)


@pytest.mark.parametrize("wrong", [POSITIONS * unit.kelvin, "positions", [[0.0, 0.0], [0.0]], None])
def test_what_is_no_length_is_refused(wrong):
    with pytest.raises(SettingError, match="positions are lengths, a Quantity or bare numbers in nm"):
        Geometry.from_quantities(wrong)


@pytest.mark.parametrize("wrong", [BOX * unit.nanometer**2, "cubic"])
def test_a_box_that_is_no_length_is_refused(wrong):
    with pytest.raises(SettingError, match="box vectors are lengths"):
        Geometry.from_quantities(POSITIONS, wrong)


def test_bohr_and_back():
    nm = Geometry(POSITIONS, BOX)
    bohr = nm.in_bohr()
    np.testing.assert_array_equal(bohr.positions, POSITIONS * NM_IN_BOHR)
    np.testing.assert_array_equal(bohr.box, BOX * NM_IN_BOHR)
    assert bohr.positions[0, 0] == pytest.approx(0.1 / BOHR_IN_NM, rel=ROUND_OFF)
    np.testing.assert_allclose(bohr.in_nm().positions, POSITIONS, rtol=ROUND_OFF)
    np.testing.assert_allclose(bohr.in_nm().box, BOX, rtol=ROUND_OFF)
    assert Geometry(POSITIONS).in_bohr().box is None
    assert Geometry(POSITIONS).in_nm().box is None
    np.testing.assert_array_equal(nm.positions, POSITIONS)  # as it was


def test_geometries_are_the_same_if_all_numbers_are():
    whole = Geometry(POSITIONS, BOX)
    assert whole.is_same(Geometry(POSITIONS.copy(), BOX.copy()))
    assert Geometry(POSITIONS).is_same(Geometry(POSITIONS.copy()))
    for other in (
        Geometry(POSITIONS),
        Geometry(np.nextafter(POSITIONS, 9.0), BOX),
        Geometry(POSITIONS, np.nextafter(BOX, 9.0)),
        Geometry(POSITIONS[:1], BOX),
    ):
        assert not whole.is_same(other)
        assert not other.is_same(whole)


def test_positions_that_are_not_numbers_are_never_the_same():
    broken = np.full((2, 3), np.nan)
    assert not Geometry(broken).is_same(Geometry(broken))


def test_a_geometry_cannot_be_changed():
    with pytest.raises(AttributeError, match="cannot assign"):
        Geometry(POSITIONS).box = BOX
