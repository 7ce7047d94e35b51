"""Excited determinants by Delta-SCF."""

from dataclasses import replace

import numpy as np
import pytest

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import EvaluationError, PotentialError
from qmmlmm.geometry import Geometry
from qmmlmm.qm import TDA, DeltaSCF, PySCFPotential
from qmmlmm.qm.states import delta_scf
from qmmlmm.units import ANGSTROM_IN_BOHR
from tests.finite_differences import central_difference

EXACT = 1e-6  # hartree/bohr
STEP = 1e-2  # bohr, with four points
SAME_ENERGY = 1e-8  # hartree
TIGHT = {"conv_tol": 1e-12, "embedding_grid_level": 0, "state": 1, "excited": DeltaSCF(conv_tol=1e-8)}
HYDROGEN = RegionSpecification("hydrogen", np.array([1, 1]), 0, 1)
BOND = np.array([[0.0, 0.0, 0.0], [0.0, 0.1, 1.4]])


def test_in_a_minimal_basis_the_determinant_lies_halfway_between_singlet_and_triplet():
    # Both orbitals of H2 are given by symmetry, and singlet and triplet of the two configurations are those of TDA.
    energies = {
        spin: PySCFPotential("hf", "sto-3g", excited=TDA(2, spin), state=1)
        .create_evaluator(HYDROGEN)
        .energy(Geometry(BOND), None)
        for spin in ("singlet", "triplet")
    }
    potential = PySCFPotential("hf", "sto-3g", density_fit=False, **TIGHT)
    result = potential.create_evaluator(HYDROGEN).evaluate(Geometry(BOND), None)
    assert result.energy == pytest.approx(0.5 * (energies["singlet"] + energies["triplet"]), abs=SAME_ENERGY)
    assert result.results["s_squared"] == pytest.approx(1.0, abs=1e-8)
    assert result.states.state_energies[1] == result.energy
    alone = potential.create_evaluator(HYDROGEN).energy(Geometry(BOND), None)
    assert alone == pytest.approx(result.energy, abs=SAME_ENERGY)


@pytest.mark.parametrize(("method", "basis"), [("hf", "6-31g"), ("pbe", "sto-3g")])
def test_forces_on_atoms_and_charges_are_derivatives(water, method, basis):
    evaluator = PySCFPotential(method, basis, grid_level=0, **TIGHT).create_evaluator(water.specification)
    field, broad = water.field, water.field.smooth_potential
    result = evaluator.evaluate(water.geometry, field)
    random = np.random.default_rng(3)
    net = result.gradient.sum(axis=0) + result.charge_gradient.sum(axis=0) + broad.gradient(result).sum(axis=0)
    np.testing.assert_allclose(net, 0.0, atol=1e-8)
    assert result.results["mulliken_charges"].sum() == pytest.approx(0.0, abs=1e-9)
    for gradient, positions, energy in (
        (result.gradient, water.positions, lambda r: evaluator.evaluate(Geometry(r), field).energy),
        (
            result.charge_gradient,
            field.positions,
            lambda r: evaluator.evaluate(water.geometry, replace(field, positions=r)).energy,
        ),
    ):
        direction = random.normal(size=positions.shape)
        direction /= np.linalg.norm(direction)
        slope = central_difference(energy, positions, direction, STEP, points=4)
        assert np.sum(gradient * direction) == pytest.approx(slope, abs=EXACT)


def test_a_hole_with_the_energy_of_an_occupied_orbital_converges(acetone_of_a_run):
    # n -> pi*: hole and pi* are 2 millihartree apart. What is left of the gradient, over that, undoes convergence.
    specification, positions = acetone_of_a_run
    evaluator = PySCFPotential("b3lyp", "sto-3g", grid_level=0, **TIGHT).create_evaluator(specification)
    result = evaluator.evaluate(Geometry(positions), None)
    assert result.results["excited_scf_cycles"] < 40
    direction = np.zeros((10, 3))
    direction[1], direction[2] = (0.6, 0.0, 0.8), (-0.6, 0.0, -0.8)
    slope = central_difference(lambda r: evaluator.energy(Geometry(r), None), positions, direction, STEP, points=4)
    assert np.sum(result.gradient * direction) == pytest.approx(slope, abs=EXACT)


@pytest.fixture
def acetone_of_a_run():
    """Acetone on its way in water at 300 K."""
    numbers = np.array([6, 6, 8, 6, 1, 1, 1, 1, 1, 1])
    angstrom = [
        [-0.139, 0.199, 1.466],
        [0.000, 0.000, 0.000],
        [0.345, -1.134, -0.537],
        [-0.296, 1.127, -0.954],
        [0.240, -0.713, 1.965],
        [0.334, 1.137, 1.881],
        [-1.225, 0.228, 1.767],
        [0.625, 1.479, -1.438],
        [-0.593, 1.960, -0.316],
        [-1.105, 0.876, -1.631],
    ]
    return RegionSpecification("acetone", numbers, 0, 1), np.array(angstrom) * ANGSTROM_IN_BOHR


def test_the_determinant_of_the_last_geometry_saves_cycles_and_changes_nothing(water):
    potential = PySCFPotential("hf", "6-31g", excited=DeltaSCF(), state=1)
    used, new = (potential.create_evaluator(water.specification) for _ in range(2))
    used.evaluate(Geometry(water.positions * 0.995), water.field)
    first, second = (evaluator.evaluate(water.geometry, water.field) for evaluator in (used, new))
    assert first.energy == pytest.approx(second.energy, abs=1e-7)
    assert first.results["excited_scf_cycles"] < second.results["excited_scf_cycles"]
    used.forget()
    assert used.evaluate(water.geometry, water.field).energy == second.energy


def test_the_ground_state_among_the_two_is_the_ground_state(water):
    both = PySCFPotential("hf", "6-31g", excited=DeltaSCF()).create_evaluator(water.specification)
    alone = PySCFPotential("hf", "6-31g").create_evaluator(water.specification)
    first, second = (evaluator.evaluate(water.geometry, water.field) for evaluator in (both, alone))
    assert first.energy == pytest.approx(second.energy, abs=SAME_ENERGY)
    np.testing.assert_allclose(first.gradient, second.gradient, atol=1e-5)
    assert first.states.state_energies[1] > first.energy + 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hole": -1}, "hole counts orbitals from the gap"),
        ({"particle": 1.5}, "particle counts orbitals"),
        ({"spin": "alpha"}, "spin is 'up' or 'down'"),
        ({"conv_tol": 1.0}, "conv_tol lies above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(PotentialError, match=message):
        DeltaSCF(**settings)


def test_a_state_beyond_the_two_and_following_are_refused():
    with pytest.raises(PotentialError, match="state 2 does not exist: n_states=2"):
        PySCFPotential("hf", "sto-3g", excited=DeltaSCF(), state=2)
    with pytest.raises(PotentialError, match="always keeps its character"):
        PySCFPotential("hf", "sto-3g", excited=DeltaSCF(), state=1, follow_state=True)


def test_an_orbital_that_does_not_exist_is_refused():
    evaluator = PySCFPotential("hf", "sto-3g", excited=DeltaSCF(particle=1), state=1).create_evaluator(HYDROGEN)
    with pytest.raises(EvaluationError, match="of spin up 1 are occupied and 1 empty"):
        evaluator.evaluate(Geometry(BOND), None)


def test_a_determinant_that_falls_back_to_the_ground_state_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(delta_scf, "COLLAPSED", -1.0)  # every overlap lies above
    potential = PySCFPotential("hf", "sto-3g", excited=DeltaSCF(), state=1, failure_directory=tmp_path)
    with pytest.raises(EvaluationError, match="(?s)fell back to the ground state.*failed_001.*another hole"):
        potential.create_evaluator(HYDROGEN).evaluate(Geometry(BOND), None)


TWO_HYDROGENS = RegionSpecification("two molecules", np.array([1, 1, 1, 1]), 0, 1)


def two_molecules(bond):
    """Two hydrogen molecules, far from each other; highest occupied and lowest empty orbital are on the longer one."""
    return np.array([[0.0, 0.0, 0.0], [0.0, 0.0, bond], [0.0, 40.0, 0.0], [0.3, 40.0, 1.5]])


def test_the_determinant_goes_on_from_what_another_process_has_kept():
    potential = PySCFPotential("hf", "sto-3g", excited=DeltaSCF(), state=1)
    whole, resumed, fresh = (potential.create_evaluator(TWO_HYDROGENS) for _ in range(3))
    whole.evaluate(Geometry(two_molecules(1.45)), None)
    assert fresh.memory() == {}
    resumed.recall({name: array.copy() for name, array in whole.memory().items()})
    expected, found, other = (e.evaluate(Geometry(two_molecules(1.6)), None).energy for e in (whole, resumed, fresh))
    assert found == pytest.approx(expected, abs=SAME_ENERGY)
    assert other < expected - 1e-3  # counted from the gap here, it is the determinant on the first molecule
