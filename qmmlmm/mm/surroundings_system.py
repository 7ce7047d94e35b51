"""A force field System in which the surroundings of regions move and the regions are fixed charges."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence

import numpy as np
import openmm

from qmmlmm.errors import UnsupportedSystemError, listed
from qmmlmm.geometry import Geometry
from qmmlmm.mm.mixed_system import MixedSystem
from qmmlmm.mm.partial_system import partial_system
from qmmlmm.mm.selection import near_particles
from qmmlmm.mm.term_layouts import particle_labels
from qmmlmm.units import FloatArray, IntArray

CONSTANT_FORCES = "constant forces"
"""Name of the Force with constant forces on the surroundings."""

MARGIN = 0.2
"""Distance that moving particles may cover before they are nearer than the cutoff to one that is left out, nm."""

WORTHWHILE = 0.5
"""Part of the particles above which a part of the System saves nothing."""


class SurroundingsSystem:
    """The force field of a mixed System, without its terms, for the relaxation of what surrounds the regions.

    Fixed particles have no mass. The atoms of electrostatically embedded regions get charges that `set_charges`
    changes, and each moving particle feels a constant force that `set_forces` changes.

    Parameters
    ----------
    mixed : MixedSystem
    fixed : collection of int
        Particles that do not move; their virtual sites move with them.

    Attributes
    ----------
    system : openmm.System
    moving : (n_moving,) int array
        Particles that move and are no virtual sites.
    charged_atoms : (n_charged,) int array
        Atoms of electrostatically embedded regions.
    total_charge : float
        Charge of these regions, e.
    reference_charges : (n_charged,) float array, e
        Charges from the force field that add up to the total charge.
    charges : (n_particles,) float array, e
        Charges of all particles; those of the regions are zero.

    Raises
    ------
    UnsupportedSystemError
        If a constraint or a virtual site joins a fixed and a moving particle.
    """

    def __init__(self, mixed: MixedSystem, fixed: Collection[int]) -> None:
        system = copy.deepcopy(mixed.system)
        terms = set(mixed.terms)
        for index in reversed(range(mixed.system.getNumForces())):
            if mixed.system.getForce(index).getName() in terms:
                system.removeForce(index)
        inside = set(fixed)
        labels = particle_labels(mixed.topology)
        _fix(system, inside, labels)
        self.system = system
        self.moving: IntArray = _moving(system)
        self.charged_atoms, self.reference_charges, self.total_charge = _region_charges(mixed)
        self._nonbonded = next((f for f in system.getForces() if isinstance(f, openmm.NonbondedForce)), None)
        self.charges: FloatArray = np.zeros(system.getNumParticles())
        if self._nonbonded is not None:
            self.charges = np.array(
                [self._nonbonded.getParticleParameters(k)[0]._value for k in range(len(self.charges))], dtype=float
            )
        self._constant = _add_constant_forces(system, self.moving)

    def near(self, geometry: Geometry) -> NearSurroundings | None:
        """Return the part of this System that the moving particles feel, if it is much smaller and can be made.

        Parameters
        ----------
        geometry : Geometry, nm
            All particles; those without mass do not move from here, but for the regions.
        """
        if self._nonbonded is None or geometry.box is None or not self._nonbonded.usesPeriodicBoundaryConditions():
            return None
        ends = np.zeros(self.system.getNumParticles(), dtype=bool)
        ends[self.moving] = ends[self.charged_atoms] = True
        reach = self._nonbonded.getCutoffDistance()._value + MARGIN
        near = near_particles(geometry.positions, geometry.box, ends, reach)
        for k in range(len(near)):
            if self.system.isVirtualSite(k):
                site = self.system.getVirtualSite(k)
                members = [k, *(site.getParticle(j) for j in range(site.getNumParticles()))]
                near[members] = near[members].any()
        particles = np.flatnonzero(near)
        if len(particles) > WORTHWHILE * len(near):
            return None
        part = partial_system(self.system, particles, set(self.moving.tolist()), without=CONSTANT_FORCES)
        return None if part is None else NearSurroundings(part, particles, self.charged_atoms)

    def excluded_particles(self) -> set[int]:
        """Return the particles whose interaction with an atom of a region the force field treats by an exception."""
        charged = set(self.charged_atoms.tolist())
        found: set[int] = set()
        if self._nonbonded is not None:
            for index in range(self._nonbonded.getNumExceptions()):
                first, second = self._nonbonded.getExceptionParameters(index)[:2]
                if (first in charged) != (second in charged):
                    found.update((first, second))
        return found - charged

    def set_charges(self, charges: FloatArray, contexts: Sequence[openmm.Context]) -> None:
        """Set the charges of `charged_atoms`, e, in Contexts of the System."""
        _set_charges(self._nonbonded, self.charged_atoms, charges, contexts)

    def set_forces(self, forces: FloatArray, contexts: Sequence[openmm.Context]) -> None:
        """Set the constant forces on `moving`, (n_moving, 3) kJ/(mol nm), in Contexts of the System."""
        _set_forces(self._constant, self.moving, forces, contexts)


class NearSurroundings:
    """The particles near what moves of a `SurroundingsSystem`, with a reaction field beyond the cutoff.

    Parameters
    ----------
    system : openmm.System
    particles : (n,) int array
        Its particles in the whole System, ascending.
    charged_atoms : (n_charged,) int array
        Atoms of embedded regions in the whole System, which are among `particles`.

    Attributes
    ----------
    system : openmm.System
    particles : (n,) int array
    """

    def __init__(self, system: openmm.System, particles: IntArray, charged_atoms: IntArray) -> None:
        self.system = system
        self.particles = particles
        self._charged = np.searchsorted(particles, charged_atoms)
        self._nonbonded = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
        self._moving = _moving(system)
        self._constant = _add_constant_forces(system, self._moving)

    def set_charges(self, charges: FloatArray, contexts: Sequence[openmm.Context]) -> None:
        """Set the charges of the regions' atoms, e, in Contexts of the System."""
        _set_charges(self._nonbonded, self._charged, charges, contexts)

    def set_forces(self, forces: FloatArray, contexts: Sequence[openmm.Context]) -> None:
        """Set the constant forces on what moves, (n_moving, 3) kJ/(mol nm), in Contexts of the System."""
        _set_forces(self._constant, self._moving, forces, contexts)


def _moving(system: openmm.System) -> IntArray:
    """Return the particles that move and are no virtual sites."""
    n_particles = system.getNumParticles()
    return np.array(
        [k for k in range(n_particles) if system.getParticleMass(k)._value > 0.0 and not system.isVirtualSite(k)],
        dtype=np.int64,
    )


def _add_constant_forces(system: openmm.System, moving: IntArray) -> openmm.CustomExternalForce:
    force = openmm.CustomExternalForce("-(fx*x+fy*y+fz*z)")
    force.setName(CONSTANT_FORCES)
    for name in ("fx", "fy", "fz"):
        force.addPerParticleParameter(name)
    for particle in moving:
        force.addParticle(int(particle), [0.0, 0.0, 0.0])
    system.addForce(force)
    return force


def _set_charges(
    force: openmm.NonbondedForce | None, atoms: IntArray, charges: FloatArray, contexts: Sequence[openmm.Context]
) -> None:
    if force is None:
        return
    for atom, charge in zip(atoms, charges, strict=True):
        _, sigma, epsilon = force.getParticleParameters(int(atom))
        force.setParticleParameters(int(atom), float(charge), sigma, epsilon)
    for context in contexts:
        force.updateParametersInContext(context)


def _set_forces(
    force: openmm.CustomExternalForce, moving: IntArray, forces: FloatArray, contexts: Sequence[openmm.Context]
) -> None:
    for index, (particle, value) in enumerate(zip(moving, forces, strict=True)):
        force.setParticleParameters(index, int(particle), value.tolist())
    for context in contexts:
        force.updateParametersInContext(context)


def _fix(system: openmm.System, fixed: set[int], labels: Sequence[str]) -> None:
    """Take the masses of fixed particles and the constraints between them away."""
    for index in range(system.getNumParticles()):
        if system.isVirtualSite(index):
            site = system.getVirtualSite(index)
            parents = [site.getParticle(k) for k in range(site.getNumParticles())]
            held = [p for p in parents if p in fixed]
            if held and len(held) < len(parents):
                raise UnsupportedSystemError(
                    f"the virtual site {labels[index]} has a fixed and a moving parent; fix or move whole molecules"
                )
    for index in reversed(range(system.getNumConstraints())):
        first, second, _ = system.getConstraintParameters(index)
        ends = {first in fixed, second in fixed}
        if ends == {True}:
            system.removeConstraint(index)
        elif ends == {True, False}:
            raise UnsupportedSystemError(
                f"a constraint joins the fixed atom {labels[first if first in fixed else second]} and the moving atom "
                f"{labels[second if first in fixed else first]}; fix or move whole residues, or make the System "
                "without constraints (constraints=None, rigidWater=False)"
            )
    for index in fixed:
        if not system.isVirtualSite(index):
            system.setParticleMass(index, 0.0)


def _region_charges(mixed: MixedSystem) -> tuple[IntArray, FloatArray, float]:
    """Return the atoms of electrostatically embedded regions, their reference charges, e, and their total charge."""
    atoms: dict[int, float] = {}
    total = 0.0
    hamiltonian = mixed.hamiltonian
    for region in hamiltonian.outermost:
        if hamiltonian.embedding(region) != "electrostatic":
            continue
        layout = next(term.layout for term in mixed.terms.values() if term.term.region == region)
        assert layout.surroundings is not None
        charges = layout.surroundings.reference_charges[layout.atoms]
        atoms.update(zip(layout.atoms.tolist(), charges.tolist(), strict=True))
        total += region.charge
    return np.array(list(atoms), dtype=np.int64), np.array(list(atoms.values()), dtype=float), total


def embedded_atoms(mixed: MixedSystem) -> tuple[int, ...]:
    """Return the atoms of all outermost regions, in the order of their indices."""
    outermost = set(mixed.hamiltonian.outermost)
    return tuple(sorted({int(a) for found in mixed.regions if found.region in outermost for a in found.atoms}))


def describe_particles(mixed: MixedSystem, particles: Collection[int]) -> str:
    """Return the names of particles in a message, cut to five."""
    labels = particle_labels(mixed.topology)
    return listed(labels[k] for k in sorted(particles))
