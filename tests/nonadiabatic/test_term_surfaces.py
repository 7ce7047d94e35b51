"""Surface hopping on the states of a term, its ensembles, and normal modes."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from qmmlmm.errors import EvaluationError, HamiltonianError, RunDirectoryError, SelectionError, SettingError
from qmmlmm.nonadiabatic import SurfaceHopping, TermSurfaces
from qmmlmm.nonadiabatic.ensemble import Ensemble, InitialCondition
from qmmlmm.nonadiabatic.normal_modes import normal_modes
from qmmlmm.nonadiabatic.populations import wilson_band
from qmmlmm.qm import TDA, PySCFPotential
from qmmlmm.runs import RunDirectory
from qmmlmm.units import (
    BOHR_IN_NM,
    ELECTRON_MASS_IN_DALTON,
    HARTREE_IN_KJ_PER_MOL,
    HARTREE_IN_PER_CM,
    HBAR_IN_OPENMM,
)
from tests.contexts import make_context
from tests.nonadiabatic.vibronic import (
    COUPLING,
    CROSSING,
    LENGTH,
    MASSES,
    SLOPE,
    STIFFNESS,
    create_hopping,
    hopping_on,
    simulation_of,
    vibronic_system,
)

STRETCHED = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, (CROSSING + 0.3) * BOHR_IN_NM]])
KEPT = 0.1
"""kJ/mol, of some 80 kJ/mol of kinetic energy: velocity Verlet's own error with steps of 0.1 fs."""


def launched(mixed=None, seed=3):
    hopping = create_hopping() if mixed is None else hopping_on(mixed)
    hopping.reset(1, seed)
    hopping.simulation.context.setPositions(STRETCHED)
    hopping.simulation.context.setVelocities(np.zeros((2, 3)))
    return hopping


def total_energy(hopping):
    state = hopping.simulation.context.getState(energy=True)
    return (state.getPotentialEnergy() + state.getKineticEnergy())._value


def test_the_energy_is_kept_and_every_geometry_costs_one_evaluation():
    mixed = vibronic_system()
    hopping = launched(mixed)
    energies = []
    for _ in range(400):
        hopping.step(1)
        energies.append(total_energy(hopping))
    assert any(hop.accepted for hop in hopping.hops)
    assert np.ptp(energies) < KEPT
    # One more for each change of the surface, and the first.
    changes = sum(hop.accepted for hop in hopping.hops)
    assert 401 <= mixed.term("co/QM").runner.evaluations <= 401 + changes
    assert hopping.simulation.context.getParameter("co/QM state") == hopping.state


def test_the_energies_of_the_states_are_those_of_the_term_on_each_of_them():
    mixed = vibronic_system()
    hopping = launched(mixed)
    context = hopping.simulation.context
    seen = set()
    for _ in range(400):
        hopping.step(1)
        (energy,) = (e._value for name, e in mixed.term_energies(context).items() if name == "co/QM")
        assert hopping.point.energies[hopping.state] == pytest.approx(energy, abs=1e-6)
        seen.add(hopping.state)
    assert seen == {0, 1}


def test_a_resumed_run_takes_the_same_steps(tmp_path):
    whole = launched()
    whole.step(150)
    whole.save_checkpoint(tmp_path / "co.chk")
    whole.step(150)
    resumed = create_hopping()
    resumed.load_checkpoint(tmp_path / "co.chk")
    resumed.step(150)
    assert total_energy(resumed) == total_energy(whole)
    assert (resumed.amplitudes == whole.amplitudes).all()
    assert resumed.hops == whole.hops


def test_a_run_directory_resumes_surface_hopping_as_though_it_had_never_stopped(tmp_path):
    intervals = {"trajectory_interval": 10, "energy_interval": 10, "checkpoint_interval": 50, "total_steps": 400}

    def run(name, mixed, steps):
        hopping = launched(mixed, seed=0)
        with RunDirectory(tmp_path / name, mixed, sampler=hopping) as directory:
            directory.attach(hopping.simulation, **intervals)
            directory.run(hopping.simulation, steps)
            return hopping, directory.energies_path

    whole, expected = run("whole", vibronic_system(), 400)
    stopped, _ = run("stopped", vibronic_system(), 240)
    # Before and after the stop.
    assert 0 < len(stopped.hops) < len(whole.hops)

    mixed = vibronic_system()
    resumed = hopping_on(mixed)
    with RunDirectory(tmp_path / "stopped", mixed, sampler=resumed, resume=True) as directory:
        assert directory.resume(resumed.simulation) == 240
        directory.attach(resumed.simulation, **intervals)
        directory.run(resumed.simulation, 160)
        found = directory.energies_path
    assert total_energy(resumed) == total_energy(whole)
    assert (resumed.amplitudes == whole.amplitudes).all()
    assert resumed.hops == whole.hops
    assert found.read_text() == expected.read_text()


def conditions(count):
    velocities = np.array([[0.0, 0.0, 0.1], [0.0, 0.0, -0.1]])
    return [InitialCondition(STRETCHED, velocities * (1 + 0.01 * k), 1, seed=k) for k in range(count)]


def test_an_ensemble_goes_on_where_it_stopped_and_is_the_same_through_processes(tmp_path):
    short = Ensemble(tmp_path / "run", create_hopping, conditions(3), steps=40, checkpoint_interval=20)
    short.run()
    longer = Ensemble(tmp_path / "run", create_hopping, conditions(3), steps=90, checkpoint_interval=20)
    found = longer.run()
    other = Ensemble(tmp_path / "whole", create_hopping, conditions(3), steps=90, checkpoint_interval=200)
    expected = other.run()
    assert (found.shares == expected.shares).all()
    assert (found.amplitudes == expected.amplitudes).all()
    assert found.times == pytest.approx(np.arange(91) * 0.0001)
    assert found.shares[0] == pytest.approx([0.0, 1.0])
    assert ((found.lower <= found.shares) & (found.shares <= found.upper)).all()
    assert found.n_trajectories == 3
    course, same = longer.trajectory_record(1), other.trajectory_record(1)
    assert (course.energies == same.energies).all()
    assert (course.total_energies == same.total_energies).all()
    assert np.ptp(course.total_energies) < KEPT
    assert course.energies.shape == (91, 2)
    assert (course.energies[:, 1] - course.energies[:, 0] > 2 * COUPLING * HARTREE_IN_KJ_PER_MOL - 1e-9).all()
    with pytest.raises(SettingError, match="index is an index from 0 to 2, got 3"):
        longer.trajectory_record(3)
    with pytest.raises(RunDirectoryError, match="nothing of trajectory 2"):
        Ensemble(tmp_path / "new", create_hopping, conditions(3), steps=40).trajectory_record(2)
    with pytest.raises(RunDirectoryError, match="other initial conditions"):
        Ensemble(tmp_path / "run", create_hopping, conditions(2), steps=40).run()


@pytest.mark.slow
def test_an_ensemble_runs_through_processes(tmp_path):
    here = Ensemble(tmp_path / "here", create_hopping, conditions(2), steps=30).run()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        found = Ensemble(tmp_path / "there", create_hopping, conditions(2), steps=30).run(executor)
    assert (found.amplitudes == here.amplitudes).all()


def end_the_process():
    os._exit(1)


def test_a_worker_process_that_dies_is_reported_with_what_to_do(tmp_path):
    ensemble = Ensemble(tmp_path, end_the_process, conditions(1), steps=10)
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor,
        pytest.raises(EvaluationError, match=r"1 of 1 trajectories failed: 0000 .*get_context\(\"spawn\"\)"),
    ):
        ensemble.run(executor)


def test_failed_trajectories_are_named_and_the_others_are_kept(tmp_path):
    broken = [*conditions(2), InitialCondition(np.zeros((3, 3)), np.zeros((3, 3)), 1, seed=9)]
    ensemble = Ensemble(tmp_path, create_hopping, broken, steps=10)
    with pytest.raises(EvaluationError, match="1 of 3 trajectories failed: 0002"):
        ensemble.run()
    assert ensemble.populations().n_trajectories == 2


def test_a_wilson_band_is_that_of_the_formula():
    lower, upper = wilson_band(np.array([0.0, 5.0, 10.0]), 10)
    # Newcombe, Stat. Med. 17, 857 (1998), method 3, and by symmetry.
    assert lower == pytest.approx([0.0, 0.2366, 0.7225], abs=1e-4)
    assert upper == pytest.approx([0.2775, 0.7634, 1.0], abs=1e-4)


def minimum():
    """Return the length of the lower state's minimum, in bohr, and its force constant."""
    r = LENGTH
    for _ in range(50):
        root = np.hypot(SLOPE * (r - CROSSING), COUPLING)
        slope = STIFFNESS * (r - LENGTH) - SLOPE**2 * (r - CROSSING) / root
        curvature = STIFFNESS - SLOPE**2 * COUPLING**2 / root**3
        r -= slope / curvature
    return r, curvature


def modes_of_minimum():
    mixed = vibronic_system()
    length, curvature = minimum()
    context = make_context(mixed.system, np.array([[0.0, 0.0, 0.0], [0.0, 0.0, length * BOHR_IN_NM]]))
    return normal_modes(context, [0, 1]), curvature, context


def test_normal_modes_have_the_frequency_of_the_force_constant():
    modes, curvature, context = modes_of_minimum()
    reduced = MASSES[0] * MASSES[1] / sum(MASSES) / ELECTRON_MASS_IN_DALTON
    expected = np.sqrt(curvature / reduced) * HARTREE_IN_PER_CM
    assert modes.wave_numbers[-1] == pytest.approx(expected, rel=1e-3)
    assert abs(modes.wave_numbers[:5]).max() < 5.0
    assert modes.zero_point_energy._value == pytest.approx(
        0.5 * modes.wave_numbers[-1] / HARTREE_IN_PER_CM * HARTREE_IN_KJ_PER_MOL
    )
    for atoms, message in (([], "atoms has no atom"), ([0, 2], "0 to 1, got 2"), ([0, 0], "an atom twice")):
        with pytest.raises(SelectionError, match=message):
            normal_modes(context, atoms)


@pytest.mark.parametrize("temperature", [0.0, 3000.0])
def test_wigner_samples_have_the_moments_of_an_oscillator(temperature):
    modes, _, _ = modes_of_minimum()
    random = np.random.default_rng(0)
    drawn = [modes.wigner_sample(random, temperature) for _ in range(4000)]
    lengths = np.array([positions[1, 2] - positions[0, 2] for positions, _ in drawn])
    speeds = np.array([velocities[1, 2] - velocities[0, 2] for _, velocities in drawn])
    reduced = MASSES[0] * MASSES[1] / sum(MASSES)
    frequency = modes.wave_numbers[-1] / HARTREE_IN_PER_CM * HARTREE_IN_KJ_PER_MOL / HBAR_IN_OPENMM
    kt = 0.00831446261815324 * temperature
    broader = 1.0 / np.tanh(HBAR_IN_OPENMM * frequency / (2 * kt)) if temperature else 1.0
    error = 4 * np.sqrt(2 / len(drawn))
    assert np.var(lengths) == pytest.approx(HBAR_IN_OPENMM * broader / (2 * reduced * frequency), rel=error)
    assert np.var(speeds) == pytest.approx(HBAR_IN_OPENMM * frequency * broader / (2 * reduced), rel=error)
    # Nothing moves as a whole or turns.
    assert abs(np.array([v * np.array(MASSES)[:, None] for _, v in drawn]).sum(axis=1)).max() < 1e-4
    with pytest.raises(ValueError, match="temperature is zero or a number above"):
        modes.wigner_sample(random, -1.0)


def test_terms_without_states_to_hop_between_are_refused():
    for potential, message in (
        (PySCFPotential("hf", "sto-3g"), "one electronic state"),
        (PySCFPotential("hf", "sto-3g", excited=TDA(2), follow_state=True), "follow_state=True"),
    ):
        with pytest.raises(HamiltonianError, match=message):
            TermSurfaces(vibronic_system(potential), "co/QM")
    mixed = vibronic_system()
    with pytest.raises(ValueError, match="states 0 to 1"):
        SurfaceHopping(simulation_of(mixed), TermSurfaces(mixed, "co/QM"), 2)
