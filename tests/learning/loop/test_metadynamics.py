"""Hills: the bias that they add up to, the free energy that they find, and the loop that keeps them."""

from __future__ import annotations

import contextlib
import json
import sqlite3

import numpy as np
import openmm
import pytest
import water_case
from killed_course import course

from qmmlmm.learning import TrainingSettings
from qmmlmm.learning.loop import Distance, DistanceDifference, HillVariable, LoopError, Metadynamics, Torsion
from qmmlmm.learning.loop.metadynamics import Hill, HillForce, mean_profile
from qmmlmm.learning.loop.store import LoopStore

TORSION = Torsion(0, 1, 2, 3)
TEMPERATURE = 300.0
KT = 0.008314462618 * TEMPERATURE
FIRST, SECOND = 8.0, 2.5  # kJ/mol: a barrier of 6 kT at 0, a lower one at 180 degrees


def chain(with_torsion=True):
    """Four atoms; bonds and angles do not depend on the torsion, so its free energy is its potential."""
    system = openmm.System()
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    for k in range(4):
        system.addParticle(12.0)
        if k:
            bonds.addBond(k - 1, k, 0.15, 5e4)
        if k > 1:
            angles.addAngle(k - 2, k - 1, k, 1.9, 400.0)
    forces = [bonds, angles]
    if with_torsion:
        torsion = openmm.CustomTorsionForce(f"{FIRST}*cos(theta)+{SECOND}*cos(2*theta)")
        torsion.addTorsion(0, 1, 2, 3)
        forces.append(torsion)
    for force in forces:
        system.addForce(force)
    return system


def placed(angle, length=0.15):
    """Positions with this torsion and this first bond."""
    bend = 1.9
    second = np.array([-np.cos(bend), np.sin(bend), 0.0])
    third = np.array([-np.cos(bend), np.sin(bend) * np.cos(angle), np.sin(bend) * np.sin(angle)])
    return np.array([[0, 0, 0] - length * second * [-1, -1, 1], [0, 0, 0], [0.15, 0, 0], [0.15, 0, 0] + 0.15 * third])


def context_of(system, seed=1):
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, 0.003)
    integrator.setRandomNumberSeed(seed)
    return openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))


def run(settings, seed, steps):
    """Return the hills of a walk on the chain."""
    system = chain()
    force = HillForce(settings, TEMPERATURE, system)
    context = context_of(system, seed)
    context.setPositions(placed(2.0))
    context.setVelocitiesToTemperature(TEMPERATURE, seed)
    hills = []
    for step in range(settings.interval, steps + 1, settings.interval):
        context.getIntegrator().step(settings.interval)
        positions = context.getState(positions=True).getPositions(asNumpy=True)._value
        hill = force.add(step, force.values(positions, np.eye(3)), context)
        assert hill is not None
        hills.append(hill)
    return hills


def test_hills_find_the_free_energy_of_a_torsion():
    """Walkers of their own against the exact profile, within the error that their scatter tells."""
    settings = Metadynamics(HillVariable(TORSION, 0.35), height=1.0, bias_factor=8.0, interval=40)
    profiles = [settings.free_energy(settings.bias(run(settings, seed, 24_000))) for seed in range(1, 5)]
    found, error = mean_profile(profiles, TEMPERATURE)
    grid = settings.along[0].grid()
    exact = FIRST * np.cos(grid) + SECOND * np.cos(2 * grid)
    exact -= exact.min()
    # The constant is that of the probabilities, as in the mean.
    shift = KT * np.log(np.exp(-found / KT).mean() / np.exp(-exact / KT).mean())
    away = found + shift - exact
    assert exact.max() > 16.0
    assert np.nanmean(error) < 1.0
    assert np.abs(away).mean() < 3 * np.nanmean(error)
    assert np.abs(away).max() < 2.0


def test_heights_fall_as_well_tempered_metadynamics_says():
    settings = Metadynamics(HillVariable(TORSION, 0.3), height=1.2, bias_factor=6.0, interval=10)
    hills = run(settings, 3, 600)
    for k in (0, 1, 20, 59):
        centres = np.array([hill.centre[0] for hill in hills[:k]])
        away = (hills[k].centre[0] - centres + np.pi) % (2 * np.pi) - np.pi
        bias = sum(hill.height * np.exp(-0.5 * (d / 0.3) ** 2) for hill, d in zip(hills, away, strict=False))
        # The grid between its points: a hundredth of the bias at most.
        assert hills[k].height == pytest.approx(1.2 * np.exp(-bias / (5 * KT)), rel=5e-3)
    assert hills[-1].height < hills[0].height == 1.2


HILLS = {
    "angle": ([HillVariable(TORSION, 0.3)], [(3.0,), (-3.1,), (0.5,)]),
    "length": ([HillVariable(Distance(0, 1), 0.01, 0.12, 0.18)], [(0.13,), (0.18,)]),
    "difference": ([HillVariable(DistanceDifference(0, 1, 2), 0.01, -0.03, 0.03)], [(0.0,), (0.02,)]),
    "both": (
        [HillVariable(TORSION, 0.3), HillVariable(Distance(0, 1), 0.01, 0.12, 0.18)],
        [(3.1, 0.15), (-3.1, 0.14), (1.0, 0.16)],
    ),
    "length first": (
        [HillVariable(Distance(0, 1), 0.01, 0.12, 0.18), HillVariable(TORSION, 0.3)],
        [(0.15, 3.1), (0.14, -3.1), (0.16, 1.0)],
    ),
    "angles": ([HillVariable(TORSION, 0.3), HillVariable(Torsion(3, 2, 1, 0), 0.4)], [(3.1, -3.1), (1.0, 1.2)]),
}


@pytest.mark.parametrize("name", HILLS)
def test_the_energy_is_the_sum_of_the_hills_all_the_way_round(name):
    variables, centres = HILLS[name]
    settings = Metadynamics(variables, height=2.0, bias_factor=5.0, interval=10)
    system = chain(with_torsion=False)
    while system.getNumForces():
        system.removeForce(0)
    force = HillForce(settings, TEMPERATURE, system)
    context = context_of(system)
    hills = [Hill(k, centre, 2.0 + k) for k, centre in enumerate(centres)]
    force.set(hills, context)
    for angle, length in ((3.13, 0.15), (-3.13, 0.15), (0.7, 0.131), (np.pi, 0.14), (2.4, 0.2), (-1.0, 0.16)):
        positions = placed(angle, length)
        context.setPositions(positions)
        found = context.getState(energy=True, forces=True)
        here = force.values(positions, np.eye(3))
        exact = 0.0
        for hill in hills:
            square = 0.0
            for v, s, centre in zip(variables, here, hill.centre, strict=True):
                d = (s - centre + np.pi) % (2 * np.pi) - np.pi if v.periodic else np.clip(s, v.low, v.high) - centre
                square += (d / v.width) ** 2
            exact += hill.height * np.exp(-0.5 * square)
        assert found.getPotentialEnergy()._value == pytest.approx(exact, abs=2e-3 * sum(h.height for h in hills))
        assert force.at(here) == pytest.approx(exact, abs=1e-2 * sum(h.height for h in hills))
    # Beyond the range there is no force along a length.
    if name == "length":
        context.setPositions(placed(1.0, 0.25))
        forces = context.getState(forces=True).getForces(asNumpy=True)._value
        np.testing.assert_allclose(forces, 0.0, atol=1e-12)
        assert force.add(0, [0.25], context) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HillVariable(TORSION, 0.0), "width of a hill is a number above zero"),
        (lambda: HillVariable(TORSION, 20.0), "in radians and at most 1"),
        (lambda: HillVariable(TORSION, 0.3, 0.0, 1.0), "leave out low and high"),
        (lambda: HillVariable(Distance(0, 1), 0.01), "need low below high"),
        (lambda: HillVariable(Distance(0, 1), 0.01, 0.2, 0.1), "need low below high, in nm, got 0.2 and 0.1"),
        (lambda: Metadynamics([], 1.0, 5.0, 10), "one or two variables, got 0"),
        (lambda: Metadynamics(HillVariable(TORSION, 0.3), -1.0, 5.0, 10), "height of a hill"),
        (lambda: Metadynamics(HillVariable(TORSION, 0.3), 1.0, 1.0, 10), "bias_factor is a number above one"),
        (lambda: Metadynamics(HillVariable(TORSION, 0.3), 1.0, 5.0, 0), "interval is a whole number"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(LoopError, match=message):
        make()


def test_hills_come_between_looks_only(tmp_path):
    settings = Metadynamics(HillVariable(Distance(1, 2), 0.01, 0.1, 0.2), 1.0, 5.0, 15)
    with pytest.raises(LoopError, match="multiple of check_interval, got 15 and 10"):
        water_case.make_loop(tmp_path, metadynamics=settings)


FEW_LABELS = {"start_labels": 8, "fresh_labels": 2, "labels_per_round": 2}
ONE_THREAD = {"platform": "CPU", "platform_properties": {"Threads": "1"}}
SHORT = TrainingSettings(steps=4, batch_size=8, validations=1, learning_rate=1e-2)


class Stopped(BaseException):
    """The end of a process at an unlucky moment."""


@pytest.mark.parametrize("shared", [True, False])
def test_a_loop_with_hills_that_was_stopped_takes_the_same_course(tmp_path, shared, monkeypatch):
    """Stopped between the walkers of the second round, where the hills of the first are all that can be known.

    Undisturbed one walker runs after the other, and in the loop that is stopped both side by side.
    """
    hills = Metadynamics(
        HillVariable(Distance(1, 2), 0.005, 0.1, 0.25), height=0.5, bias_factor=5.0, interval=20, shared=shared
    )
    changes = {"metadynamics": hills, "settings": FEW_LABELS, "training": SHORT, "workers": 1, **ONE_THREAD}

    def loop_in(folder, at_once):
        settings = {**changes["settings"], "walkers_at_once": at_once}
        return water_case.make_loop(tmp_path / folder, **{**changes, "settings": settings})

    loop_in("undisturbed", 1).run()
    keep = LoopStore.add_walk

    def stop(self, number, walker, *arguments):
        if (number, walker) == (2, 1):
            raise Stopped
        keep(self, number, walker, *arguments)

    monkeypatch.setattr(LoopStore, "add_walk", stop)
    with pytest.raises(Stopped):
        loop_in("stopped", 2).run()
    monkeypatch.undo()
    with contextlib.closing(LoopStore(tmp_path / "stopped", 12)) as store:
        assert store.walkers_done(2) == {0}
    loop_in("stopped", 2).run()
    wanted = course(tmp_path / "undisturbed")
    assert course(tmp_path / "stopped") == wanted
    rows = wanted["hills"]
    assert [row[:2] for row in rows] == [[1, 0], [1, 1], [2, 0], [2, 1]]
    heights = [[height for _, _, height in json.loads(row[2])] for row in rows]
    # Three looks at multiples of twenty in sixty steps, unless a walker was set back.
    assert all(len(one) <= 3 for one in heights)
    assert sum(map(len, heights)) >= 9
    # Hills of the first round make those of the second lower; the first of all has the full height.
    assert heights[0][0] == heights[1][0] == 0.5
    assert heights[2][0] < 0.5
    report = (tmp_path / "undisturbed" / "report.md").read_text()
    assert f"free energy that {sum(map(len, heights))} hills" in report
    table = np.genfromtxt(tmp_path / "undisturbed" / "free_energy.csv", delimiter=",", names=True)
    assert table.dtype.names[0].startswith("HH")
    profile = table["free_energy_kJmol"]
    assert profile.min() == 0.0
    assert profile.max() > 0.2
    assert np.isnan(table["standard_error_kJmol"]).all() == shared


def test_walkers_side_by_side_are_refused_where_they_would_share_random_numbers(tmp_path):
    with pytest.raises(LoopError, match="walkers_at_once=2 on the Reference platform"):
        water_case.make_loop(tmp_path, settings={"walkers_at_once": 2})


def test_damaged_hills_are_no_hills_to_go_on_with(tmp_path):
    hills = Metadynamics(HillVariable(Distance(1, 2), 0.005, 0.1, 0.25), height=0.5, bias_factor=5.0, interval=20)
    changes = {"metadynamics": hills, "settings": {**FEW_LABELS, "max_rounds": 1}, "training": SHORT}
    water_case.make_loop(tmp_path, **changes).run()
    with sqlite3.connect(tmp_path / "loop.sqlite") as database:
        database.execute("UPDATE hills SET hills='[]' WHERE walker=1")
    changes["settings"]["max_rounds"] = 2
    with pytest.raises(LoopError, match="hills of walker 1 in round 1 are damaged"):
        water_case.make_loop(tmp_path, **changes).run()
    with pytest.raises(LoopError, match="metadynamics height: 0.5 then, 0.7 now"):
        water_case.make_loop(tmp_path, **{**changes, "metadynamics": Metadynamics(hills.variables, 0.7, 5.0, 20)}).run()
