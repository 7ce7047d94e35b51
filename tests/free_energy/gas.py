"""A pair of atoms in an ideal gas at constant pressure, whose mean volume is known."""

from __future__ import annotations

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm import ForceFieldSystem
from qmmlmm.units import GAS_CONSTANT
from tests.free_energy.wells import HEIGHT, MIDDLE, TEMPERATURE, TILT, WIDTH

EDGE = 3.0
"""Edge of the box at first, nm: the double well is far below half of it."""

FREE_ATOMS = 40
"""So many that the volume scatters by less than a sixth: OpenMM's barostat has no limit below that of its last large
moves, and stops with an error where a small box would get a negative volume."""

EVERY = 5
"""Steps between two attempts of the barostat."""

VOLUME = EDGE**3
"""Mean volume, nm^3."""

PRESSURE = (FREE_ATOMS + 2) * GAS_CONSTANT * TEMPERATURE / VOLUME
"""kJ/(mol nm^3). The gas and the pair are N = `FREE_ATOMS` + 1 molecules; of V^N exp(-pV/kT) the mean volume is
(N + 1) kT/p, whatever holds the pair together."""

PAIR = f"{HEIGHT}*(((r-{MIDDLE})/{WIDTH})^2-1)^2+{TILT}*(r-{MIDDLE})"


def create_gas(umbrella, barostat=True):
    """Return the pair of a double well among atoms that do not interact, at constant pressure."""
    topology = app.Topology()
    residue = topology.addResidue("GAS", topology.addChain())
    system = openmm.System()
    topology.setPeriodicBoxVectors(EDGE * np.eye(3) * unit.nanometer)
    system.setDefaultPeriodicBoxVectors(*(EDGE * np.eye(3)))
    for k in range(2 + FREE_ATOMS):
        topology.addAtom(f"C{k}", app.element.carbon, residue)
        system.addParticle(12.0)
    force = openmm.CustomBondForce(PAIR)
    force.addBond(0, 1)
    force.setUsesPeriodicBoundaryConditions(True)
    system.addForce(force)
    system.addForce(umbrella)
    if barostat:
        pressure = PRESSURE * unit.kilojoule_per_mole / unit.AVOGADRO_CONSTANT_NA / unit.nanometer**3
        system.addForce(openmm.MonteCarloBarostat(pressure.in_units_of(unit.bar), TEMPERATURE, EVERY))
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 20.0, 0.005)
    simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatform("Reference"))
    return ForceFieldSystem(topology, system), simulation


def gas_at(r, edge=EDGE):
    """Return positions with the pair at a distance and the gas anywhere, nm."""
    gas = np.random.default_rng(3).uniform(0.0, edge, size=(FREE_ATOMS, 3))
    return np.vstack([[[0.0, 0.0, 0.0], [r, 0.0, 0.0]], gas])
