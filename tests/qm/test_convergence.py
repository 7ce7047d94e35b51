import logging
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from pyscf import scf

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import ConvergenceError, NonFiniteError
from qmmlmm.geometry import Geometry
from qmmlmm.qm import PySCFPotential
from qmmlmm.qm.scf.convergence import ScfRecord, converge
from qmmlmm.qm.scf.density_history import DensityHistory
from qmmlmm.units import ANGSTROM_IN_BOHR

SAME_STATE = 1e-8  # hartree: both converged to conv_tol


def test_the_last_density_saves_cycles(water):
    evaluator = PySCFPotential("hf", "6-31g").create_evaluator(water.specification)
    first = evaluator.evaluate(water.geometry, water.field)
    moved = water.positions + 0.01 * np.random.default_rng(0).normal(size=water.positions.shape)
    second = evaluator.evaluate(Geometry(moved), water.field)
    assert second.results["scf_guess"] == "last density"
    assert second.results["scf_cycles"] < first.results["scf_cycles"]
    fresh = PySCFPotential("hf", "6-31g").create_evaluator(water.specification).evaluate(Geometry(moved), water.field)
    assert second.energy == pytest.approx(fresh.energy, abs=SAME_STATE)


def test_an_unconverged_calculation_raises_saves_its_geometry_and_the_next_one_works(water, tmp_path, caplog):
    potential = PySCFPotential("hf", "6-31g", max_cycle=1, failure_directory=tmp_path / "failed")
    evaluator = potential.create_evaluator(water.specification)
    with (
        caplog.at_level(logging.WARNING, logger="qmmlmm.qm"),
        pytest.raises(ConvergenceError, match=r"(?s)term 'water/QM'.*cycles.*energy change.*failed_001\.xyz"),
    ):
        evaluator.evaluate(water.geometry, water.field)
    assert "fresh guess" in caplog.text
    assert "damping and level shift" in caplog.text
    assert "second order" in caplog.text
    assert evaluator.summary()["scf_failed_from"] == dict.fromkeys(
        ["fresh guess", "damping and level shift", "second order"], 1
    )
    assert evaluator.summary()["scf_cycles_mean"] is None
    with pytest.raises(ConvergenceError, match="failed_002"):
        evaluator.evaluate(water.geometry, None)
    lines = (tmp_path / "failed" / "water_QM_failed_001.xyz").read_text().splitlines()
    assert lines[0] == "3"
    assert lines[1] == 'charge=0 multiplicity=1 method="hf" basis="6-31g"'
    saved = np.array([line.split()[1:] for line in lines[2:]], dtype=float)
    np.testing.assert_allclose(saved * ANGSTROM_IN_BOHR, water.positions, atol=1e-9)
    table = np.loadtxt(tmp_path / "failed" / "water_QM_failed_001.charges.txt")
    np.testing.assert_allclose(table[:, :3] * ANGSTROM_IN_BOHR, water.field.positions, atol=1e-9)
    np.testing.assert_allclose(table[:, 3], water.field.point_charges)
    np.testing.assert_allclose(table[:, 4], water.field.gaussian_charges)
    assert len(list((tmp_path / "failed").iterdir())) == 3
    object.__setattr__(potential, "max_cycle", 100)
    assert evaluator.evaluate(water.geometry, water.field).results["scf_guess"] == "fresh guess"


def test_after_a_failure_the_fresh_guess_and_second_order_find_the_same_state(water, tmp_path):
    potential = PySCFPotential("b3lyp", "6-31g", max_cycle=6, failure_directory=tmp_path)
    evaluator = potential.create_evaluator(water.specification)
    second_order = evaluator.evaluate(water.geometry, water.field)
    assert second_order.results["scf_guess"] == "second order"
    reference = replace(potential, max_cycle=100).create_evaluator(water.specification)
    plain = reference.evaluate(water.geometry, water.field)
    assert plain.results["scf_guess"] == "fresh guess"
    assert second_order.energy == pytest.approx(plain.energy, abs=SAME_STATE)
    np.testing.assert_allclose(second_order.gradient, plain.gradient, atol=1e-5)


def _evaluator_with_history(water):
    evaluator = PySCFPotential("hf", "6-31g").create_evaluator(water.specification)
    for shift in (0.0, 0.01, 0.02):
        evaluator.evaluate(Geometry(water.positions * (1 + shift)), None)
    return evaluator, water.positions * 1.03


@pytest.mark.parametrize(
    ("useless", "expected"),
    [(0, "extrapolated guess"), (1, "last density"), (2, "fresh guess")],
)
def test_useless_guesses_fall_back_to_the_next_one_and_are_logged_and_counted(
    water, useless, expected, monkeypatch, caplog
):
    evaluator, positions = _evaluator_with_history(water)
    guesses = DensityHistory.guesses

    def broken(*arguments):
        found = guesses(*arguments)
        return [(name, density * (np.nan if k < useless else 1.0)) for k, (name, density) in enumerate(found)]

    monkeypatch.setattr(DensityHistory, "guesses", broken)
    start = PySCFPotential("hf", "6-31g").create_evaluator(water.specification)
    cycles = start.evaluate(Geometry(positions), None).results["scf_cycles"]
    with caplog.at_level(logging.WARNING, logger="qmmlmm.qm"):
        result = evaluator.evaluate(Geometry(positions), None)
    assert result.results["scf_guess"] == expected
    if expected == "fresh guess":  # and not from the orbitals of the attempts that failed
        assert result.results["scf_cycles"] >= cycles
    names = ["extrapolated guess", "last density"][:useless]
    for name in names:
        assert f"no self-consistent field from {name}" in caplog.text
    assert bool(caplog.records) == bool(useless)
    counted = evaluator.summary()
    assert counted["scf_failed_from"] == dict.fromkeys(names, 1)
    assert counted["scf_results"] == 4
    fresh = PySCFPotential("hf", "6-31g").create_evaluator(water.specification).evaluate(Geometry(positions), None)
    assert result.energy == pytest.approx(fresh.energy, abs=SAME_STATE)


def test_a_history_that_is_not_finite_is_not_used(water, monkeypatch):
    add = DensityHistory.add

    def spoilt(history, positions, overlap, mean_field):
        orbitals = np.full_like(mean_field.mo_coeff, np.nan)
        add(history, positions, overlap, SimpleNamespace(mo_coeff=orbitals, mo_occ=mean_field.mo_occ))

    monkeypatch.setattr(DensityHistory, "add", spoilt)
    evaluator, positions = _evaluator_with_history(water)
    assert evaluator.evaluate(Geometry(positions), None).results["scf_guess"] == "fresh guess"


RUNGS = ["fresh guess", "damping and level shift", "second order"]


@pytest.fixture
def cut_short(monkeypatch):
    """A function that lets iterations before some rung of the ladder end after two cycles."""
    kernel = scf.hf.SCF.kernel

    def cut(rung):
        def ended_early(mean_field, *arguments, **keywords):
            allowed = mean_field.max_cycle
            if rung == "second order" or not mean_field.level_shift:
                mean_field.max_cycle = 2
            try:
                return kernel(mean_field, *arguments, **keywords)
            finally:
                mean_field.max_cycle = allowed

        monkeypatch.setattr(scf.hf.SCF, "kernel", ended_early)

    return cut


@pytest.mark.parametrize("rung", RUNGS[1:])
def test_iterations_that_are_cut_short_go_down_the_ladder_to_the_same_state(water, rung, cut_short, caplog):
    potential = PySCFPotential("hf", "6-31g", conv_tol=1e-11)
    plain = potential.create_evaluator(water.specification).evaluate(water.geometry, water.field)
    cut_short(rung)
    evaluator = potential.create_evaluator(water.specification)
    with caplog.at_level(logging.WARNING, logger="qmmlmm.qm"):
        result = evaluator.evaluate(water.geometry, water.field)
    assert result.results["scf_guess"] == rung
    counted = evaluator.summary()
    assert counted["scf_failed_from"] == dict.fromkeys(RUNGS[: RUNGS.index(rung)], 1)
    assert counted["scf_converged_from"] == {rung: 1}
    assert f"converged by {rung}" in caplog.text
    assert result.energy == pytest.approx(plain.energy, abs=SAME_STATE)
    np.testing.assert_allclose(result.gradient, plain.gradient, atol=1e-5)


@pytest.mark.parametrize("atomic_number", [26, 28])
def test_a_closed_shell_metal_atom_ends_on_some_rung_or_in_an_error_and_what_failed_is_counted(atomic_number, tmp_path):
    # 3d orbitals that are filled in part, as one determinant without spin: the iterations can go round in circles,
    # and on which rung that ends is a matter of round-off and of the number of threads.
    specification = RegionSpecification("metal", np.array([atomic_number]), 0, 1)
    potential = PySCFPotential("hf", "sto-3g", density_fit=False, max_cycle=40, failure_directory=tmp_path)
    evaluator = potential.create_evaluator(specification)
    try:
        rung = evaluator.evaluate(Geometry(np.zeros((1, 3))), None).results["scf_guess"]
    except ConvergenceError:
        rung = None
    counted = evaluator.summary()
    assert counted["scf_failed_from"] == dict.fromkeys(RUNGS if rung is None else RUNGS[: RUNGS.index(rung)], 1)
    assert counted["scf_converged_from"] == ({} if rung is None else {rung: 1})


@pytest.mark.parametrize("method", ["hf", "b3lyp"])
def test_damping_and_level_shift_converge_to_the_same_state_and_leave_no_trace(water, radical, method, cut_short):
    cases = []
    for case in (water, radical):
        evaluator = PySCFPotential(method, "6-31g", conv_tol=1e-11).create_evaluator(case.specification)
        plain, damped = (evaluator.mean_field(case.geometry, case.field) for _ in range(2))
        settings = plain.damp, plain.level_shift, plain.diis_start_cycle
        plain.kernel()
        cases.append((plain, damped, settings))
    cut_short("damping and level shift")
    for plain, damped, settings in cases:
        found = converge(damped, [], "term", lambda: "", ScfRecord())
        assert found["scf_guess"] == "damping and level shift"
        assert found["scf_cycles"] > 2 + 10
        assert damped.e_tot == pytest.approx(plain.e_tot, abs=SAME_STATE)
        # Orbital energies make the energy-weighted density of the gradient.
        occupied = np.asarray(plain.mo_occ) > 0
        np.testing.assert_allclose(
            np.asarray(damped.mo_energy)[occupied], np.asarray(plain.mo_energy)[occupied], atol=1e-5
        )
        assert (damped.damp, damped.level_shift, damped.diis_start_cycle) == settings


def test_an_unwritable_directory_does_not_hide_the_failure(water, tmp_path):
    (tmp_path / "file").write_text("")
    potential = PySCFPotential("hf", "sto-3g", max_cycle=1, failure_directory=tmp_path / "file")
    with pytest.raises(ConvergenceError, match="could not be saved"):
        potential.create_evaluator(water.specification).evaluate(water.geometry, water.field)


def test_a_gradient_that_is_not_finite_is_an_error_and_forgets_nothing(water, tmp_path, monkeypatch):
    potential = PySCFPotential("hf", "sto-3g", failure_directory=tmp_path)
    evaluator = potential.create_evaluator(water.specification)
    monkeypatch.setattr(
        "pyscf.df.grad.rhf.Gradients.kernel", lambda self: np.array([[0, 0, 0], [0, np.nan, 0], [0, 0, 0]])
    )
    with pytest.raises(NonFiniteError, match=r"the gradient of atoms 1 is not finite; the geometry is in"):
        evaluator.evaluate(water.geometry, None)


def test_a_keyboard_interrupt_passes_through(water, monkeypatch):
    def interrupt(*arguments, **keywords):
        raise KeyboardInterrupt

    evaluator = PySCFPotential("hf", "sto-3g").create_evaluator(water.specification)
    monkeypatch.setattr("pyscf.scf.hf.SCF.kernel", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluator.evaluate(water.geometry, None)


def test_no_files_are_left_behind_and_nothing_is_printed(water, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pyscf.lib.param.TMPDIR", str(tmp_path))
    potential = PySCFPotential("b3lyp", "sto-3g")
    evaluator = potential.create_evaluator(water.specification)
    evaluator.evaluate(water.geometry, water.field)
    del evaluator
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")
