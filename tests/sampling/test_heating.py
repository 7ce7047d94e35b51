"""Heating: the temperature of each step, the same after a stop, and with multiple time steps."""

from __future__ import annotations

import openmm
import pytest
from openmm import unit

from qmmlmm.errors import SettingError
from qmmlmm.sampling import Heating, MultipleTimeStepIntegrator, set_temperature
from qmmlmm.units import GAS_CONSTANT
from tests.sampling.mixed_springs import MixedSprings
from tests.sampling.named_forces import mixed_of_forces


def heating(steps=40, start=10.0, end=400.0):
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.0005)
    integrator.setRandomNumberSeed(3)
    return Heating(MixedSprings(400.0, 700.0, 0.04).simulation(integrator), start, end, steps)


def temperatures(found, steps):
    """Return the temperature of each step."""
    values = []
    for _ in range(steps):
        found.step(1)
        values.append(found.simulation.integrator.getTemperature().value_in_unit(unit.kelvin))
    return values


def test_the_temperature_rises_in_equal_parts_from_the_start_to_the_end():
    values = temperatures(heating(40), 42)
    assert values[:40] == pytest.approx([10.0 + 390.0 * k / 39 for k in range(40)], rel=1e-12)
    assert values[40:] == [400.0, 400.0]


def test_a_long_heating_has_a_hundred_temperatures_of_the_same_number_of_steps():
    values = temperatures(heating(250), 250)
    counts = [values.count(value) for value in dict.fromkeys(values)]
    assert len(counts) == 100
    assert set(counts) == {2, 3}
    assert (values[0], values[-1]) == (10.0, 400.0)


def test_one_call_and_many_calls_take_the_same_steps():
    states = []
    # One after another: Contexts of the Reference platform share their random numbers.
    for calls in ((40,), (1, 7, 0, 30, 2)):
        found = heating()
        for steps in calls:
            found.step(steps)
        states.append(found.simulation.context.getState(positions=True, velocities=True))
    assert states[0].getPositions() == states[1].getPositions()
    assert states[0].getVelocities() == states[1].getVelocities()


def test_one_step_has_the_last_temperature():
    assert temperatures(heating(1), 1) == [400.0]


def test_the_temperature_of_multiple_time_steps_is_a_variable_of_the_integrator():
    system = openmm.System()
    for _ in range(3):
        system.addParticle(10.0)
    for name in ("fast", "slow"):
        force = openmm.CustomExternalForce("100*x^2")
        force.addParticle(0)
        force.setName(name)
        system.addForce(force)
    system.getForce(1).setForceGroup(1)
    integrator = MultipleTimeStepIntegrator(
        mixed_of_forces(system, ["fast", "slow"]), 300.0, 1.0, 0.004, 2, slow=["slow"]
    )
    set_temperature(integrator, 100 * unit.kelvin)
    assert integrator.getGlobalVariableByName("kT") == pytest.approx(100 * GAS_CONSTANT, rel=1e-12)


@pytest.mark.parametrize("integrator", [openmm.VerletIntegrator(0.001), openmm.CustomIntegrator(0.001)])
def test_an_integrator_without_a_thermostat_is_refused(integrator):
    with pytest.raises(SettingError, match=f"one with a thermostat, .* got {type(integrator).__name__}"):
        set_temperature(integrator, 300.0)
