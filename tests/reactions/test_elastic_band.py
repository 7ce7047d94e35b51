"""Nudged elastic bands: their forces, their climbing image, and what is no reaction."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
from openmm import unit

from qmmlmm import XTBPotential
from qmmlmm.errors import SettingError
from qmmlmm.reactions import EnergySurface, barrier_residues, optimise, reaction_path, saddle_point
from qmmlmm.reactions.elastic_band import _interpolated
from qmmlmm.units import BOHR_IN_NM, HARTREE_IN_EV
from tests.reactions.molecules import (
    HYDROGEN_CYANIDE,
    transfer_in_water,
    vacuum,
    waters_in_a_droplet,
    waters_in_water,
)

ACROSS = 0.05
"""eV/angstrom: the threshold of the band."""

SAME_FORCE = 1e-3
"""eV/angstrom: the same forces, from a surface of its own."""

SOFT = 0.5
"""kJ/mol: surroundings of two ways to one minimum, relaxed to the default tolerance."""

TOP = 0.1
"""kJ/mol: what is left of the force along the path at the climbing image."""


@pytest.fixture(scope="module")
def ends():
    case = vacuum(HYDROGEN_CYANIDE, XTBPotential())
    starts = [[[0, 0, 0], [0.1157, 0, 0], [x, 0.001, 0]] for x in (-0.1065, 0.215)]
    return case, [optimise(case.mixed, np.array(start)) for start in starts]


@pytest.mark.slow
def test_a_band_between_two_minima_climbs_to_the_saddle_point(ends, tmp_path, monkeypatch):
    case, (reactant, product) = ends
    monkeypatch.chdir(tmp_path)
    path = reaction_path(case.mixed, reactant, product, images=7)
    assert path.converged
    assert path.perpendicular_forces[1:-1].max() < ACROSS
    saddle = saddle_point(case.mixed, path.highest)
    assert abs((saddle.energy - path.highest.energy)._value) < TOP
    assert abs((path.barrier - (saddle.energy - reactant.energy))._value) < TOP
    assert "force across" in str(path)
    assert not list(tmp_path.iterdir())  # geomeTRIC's files are in a temporary folder


@pytest.mark.slow
def test_a_band_in_a_periodic_box_has_small_forces_across_it_by_new_evaluations():
    case = transfer_in_water()
    reactant = optimise(case.mixed, case.positions)
    start = reactant.positions._value.copy()
    start[2] = start[0] + start[1] - start[2]
    product = optimise(case.mixed, start)
    path = reaction_path(case.mixed, reactant, product, images=5, tolerance=0.2)
    print(f"{path}\n{path.evaluations} QM calls")
    assert path.converged
    assert path.perpendicular_forces[1:-1].max() < ACROSS
    lines = str(path).splitlines()
    for k in range(1, len(path) - 1):
        assert f"{path.perpendicular_forces[k]:.4f}" in lines[k + 1]
        if k == path.highest_index:
            continue
        surface = EnergySurface(case.mixed, path.structures[k], relax=False)
        force = -surface.evaluate(surface.coordinates).gradient * HARTREE_IN_EV / BOHR_IN_NM / 10.0
        # The tangent points to the higher neighbour.
        higher = k + 1 if k < path.highest_index else k - 1
        here, there = (path.structures[j].positions.value_in_unit(unit.angstrom)[:3] for j in (k, higher))
        tangent = (there - here) / np.linalg.norm(there - here)
        across = np.linalg.norm(force - (force * tangent).sum() * tangent, axis=1).max()
        assert across == pytest.approx(path.perpendicular_forces[k], abs=SAME_FORCE)


@pytest.mark.filterwarnings("ignore:the band is not converged")
def test_a_band_that_was_interrupted_repeats_no_evaluation(ends, tmp_path, monkeypatch):
    case, (reactant, product) = ends
    settings = {"images": 5, "max_cycles": 2}
    whole = reaction_path(case.mixed, reactant, product, **settings)
    real, count = EnergySurface.whole_system, 0

    def interrupted(self, positions):
        nonlocal count
        count += 1
        if count == 8:
            raise KeyboardInterrupt
        return real(self, positions)

    monkeypatch.setattr(EnergySurface, "whole_system", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reaction_path(case.mixed, reactant, product, directory=tmp_path / "path", **settings)
    monkeypatch.undo()
    found = reaction_path(case.mixed, reactant, product, directory=tmp_path / "path", **settings)
    assert found.evaluations == whole.evaluations - 7
    assert np.allclose(found.energies._value, whole.energies._value, atol=1e-5)
    assert (tmp_path / "path" / "path.csv").exists()


@pytest.mark.filterwarnings("ignore:the band is not converged")
def test_images_in_parallel_are_those_one_after_another_and_are_kept(ends, tmp_path):
    case, (reactant, product) = ends
    settings = {"images": 5, "max_cycles": 2}
    one = reaction_path(case.mixed, reactant, product, **settings)
    with ThreadPoolExecutor(2) as executor:
        two = reaction_path(case.mixed, reactant, product, executor=executor, directory=tmp_path / "path", **settings)
        assert two.evaluations == one.evaluations
        assert np.allclose(two.energies._value, one.energies._value, atol=1e-5)
        again = reaction_path(case.mixed, reactant, product, executor=executor, directory=tmp_path / "path", **settings)
    assert again.evaluations == 0
    assert np.allclose(again.energies._value, two.energies._value, atol=1e-9)
    with pytest.raises(SettingError, match="executor is a concurrent.futures.Executor"):
        reaction_path(case.mixed, reactant, product, executor=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the band is not converged")
def test_processes_relax_the_surroundings_of_each_image():
    case = waters_in_a_droplet(XTBPotential(), n_region=1, n_waters=6)
    reactant = optimise(case.mixed, case.positions)
    stretched = reactant.positions._value.copy()
    stretched[case.atoms[1]] += 0.1 * (stretched[case.atoms[1]] - stretched[case.atoms[0]])
    product = replace(reactant, positions=stretched * unit.nanometer)
    settings = {"images": 5, "max_cycles": 1}
    one = reaction_path(case.mixed, reactant, product, **settings)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        two = reaction_path(case.mixed, reactant, product, executor=executor, **settings)
    assert np.allclose(two.energies._value, one.energies._value, atol=SOFT)


def test_interpolated_distances_keep_atoms_apart():
    ends = [np.array([[0, 0, 0], [0.116, 0, 0], [x, 0, 0]]) for x in (-0.107, 0.215)]
    for frame in _interpolated(ends, np.arange(3), 7):
        distances = np.linalg.norm(frame[:, None] - frame[None], axis=-1)[np.triu_indices(3, 1)]
        assert 0.08 < distances.min() < distances.max() < 0.25


def test_reactant_and_product_that_are_the_same_are_refused(ends):
    case, (reactant, product) = ends
    with pytest.raises(SettingError, match="reactant and product are the same structure"):
        reaction_path(case.mixed, reactant, reactant)
    with pytest.raises(SettingError, match="product is a Structure"):
        reaction_path(case.mixed, reactant)
    with pytest.raises(SettingError, match="images is"):
        reaction_path(case.mixed, reactant, product, images=2)
    with pytest.raises(SettingError, match="largest_force is a number above zero"):
        reaction_path(case.mixed, reactant, product, largest_force=0.0)


def test_the_difference_by_residue_is_that_of_both_tables():
    case = waters_in_water(XTBPotential(), n_region=1, n_waters=70)
    moved = case.positions.copy()
    moved[case.atoms[1]] += [0.01, 0.0, 0.0]
    table = barrier_residues(case.mixed, case.positions, moved, group_solvent=False)
    total = table.saddle.total - table.reactant.total
    assert np.allclose(table.total._value, total._value)
    assert str(table).startswith("saddle point less reactant; negative favours the saddle point\n")
    named = barrier_residues(case.mixed, case.positions, moved, group_solvent=False, names=("first", "last"))
    assert str(named).startswith("last less first; negative favours the last\n")
    with pytest.raises(SettingError, match="each of names is a text, got 5"):
        barrier_residues(case.mixed, case.positions, moved, names=(5, "last"))
    with pytest.raises(SettingError, match="the same positions"):
        barrier_residues(case.mixed, moved, moved)
