from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import unit

from systems import solution
from systems.coordinates import Coordinates, load_coordinates, save_coordinates, wrap_molecules

TRICLINIC = np.array([[3.0, 0.0, 0.0], [1.0, 2.8, 0.0], [-1.0, 1.4, 2.4]])


def test_nearest_distances_in_a_triclinic_box_are_those_of_all_images() -> None:
    rng = np.random.default_rng(7)
    points = rng.random((40, 3)) @ TRICLINIC
    others = rng.random((60, 3)) @ TRICLINIC
    shifts = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]) @ TRICLINIC
    images = (others[None] + shifts[:, None]).reshape(-1, 3)
    expected = np.linalg.norm(points[:, None] - images[None], axis=-1).min(axis=1)
    np.testing.assert_allclose(solution.nearest_distances(points, others, TRICLINIC), expected, rtol=0, atol=1e-12)


def test_placed_ions_keep_their_distance_and_waters_are_counted() -> None:
    solute = np.array([[1.0, 1.0, 1.0]])
    solvent = solution.Solvent(n_water=200, n_sodium=3, n_chloride=2)
    box = np.eye(3) * 2.2
    placed = solution.place_solvent(solute, box, solvent, np.random.default_rng(3))
    assert len(placed.positions) == 1 + 5 + 600
    ions = placed.positions[1:6]
    assert solution.nearest_distances(ions, solute, box).min() > 0.5
    for i in range(5):
        assert solution.nearest_distances(ions[i : i + 1], np.delete(ions, i, axis=0), box)[0] > 0.5
    assert solution.nearest_distances(placed.positions[6::3], solute, box).min() > 0.26


def test_a_box_that_is_too_small_is_refused() -> None:
    solvent = solution.Solvent(n_water=5000)
    with pytest.raises(ValueError, match="make the box larger"):
        solution.place_solvent(np.empty((0, 3)), np.eye(3) * 2.0, solvent, np.random.default_rng(3))


def test_terms_that_cannot_be_appended_are_refused() -> None:
    system, extra = openmm.System(), openmm.System()
    extra.addParticle(1.0)
    force = openmm.HarmonicBondForce()
    force.addBond(0, 0, 0.1, 1.0)
    extra.addForce(force)
    with pytest.raises(ValueError, match="has no HarmonicBondForce"):
        solution.append_system(system, extra)
    torsions = openmm.PeriodicTorsionForce()
    torsions.addTorsion(0, 0, 0, 0, 1, 0.0, 1.0)
    extra.removeForce(0)
    extra.addForce(torsions)
    system.addForce(openmm.PeriodicTorsionForce())
    with pytest.raises(ValueError, match="PeriodicTorsionForce cannot be appended"):
        solution.append_system(system, extra)


def test_wrapping_moves_whole_molecules_into_the_cell() -> None:
    rng = np.random.default_rng(5)
    positions = 20 * rng.random((9, 3)) - 10
    molecules = [[3, 4, 5], [6, 7, 8]]
    wrapped = wrap_molecules(Coordinates(positions, TRICLINIC), molecules, 3)
    fractions = wrapped.positions[[3, 6]] @ np.linalg.inv(TRICLINIC)
    assert (fractions >= 0).all()
    assert (fractions < 1).all()
    for molecule in ([0, 1, 2], *molecules):
        np.testing.assert_allclose(
            np.diff(wrapped.positions[molecule], axis=0), np.diff(positions[molecule], axis=0), atol=1e-12
        )
    np.testing.assert_allclose(wrapped.positions[:3].mean(axis=0), TRICLINIC.sum(axis=0) / 2, atol=1e-12)


def test_coordinates_come_back_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "coordinates.npz"
    positions = np.random.default_rng(1).random((10, 3))
    save_coordinates(path, Coordinates(positions, TRICLINIC))
    read = load_coordinates(path)
    np.testing.assert_allclose(read.positions, positions, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(read.box_vectors, TRICLINIC)
    assert read.box_quantity[1].value_in_unit(unit.nanometer)[0] == 1.0


def test_missing_coordinates_are_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="README says which command"):
        load_coordinates(tmp_path / "absent.npz")
