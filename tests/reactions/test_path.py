"""Paths: energies of another level, which a calculation that was stopped does not compute again."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from openmm import unit

from qmmlmm.coupling import Capabilities, EvaluatedPotential, Evaluation, Evaluator
from qmmlmm.errors import EvaluationError, RunDirectoryError, SettingError
from qmmlmm.reactions import ReactionPath, Structure
from tests.contexts import system_energy
from tests.reactions.molecules import HYDROGEN_CYANIDE, vacuum

SAME_ENERGY = 1e-9
"""kJ/mol: the same sums in another order."""

PLACES = np.array([[0.0, 0.12, 0.0], [0.06, 0.12, 0.0], [0.11, 0.12, 0.0], [0.16, 0.12, 0.0]])
"""Where the hydrogen of HCN is along the path, nm."""


class Calls:
    """Numbers of evaluations by the stiffness of the springs, and after how many one fails."""

    def __init__(self) -> None:
        self.made: dict[float, int] = {}
        self.allowed = 99


CALLS = Calls()


@dataclass(frozen=True)
class Springs(EvaluatedPotential):
    """Springs between all atoms, whose evaluations are counted."""

    stiffness: float
    level = "MM"
    capabilities = Capabilities(frozenset({"mechanical"}))

    def create_evaluator(self, specification):
        return SpringsEvaluator(self.stiffness)


class SpringsEvaluator(Evaluator):
    def __init__(self, stiffness) -> None:
        self._stiffness = stiffness

    def evaluate(self, geometry, field):
        if CALLS.made.get(self._stiffness, 0) >= CALLS.allowed:
            raise EvaluationError("the machine is switched off")
        CALLS.made[self._stiffness] = CALLS.made.get(self._stiffness, 0) + 1
        bonds = geometry.positions[:, None] - geometry.positions
        energy = self._stiffness * (bonds**2).sum()
        return Evaluation(energy, 4.0 * self._stiffness * bonds.sum(axis=1))


@pytest.fixture
def case():
    CALLS.made, CALLS.allowed = {}, 99
    return vacuum(HYDROGEN_CYANIDE, Springs(0.01))


def path_of(case, places=PLACES):
    """Return a path on which the hydrogen is at some places."""
    structures = []
    for place in places:
        positions = np.array([*case.positions[:2], place])
        energy = system_energy(case.mixed.system, positions) * unit.kilojoule_per_mole
        structures.append(Structure(case.mixed.topology, positions * unit.nanometer, None, energy))
    found = ReactionPath(case.mixed, tuple(structures), np.arange(len(places), dtype=float), "Place")
    CALLS.made = {}
    return found


def expected(places=PLACES):
    direct = vacuum(HYDROGEN_CYANIDE, Springs(0.03))
    energies = [system_energy(direct.mixed.system, np.array([*direct.positions[:2], place])) for place in places]
    CALLS.made = {}
    return energies


def test_single_points_that_were_stopped_go_on_with_those_that_are_left(case, tmp_path):
    path, right = path_of(case), expected()
    CALLS.allowed = 2
    with pytest.raises(EvaluationError, match="the machine is switched off"):
        path.single_points(Springs(0.03), directory=tmp_path / "points")
    CALLS.allowed = 99
    found = path.single_points(Springs(0.03), directory=tmp_path / "points")
    assert CALLS.made[0.03] == len(path)
    assert np.allclose(found.energies._value, right, rtol=0.0, atol=SAME_ENERGY)
    again = path.single_points(Springs(0.03), directory=tmp_path / "points")
    assert CALLS.made[0.03] == len(path)
    assert np.array_equal(again.energies._value, found.energies._value)


def test_a_path_with_one_more_structure_costs_one_more_single_point(case, tmp_path):
    path_of(case, PLACES[:3]).single_points(Springs(0.03), directory=tmp_path)
    longer, right = path_of(case), expected()
    found = longer.single_points(Springs(0.03), directory=tmp_path)
    assert CALLS.made == {0.03: 1, 0.01: 1}
    assert np.allclose(found.energies._value, right, rtol=0.0, atol=SAME_ENERGY)


def test_a_file_that_was_cut_short_is_computed_again(case, tmp_path):
    path = path_of(case)
    first = path.single_points(Springs(0.03), directory=tmp_path)
    file = sorted(tmp_path.glob("*.npz"))[1]
    file.write_bytes(file.read_bytes()[:-9])
    second = path.single_points(Springs(0.03), directory=tmp_path)
    assert CALLS.made[0.03] == len(path) + 1
    assert np.array_equal(second.energies._value, first.energies._value)


def test_a_directory_with_another_level_is_refused(case, tmp_path):
    path = path_of(case)
    path.single_points(Springs(0.03), directory=tmp_path)
    with pytest.raises(RunDirectoryError, match="another calculation, with different potential"):
        path.single_points(Springs(0.04), directory=tmp_path)
    with pytest.raises(SettingError, match="directory is a path, got 5"):
        path.single_points(Springs(0.04), directory=5)


def test_single_points_show_how_far_they_are(case, monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    monkeypatch.setattr("qmmlmm.progress_display.PAUSE", 0.0)
    path_of(case).single_points(Springs(0.03))
    assert "single points, Springs: 3/4 structures [" in output.getvalue()
    assert " left]" in output.getvalue()


def test_a_path_of_two_structures_has_no_barrier_and_says_so(case):
    path = path_of(case, PLACES[:2])
    assert not path.has_barrier
    levels = path.single_points(Springs(0.03))
    assert not levels.has_barrier
    assert str(levels).startswith("along the path there is no barrier, and ")
    with pytest.raises(SettingError, match="has three structures or more, got 2"):
        levels.barrier  # noqa: B018


def test_both_levels_say_whether_they_have_a_barrier(case):
    path = path_of(case, PLACES[[0, 3, 1]])
    levels = path.single_points(Springs(-0.01))
    assert path.has_barrier
    assert not levels.has_barrier
    barrier, change = path.barrier._value, levels.relative_energies[-1]
    assert str(levels) == (
        f"along the path the barrier is {barrier:.1f} kJ/mol; with Springs there is no barrier, and {change:.1f} "
        "kJ/mol from the first structure to the last"
    )
