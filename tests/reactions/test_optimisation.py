"""Minima: against geomeTRIC on plain PySCF, and with relaxed surroundings against a minimisation of all atoms."""

from __future__ import annotations

import functools
import gc

import numpy as np
import openmm
import pytest
from ase.optimize import LBFGS
from openmm import unit

from qmmlmm import PySCFPotential, XTBPotential
from qmmlmm.errors import ConvergenceError, QmmlmmWarning, SelectionError, SettingError, UnsupportedSystemError
from qmmlmm.reactions import EnergySurface, Thresholds, ase_atoms, geometric_engine, optimise
from qmmlmm.units import HARTREE_IN_EV, HARTREE_IN_KJ_PER_MOL
from tests.finite_differences import central_differences
from tests.reactions.molecules import ETHANOL, Waters, vacuum, waters_in_a_droplet, waters_in_water

pytestmark = pytest.mark.filterwarnings("ignore:.*geometric.*:DeprecationWarning")

# PySCF leaves its temporary file to the garbage collector.
LEAKING = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

SAME_ENERGY = 1e-6
"""Hartree: the energy of geomeTRIC's own threshold."""

SAME_DISTANCE = 1e-3
"""Angstrom: the bound that the thresholds of a tight optimisation fulfil."""

SAME_BASIN = 0.1
"""kJ/mol: both minimisations stop at small forces."""

SAME_PLACE = 2e-3
"""nm, of each atom: how far water moves in its softest directions below the thresholds."""

SLOPE = 2e-3
"""Relative error of a gradient from differences of relaxed energies: the minimiser stops at a small force."""

FINE = Thresholds(1e-6, 4e-5, 5.8e-5, 4e-4, 6e-4)
FINE_FORCE = 0.003
"""eV/angstrom: its largest force."""

TIGHT = Thresholds(1e-7, 1e-5, 1.5e-5, 4e-4, 6e-4)


def distances(positions):
    return np.linalg.norm(positions[:, None] - positions[None], axis=-1)


@functools.cache
def droplet():
    """Return two waters as the region of a droplet."""
    return waters_in_a_droplet(XTBPotential())


@pytest.mark.slow
@LEAKING
def test_ethanol_in_vacuum_has_the_minimum_of_geometric_on_plain_pyscf():
    from pyscf import gto, scf
    from pyscf.geomopt import geometric_solver

    case = vacuum(ETHANOL, PySCFPotential("hf", "sto-3g", density_fit=False), seed=1)
    found = optimise(case.mixed, case.positions, thresholds=TIGHT)
    molecule = gto.M(
        atom=list(zip(case.symbols, 10.0 * case.positions, strict=True)), basis="sto-3g", unit="angstrom", verbose=0
    )
    method = scf.RHF(molecule)
    converged, reference = geometric_solver.kernel(
        method, convergence_energy=1e-7, convergence_grms=1e-5, convergence_gmax=1.5e-5, convergence_drms=4e-4,
        convergence_dmax=6e-4,
    )  # fmt: skip
    assert converged
    assert found.converged
    expected = scf.RHF(reference).kernel()
    assert abs(found.energy._value / HARTREE_IN_KJ_PER_MOL - expected) < SAME_ENERGY
    ours = distances(found.positions.value_in_unit(unit.angstrom))
    away = np.abs(ours - distances(reference.atom_coords(unit="angstrom"))).max()
    assert away < SAME_DISTANCE
    print(f"{found.energy._value / HARTREE_IN_KJ_PER_MOL - expected:.1e} hartree, {away:.1e} angstrom")
    del method, molecule, reference
    gc.collect()


@pytest.mark.slow
def test_relaxed_surroundings_have_the_minimum_of_all_atoms():
    # Without a cutoff, at which the energy has steps that hide 0.1 kJ/mol.
    case = waters_in_a_droplet(XTBPotential(), n_region=3, n_waters=166)
    mixed = case.mixed
    runner = mixed.terms["cluster/XTB"].runner
    # From near a minimum of all atoms, so that both end in the same one.
    near = optimise(mixed, case.positions).positions._value
    whole = EnergySurface(mixed, near, atoms=range(len(near)), relax=False, platform="Reference")
    atoms = ase_atoms(whole, whole.coordinates)
    LBFGS(atoms, logfile=None).run(fmax=0.001, steps=1500)
    start = atoms.get_positions() / 10.0
    start += 0.0015 * np.random.default_rng(2).standard_normal(start.shape)
    start[case.atoms] += 0.004 * np.random.default_rng(3).standard_normal((len(case.atoms), 3))
    atoms.set_positions(10.0 * start)
    assert LBFGS(atoms, logfile=None).run(fmax=0.001, steps=1500)
    expected = atoms.get_potential_energy() / HARTREE_IN_EV * HARTREE_IN_KJ_PER_MOL
    before = runner.evaluations
    found = optimise(mixed, start, thresholds=FINE, tolerance=0.02, platform="Reference")
    assert found.converged
    assert runner.evaluations - before <= found.evaluations  # a term keeps its last results
    print(f"{found.evaluations} calls; {found.energy._value - expected:.3f} kJ/mol")
    assert abs(found.energy._value - expected) < SAME_BASIN


@pytest.mark.slow
def test_relaxed_surroundings_take_a_third_of_the_calls_of_all_atoms_in_the_mean_over_starts():
    case = waters_in_a_droplet(Waters(), n_region=3, n_waters=166)
    near = optimise(case.mixed, case.positions).positions._value
    whole = EnergySurface(case.mixed, near, atoms=range(len(near)), relax=False, platform="Reference")
    atoms = ase_atoms(whole, whole.coordinates)
    assert LBFGS(atoms, logfile=None).run(fmax=FINE_FORCE, steps=1500)
    minimum = atoms.get_positions() / 10.0
    relaxed, all_atoms = [], []
    for seed in range(3):
        random = np.random.default_rng(seed)
        start = minimum + 0.0015 * random.standard_normal(minimum.shape)
        start[case.atoms] += 0.004 * random.standard_normal((len(case.atoms), 3))
        atoms.set_positions(10.0 * start)
        before = whole.evaluations
        assert LBFGS(atoms, logfile=None).run(fmax=FINE_FORCE, steps=1500)
        all_atoms.append(whole.evaluations - before)
        relaxed.append(optimise(case.mixed, start, thresholds=FINE, tolerance=0.02, platform="Reference").evaluations)
    print(f"{relaxed} calls, of all atoms {all_atoms}")
    # 0.23 and 0.27 from two minima. LBFGS looks at forces only, geomeTRIC at energies and steps as well.
    assert 3 * sum(relaxed) <= sum(all_atoms)


def assert_gradient(surface, step):
    """Compare the gradient of one atom with differences of energies that begin in the same state."""
    start, state = surface.coordinates, surface.state

    def energy(coordinates):
        surface.state = state
        return surface.evaluate(coordinates).energy

    point = surface.evaluate(start)
    differences = central_differences(energy, start, [0], step)
    assert np.abs(point.gradient[0] - differences[0]).max() < SLOPE * max(np.abs(point.gradient[0]).max(), 0.01)


def test_the_gradient_is_that_of_the_energy_with_relaxed_surroundings():
    case = droplet()
    surface = EnergySurface(case.mixed, case.positions, tolerance=1e-3, platform="Reference")
    for _ in range(4):
        surface.evaluate(surface.coordinates)
    assert_gradient(surface, step=0.01)


def held_far_away():
    """Return one water as the region of a box with PME, and a selection that holds what is far away."""
    case = waters_in_water(XTBPotential(), n_region=1, n_waters=500)
    inside = " ".join(map(str, case.atoms))
    return case, f"not within 3 angstrom of index {inside}"


@pytest.mark.slow
def test_what_is_held_far_away_is_left_out_of_the_relaxation_and_the_minimum_is_the_same(monkeypatch):
    case, hold = held_far_away()
    minimised = []
    minimise = openmm.LocalEnergyMinimizer.minimize

    def counted(context, *arguments):
        minimised.append(context.getSystem().getNumParticles())
        minimise(context, *arguments)

    monkeypatch.setattr(openmm.LocalEnergyMinimizer, "minimize", counted)
    found = optimise(case.mixed, case.positions, hold=hold, tolerance=0.3)
    assert max(minimised) < 0.5 * len(case.positions)
    minimised.clear()
    monkeypatch.setattr("qmmlmm.mm.surroundings_system.WORTHWHILE", 0.0)
    whole = optimise(case.mixed, found, tolerance=0.3)
    assert set(minimised) == {len(case.positions)}
    assert found.converged
    assert whole.converged
    assert np.abs((found.positions - case.positions * unit.nanometer)._value).max() > 0.01
    print(f"{found.energy._value - whole.energy._value:.4f} kJ/mol")
    assert abs(found.energy._value - whole.energy._value) < SAME_BASIN
    assert np.abs((found.positions - whole.positions)._value).max() < SAME_PLACE


@pytest.mark.slow
def test_the_gradient_is_that_of_the_energy_where_far_particles_are_left_out():
    case, hold = held_far_away()
    surface = EnergySurface(case.mixed, case.positions, hold=hold, tolerance=1e-3, platform="Reference")
    gains = [surface.evaluate(surface.coordinates).gain for _ in range(5)]
    # What the model leaves out is corrected to first order: each round leaves a part of the displacement.
    assert gains[-1] < 1e-3 * gains[0]
    assert_gradient(surface, step=0.005)


def test_a_relaxation_that_does_not_end_is_an_error_with_advice(monkeypatch):
    monkeypatch.setattr("qmmlmm.reactions.surroundings.MOST_ITERATIONS", 3)
    case = droplet()
    with pytest.raises(ConvergenceError, match="not relaxed after 3 iterations.*raise tolerance.*check_potential"):
        optimise(case.mixed, case.positions, tolerance=1e-3)


@pytest.mark.slow
def test_rigid_water_around_the_region_is_relaxed_under_its_constraints():
    case = waters_in_water(XTBPotential(), n_region=1, n_waters=70, rigid=True)
    found = optimise(case.mixed, case.positions, thresholds=Thresholds(1e-5, 2e-3, 3e-3, 1e-2, 2e-2), tolerance=5.0)
    assert found.converged
    positions = found.positions._value
    for index in range(case.mixed.system.getNumConstraints()):
        first, second, length = case.mixed.system.getConstraintParameters(index)
        assert abs(np.linalg.norm(positions[first] - positions[second]) - length._value) < 1e-4


def test_held_atoms_stay_where_they_are():
    case = vacuum(ETHANOL, XTBPotential(), seed=1)
    found = optimise(case.mixed, case.positions, hold=[0, 4])
    shift = found.positions._value - case.positions
    assert np.abs(shift[[0, 4]]).max() < 1e-12
    assert np.abs(shift).max() > 1e-3
    again = optimise(case.mixed, found)
    assert again.hold == (0, 4)


def test_a_result_is_where_the_next_calculation_starts():
    case = vacuum(ETHANOL, XTBPotential(), seed=1)
    found = optimise(case.mixed, case.positions)
    again = optimise(case.mixed, found)
    assert again.evaluations <= 3
    assert abs(again.energy._value - found.energy._value) < 1e-3
    assert len(found.energies) == len(found.steps)


def test_an_optimisation_that_ends_too_early_warns_and_says_what_to_do():
    case = vacuum(ETHANOL, XTBPotential(), seed=1)
    with pytest.warns(QmmlmmWarning, match="raise max_steps"):
        found = optimise(case.mixed, case.positions, max_steps=1)
    assert not found.converged


def test_ase_and_geometric_see_the_same_surface():
    case = vacuum(ETHANOL, XTBPotential(), seed=1)
    surface = EnergySurface(case.mixed, case.positions)
    atoms = ase_atoms(surface, surface.coordinates)
    point = surface.evaluate(surface.coordinates)
    assert abs(atoms.get_potential_energy() / HARTREE_IN_EV - point.energy) < 1e-9
    engine = geometric_engine(surface)
    gradient = engine.calc_new(surface.coordinates.ravel(), "x")["gradient"]
    assert np.abs(gradient - point.gradient.ravel()).max() < 1e-7


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"atoms": [0, 99]}, SelectionError, "atoms has atom indices from 0 to 8"),
        ({"atoms": [0]}, SelectionError, "two or more atoms"),
        ({"hold": range(9)}, SelectionError, "hold names all the atoms"),
        ({"platform": "GPU"}, SettingError, "platform is one of"),
        ({"coordinates": "zmatrix"}, SettingError, "coordinates are one of tric"),
        ({"box_vectors": np.eye(3)}, SettingError, "has no box"),
        ({"tolerance": 0.0}, SettingError, "tolerance is a number above zero"),
    ],
)
def test_wrong_arguments_are_refused(arguments, error, message):
    case = vacuum(ETHANOL, XTBPotential())
    with pytest.raises(error, match=message):
        optimise(case.mixed, case.positions, **arguments)


def test_a_region_whose_atoms_are_neither_moved_nor_held_is_refused():
    case = waters_in_a_droplet(XTBPotential())
    with pytest.raises(SelectionError, match="neither move nor are held"):
        EnergySurface(case.mixed, case.positions, atoms=[0, 1, 2])
    held = EnergySurface(case.mixed, case.positions, atoms=[0, 1, 2], hold=[3, 4, 5])
    assert held.relaxes


def test_positions_of_another_system_are_refused():
    case = vacuum(ETHANOL, XTBPotential())
    with pytest.raises(SettingError, match="positions are those of all 9 particles, got 8"):
        optimise(case.mixed, case.positions[1:])


def test_a_constraint_between_held_and_moving_atoms_is_refused():
    case = waters_in_water(XTBPotential(), n_region=1, n_waters=70, rigid=True)
    outside = next(a.index for a in case.mixed.topology.atoms() if a.index not in case.atoms)
    with pytest.raises(UnsupportedSystemError, match="hold or move whole residues|fix or move whole residues"):
        EnergySurface(case.mixed, case.positions, hold=[outside])
    with pytest.raises(SelectionError, match="a constraint joins the atoms"):
        EnergySurface(case.mixed, case.positions, atoms=[*case.atoms, outside])
