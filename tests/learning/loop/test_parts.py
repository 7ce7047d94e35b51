"""The parts of a loop that decide: what to label, when to stop, when a run is a runaway."""

from __future__ import annotations

import contextlib
import io
import itertools
import threading
import time

import numpy as np
import openmm
import pytest
from openmm import app
from rich.console import Console

from qmmlmm.errors import SettingError
from qmmlmm.geometry import Geometry
from qmmlmm.learning.loop import Distance, DistanceDifference, LoopSettings, Torsion
from qmmlmm.learning.loop.guard import Guard
from qmmlmm.learning.loop.parallel_walkers import run_parallel
from qmmlmm.learning.loop.progress import create_progress, time_left
from qmmlmm.learning.loop.reacting_bonds import bonds_along
from qmmlmm.learning.loop.selection import choose_diverse, describe_region
from qmmlmm.learning.loop.timer import OTHER, Timer, overhead
from qmmlmm.learning.training.error_bound import error_bound
from qmmlmm.sampling import RMSD, Angle, Combination, CoordinationNumber
from tests.contexts import energy_and_forces, make_context

NUMBERS = np.array([8, 1, 1, 8])


def test_a_descriptor_knows_shape_and_surroundings_but_not_place_orientation_or_names(rng):
    positions, potential = 2.0 * rng.normal(size=(4, 3)), rng.normal(size=4)
    found = describe_region(NUMBERS, positions, potential)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    swap = [3, 2, 1, 0]
    np.testing.assert_allclose(describe_region(NUMBERS, positions @ turn + 5.0, potential + 0.3), found, atol=1e-12)
    np.testing.assert_allclose(describe_region(NUMBERS, positions[swap], potential[swap]), found, atol=1e-12)
    moved = positions.copy()
    moved[1] += 0.1
    assert np.abs(describe_region(NUMBERS, moved, potential) - found)[:6].max() > 1e-3
    assert np.abs(describe_region(NUMBERS, positions, 2 * potential) - found)[6:].max() > 1e-2


def test_what_is_chosen_is_far_from_the_data_and_spread_out():
    line = np.linspace(0.0, 1.0, 11)[:, None]
    points = np.hstack([line, np.zeros_like(line)])
    known = np.array([[0.0, 0.0]])
    *first, third = choose_diverse(points, np.ones(11), known, 3, 1)
    assert first == [10, 5]
    assert third in (2, 3, 7, 8)
    # Twice the uncertainty counts as a distance that is larger by the square root of two.
    uncertain = np.where(np.arange(11) == 8, 4.0, 1.0)
    assert choose_diverse(points, uncertain, known, 1, 1) == [8]
    # What is known is not taken again, and nothing is taken twice.
    assert choose_diverse(points, np.ones(11), points[1:], 5, 1) == [0]
    assert sorted(choose_diverse(points, np.ones(11), np.zeros((0, 2)), 20, 1)) == list(range(11))
    assert choose_diverse(np.zeros((0, 2)), np.zeros(0), known, 3, 1) == []


def test_the_upper_limits_hold_as_often_as_they_say(rng):
    """Of 2000 sets of errors with known spread, drawn frame by frame with frames of different size."""
    true_force, true_energy, confidence = 10.0, 2.0, 0.9
    held_force = held_energy = 0
    for _ in range(2000):
        sizes = rng.uniform(0.5, 1.5, size=(12, 1, 1))
        forces = true_force * sizes / np.sqrt(13 / 12) * rng.normal(size=(12, 4, 3))
        bound = error_bound(forces, 7.0 + true_energy * rng.normal(size=12), confidence)
        held_force += bound.force_limit >= true_force
        held_energy += bound.energy_limit >= true_energy
    # Binomial with 2000 draws: 0.9 +- 0.007; the scatter of twelve squares is known badly, which costs two points.
    assert 0.86 < held_force / 2000 < 0.92
    assert 0.88 < held_energy / 2000 < 0.92
    few = error_bound(np.ones((3, 4, 3)), np.ones(3), 0.9)
    assert few.force_error == pytest.approx(1.0)
    assert not few.holds(1e9, None)
    many = error_bound(np.ones((50, 4, 3)), np.ones(50), 0.9)
    assert many.holds(1.001, 0.1)
    assert not many.holds(0.99, None)


def butane() -> tuple[app.Topology, openmm.System]:
    topology = app.Topology()
    residue = topology.addResidue("C4", topology.addChain())
    atoms = [topology.addAtom(f"C{k}", app.Element.getBySymbol("C"), residue) for k in range(4)]
    for a, b in itertools.pairwise(atoms):
        topology.addBond(a, b)
    system = openmm.System()
    for _ in atoms:
        system.addParticle(12.0)
    return topology, system


CHAIN = 0.15 * np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.3, 0.95, 0.0], [2.3, 0.95, 0.3]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, v, f: x.__setitem__((3, 0), 1.0), "the bond between atoms 2 and 3 is"),
        (lambda x, v, f: x.__setitem__(3, x[0] + 0.03), "atoms 0 and 3 came within 0.52 angstrom"),
        (lambda x, v, f: x.__setitem__((1, 1), np.nan), "positions are not numbers"),
        (lambda x, v, f: f.__setitem__((0, 0), 60_000.0), "a force of 60"),
        (lambda x, v, f: f.__setitem__((0, 0), np.inf), "not numbers"),
        (lambda x, v, f: v.__imul__(10.0), "times the kinetic energy"),
    ],
)
def test_a_guard_sees_what_is_no_molecule_any_more(change, message):
    topology, system = butane()
    guard = Guard(topology, system, range(4), LoopSettings())
    x, v, f = CHAIN.copy(), np.full((4, 3), 0.45), np.full((4, 3), 1000.0)
    assert guard.fault(x, v, f, -1.0) == ""
    change(x, v, f)
    assert message in guard.fault(x, v, f, -1.0)
    assert "not numbers" in guard.fault(CHAIN, np.zeros((4, 3)), np.ones((4, 3)), float("nan"))
    assert guard.uncertainty_fault(float("nan"))
    assert not guard.uncertainty_fault(1.0)


def test_bonds_may_break_where_the_user_says_so():
    topology, system = butane()
    far = CHAIN.copy()
    far[3, 0] = 1.0
    assert Guard(topology, system, range(4), LoopSettings(bond_limit=None)).geometry_fault(far) == ""


def test_a_bond_that_reacts_may_break_and_all_others_are_watched():
    topology, system = butane()
    guard = Guard(topology, system, range(4), LoopSettings(reacting_bonds=[(3, 2)]))
    far = CHAIN.copy()
    far[3, 0] = 1.0
    assert guard.geometry_fault(far) == ""
    far[:1, 1] += 1.0
    assert "the bond between atoms 0 and 1 is" in guard.geometry_fault(far)
    whole = Guard(topology, system, range(4), LoopSettings(reacting_bonds=[(0, 1), (1, 2), (2, 3)]))
    assert whole.geometry_fault(far) == ""


@pytest.mark.parametrize(
    ("variable", "bonds"),
    [
        (Distance(1, 0), ((0, 1),)),
        (Distance(0, 3), ()),
        (DistanceDifference(0, 1, 3), ((0, 1),)),
        (Combination([(1.0, Distance(2, 3)), (-1.0, Combination([(2.0, Distance(0, 1)), (1.0, Angle(0, 1, 2))]))]),
         ((2, 3), (0, 1))),
        (CoordinationNumber([1], [0, 2, 3], 0.2), ((0, 1), (1, 2))),
        (Angle(0, 1, 2), ()),
        (Torsion(0, 1, 2, 3), ()),
        (RMSD([0, 1, 2], CHAIN[:3]), ()),
    ],
)  # fmt: skip
def test_bonds_whose_lengths_are_terms_of_a_biased_variable_react(variable, bonds):
    topology, _ = butane()
    assert bonds_along(topology, range(4), [variable]) == bonds
    assert bonds_along(topology, [0, 1], [variable, variable]) == tuple(b for b in bonds if b == (0, 1))


@pytest.mark.parametrize(
    ("variable", "indices"), [(Distance(0, 3), 2), (Torsion(0, 1, 2, 3), 4), (DistanceDifference(0, 1, 2), 3)]
)
def test_a_collective_variable_is_what_its_umbrella_holds(variable, indices, rng):
    """OpenMM's energy of the umbrella against the function, across a face of the box and for a centre behind pi."""
    for periodic in (False, True):
        system = openmm.System()
        for _ in range(4):
            system.addParticle(12.0)
        system.setDefaultPeriodicBoxVectors(*(2.0 * np.eye(3)))
        system.addForce(variable.umbrella("u", periodic))
        context = make_context(system, CHAIN)
        for _ in range(5):
            positions = CHAIN + 0.03 * rng.normal(size=(4, 3))
            box = 2.0 * np.eye(3) if periodic else None
            if periodic:
                positions[2:] += [2.0, -2.0, 0.0]
            value = variable(Geometry(positions, box))
            for centre in (value, -3.0, 3.0):
                context.setParameter("u_k", 7.0)
                context.setParameter("u_centre", centre)
                context.setPositions(positions)
                energy, _ = energy_and_forces(context)
                away = value - centre
                if isinstance(variable, Torsion):
                    away = (away + np.pi) % (2 * np.pi) - np.pi
                assert energy == pytest.approx(3.5 * away**2, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fresh_labels": 0}, "fresh_labels is a whole number of 1 or more"),
        ({"members": 1}, "members is a whole number of 2"),
        ({"start_labels": 4}, "start_labels is a whole number of 8 or more"),
        ({"confidence": 1.5}, "confidence lies between"),
        ({"force_error": -1.0}, "force_error is a number above zero, in kilojoule/"),
        ({"uncertain_above": 10.0, "stop_above": 5.0}, "lies below stop_above"),
        ({"steps_per_round": 5}, "steps_per_round is at least"),
        ({"retrain": "never"}, "retrain is one of 'anew', 'continue'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(SettingError, match=message):
        LoopSettings(**changes)


def test_progress_is_a_table_on_a_terminal_and_lines_elsewhere():
    rounds = [(1, "done", {"error": {"count": 5, "force_error": 40.0, "force_limit": 55.0}})]
    counts = {"labelled": 12, "waiting": 3, "claimed": 2, "failed": 1}

    def show(terminal):
        text = io.StringIO()
        with create_progress(True, 2, LoopSettings(), Console(file=text, force_terminal=terminal, width=110)) as shown:
            shown.phase(2, "sample", counts, rounds)
            shown.walker(1, 400, 33.0)
            shown.walker(0, 200, float("nan"), "step 200: it ran away")
            shown.labels(counts)
            shown.training(12)
        return text.getvalue()

    for terminal in (True, False):
        text = show(terminal)
        assert "labels: 12 made, 5 waiting, 1 failed" in text
        assert "40.0 (below 55.0)" in text
        assert "step 200: it ran away" in text
        assert ("\x1b[" in text) == terminal
    assert "400/4000" in show(True)
    assert time_left([60.0, 120.0], 10) == "15 min"
    assert type(create_progress(False, 1, LoopSettings())).__name__ == "LoopProgress"


def test_time_that_is_not_measured_is_overhead(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("qmmlmm.learning.loop.timer.time.perf_counter", lambda: now[0])
    timer = Timer()
    timer.add("QM", 3.0)
    with timer.measure("ML"):
        pass
    now[0] += 4.0
    spent = timer.restart()
    assert spent[OTHER] == pytest.approx(1.0, abs=0.1)
    assert overhead(spent) == pytest.approx(0.25, abs=0.02)
    assert sum(timer.restart().values()) < 0.1


def test_tasks_side_by_side_have_a_place_each_and_come_back_in_order():
    together = threading.Barrier(3, timeout=20)
    taken, most = set(), []

    def work(place, task):
        assert place not in taken
        taken.add(place)
        most.append(len(taken))
        together.wait()
        time.sleep(0.01 * (6 - task))
        taken.remove(place)
        return task * task

    assert list(run_parallel("abc", range(6), work)) == [0, 1, 4, 9, 16, 25]
    assert max(most) == 3
    assert list(run_parallel("a", range(3), lambda place, task: (place, task))) == [("a", 0), ("a", 1), ("a", 2)]


def test_an_error_side_by_side_reaches_the_caller_and_nothing_more_is_begun():
    begun = []

    def work(place, task):
        begun.append(task)
        time.sleep(0.02)
        if task == 1:
            raise ArithmeticError("the second")
        return task

    found = run_parallel("ab", range(40), work)
    with contextlib.closing(found):
        assert next(found) == 0
        with pytest.raises(ArithmeticError, match="the second"):
            next(found)
    assert len(begun) < 10
