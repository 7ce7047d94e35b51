"""Cut bonds and the hydrogens that cap them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qmmlmm.coupling.cut_bonds import BondGraph, check_inferred, check_known
from qmmlmm.coupling.region import Region
from qmmlmm.elements import covalent_radius
from qmmlmm.errors import PotentialError, RegionError, listed

HYDROGEN = 1


@dataclass(frozen=True)
class LinkBond:
    """A cut bond (q1, m1) between a region atom and an atom outside.

    Parameters
    ----------
    q1, m1 : int
        Particle indices.
    m2 : tuple of int
        Further neighbours of m1 outside the region.
    ratio : float
    distance : float, bohr
        The link hydrogen sits at q1 + ratio * (m1 - q1) + distance * (m1 - q1) / |m1 - q1|; one of the two is zero.
    """

    q1: int
    m1: int
    m2: tuple[int, ...]
    ratio: float
    distance: float = 0.0


def link_ratio(q1_number: int, m1_number: int) -> float:
    """Return the distance of a link hydrogen from q1 as a fraction of the bond.

    Notes
    -----
    The ratio of the bond lengths q1-H and q1-m1 by covalent radii, constant during a run: the forces on the link atom
    go to both hosts linearly, and the bond q1-m1 keeps its stretching. Source: Dapprich et al., J. Mol. Struct.
    THEOCHEM 461, 1 (1999).

    Raises
    ------
    RegionError
        If an element has no radius in the table.
    """
    return link_distance(q1_number) / (_radius(q1_number) + _radius(m1_number))


def link_distance(q1_number: int) -> float:
    """Return the length of a bond between an element and hydrogen by covalent radii, bohr.

    Raises
    ------
    RegionError
        If the element has no radius in the table.
    """
    return _radius(q1_number) + _radius(HYDROGEN)


def _radius(number: int) -> float:
    try:
        return covalent_radius(number)
    except PotentialError:
        raise RegionError(
            f"no covalent radius for atomic number {number} at a cut bond; give Region(..., link_ratios="
            "{(region atom, outside atom): ratio}) or link_distances, or move the cut to a C-C bond"
        ) from None


def find_link_bonds(
    region: Region,
    atoms: Sequence[int],
    bonds: Iterable[tuple[int, int, float | None]],
    atomic_numbers: Sequence[int],
    labels: Sequence[str],
) -> tuple[LinkBond, ...]:
    """Return the bonds that a region cuts, with their link hydrogens.

    Parameters
    ----------
    region : Region
    atoms : sequence of int
        Atoms of the region, without virtual sites.
    bonds : iterable of (int, int, float or None)
        All bonds of the Topology with their order, None where it is not known.
    atomic_numbers : sequence of int
        Atomic numbers of all particles, zero for virtual sites.
    labels : sequence of str
        Names of the particles in messages.

    Raises
    ------
    RegionError
        If a cut cannot be capped by one hydrogen (see `qmmlmm.coupling.cut_bonds`), two link atoms share an outside
        atom, or a position is given for a bond that is not cut.
    """
    inside = set(atoms)
    graph = BondGraph.of(bonds, atomic_numbers)
    cut = sorted((a, b) for a in inside for b in graph.neighbours.get(a, ()) if b not in inside)
    for name, given in (("link_ratios", region.link_ratios), ("link_distances", region.link_distances)):
        unknown = sorted(set(given) - set(cut))
        if unknown:
            raise RegionError(
                f"region {region.name!r} has {name} for bonds that it does not cut: {listed(unknown)}; "
                f"its cut bonds (region atom, outside atom) are: {listed(cut) or 'none'}"
            )
    for bond in cut:
        check_known(graph, bond, inside, labels, region.name)
    for bond in cut:
        if bond not in region.link_ratios and bond not in region.link_distances:
            check_inferred(graph, bond, labels, region.name)
    hosts = [m1 for _, m1 in cut]
    shared = sorted({m for m in hosts if hosts.count(m) > 1})
    if shared:
        raise RegionError(
            f"region {region.name!r} has two link atoms on one outside atom: {listed(labels[m] for m in shared)}; "
            "take that atom into the region, or cut elsewhere"
        )
    links = []
    for q1, m1 in cut:
        m2 = tuple(n for n in graph.neighbours[m1] if n not in inside)
        ratio = distance = 0.0
        if (q1, m1) in region.link_ratios:
            ratio = region.link_ratios[q1, m1]
        elif (q1, m1) in region.link_distances:
            distance = region.link_distances[q1, m1]
        elif region.link_rule == "distance":
            distance = link_distance(atomic_numbers[q1])
        else:
            ratio = link_ratio(atomic_numbers[q1], atomic_numbers[m1])
        links.append(LinkBond(q1, m1, m2, ratio, distance))
    return tuple(links)


def topological_center(atoms: Sequence[int], bonds: Iterable[tuple[int, int]]) -> int:
    """Return the position in `atoms` of the atom with the shortest longest path to the others.

    If a region has several molecules, the largest one counts.
    """
    position = {atom: k for k, atom in enumerate(atoms)}
    neighbours: list[list[int]] = [[] for _ in atoms]
    for a, b in bonds:
        if a in position and b in position:
            neighbours[position[a]].append(position[b])
            neighbours[position[b]].append(position[a])
    best = (0, 0, 0)  # (-size, eccentricity, atom) of the best so far
    for start in range(len(atoms)):
        frontier, seen, depth = [start], {start}, -1
        while frontier:
            depth += 1
            frontier = [n for n in {m for f in frontier for m in neighbours[f]} if n not in seen]
            seen.update(frontier)
        candidate = (-len(seen), depth, start)
        if best == (0, 0, 0) or candidate < best:
            best = candidate
    return best[2]
