"""Short equilibration that makes the committed coordinates."""

import sys
import time

import numpy as np
import openmm
from openmm import app, unit

from systems.coordinates import Coordinates
from systems.structure import Structure

TEMPERATURE = 300 * unit.kelvin
PRESSURE = 1 * unit.bar


def equilibrate(
    structure: Structure,
    *,
    duration: unit.Quantity,
    time_step: unit.Quantity = 4 * unit.femtosecond,
    first_steps: int = 1000,
    seed: int = 1,
    platform_name: str = "CPU",
) -> Coordinates:
    """Minimise, then run Langevin dynamics at 300 K and 1 bar with a Monte Carlo barostat.

    Parameters
    ----------
    structure : Structure
        Structure with heavy hydrogens if the time step is longer than 2 fs. Its System gets a barostat.
    duration : Quantity, ps
        Length of the run.
    time_step : Quantity, fs
        Time step of the run.
    first_steps : int
        Number of steps before the run, with a quarter of the time step.
    seed : int
        Seed of velocities, thermostat and barostat.
    platform_name : str
        Name of the OpenMM platform.

    Returns
    -------
    Coordinates
        The last frame, molecules not wrapped.
    """
    system = structure.system
    barostat = openmm.MonteCarloBarostat(PRESSURE, TEMPERATURE, 20)
    barostat.setRandomNumberSeed(seed)
    system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 2 / unit.picosecond, time_step / 4)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatformByName(platform_name)
    simulation = app.Simulation(structure.topology, system, integrator, platform)
    simulation.context.setPositions(structure.positions)
    simulation.context.applyConstraints(1e-6)
    simulation.minimizeEnergy(maxIterations=50)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    n_steps = round(duration / time_step)
    started = time.monotonic()
    simulation.step(first_steps)
    integrator.setStepSize(time_step)
    for block in range(10):
        simulation.step(n_steps // 10)
        state = simulation.context.getState(energy=True)
        volume = state.getPeriodicBoxVolume().value_in_unit(unit.nanometer**3)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        print(
            f"block {block + 1}/10: potential energy {energy:.0f} kJ/mol, volume {volume:.2f} nm^3, "
            f"{time.monotonic() - started:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    state = simulation.context.getState(positions=True)
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    box = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
    if not np.isfinite(positions).all():
        raise RuntimeError("the equilibration gave positions that are not finite; use a shorter time step")
    return Coordinates(np.array(positions), np.array(box))
