"""Terms of a Hamiltonian resolved against a Topology and a System."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from qmmlmm.coupling.boundary_charges import redistribute
from qmmlmm.coupling.cut_bonds import BondGraph
from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.coupling.layout import Surroundings, TermLayout
from qmmlmm.coupling.link_atoms import LinkBond, find_link_bonds, topological_center
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.coupling.region import Region
from qmmlmm.coupling.smeared_charges import source_widths
from qmmlmm.errors import QmmlmmWarning, RegionError, UnsupportedSystemError, listed
from qmmlmm.mm.bonds import KnownBonds, known_bonds
from qmmlmm.mm.electrostatics import ElectrostaticsSettings, electrostatics_settings, force_field_charges
from qmmlmm.mm.element_check import check_elements
from qmmlmm.mm.removal import Embedding, RegionToRemove
from qmmlmm.mm.virtual_sites import complete_with_virtual_sites
from qmmlmm.units import BOHR_IN_NM, FloatArray, IntArray

SHORT_RANGE_REACH = 4.5
"""alpha times the short-range cutoff: erfc(4.5) = 2e-10, below the convergence of an SCF."""

CHARGE_MISFIT = 0.01
"""Largest difference, e, between the charges of force field and region without a warning, if no bond is cut."""


@dataclass(frozen=True)
class ResolvedRegion:
    """A region of the Hamiltonian in a System.

    Parameters
    ----------
    region : Region
    atoms : (n_atoms,) int array
        Atoms of the region, without virtual sites.
    particles : tuple of int
        Atoms of the region and their virtual sites.
    bonds : tuple of (int, int)
        Bonds inside the region.
    link_bonds : tuple of LinkBond
    atomic_numbers : (n_atoms + n_links,) int array
    anchor : int
        Index in `atoms` of the atom around which the region is made whole.
    """

    region: Region
    atoms: IntArray
    particles: tuple[int, ...]
    bonds: tuple[tuple[int, int], ...]
    link_bonds: tuple[LinkBond, ...]
    atomic_numbers: IntArray
    anchor: int


def particle_labels(topology: app.Topology) -> list[str]:
    """Return the names of the atoms in messages: residue, its number with insertion code, atom name, chain, index."""
    return [
        f"{residue.name}{residue.id}{residue.insertionCode.strip()}:{atom.name} (chain {chain.id}, index {atom.index})"
        for chain in topology.chains()
        for residue in chain.residues()
        for atom in residue.atoms()
    ]


def resolve_regions(
    regions: Iterable[Region], topology: app.Topology, system: openmm.System, labels: Sequence[str]
) -> dict[Region, ResolvedRegion]:
    """Return regions with their cut bonds and virtual sites.

    Raises
    ------
    RegionError, UnsupportedSystemError
        If atoms are out of range, a cut is not allowed, a virtual site is cut, elements and masses disagree, or only
        one of Topology and System has a bond across the border of a region.
    """
    numbers = [0 if atom.element is None else atom.element.atomic_number for atom in topology.atoms()]
    known = known_bonds(topology, system, numbers)
    return {region: _resolve(region, numbers, known, system, labels) for region in regions}


def _resolve(
    region: Region, numbers: Sequence[int], known: KnownBonds, system: openmm.System, labels: Sequence[str]
) -> ResolvedRegion:
    n = system.getNumParticles()
    outside = [a for a in region.atoms if a >= n]
    if outside:
        raise RegionError(
            f"region {region.name!r} has atom indices beyond the last particle {n - 1}: {listed(outside)}; "
            "was it made for another Topology?"
        )
    particles = complete_with_virtual_sites(system, region.atoms)
    atoms = [p for p in particles if not system.isVirtualSite(p)]
    nameless = [labels[a] for a in atoms if numbers[a] == 0]
    if nameless:
        raise RegionError(
            f"region {region.name!r} has atoms without an element in the Topology: {listed(nameless)}; set atom.element"
        )
    if not atoms:
        raise RegionError(f"region {region.name!r} holds virtual sites only: {listed(labels[p] for p in particles)}")
    graph = BondGraph.of(known.bonds, numbers)
    outside = sorted({m for a in atoms for m in graph.neighbours.get(a, ())} - set(atoms))
    check_elements(region.name, [*atoms, *outside], numbers, graph.neighbours, system, labels)
    known.check_border(region.name, atoms, labels)
    links = find_link_bonds(region, atoms, known.bonds, numbers, labels)
    inside = set(atoms)
    bonds = tuple((a, b) for a, b, _ in known.bonds if a in inside and b in inside)
    return ResolvedRegion(
        region=region,
        atoms=np.array(atoms, dtype=np.int64),
        particles=particles,
        bonds=bonds,
        link_bonds=links,
        atomic_numbers=np.array([numbers[a] for a in atoms] + [1] * len(links), dtype=np.int64),
        anchor=topological_center(atoms, bonds),
    )


def regions_to_remove(hamiltonian: Hamiltonian, resolved: dict[Region, ResolvedRegion]) -> list[RegionToRemove]:
    """Return the regions to remove from the force field.

    Raises
    ------
    RegionError
        If two of these regions are bonded to each other.
    """
    removed: list[RegionToRemove] = []
    owner: dict[int, str] = {}
    for region in hamiltonian.outermost:
        found = resolved[region]
        owner.update(dict.fromkeys(found.particles, region.name))
    for region in hamiltonian.outermost:
        found = resolved[region]
        for link in found.link_bonds:
            if link.m1 in owner:
                raise RegionError(
                    f"regions {region.name!r} and {owner[link.m1]!r} are bonded to each other by the atoms {link.q1} "
                    f"and {link.m1}; make them one region"
                )
        embedding: Embedding = "electrostatic" if hamiltonian.embedding(region) == "electrostatic" else "mechanical"
        removed.append(RegionToRemove(region.name, found.particles, embedding, found.bonds))
    return removed


def _reference_charges(found: ResolvedRegion, charges: FloatArray, system: openmm.System) -> FloatArray:
    """Return charges of the region's atoms that add up to its total charge, virtual sites on their first parent."""
    position = {int(atom): k for k, atom in enumerate(found.atoms)}
    reference = charges[found.atoms].copy()
    for particle in found.particles:
        host = particle
        while system.isVirtualSite(host):
            host = system.getVirtualSite(host).getParticle(0)
        if host != particle:
            reference[position[host]] += charges[particle]
    reference += (found.region.charge - reference.sum()) / len(reference)
    return reference


def build_layouts(
    system: openmm.System,
    hamiltonian: Hamiltonian,
    resolved: dict[Region, ResolvedRegion],
    labels: Sequence[str] = (),
) -> list[TermLayout]:
    """Return the layout of each term.

    Parameters
    ----------
    system : openmm.System
        System with the charges of the force field.
    hamiltonian : Hamiltonian
    resolved : dict of Region to ResolvedRegion
    labels : sequence of str
        Names of the particles in messages, from `particle_labels`.
    """
    periodic = system.usesPeriodicBoundaryConditions()
    electrostatic = [region for region in hamiltonian.regions if hamiltonian.embedding(region) == "electrostatic"]
    surroundings: dict[tuple[Region, str], Surroundings] = {}
    if electrostatic:
        settings = electrostatics_settings(system)
        if periodic != settings.periodic:
            raise UnsupportedSystemError(
                f"a Force of the System is periodic, but its NonbondedForce uses {settings.method}; "
                "electrostatic embedding in a box needs PME"
            )
        charges = force_field_charges(system)
        felt = charges.copy()
        references = {}
        # A core inside a region starts from the reference charges of the region.
        outermost = [region for region in hamiltonian.outermost if region in electrostatic]
        for region in sorted(electrostatic, key=lambda region: region not in outermost):
            found = resolved[region]
            references[region] = _reference_charges(found, felt, system)
            if region in outermost:
                _warn_of_misfit(found, charges)
                felt[list(found.particles)] = 0.0
                felt[found.atoms] = references[region]
        for term in hamiltonian.terms:
            key = (term.region, term.boundary_charges)
            if term.region in references and key not in surroundings:
                outer = term.region in outermost
                counted_once = outermost if outer else [term.region]
                particles = list(resolved[term.region].particles)
                excess = float((charges if outer else felt)[particles].sum()) - term.region.charge
                surroundings[key] = _surroundings(resolved, term, felt, excess, references, counted_once, settings)
    layouts = []
    for term, name in zip(hamiltonian.terms, hamiltonian.term_names(), strict=True):
        found = resolved[term.region]
        position = {int(atom): k for k, atom in enumerate(found.atoms)}
        layouts.append(
            TermLayout(
                specification=RegionSpecification(
                    name, found.atomic_numbers, term.region.charge, term.spin_multiplicity
                ),
                coefficient=1.0 if term.weight.slopes else term.weight.constant,
                n_particles=system.getNumParticles(),
                atoms=found.atoms,
                anchor=found.anchor,
                link_bonds=np.array([(position[b.q1], b.m1) for b in found.link_bonds], dtype=np.int64).reshape(-1, 2),
                link_ratios=np.array([b.ratio for b in found.link_bonds], dtype=float),
                link_distances=np.array([b.distance for b in found.link_bonds], dtype=float),
                periodic=periodic,
                bonds=np.array(
                    [(position[a], position[b]) for a, b in found.bonds if a in position and b in position],
                    dtype=np.int64,
                ).reshape(-1, 2),
                surroundings=surroundings.get((term.region, term.boundary_charges)),
                labels=tuple(labels),
                correction=term.correction,
            )
        )
    return layouts


def _warn_of_misfit(found: ResolvedRegion, charges: FloatArray) -> None:
    """Warn if a region's charge is not that of the force field.

    A side chain that is cut differs from an integer by up to 0.2 e, and many of them by more than half a charge: each
    connected part is rounded by itself.
    """
    total = float(charges[list(found.particles)].sum())
    allowed = CHARGE_MISFIT if not found.link_bonds else 0.5
    if abs(total - found.region.charge) <= allowed:
        return
    rounded = sum(round(float(charges[part].sum())) for part in _connected_atoms(found))
    if not found.link_bonds or rounded != found.region.charge:
        warnings.warn(
            f"region {found.region.name!r} has charge {found.region.charge}, but {total:+.3f} e in the force field; "
            "check its charge and the protonation of its residues. The surroundings are unchanged",
            QmmlmmWarning,
            stacklevel=5,
        )


def _connected_atoms(found: ResolvedRegion) -> list[list[int]]:
    """Return the atoms of a region in groups that bonds inside it connect, and its virtual sites."""
    position = {particle: k for k, particle in enumerate(found.particles)}
    rows, columns = ([position[bond[k]] for bond in found.bonds] for k in (0, 1))
    graph = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(position), len(position)))
    _, labels = connected_components(graph, directed=False)
    return [[found.particles[k] for k in np.flatnonzero(labels == part)] for part in np.unique(labels)]


def _surroundings(
    resolved: dict[Region, ResolvedRegion],
    term: Term,
    felt: FloatArray,
    excess: float,
    references: dict[Region, FloatArray],
    counted_once: Sequence[Region],
    settings: ElectrostaticsSettings,
) -> Surroundings:
    """Return the charges that the region of a term feels.

    In `felt` all outermost embedded regions have their reference charges; `excess` is the charge that the
    region's particles had there before, or in the force field, minus the region's own.
    """
    region = term.region
    found = resolved[region]
    outside = felt.copy()
    outside[list(found.particles)] = 0.0
    boundary = redistribute(outside, found.link_bonds, excess, term.boundary_charges, region.name)
    source = np.concatenate([boundary.charges, boundary.derived_charges])
    source[found.atoms] = references[region]
    reference = np.zeros(len(felt))
    for other in counted_once:
        reference[resolved[other].atoms] = references[other]
    alpha = 0.0 if settings.alpha is None else settings.alpha * BOHR_IN_NM
    widths = term.widths
    by_source = (
        None
        if widths is None
        else source_widths(widths, len(felt), found.particles, boundary.derived_bonds, region.name)
    )
    # Short-range parts have to end inside the cutoff: erfc(alpha r) and erfc(r/w).
    broadest = 0.0 if by_source is None else float(by_source.max())
    return Surroundings(
        source_charges=source,
        derived_bonds=boundary.derived_bonds,
        derived_fractions=boundary.derived_fractions,
        reference_charges=reference,
        splitting=alpha,
        grid=settings.grid or (0, 0, 0),
        short_range_cutoff=SHORT_RANGE_REACH / min(alpha, 1.0 / broadest if broadest else alpha)
        if alpha
        else float("inf"),
        source_widths=by_source,
    )
