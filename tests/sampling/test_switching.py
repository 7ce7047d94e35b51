"""Work of fast switchings: the first law for one of them, Crooks' theorem for many."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm.errors import HamiltonianError, SettingError
from qmmlmm.free_energy.reweighting import bennett_acceptance_ratio
from qmmlmm.sampling.switching import switching_work
from tests.sampling.mixed_springs import MixedSprings, StepReporter, total_energy

TEMPERATURE = 300.0
KT = (unit.MOLAR_GAS_CONSTANT_R * TEMPERATURE * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)
FIRST, SECOND, SHIFT = 400.0, 900.0, 0.06  # kJ/(mol nm^2), nm
EXACT = 1.5 * KT * np.log(SECOND / FIRST)  # of one particle in three dimensions


def simulation_of(mixed, integrator):
    simulation = mixed.simulation(integrator, (0.03, 0.03, 0.03))
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, 1)
    return simulation


def test_without_heat_the_work_is_the_change_of_the_energy():
    mixed = MixedSprings(FIRST, SECOND, SHIFT)
    simulation = simulation_of(mixed, openmm.VerletIntegrator(1e-6))
    context = simulation.context
    before = total_energy(context)
    work = switching_work(mixed, simulation, "lambda_qm", 0.0, 1.0, 200, steps_between=200)
    assert context.getParameter("lambda_qm") == 1.0
    assert work._value == pytest.approx(total_energy(context) - before, rel=1e-4)
    assert abs(work._value) > 0.1


def test_reporters_of_the_simulation_report_as_in_any_run():
    mixed = MixedSprings(FIRST, SECOND, SHIFT)
    simulation = simulation_of(mixed, openmm.VerletIntegrator(0.001))
    reporter = StepReporter(4)
    simulation.reporters.append(reporter)
    switching_work(mixed, simulation, "lambda_qm", 0.0, 1.0, 7, steps_between=3)
    assert reporter.steps == [4, 8, 12, 16, 20]
    assert simulation.currentStep == 21


def test_works_in_both_directions_give_the_free_energy():
    mixed = MixedSprings(FIRST, SECOND, SHIFT)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 20.0, 0.002)
    integrator.setRandomNumberSeed(5)
    simulation = simulation_of(mixed, integrator)
    works = {0.0: [], 1.0: []}
    for _ in range(250):
        for start, values in works.items():
            simulation.context.setParameter("lambda_qm", start)
            simulation.step(400)
            values.append(switching_work(mixed, simulation, "lambda_qm", start, 1.0 - start, 20)._value)
    free, error = bennett_acceptance_ratio(works[0.0], works[1.0], TEMPERATURE)
    assert free._value == pytest.approx(EXACT, abs=4 * error._value)
    assert error._value < 0.2
    # Too fast to be reversible: the mean work alone is off by much more.
    assert np.mean(works[0.0]) > EXACT + 5 * error._value


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"parameter": "lambda_q"}, HamiltonianError, "no parameter 'lambda_q'.*Nearest names: lambda_qm"),
        ({"start": float("nan")}, SettingError, "start is a finite number"),
        ({"steps": 0}, SettingError, "steps is a whole number of 1 or more, got 0"),
        ({"steps_between": 1.5}, SettingError, "steps_between is a whole number of 1 or more, got 1.5"),
    ],
)
def test_wrong_arguments_are_refused(change, error, text):
    mixed = MixedSprings(FIRST, SECOND, SHIFT)
    simulation = simulation_of(mixed, openmm.VerletIntegrator(0.001))
    arguments = {"parameter": "lambda_qm", "start": 0.0, "end": 1.0, "steps": 5} | change
    with pytest.raises(error, match=text):
        switching_work(mixed, simulation, **arguments)


def test_a_simulation_of_another_system_is_refused():
    mixed = MixedSprings(FIRST, SECOND, SHIFT)
    system = openmm.System()
    system.addParticle(4.0)
    other = app.Simulation(mixed.topology, system, openmm.VerletIntegrator(0.001))
    with pytest.raises(HamiltonianError, match="the simulation has no parameter 'lambda_qm': it runs another System"):
        switching_work(mixed, other, "lambda_qm", 0.0, 1.0, 5)
