"""Simulations with known free energies, which spawned processes import as ``tests.free_energy.wells``."""

from __future__ import annotations

import numpy as np
import openmm
from openmm import app

from qmmlmm import ForceFieldSystem
from qmmlmm.sampling import Distance

TEMPERATURE = 300.0
HEIGHT, WIDTH, MIDDLE, TILT = 12.0, 0.05, 0.3, 20.0  # kJ/mol, nm, nm, kJ/(mol nm)
GAP = Distance(0, 1)


def well_energy(r, tilt=TILT):
    """Energy of two particles at a distance, kJ/mol."""
    return HEIGHT * (((r - MIDDLE) / WIDTH) ** 2 - 1.0) ** 2 + tilt * (r - MIDDLE)


def create_pair(umbrella, tilt=TILT):
    """Return two particles in a double well of their distance; the first is held."""
    topology = app.Topology()
    residue = topology.addResidue("PAR", topology.addChain())
    system = openmm.System()
    for k, mass in enumerate((0.0, 12.0)):
        topology.addAtom(f"C{k}", app.element.carbon, residue)
        system.addParticle(mass)
    force = openmm.CustomBondForce(f"{HEIGHT}*(((r-{MIDDLE})/{WIDTH})^2-1)^2+{tilt}*(r-{MIDDLE})")
    force.addBond(0, 1)
    system.addForce(force)
    system.addForce(umbrella)
    mixed = ForceFieldSystem(topology, system)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 20.0, 0.005)
    return mixed, app.Simulation(topology, system, integrator, openmm.Platform.getPlatform("Reference"))


def create_tilted(umbrella):
    """Return the same with another tilt."""
    return create_pair(umbrella, 3.0 * TILT)


def pair_at(r):
    return np.array([[0.0, 0.0, 0.0], [r, 0.0, 0.0]])
