"""Contexts of OpenMM for tests: energies and forces of a System at given positions."""

from __future__ import annotations

import functools

import numpy as np
import openmm

from tests.finite_differences import central_differences


def make_context(
    system, positions, *, platform="Reference", integrator=None, box=None, velocities=None, properties=None
):
    """Return a Context with positions in nm, and its integrator kept alive by it."""
    integrator = openmm.VerletIntegrator(0.001) if integrator is None else integrator
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform(platform), properties or {})
    if box is not None:
        context.setPeriodicBoxVectors(*box)
    context.setPositions(positions)
    if velocities is not None:
        context.setVelocities(velocities)
    return context


def energy_and_forces(context, groups=-1):
    """Return the energy, kJ/mol, and the forces, (n, 3) kJ/(mol nm), of a Context."""
    state = context.getState(energy=True, forces=True, groups=groups)
    return state.getPotentialEnergy()._value, np.array(state.getForces(asNumpy=True)._value)


def system_energy(system, positions, *, box=None, platform="Reference"):
    """Return the energy, kJ/mol, of a System at positions in nm."""
    context = make_context(system, positions, platform=platform, box=box)
    return context.getState(energy=True).getPotentialEnergy()._value


def system_energy_and_forces(system, positions, *, box=None, groups=-1, platform="Reference"):
    """Return energy, kJ/mol, and forces, (n, 3) kJ/(mol nm), of a System at positions in nm."""
    return energy_and_forces(make_context(system, positions, platform=platform, box=box), groups)


@functools.cache
def coulomb_constant():
    """Return OpenMM's energy of two unit charges at a distance of 1 nm, kJ/mol."""
    system, force = openmm.System(), openmm.NonbondedForce()
    for _ in range(2):
        system.addParticle(1.0)
        force.addParticle(1.0, 1.0, 0.0)
    system.addForce(force)
    return system_energy(system, [[0, 0, 0], [1, 0, 0]])


def term_forces(mixed, name, positions):
    """Return the forces of one term of a mixed System, (n, 3) kJ/(mol nm), at positions in nm."""
    return system_energy_and_forces(mixed.system, positions, groups={mixed.force_group(name)})[1]


def term_differences(mixed, name, positions, atoms, step):
    """Return the forces of one term on some atoms from differences of its energy at four points, (len(atoms), 3).

    Of one term alone: the force field has steps of its own where pairs cross its cutoff.
    """
    context = make_context(mixed.system, positions)
    groups = {mixed.force_group(name)}

    def energy(moved):
        context.setPositions(moved)
        context.computeVirtualSites()
        return context.getState(energy=True, groups=groups).getPotentialEnergy()._value

    return -central_differences(energy, positions, atoms, step, points=4)
