"""Hills: the bias that they add up to, and the free energy that they find."""

from __future__ import annotations

import numpy as np
import openmm
import pytest

from qmmlmm.errors import LoopError
from qmmlmm.geometry import Geometry
from qmmlmm.sampling.collective_variables import Distance, DistanceDifference, Torsion
from qmmlmm.sampling.metadynamics import Hill, HillForce, HillVariable, Metadynamics, mean_profile
from qmmlmm.units import GAS_CONSTANT
from tests.contexts import energy_and_forces, make_context

TORSION = Torsion(0, 1, 2, 3)
TEMPERATURE = 300.0
KT = GAS_CONSTANT * TEMPERATURE
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
    return make_context(system, placed(2.0), integrator=integrator)


def run(settings, seed, steps):
    """Return the hills of a walk on the chain."""
    system = chain()
    force = HillForce(settings, TEMPERATURE, system)
    context = context_of(system, seed)
    context.setVelocitiesToTemperature(TEMPERATURE, seed)
    hills = []
    for step in range(settings.interval, steps + 1, settings.interval):
        context.getIntegrator().step(settings.interval)
        hill = force.add(step, force.values(Geometry.from_context(context)), context)
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
        found, _ = energy_and_forces(context)
        here = force.values(Geometry(positions))
        exact = 0.0
        for hill in hills:
            square = 0.0
            for v, s, centre in zip(variables, here, hill.centre, strict=True):
                d = (s - centre + np.pi) % (2 * np.pi) - np.pi if v.periodic else np.clip(s, v.low, v.high) - centre
                square += (d / v.width) ** 2
            exact += hill.height * np.exp(-0.5 * square)
        assert found == pytest.approx(exact, abs=2e-3 * sum(h.height for h in hills))
        assert force.at(here) == pytest.approx(exact, abs=1e-2 * sum(h.height for h in hills))
    # Beyond the range there is no force along a length.
    if name == "length":
        context.setPositions(placed(1.0, 0.25))
        _, forces = energy_and_forces(context)
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
