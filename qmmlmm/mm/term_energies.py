"""Energy and computing time of the Force of one term."""

from __future__ import annotations

import time

import openmm
from openmm import unit

from qmmlmm.mm.term_runner import TermRunner


def term_energy(context: openmm.Context, system: openmm.System, force: openmm.Force) -> unit.Quantity:
    """Return the energy of one Force, kJ/mol.

    Parameters
    ----------
    context : openmm.Context
        Context of the System.
    system : openmm.System
    force : openmm.Force
        Force in the System. If it shares its force group, its energy is computed in a separate Context.
    """
    group = force.getForceGroup()
    sharing = [other for other in system.getForces() if other.getForceGroup() == group]
    if len(sharing) == 1:
        return context.getState(energy=True, groups={group}).getPotentialEnergy()
    copy = openmm.System()
    for index in range(system.getNumParticles()):
        copy.addParticle(system.getParticleMass(index))
    state = context.getState(positions=True)
    copy.setDefaultPeriodicBoxVectors(*state.getPeriodicBoxVectors())
    copy.addForce(openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(force)))
    separate = openmm.Context(copy, openmm.VerletIntegrator(0.001), context.getPlatform())
    separate.setPositions(state.getPositions(asNumpy=True))
    for parameter in separate.getParameters():
        separate.setParameter(parameter, context.getParameter(parameter))
    return separate.getState(energy=True).getPotentialEnergy()


def mean_seconds(runner: TermRunner) -> float:
    """Return the mean time of a term's evaluations in Python so far, s; NaN before the first."""
    return runner.seconds / runner.evaluations if runner.evaluations else float("nan")


def shortest_seconds(context: openmm.Context, groups: set[int], repeats: int) -> float:
    """Return the shortest time of some evaluations of energy and forces of force groups, s."""
    positions = context.getState(positions=True).getPositions(asNumpy=True)
    seconds = float("inf")
    for _ in range(repeats):
        # OpenMM keeps forces that it has computed; setting positions makes them void.
        context.setPositions(positions)
        start = time.perf_counter()
        context.getState(energy=True, forces=True, groups=groups)
        seconds = min(seconds, time.perf_counter() - start)
    return seconds
