"""Removal of regions from a force field; the result is E_MM(R; embedded regions removed)."""

from __future__ import annotations

import copy
import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import openmm

from qmmlmm.errors import RegionError, UnsupportedSystemError, listed, nearest
from qmmlmm.mm.electrostatics import electrostatics_settings
from qmmlmm.mm.supported_forces import BONDED, check_force_class, check_hidden_charges, in_one_region
from qmmlmm.mm.virtual_sites import check_virtual_sites
from qmmlmm.units import IntArray

Embedding = Literal["mechanical", "electrostatic"]
Pair = tuple[int, int]

CONNECTIVITY_NAME = "qmmlmm connectivity"


@dataclass(frozen=True)
class RegionToRemove:
    """A region that is removed from a force field.

    Parameters
    ----------
    name : str
        Name of the region, for messages.
    particles : tuple of int
        Sorted indices, including virtual sites of the atoms, see `complete_with_virtual_sites`.
    embedding : {"mechanical", "electrostatic"}
        With electrostatic embedding the charges of the region are removed as well.
    bonds : tuple of (int, int)
        Bonds of the Topology with both atoms in the region.

    Raises
    ------
    RegionError
        If the particles are not sorted, the embedding is unknown or a bond leaves the region.
    """

    name: str
    particles: tuple[int, ...]
    embedding: Embedding
    bonds: tuple[Pair, ...] = ()

    def __post_init__(self) -> None:
        if not self.particles or list(self.particles) != sorted(set(self.particles)):
            raise RegionError(
                f"region {self.name!r}: particles are given once each and in ascending order, "
                f"got {listed(self.particles)}"
            )
        if self.embedding not in get_args(Embedding):
            raise RegionError(
                f"region {self.name!r}: embedding is 'mechanical' or 'electrostatic', got {self.embedding!r}."
                + nearest(str(self.embedding), get_args(Embedding))
            )
        inside = set(self.particles)
        leaving = [bond for bond in self.bonds if not inside.issuperset(bond)]
        if leaving:
            raise RegionError(
                f"region {self.name!r}: bonds {listed(leaving)} have an atom outside; give those inside only"
            )


def remove_regions(
    system: openmm.System, regions: Sequence[RegionToRemove], *, remove_constraints: bool = True
) -> openmm.System:
    """Return a copy of a System without the energy inside the regions.

    A bonded term is removed if all its particles are in the same region. Lennard-Jones and Coulomb interactions inside
    a region are removed, those between a region and the rest are kept. With electrostatic embedding the region has no
    charges in the result, and exceptions across its border have none either.

    Parameters
    ----------
    system : openmm.System
        System of the force field, which is not changed.
    regions : sequence of RegionToRemove
        Regions that do not overlap.
    remove_constraints : bool
        Whether to remove constraints with both particles in one region. This includes those of rigid water, also with
        a virtual site, which follows its parents with or without constraints.

    Returns
    -------
    openmm.System
        Copy with the forces in the same order, and a HarmonicBondForce named ``"qmmlmm connectivity"`` with force
        constants of zero, by which the atoms of a region still belong to one molecule that barostats move as a whole.

    Raises
    ------
    RegionError
        If regions overlap or name particles that do not exist.
    UnsupportedSystemError
        If the System has a Force from which a region cannot be removed, or a region cuts a virtual site.

    Notes
    -----
    The rule at a cut bond, for terms of both sides:

    =========================================  ====================================================
    term                                       kept if
    =========================================  ====================================================
    bond, angle, torsion, improper, CMAP,      one of its particles or more is outside; whole, with the
    custom bonded                              parameters it had
    1-4 Lennard-Jones                          one of the two is outside
    1-4 Coulomb                                one is outside, and neither is in an electrostatically embedded
                                               region (else the region feels the outside atom itself)
    Lennard-Jones, other pairs                 one of the two is outside
    constraint                                 one of the two is outside
    =========================================  ====================================================

    So the cut bond q1-m1 keeps its stretching, bending and torsions: the region's own energy depends on the outside
    atoms only through the direction of m1. Pairs that the force field excludes (1-2, 1-3) are excluded from
    Lennard-Jones; an embedded region feels the charges of m1 and m2 by its scheme of boundary charges. Source: Amber's
    rule, Walker, Crowley and Case, J. Comput. Chem. 29, 1019 (2008).

    With a periodic method, exceptions of the NonbondedForce use the nearest image: particles of one region need not be
    in one molecule, and can lie in different images of the box.
    """
    region_of = _check_regions(system, regions)
    charge_free = frozenset(
        particle for region in regions if region.embedding == "electrostatic" for particle in region.particles
    )
    for index, force in enumerate(system.getForces()):
        check_force_class(index, force, bool(charge_free))
        check_hidden_charges(index, force, charge_free, region_of)
    if charge_free:
        electrostatics_settings(system)  # raises for a reaction field

    result = copy.deepcopy(system)
    links: list[Pair] = []
    for _ in range(result.getNumForces()):
        force = result.getForce(0)
        if type(force) in BONDED:
            changed, removed = without_terms(force, lambda particles: in_one_region(particles, region_of))
            if isinstance(force, openmm.HarmonicBondForce | openmm.CustomBondForce):
                links += ((term[0], term[1]) for term in removed)
        else:
            changed = copy.deepcopy(force)
        if isinstance(changed, openmm.NonbondedForce):
            _remove_from_nonbonded(changed, regions, region_of, charge_free)
        elif isinstance(changed, openmm.CustomNonbondedForce):
            _exclude(changed, regions)
        result.removeForce(0)  # removed at the front and added at the end, each force keeps its index
        result.addForce(changed)
    if remove_constraints:
        links += _remove_constraints(result, region_of)
    _add_connectivity(result, regions, links)
    return result


def _check_regions(system: openmm.System, regions: Sequence[RegionToRemove]) -> IntArray:
    """Return the index of each particle's region, -1 for none."""
    n_particles = system.getNumParticles()
    region_of = np.full(n_particles, -1, dtype=np.int64)
    for number, region in enumerate(regions):
        if region.particles[0] < 0 or region.particles[-1] >= n_particles:
            raise RegionError(
                f"region {region.name!r} has particles from {region.particles[0]} to {region.particles[-1]}, "
                f"and the System has {n_particles}, counted from 0"
            )
        members = np.array(region.particles)
        shared = members[region_of[members] >= 0]
        if len(shared):
            other = regions[region_of[shared[0]]].name
            raise RegionError(
                f"regions {other!r} and {region.name!r} share particles {listed(shared.tolist())}; regions "
                "that are removed do not overlap: remove the larger one only"
            )
        region_of[members] = number
        check_virtual_sites(system, region.particles, region.name)
    return region_of


def without_terms(
    force: openmm.Force, leaves: Callable[[tuple[int, ...]], bool]
) -> tuple[openmm.Force, list[tuple[int, ...]]]:
    """Return a copy of a bonded Force without some of its terms, and the particles of those terms.

    OpenMM cannot delete terms. In its XML they are elements, and all other settings of the Force are kept.

    Parameters
    ----------
    force : openmm.Force
        Force of a class in `qmmlmm.mm.supported_forces.BONDED`.
    leaves : callable
        Function of the particles of a term; True if the term is removed.
    """
    holder, attributes = BONDED[type(force)]
    if attributes is None:
        attributes = tuple(f"p{k + 1}" for k in range(force.getNumParticlesPerBond()))
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(force))
    terms = root.find(holder)
    if terms is None:
        raise UnsupportedSystemError(
            f"OpenMM {openmm.version.version} writes {type(force).__name__} without the element {holder}; "
            "this version is not supported"
        )
    removed: list[tuple[int, ...]] = []
    kept: list[ElementTree.Element] = []
    for term in terms:
        particles = tuple(int(term.attrib[attribute]) for attribute in attributes)
        if leaves(particles):
            removed.append(particles)
        else:
            kept.append(term)
    terms[:] = kept
    return openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode")), removed


def _region_pairs(regions: Iterable[RegionToRemove]) -> Iterator[Pair]:
    for region in regions:
        yield from itertools.combinations(region.particles, 2)


def _remove_from_nonbonded(
    force: openmm.NonbondedForce,
    regions: Sequence[RegionToRemove],
    region_of: IntArray,
    charge_free: frozenset[int],
) -> None:
    _remove_offsets(force, region_of, bool(charge_free))
    known: set[Pair] = set()
    for index in range(force.getNumExceptions()):
        i, j, _, sigma, epsilon = force.getExceptionParameters(index)
        if in_one_region((i, j), region_of):
            known.add((min(i, j), max(i, j)))
            force.setExceptionParameters(index, i, j, 0.0, sigma, 0.0)
        elif i in charge_free or j in charge_free:
            force.setExceptionParameters(index, i, j, 0.0, sigma, epsilon)
    for i, j in _region_pairs(regions):
        if (i, j) not in known:
            force.addException(i, j, 0.0, 1.0, 0.0)
    for particle in charge_free:
        _, sigma, epsilon = force.getParticleParameters(particle)
        force.setParticleParameters(particle, 0.0, sigma, epsilon)
    if force.usesPeriodicBoundaryConditions():
        force.setExceptionsUsePeriodicBoundaryConditions(True)


def _remove_offsets(force: openmm.NonbondedForce, region_of: IntArray, electrostatic: bool) -> None:
    particle_offsets = [force.getParticleParameterOffset(k) for k in range(force.getNumParticleParameterOffsets())]
    exception_offsets = [force.getExceptionParameterOffset(k) for k in range(force.getNumExceptionParameterOffsets())]
    charged = {offset[0] for offset in (*particle_offsets, *exception_offsets) if offset[2] != 0.0}
    if electrostatic and charged:
        raise UnsupportedSystemError(
            f"the NonbondedForce changes charges by the global parameters {listed(sorted(charged))} "
            "(parameter offsets), and an electrostatically embedded region would not feel it; set the "
            "charges themselves, or use mechanical embedding"
        )
    for k, (parameter, exception, *_) in enumerate(exception_offsets):
        i, j, *_ = force.getExceptionParameters(exception)
        if in_one_region((i, j), region_of):
            force.setExceptionParameterOffset(k, parameter, exception, 0.0, 0.0, 0.0)


def _exclude(force: openmm.CustomNonbondedForce, regions: Sequence[RegionToRemove]) -> None:
    known = {tuple(sorted(force.getExclusionParticles(k))) for k in range(force.getNumExclusions())}
    for pair in _region_pairs(regions):
        if pair not in known:
            force.addExclusion(*pair)


def _remove_constraints(system: openmm.System, region_of: IntArray) -> list[Pair]:
    removed: list[Pair] = []
    for index in reversed(range(system.getNumConstraints())):
        i, j, _ = system.getConstraintParameters(index)
        if in_one_region((i, j), region_of):
            system.removeConstraint(index)
            removed.append((i, j))
    return removed


def _add_connectivity(system: openmm.System, regions: Sequence[RegionToRemove], links: Iterable[Pair]) -> None:
    """Add bonds without energy: those of the Topology, and removed links between parts that these do not connect."""
    parent: dict[int, int] = {}

    def root(particle: int) -> int:
        while (above := parent.get(particle, particle)) != particle:
            parent[particle] = particle = parent.get(above, above)
        return particle

    def joined(pair: Pair) -> bool:
        first, second = (root(particle) for particle in pair)
        parent[first] = second
        return first == second

    bonds = list(dict.fromkeys((min(bond), max(bond)) for region in regions for bond in region.bonds))
    for bond in bonds:
        joined(bond)
    bonds += [link for link in links if not joined(link)]
    if not bonds:
        return
    force = openmm.HarmonicBondForce()
    force.setName(CONNECTIVITY_NAME)
    if system.getNumForces():
        force.setForceGroup(system.getForce(0).getForceGroup())
    for i, j in bonds:
        force.addBond(i, j, 0.0, 0.0)
    system.addForce(force)
