"""Saddle points and reaction paths of HCN -> HNC."""

from __future__ import annotations

import functools
import gc
import re
from dataclasses import replace

import numpy as np
import pytest
from openmm import unit

from qmmlmm import PySCFPotential, XTBPotential
from qmmlmm.errors import ConvergenceError, QmmlmmWarning, SettingError
from qmmlmm.reactions import SaddlePoint, Thresholds, intrinsic_path, optimise, saddle_point
from qmmlmm.reactions.saddle_point import warn_of_modes
from qmmlmm.units import HARTREE_IN_KJ_PER_MOL
from tests.contexts import system_energy
from tests.reactions.molecules import HYDROGEN_CYANIDE, vacuum

TRIANGLE = np.array([[0.0, 0.0, 0.0], [0.1194, 0.0, 0.0], [0.03, 0.113, 0.0]])
"""H above the bond, near the saddle point, nm."""

SAME_ENERGY = 1e-5
"""Hartree."""

SAME_WAVE_NUMBER = 2.0
"""1/cm."""

SAME_MINIMUM = 0.5
"""kJ/mol: a path is followed to forces below geomeTRIC's threshold, then optimised."""


@functools.cache
def cheap():
    return vacuum(HYDROGEN_CYANIDE, XTBPotential())


@functools.cache
def saddle():
    return saddle_point(cheap().mixed, TRIANGLE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_saddle_of_hydrogen_cyanide_is_that_of_geometric_on_plain_pyscf():
    from pyscf import gto, scf
    from pyscf.geomopt import geometric_solver
    from pyscf.hessian import thermo

    case = vacuum(HYDROGEN_CYANIDE, PySCFPotential("hf", "6-31g*", density_fit=False))
    tight = Thresholds(1e-7, 1e-5, 1.5e-5, 4e-4, 6e-4)
    found = saddle_point(case.mixed, TRIANGLE, thresholds=tight)
    reactant = optimise(case.mixed, np.array(HYDROGEN_CYANIDE[1]) / 10.0, thresholds=tight)
    settings = {
        "convergence_energy": 1e-7,
        "convergence_grms": 1e-5,
        "convergence_gmax": 1.5e-5,
        "convergence_drms": 4e-4,
        "convergence_dmax": 6e-4,
    }
    references = []
    for positions, transition in ((10.0 * TRIANGLE, True), (HYDROGEN_CYANIDE[1], False)):
        molecule = gto.M(atom=list(zip(case.symbols, positions, strict=True)), basis="6-31g*", verbose=0)
        converged, optimised = geometric_solver.kernel(
            scf.RHF(molecule), transition=transition, hessian=transition, **settings
        )
        assert converged
        references.append(scf.RHF(optimised).run(conv_tol=1e-11))
    expected = [method.e_tot for method in references]
    ours = [s.energy._value / HARTREE_IN_KJ_PER_MOL for s in (found, reactant)]
    assert abs(ours[0] - expected[0]) < SAME_ENERGY
    assert abs((ours[0] - ours[1]) - (expected[0] - expected[1])) < SAME_ENERGY
    modes = thermo.harmonic_analysis(references[0].mol, references[0].Hessian().kernel())["freq_wavenumber"]
    theirs = np.sort(np.where(np.abs(modes.imag) > 0.0, -np.abs(modes.imag), modes.real))
    assert np.abs(theirs - found.wave_numbers).max() < SAME_WAVE_NUMBER
    del references
    gc.collect()
    print(f"barrier {(ours[0] - ours[1]) * HARTREE_IN_KJ_PER_MOL:.3f} kJ/mol, modes {found.wave_numbers} {theirs}")


def test_a_saddle_point_has_one_negative_mode():
    found = saddle()
    assert found.converged
    assert found.n_negative == 1
    assert found.wave_numbers[0] < -500.0
    assert found.frequencies.thermochemistry().n_left_out == 1


def test_the_reaction_path_ends_in_both_minima():
    path = intrinsic_path(cheap().mixed, saddle())
    minima = [
        optimise(cheap().mixed, np.array([[0, 0, 0], [0.1157, 0, 0], [x, 0.001, 0]])).energy._value
        for x in (-0.1065, 0.215)
    ]
    ends = sorted([path.first_minimum.energy._value, path.last_minimum.energy._value])
    assert np.allclose(ends, sorted(minima), atol=SAME_MINIMUM)
    assert path.highest.energy == saddle().energy
    assert path.progress[path.highest_index] == 0.0
    assert np.all(np.diff(path.progress) > 0.0)


def test_a_start_without_a_negative_mode_is_refused():
    with pytest.raises(ConvergenceError, match="Start from the highest structure of a scan"):
        saddle_point(cheap().mixed, np.array(HYDROGEN_CYANIDE[1]) / 10.0 + [[0, 0, 0], [0, 0, 0], [0, 0.001, 0]])


def test_a_search_that_ends_too_early_says_what_to_do():
    start = TRIANGLE + np.array([[0, 0, 0], [0, 0, 0], [0.01, 0, 0]])
    with pytest.warns(QmmlmmWarning, match="Continue from this result, or start nearer"):
        found = saddle_point(cheap().mixed, start, max_steps=1)
    assert not found.converged


def test_a_path_from_what_is_no_saddle_point_is_refused():
    found = saddle()
    stable = SaddlePoint(**(vars(found) | {"frequencies": _without_negative_mode(found)}))
    with pytest.raises(SettingError, match="this one has 0"):
        intrinsic_path(cheap().mixed, stable)
    with pytest.raises(SettingError, match="a SaddlePoint, such as saddle_point returns"):
        intrinsic_path(cheap().mixed, found.positions)


def test_a_second_negative_mode_is_said_with_what_to_do():
    found = saddle()
    numbers = np.array([-900.0, -100.0, 2000.0])
    modes = replace(found.frequencies, wave_numbers=numbers)
    with pytest.warns(QmmlmmWarning, match="2 negative modes.*frequencies.write_mode"):
        warn_of_modes(True, modes, 1e-5, Thresholds())
    with pytest.warns(QmmlmmWarning, match="no negative mode.*ended in a minimum"):
        warn_of_modes(True, replace(modes, wave_numbers=np.abs(numbers)), 1e-5, Thresholds())


def _without_negative_mode(found):
    return replace(found.frequencies, wave_numbers=np.abs(found.wave_numbers))


def test_energies_of_a_second_level_are_those_of_its_own_system():
    path = intrinsic_path(cheap().mixed, saddle(), max_steps=3, optimise_ends=False)
    other = PySCFPotential("hf", "sto-3g")
    found = path.single_points(other)
    direct = vacuum(HYDROGEN_CYANIDE, other).mixed
    expected = [system_energy(direct.system, s.positions.value_in_unit(unit.nanometer)) for s in path.structures]
    assert np.allclose(found.energies._value, expected, atol=1e-4)
    assert re.fullmatch(r"along the path the barrier is .* kJ/mol; with hf/sto-3g .* kJ/mol.*", str(found))
