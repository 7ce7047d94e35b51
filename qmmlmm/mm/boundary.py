"""Interactions of the force field between a region and the rest: Lennard-Jones and bonded terms across cuts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openmm
from openmm import unit

from qmmlmm.embedding.region_geometry import nearest_displacements
from qmmlmm.errors import UnsupportedSystemError
from qmmlmm.geometry import Geometry
from qmmlmm.mm.electrostatics import nonbonded_force
from qmmlmm.mm.removal import without_terms
from qmmlmm.mm.supported_forces import BONDED
from qmmlmm.units import FloatArray, in_unit

_CUTOFF_METHODS = frozenset(
    {
        openmm.NonbondedForce.CutoffNonPeriodic,
        openmm.NonbondedForce.CutoffPeriodic,
        openmm.NonbondedForce.Ewald,
        openmm.NonbondedForce.PME,
    }
)


def lennard_jones_energies(
    system: openmm.System, particles: Sequence[int], geometry: Geometry
) -> tuple[FloatArray, FloatArray]:
    """Return the Lennard-Jones energy of each particle outside a region with the region, and its distance.

    Parameters
    ----------
    system : openmm.System
    particles : sequence of int
        Particles of the region.
    geometry : Geometry, nm
        All particles.

    Returns
    -------
    energies : (n_particles,) float array, kJ/mol
        Energies with OpenMM's cutoff, switching function and scaling between bonded neighbours; zero for the region's
        own particles. OpenMM's long-range correction belongs to no particle and is left out.
    distances : (n_particles,) float array, nm
        Distances to the closest particle of the region.

    Raises
    ------
    UnsupportedSystemError
        If Lennard-Jones is not in one NonbondedForce, or uses LJPME.
    """
    force = nonbonded_force(system)
    custom = [f for f in system.getForces() if isinstance(f, openmm.CustomNonbondedForce)]
    if custom or force.getNonbondedMethod() == openmm.NonbondedForce.LJPME:
        reason = f"there is a CustomNonbondedForce named {custom[0].getName()!r}" if custom else "it uses LJPME"
        raise UnsupportedSystemError(
            f"the Lennard-Jones energy cannot be split by particles: {reason}; ask for electrostatics only with "
            "lennard_jones=False"
        )
    if force.getNumParticleParameterOffsets() or force.getNumExceptionParameterOffsets():
        raise UnsupportedSystemError(
            "the NonbondedForce has parameters that depend on global parameters (offsets), so that its Lennard-Jones "
            "energies are not known from the System; ask for electrostatics only with lennard_jones=False"
        )
    sigma, epsilon = _lennard_jones_parameters(force)
    inside = np.zeros(len(sigma), dtype=bool)
    inside[list(particles)] = True
    exceptions = _exceptions_across(force, inside)
    box = geometry.box if force.usesPeriodicBoundaryConditions() else None
    cutoff = np.inf
    switch = None
    if force.getNonbondedMethod() in _CUTOFF_METHODS:
        cutoff = float(in_unit(force.getCutoffDistance(), unit.nanometer))
        if force.getUseSwitchingFunction():
            switch = float(in_unit(force.getSwitchingDistance(), unit.nanometer))
    energies = np.zeros(len(sigma))
    closest = np.full(len(sigma), np.inf)
    for particle in particles:
        vectors = nearest_displacements(geometry.positions - geometry.positions[particle], box)
        r = np.sqrt((vectors**2).sum(axis=1))
        r[inside] = np.inf
        np.minimum(closest, r, out=closest)
        others, sigmas, epsilons = exceptions.get(particle, (np.zeros(0, dtype=int), np.zeros(0), np.zeros(0)))
        energies[others] += _lennard_jones(r[others], sigmas, epsilons)
        within = r < cutoff
        within[others] = False
        near = np.flatnonzero(within)
        pair = _lennard_jones(
            r[near], 0.5 * (sigma[particle] + sigma[near]), np.sqrt(epsilon[particle] * epsilon[near])
        )
        if switch is not None:
            x = np.clip((r[near] - switch) / (cutoff - switch), 0.0, 1.0)
            pair = pair * (1.0 - x**3 * (10.0 - x * (15.0 - 6.0 * x)))
        energies[near] += pair
    closest[inside] = 0.0
    return energies, closest


def boundary_bonded_energy(system: openmm.System, particles: Sequence[int], geometry: Geometry) -> float:
    """Return the energy of the bonded terms between a region and atoms outside it, kJ/mol.

    Parameters
    ----------
    system : openmm.System
    particles : sequence of int
        Particles of the region.
    geometry : Geometry, nm
        All particles.
    """
    region = frozenset(particles)

    def not_across(term: tuple[int, ...]) -> bool:
        return region.isdisjoint(term) or region.issuperset(term)

    part = openmm.System()
    for index in range(system.getNumParticles()):
        part.addParticle(system.getParticleMass(index))
    part.setDefaultPeriodicBoxVectors(*system.getDefaultPeriodicBoxVectors())
    for force in system.getForces():
        if type(force) in BONDED:
            kept, _ = without_terms(force, not_across)
            part.addForce(kept)
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(part, integrator, openmm.Platform.getPlatform("Reference"))
    if geometry.box is not None:
        context.setPeriodicBoxVectors(*geometry.box)
    context.setPositions(geometry.positions)
    energy: float = context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    return energy


def _lennard_jones_parameters(force: openmm.NonbondedForce) -> tuple[FloatArray, FloatArray]:
    rows = (force.getParticleParameters(i) for i in range(force.getNumParticles()))
    values = np.array(
        [(in_unit(sigma, unit.nanometer), in_unit(epsilon, unit.kilojoule_per_mole)) for _, sigma, epsilon in rows]
    )
    return values[:, 0], values[:, 1]


def _exceptions_across(
    force: openmm.NonbondedForce, inside: np.ndarray
) -> dict[int, tuple[np.ndarray, FloatArray, FloatArray]]:
    """Return the exceptions of the region's particles with particles outside: their indices, sigma and epsilon."""
    found: dict[int, list[tuple[int, float, float]]] = {}
    for index in range(force.getNumExceptions()):
        i, j, _, sigma, epsilon = force.getExceptionParameters(index)
        if inside[i] != inside[j]:
            mine, other = (i, j) if inside[i] else (j, i)
            row = (other, in_unit(sigma, unit.nanometer), in_unit(epsilon, unit.kilojoule_per_mole))
            found.setdefault(mine, []).append(row)
    result = {}
    for particle, rows in found.items():
        others, sigmas, epsilons = zip(*rows, strict=True)
        result[particle] = (np.array(others), np.array(sigmas, dtype=float), np.array(epsilons, dtype=float))
    return result


def _lennard_jones(r: FloatArray, sigma: FloatArray, epsilon: FloatArray) -> FloatArray:
    sixth = (sigma / r) ** 6
    return 4.0 * epsilon * (sixth**2 - sixth)
