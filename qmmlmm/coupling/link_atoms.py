"""Cut bonds and the hydrogens that cap them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qmmlmm.errors import RegionError, listed

# Single-bond covalent radii in angstrom. Source: Cordero et al., Dalton Trans. 2008, 2832, table 2
# (carbon: sp3).
COVALENT_RADII: Mapping[int, float] = {
    1: 0.31, 5: 0.84, 6: 0.76, 7: 0.71, 8: 0.66, 9: 0.57, 12: 1.41, 14: 1.11, 15: 1.07, 16: 1.05,
    17: 1.02, 20: 1.76, 25: 1.39, 26: 1.32, 27: 1.26, 28: 1.24, 29: 1.32, 30: 1.22, 34: 1.20, 35: 1.20,
    53: 1.39,
}  # fmt: skip


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
        The link hydrogen sits at q1 + ratio * (m1 - q1).
    """

    q1: int
    m1: int
    m2: tuple[int, ...]
    ratio: float


def link_ratio(q1_number: int, m1_number: int) -> float:
    """Return where a link hydrogen sits on a bond between two elements.

    Notes
    -----
    The ratio of the bond lengths q1-H and q1-m1 that covalent radii give, constant along the run; so the forces
    on the link atom go to both hosts linearly. Source: Dapprich et al., J. Mol. Struct. THEOCHEM 461, 1 (1999).

    Raises
    ------
    RegionError
        If an element has no radius in the table.
    """
    for number in (q1_number, m1_number):
        if number not in COVALENT_RADII:
            raise RegionError(
                f"no covalent radius for atomic number {number} at a cut bond; give Region(..., link_ratios="
                "{(region atom, outside atom): ratio}), or move the cut to a C-C bond"
            )
    hydrogen = COVALENT_RADII[1]
    return (COVALENT_RADII[q1_number] + hydrogen) / (COVALENT_RADII[q1_number] + COVALENT_RADII[m1_number])


def find_link_bonds(
    name: str,
    atoms: Sequence[int],
    bonds: Iterable[tuple[int, int, float | None]],
    atomic_numbers: Sequence[int],
    ratios: Mapping[tuple[int, int], float],
    labels: Sequence[str],
) -> tuple[LinkBond, ...]:
    """Return the bonds that a region cuts, with their link hydrogens.

    Parameters
    ----------
    name : str
        Of the region, for messages.
    atoms : sequence of int
    bonds : iterable of (int, int, float or None)
        All bonds of the Topology with their order, None where it is not known.
    atomic_numbers : sequence of int
        Of all particles, zero for virtual sites.
    ratios : mapping of (int, int) to float
        Overrides, keyed by (q1, m1).
    labels : sequence of str
        How messages name the particles.

    Raises
    ------
    RegionError
        If a cut cannot be capped by one hydrogen: a multiple or aromatic bond, a hydrogen as one end, two link
        atoms that share an outside atom, or an override for a bond that is not cut.
    """
    inside = set(atoms)
    neighbours: dict[int, list[int]] = {}
    cut: list[tuple[int, int]] = []
    for a, b, order in bonds:
        if atomic_numbers[a] == 0 or atomic_numbers[b] == 0:
            continue
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
        if (a in inside) == (b in inside):
            continue
        q1, m1 = (a, b) if a in inside else (b, a)
        where = f"region {name!r} cuts the bond {labels[q1]} - {labels[m1]}"
        if order is not None and order > 1:
            raise RegionError(f"{where} of order {order:g}; cut a single bond between two sp3 carbons, such as CA-CB")
        if 1 in (atomic_numbers[q1], atomic_numbers[m1]):
            raise RegionError(f"{where}: a bond to hydrogen cannot be cut; take both atoms into the region")
        cut.append((q1, m1))
    cut = sorted(set(cut))  # a Topology may list a bond twice
    hosts = [m1 for _, m1 in cut]
    shared = sorted({m for m in hosts if hosts.count(m) > 1})
    if shared:
        raise RegionError(
            f"region {name!r} has two link atoms on one outside atom: {listed(labels[m] for m in shared)}; "
            "take that atom into the region, or cut elsewhere"
        )
    unknown = sorted(set(ratios) - set(cut))
    if unknown:
        raise RegionError(
            f"region {name!r} has link_ratios for bonds that it does not cut: {listed(unknown)}; "
            f"its cut bonds (region atom, outside atom) are: {listed(cut) or 'none'}"
        )
    return tuple(
        LinkBond(
            q1,
            m1,
            tuple(sorted(n for n in set(neighbours[m1]) if n not in inside)),
            ratios.get((q1, m1)) or link_ratio(atomic_numbers[q1], atomic_numbers[m1]),
        )
        for q1, m1 in cut
    )


def topological_center(atoms: Sequence[int], bonds: Iterable[tuple[int, int]]) -> int:
    """Return the position in `atoms` of the atom with the shortest longest path to the others.

    Of several molecules in a region the largest counts.
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
