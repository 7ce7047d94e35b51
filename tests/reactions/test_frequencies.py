"""Hessians and normal modes against PySCF's analytic ones; thermochemistry against closed formulas."""

from __future__ import annotations

import functools
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from openmm import app, unit

from qmmlmm import EmbeddedPotential, PySCFPotential, XTBPotential
from qmmlmm.errors import RunDirectoryError, SettingError
from qmmlmm.ml import FixedResponse, GeneralResponse, ResponseModel, ResponseNetwork, ResponseSettings
from qmmlmm.reactions import eyring_rate, frequencies, optimise, vibrational_thermochemistry
from qmmlmm.reactions.thermochemistry import tunnelling_factor
from qmmlmm.units import HARTREE_IN_KJ_PER_MOL
from tests.reactions.molecules import HYDROGEN_CYANIDE, vacuum, waters_in_a_droplet, waters_in_water

WAVE_NUMBER = 0.5
"""1/cm: central differences of 0.0005 nm and the convergence of both SCFs."""

HESSIAN = 5e-4
"""Hartree/bohr^2: the third-order error of the differences along the triple bond, whose own element is 2.3."""

REPEATED = 2e-4
"""Hartree/bohr^2: gradients of SCFs that converged from other densities, over twice the displacement."""

ONE_PROCESS = 1e-6
"""Hartree/bohr^2: the same gradients from another process, where the SCF of xTB began elsewhere."""


@functools.cache
def cyanide():
    case = vacuum(HYDROGEN_CYANIDE, PySCFPotential("hf", "sto-3g"))
    return case, optimise(case.mixed, case.positions)


@functools.cache
def modes():
    case, minimum = cyanide()
    return frequencies(case.mixed, minimum)


def test_hessian_and_wave_numbers_are_those_of_pyscf():
    from pyscf import gto, scf
    from pyscf.hessian import thermo

    case, minimum = cyanide()
    positions = minimum.positions.value_in_unit(unit.angstrom)
    molecule = gto.M(atom=list(zip(case.symbols, positions, strict=True)), basis="sto-3g", unit="angstrom", verbose=0)
    method = scf.RHF(molecule).run(conv_tol=1e-11)
    hessian = method.Hessian().kernel()
    ours = modes()
    assert np.abs(hessian.transpose(0, 2, 1, 3).reshape(9, 9) - ours.hessian).max() < HESSIAN
    expected = thermo.harmonic_analysis(molecule, hessian)["freq_wavenumber"]
    in_atomic_units = thermo.harmonic_analysis(molecule, hessian)["freq_au"]
    assert len(ours.wave_numbers) == 4  # a linear molecule has 3 n - 5
    assert np.abs(np.sort(expected.real) - ours.wave_numbers).max() < WAVE_NUMBER
    theirs = thermo.thermo(method, in_atomic_units, 298.15, 101325)
    own = ours.thermochemistry(298.15, quasi_harmonic=False)
    kj = HARTREE_IN_KJ_PER_MOL
    assert abs(own.zero_point_energy._value - theirs["ZPE"][0] * kj) < 0.01
    assert abs(own.thermal_energy._value - theirs["E_vib"][0] * kj) < 0.01
    assert abs(own.entropy._value - theirs["S_vib"][0] * kj) < 1e-5


@pytest.mark.slow
def test_processes_give_the_same_hessian_of_embedded_potentials():
    settings = ResponseSettings(features=8, layers=1, radial_functions=6, near_features=4, tensor_features=4)
    torch.manual_seed(1)
    single = ResponseNetwork([8, 1, 1], (), settings, response_only=True)
    general = ResponseNetwork([1], (), settings, response_only=True, elements=[1, 8])
    fixed = FixedResponse([8, 1, 1], [(0, 1), (0, 2)])
    coefficients = 0.1 * np.random.default_rng(1).normal(size=fixed.n_coefficients)
    fixed = FixedResponse([8, 1, 1], [(0, 1), (0, 2)], 0, fixed.distances.numpy(), coefficients)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        for response in (fixed, ResponseModel(single), GeneralResponse(general)):
            potential = EmbeddedPotential(XTBPotential(), response)
            case = waters_in_a_droplet(potential, n_region=1, n_waters=4)
            one, two = (frequencies(case.mixed, case.positions, executor=each) for each in (None, executor))
            assert np.allclose(two.hessian, one.hessian, rtol=0, atol=ONE_PROCESS)
            assert not np.allclose(one.hessian, 0.0)


def test_an_executor_gives_the_same_hessian():
    case, minimum = cyanide()
    with ThreadPoolExecutor(2) as executor:
        found = frequencies(case.mixed, minimum, executor=executor)
    assert np.abs(found.hessian - modes().hessian).max() < REPEATED


def test_a_hessian_that_was_killed_computes_only_what_is_missing(tmp_path):
    case, minimum = cyanide()
    runner = case.mixed.terms["molecule/QM"].runner
    frequencies(case.mixed, minimum, directory=tmp_path / "hessian")
    (tmp_path / "hessian" / "gradient_0001y+.npz").unlink()
    (tmp_path / "hessian" / "gradient_0002z-.npz").write_bytes(b"cut short")
    before = runner.evaluations
    found = frequencies(case.mixed, minimum, directory=tmp_path / "hessian")
    assert runner.evaluations - before <= 3
    assert np.abs(found.hessian - modes().hessian).max() < REPEATED
    with pytest.raises(RunDirectoryError, match="with different step"):
        frequencies(case.mixed, minimum, step=0.001, directory=tmp_path / "hessian")


def test_a_region_in_water_keeps_all_its_modes():
    case = waters_in_water(XTBPotential(), n_region=1, n_waters=70)
    found = frequencies(case.mixed, case.positions)
    assert found.wave_numbers.shape == (9,)
    assert found.vectors.shape == (9, 3, 3)
    flat = found.vectors.reshape(9, 9)
    assert np.allclose(flat @ flat.T, np.eye(9), atol=1e-10)


def test_held_atoms_do_not_vibrate():
    case, minimum = cyanide()
    found = frequencies(case.mixed, minimum, hold=[1])
    assert found.atoms == (0, 2)
    assert found.wave_numbers.shape == (6,)


def test_a_mode_is_written_as_a_pdb_file_with_models(tmp_path):
    modes().write_mode(tmp_path / "mode.pdb", 3, amplitude=0.02, frames=8)
    pdb = app.PDBFile(str(tmp_path / "mode.pdb"))
    assert pdb.getNumFrames() == 8
    shifts = [
        np.abs(pdb.getPositions(asNumpy=True, frame=k)._value - pdb.getPositions(True, 0)._value).max() for k in (2, 4)
    ]
    assert shifts[0] > 0.015
    assert shifts[1] < 0.001
    with pytest.raises(SettingError, match="mode is from 0 to 3"):
        modes().write_mode(tmp_path / "mode.pdb", 4)


def test_all_modes_count_and_negative_ones_are_said():
    found = vibrational_thermochemistry([-500.0, 20.0, 1000.0])
    assert (found.n_modes, found.n_left_out, found.n_low) == (2, 1, 1)
    assert abs(found.zero_point_energy._value - 0.5 * 1020.0 * 0.01196265658) < 1e-6
    assert "1 below 100 1/cm, 1 negative left out" in str(found)


def test_the_entropy_of_a_low_mode_is_that_of_a_rotation_and_of_a_high_mode_that_of_a_vibration():
    low = [vibrational_thermochemistry([1.0], quasi_harmonic=q).entropy._value for q in (True, False)]
    assert low[0] < 0.6 * low[1]
    high = [vibrational_thermochemistry([3000.0], quasi_harmonic=q).entropy._value for q in (True, False)]
    assert abs(high[0] - high[1]) < 1e-7


def test_rates_are_those_of_eyring_with_wigners_factor():
    # k_B T / h at 298.15 K is 6.2124e12 1/s; a factor of ten is R T ln 10 = 5.708 kJ/mol.
    assert abs(eyring_rate(0.0)._value / 6.21244e12 - 1.0) < 1e-4
    assert abs(eyring_rate(5.7080)._value / 6.21244e11 - 1.0) < 1e-3
    # h c v / k_B T at 1000 1/cm is 4.8257.
    assert abs(tunnelling_factor(-1000.0) - (1.0 + 4.8257**2 / 24.0)) < 1e-3
    with pytest.raises(SettingError, match="below zero"):
        eyring_rate(10.0, negative_wave_number=1000.0)
    with pytest.raises(SettingError, match="leave translations"):
        vibrational_thermochemistry([0.0])
