"""Metadynamics of one simulation: the hills it adds, the free energy it finds, and how it continues."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import app

from qmmlmm.errors import RunDirectoryError, SettingError
from qmmlmm.sampling import Distance, HillVariable, Metadynamics
from qmmlmm.sampling.hill_sampler import HillSampler
from qmmlmm.sampling.metadynamics import HillForce
from qmmlmm.units import GAS_CONSTANT

TEMPERATURE = 300.0
KT = GAS_CONSTANT * TEMPERATURE
HEIGHT, WIDTH, MIDDLE = 12.0, 0.05, 0.3  # kJ/mol, nm, nm: a double well with a barrier of 5 kT
SETTINGS = Metadynamics(HillVariable(Distance(0, 1), 0.01, 0.2, 0.4), height=1.0, bias_factor=6.0, interval=20)

CLOSE = 1.5
"""kJ/mol: the scatter of the free energy over the last hills, whose height is 0.1 kJ/mol by then."""


def sampler(settings=SETTINGS, seed=1, friction=10.0):
    """Two particles in a double well of their distance; the first is held."""
    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("PAR", topology.addChain())
    for k, mass in enumerate((0.0, 12.0)):
        topology.addAtom(f"C{k}", app.element.carbon, residue)
        system.addParticle(mass)
    # The last term undoes the volume of a shell, which grows with the square of the distance.
    well = openmm.CustomBondForce(f"{HEIGHT}*(((r-{MIDDLE})/{WIDTH})^2-1)^2+2*{KT}*log(r)")
    well.addBond(0, 1)
    system.addForce(well)
    force = HillForce(settings, TEMPERATURE, system)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, friction, 0.005)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(topology, system, integrator, platform)
    simulation.context.setPositions([[0, 0, 0], [0.25, 0, 0]])
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    return HillSampler(force, simulation)


def test_the_free_energy_of_a_double_well_is_found():
    found = sampler()
    found.step(100_000)
    grid = SETTINGS.along[0].grid()
    inside = (grid > 0.24) & (grid < 0.36)
    wanted = HEIGHT * (((grid - MIDDLE) / WIDTH) ** 2 - 1.0) ** 2
    away = (found.free_energy() - wanted)[inside]
    assert np.abs(away - away.mean()).max() < CLOSE
    assert found.hills[-1].height < 0.3 * found.hills[0].height


def test_a_hill_stands_at_each_interval_and_not_at_the_start():
    found = sampler()
    found.step(50)
    found.step(31)
    assert [hill.step for hill in found.hills] == [20, 40, 60, 80]
    assert found.hills[0].height == SETTINGS.height


def test_what_is_recalled_takes_the_same_steps():
    # Without noise: Contexts of the Reference platform share one stream of random numbers.
    whole, first, second = (sampler(friction=0.0) for _ in range(3))
    whole.step(200)
    first.step(100)
    second.simulation.context.loadCheckpoint(first.simulation.context.createCheckpoint())
    second.simulation.currentStep = 100
    second.recall(first.memory())
    second.step(100)
    assert second.hills == whole.hills
    positions = [each.simulation.context.getState(positions=True).getPositions() for each in (whole, second)]
    assert positions[0] == positions[1]


def test_what_does_not_belong_to_it_is_refused():
    found = sampler()
    with pytest.raises(RunDirectoryError, match="not of hills along 1 variables"):
        found.recall({"hills": np.zeros((2, 4))})
    with pytest.raises(SettingError, match="steps is"):
        found.step(-1)
    system = openmm.System()
    system.addParticle(1.0)
    simulation = app.Simulation(app.Topology(), system, openmm.VerletIntegrator(0.001))
    with pytest.raises(SettingError, match="the bias is not in the System of the Simulation"):
        HillSampler(found._force, simulation)
    with pytest.raises(SettingError, match="force is"):
        HillSampler(5, simulation)
