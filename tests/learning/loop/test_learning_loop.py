"""Loops as a whole, with a formula in the place of QM."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import sqlite3

import numpy as np
import openmm
import pytest

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.errors import RunDirectoryError
from qmmlmm.learning import ResponseNetwork, TrainingSettings, load_network, read_frames
from qmmlmm.learning.loop import Distance, HillVariable, LoopError, Metadynamics, Walker
from qmmlmm.learning.loop.guard import Guard
from qmmlmm.learning.loop.learning_loop import LearningLoop
from qmmlmm.learning.loop.store import LoopStore
from qmmlmm.ml.response_settings import ResponseSettings
from qmmlmm.runs.directory_lock import DirectoryLock
from tests.contexts import make_context
from tests.learning.loop.water_case import SETTINGS, make_loop, make_source, springs, umbrella, waters

BOUND = 250.0  # kJ/(mol nm); the springs pull with some 3000
LEARN = {
    "settings": {
        "force_error": BOUND,
        "uncertain_above": 100.0,
        "max_rounds": 6,
        "steps_per_round": 200,
        "start_labels": 12,
        "fresh_labels": 6,
        "labels_per_round": 8,
    },
    "network": ResponseSettings(features=12, layers=1, radial_functions=8, near_cutoff=0.0),
    "training": TrainingSettings(steps=250, batch_size=8, validations=5, learning_rate=1e-2),
    "walkers": [Walker({"hh_centre": 0.155, "hh_k": 500.0})],
}


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Return a loop that ended, and the models that it put in."""
    folder = tmp_path_factory.mktemp("learned")
    models = []
    loop = make_loop(folder, on_model=lambda mixed, number: models.append((mixed, number)), **LEARN)
    return loop, loop.run(), models


@pytest.mark.slow
def test_the_bound_that_ends_the_loop_holds_on_configurations_of_another_run(learned):
    """An independent run with the final model; its configurations are labelled and compared without the loop's code."""
    loop, result, models = learned
    assert result.passed
    assert 1 <= result.rounds < 6
    topology, system, positions = waters()
    region = Region("water", [0, 1, 2])
    model = MLPotential.load(result.model)
    mixed = create_mixed_system(topology, system, Hamiltonian([Term(model, region, embedding="electrostatic")]))
    truth = create_mixed_system(topology, system, Hamiltonian([Term(springs(), region, embedding="electrostatic")]))
    for one in (mixed, truth):
        one.system.addForce(umbrella())
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.0005)
    integrator.setRandomNumberSeed(99)
    with store_of(loop) as store:
        start = store.walker_state(result.rounds, 0).geometry.positions
    run, judge = make_context(mixed.system, start, integrator=integrator), make_context(truth.system, start)
    for context in (run, judge):
        for name, value in loop.walkers[0].parameters.items():
            context.setParameter(name, value)
    run.setVelocitiesToTemperature(300, 98)
    errors = []
    for _ in range(20):
        integrator.step(20)
        state = run.getState(positions=True, forces=True)
        judge.setPositions(state.getPositions())
        right = judge.getState(forces=True).getForces(asNumpy=True)._value
        errors.append((state.getForces(asNumpy=True)._value - right)[:3])
    # Twenty frames of one run against an upper limit at 95 %: the estimate itself scatters by a third.
    assert np.sqrt(np.mean(np.square(errors))) < 1.35 * BOUND


def store_of(loop):
    return contextlib.closing(LoopStore(loop.directory, 12))


@pytest.mark.slow
def test_learning_makes_the_error_smaller_and_the_report_says_so(learned):
    loop, result, models = learned
    with store_of(loop) as store:
        rounds = store.rounds()
        jobs = store.jobs()
        assert len(store.labels()) == result.labels
    errors = [found["error"]["force_error"] for _, _, found in rounds if "error" in found]
    assert len(errors) == result.rounds
    report = result.report.read_text()
    assert "**The bounds hold**" in report
    for text in (f"| {result.rounds} |", "was not QM, ML or OpenMM", "12 start", "6 fresh"):
        assert text in report
    assert (loop.directory / "report.png").stat().st_size > 10_000
    assert len(read_frames(loop.directory / "labels.xyz")) == result.labels
    # Fresh configurations are drawn before the walk, so they are there whatever their uncertainty.
    fresh = [job for job in jobs if job.kind == "fresh" and job.round == result.rounds]
    assert len(fresh) == 6
    uncertain = [job for job in jobs if job.kind == "uncertain"]
    assert all(job.uncertainty > 100.0 for job in uncertain)
    assert [number for _, number in models] == list(range(result.rounds))
    assert len({id(mixed) for mixed, _ in models}) == 1  # one System and one Context all the way
    network = load_network(loop.directory / "models" / f"network_{result.rounds - 1:03d}.pt")
    assert network.members == SETTINGS.members


@pytest.mark.slow
def test_a_loop_that_has_ended_says_so_again_without_doing_anything(learned):
    loop, result, _ = learned
    again = make_loop(loop.directory, **LEARN).run()
    assert (again.passed, again.labels, again.rounds) == (True, result.labels, result.rounds)


@pytest.mark.slow
def test_other_settings_are_refused_with_what_differs(learned):
    loop, _, _ = learned
    changed = {**LEARN, "settings": {**LEARN["settings"], "seed": 8, "steps_per_round": 220}}
    with pytest.raises(LoopError, match="settings seed: 7 then, 8 now, settings steps_per_round: 200 then, 220 now"):
        make_loop(loop.directory, **changed).run()
    with pytest.raises(LoopError, match="method: springs then, other now"):
        make_loop(loop.directory, **{**LEARN, "method": "other"}).run()


def hold(directory, ready, done):
    lock = DirectoryLock(directory)
    ready.set()
    done.wait(60)
    lock.release()


def test_two_loops_on_one_directory_are_refused(tmp_path):
    mine = DirectoryLock(tmp_path)
    with pytest.raises(RunDirectoryError, match="already open in this process; wait for it to end"):
        make_loop(tmp_path).run()
    mine.release()
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, ready, done))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(RunDirectoryError, match=f"in use by another process .process {other.pid}"):
            make_loop(tmp_path).run()
    finally:
        done.set()
        other.join()


def test_a_walker_that_runs_away_is_stopped_set_back_and_labelled(tmp_path):
    """A bond limit that the molecule meets on its way plays the runaway."""
    settings = {"bond_limit": 1.03, "max_rounds": 1, "steps_per_round": 400, "check_interval": 8, "stop_above": 1e9}
    loop = make_loop(tmp_path, settings=settings, walkers=[Walker({"hh_centre": 0.155, "hh_k": 500.0})])
    loop.run()
    topology, system, _ = waters()
    guard = Guard(topology, system, [0, 1, 2], loop.settings)
    with store_of(loop) as store:
        ((number, walker, why),) = store.events()
        assert (number, walker) == (1, 0)
        assert "the bond between atoms" in why
        state = store.walker_state(1, 0)
        assert guard.geometry_fault(state.geometry.positions) == ""
        start = store.walker_state(0, 0)
        runaways = [job for job in store.jobs() if job.kind == "runaway"]
        assert all(guard.geometry_fault(job.geometry.positions) == "" for job in runaways)
        (_, _, result) = store.rounds()[-1]
        assert result["stopped"] == 1
        assert not result["passed"]
    assert start.geometry.positions.shape == state.geometry.positions.shape


def test_a_walker_whose_bonds_may_break_goes_on_and_the_report_names_them(tmp_path):
    """As in the test above, in which a walker with these settings was stopped."""
    settings = {"bond_limit": 1.03, "max_rounds": 1, "steps_per_round": 400, "check_interval": 8, "stop_above": 1e9,
                "reacting_bonds": [[1, 0], [0, 2]]}  # fmt: skip
    walkers = [Walker({"hh_centre": 0.155, "hh_k": 500.0})]
    loop = make_loop(tmp_path, settings=settings, walkers=walkers)
    report = loop.run().report.read_text()
    with store_of(loop) as store:
        assert not store.events()
    assert "Bonds of the region that may break, by the atoms of the topology: 0-1, 0-2." in report
    with pytest.raises(LoopError, match=r"reacting bonds: \[\[0, 1\], \[0, 2\]\] then, None now"):
        make_loop(tmp_path, settings={**settings, "reacting_bonds": []}, walkers=walkers).run()


def test_bonds_along_which_hills_are_put_may_break(tmp_path):
    along = Metadynamics(HillVariable(Distance(1, 0), 0.005, 0.05, 0.2), 0.5, 5.0, 20)
    assert make_loop(tmp_path, metadynamics=along).settings.reacting_bonds == ((0, 1),)
    watched = make_loop(tmp_path, metadynamics=along, settings={"reacting_bonds": []})
    assert watched.settings.reacting_bonds == ()
    assert make_loop(tmp_path).settings.reacting_bonds is None


@pytest.mark.slow
def test_a_loop_starts_from_labels_and_a_model(learned, tmp_path):
    loop, result, _ = learned
    frames = read_frames(loop.directory / "labels.xyz")
    path = loop.directory / "models" / f"network_{result.rounds - 1:03d}.pt"
    second = make_loop(tmp_path, **{**LEARN, "settings": {**LEARN["settings"], "seed": 3}}, model=path, labels=frames)
    found = second.run()
    with store_of(second) as store:
        assert not [job for job in store.jobs() if job.kind == "start"]
        assert len([job for job in store.jobs() if job.kind == "given"]) == len(frames)
        error = store.rounds()[1][2]["error"]
    assert error["force_error"] < 2 * BOUND  # the model that was handed in ran
    assert found.labels >= len(frames) + 6


def test_all_labels_failing_ends_the_loop_with_the_first_reason(tmp_path):
    faults = {f"start-{k:06d}": "raise" for k in range(1, 11)}
    with pytest.raises(LoopError, match=r"none of the 10 labels of round 0 .* ArithmeticError: a planted fault"):
        make_loop(tmp_path, faults=faults).run()


@pytest.mark.slow
def test_other_tools_read_the_state(learned):
    loop, result, _ = learned
    with sqlite3.connect(loop.directory / "loop.sqlite") as database:
        ((count,),) = database.execute("SELECT COUNT(*) FROM jobs WHERE status='labelled'").fetchall()
        variables = [json.loads(row[0]) for row in database.execute("SELECT variables FROM jobs")]
    assert count == result.labels
    assert all(0.05 < v["H-H, nm"] < 0.4 for v in variables)


def test_a_loop_refuses_what_it_cannot_use(tmp_path):
    with pytest.raises(LoopError, match="walkers has one Walker or more"):
        make_loop(tmp_path, walkers=[])
    topology, system, positions = waters()
    term = Term(springs(), Region("water", [0, 1, 2]), embedding="electrostatic")
    with pytest.raises(LoopError, match="no committee"):
        LearningLoop(
            tmp_path, topology, system, term, positions, source=make_source(topology, system, term),
            model=ResponseNetwork([8, 1, 1], [(0, 1), (0, 2)]),
        )  # fmt: skip
