"""Bonds that may be cut: those that a link hydrogen can replace.

A link hydrogen replaces a single bond. Topologies of force fields list the bonds but rarely their orders, so that
multiple bonds are inferred from elements and numbers of neighbours, hydrogens included.

Errors, which say what to cut instead:

- a bond to hydrogen;
- a bond that the Topology calls double, triple, aromatic or amide;
- a bond in a ring of up to `LARGEST_RING` atoms (proline, sugars, aromatic rings). Larger rings may be cut: a
  disulfide bridge closes a large one through the backbone, and CA-CB of other residues in it is a good cut;
- a disulfide bridge;
- inferred: a bond between two atoms that each have a double bond or are aromatic; the partial double bonds of amides,
  esters, guanidinium, aryl amines and ethers (an unsaturated atom next to one with a lone pair), and of phosphates,
  sulfonates and sulfonamides;
- a bond to a metal: hydrogen instead of the metal makes another ligand.

Allowed: CA-CB and other bonds between sp3 carbons, CA-C and N-CA of the backbone, CB-CG of aromatic side
chains, the glycosidic bond C1'-N of nucleic acids and C4'-C5' of their backbone, C-O and C-S bonds of sp3 carbon in
glycans and covalent ligands, C-Si and Si-O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qmmlmm.errors import RegionError, listed

LARGEST_RING = 8
"""Members of the largest ring that is not cut. Two link atoms in a smaller one would touch."""

CARBON, NITROGEN, OXYGEN, PHOSPHORUS, SULFUR, SELENIUM = 6, 7, 8, 15, 16, 34
LONE_PAIR_NEIGHBOURS: Mapping[int, int] = {NITROGEN: 3, OXYGEN: 2, SULFUR: 2, SELENIUM: 2}
"""Number of neighbours with which an element has no double bond and a lone pair."""

# Groups 1 and 2 (without hydrogen), 3 to 12 with lanthanoids and actinoids, and the metals of 13 to 16.
METALS = frozenset(
    {3, 4, 11, 12, 13, *range(19, 32), *range(37, 51), *range(55, 85), *range(87, 119)}
)  # fmt: skip

OVERRULE = "if it is a single bond after all, name it in Region(..., link_ratios=...) or link_distances"


@dataclass(frozen=True)
class BondGraph:
    """Bonds between atoms, without those to virtual sites.

    Parameters
    ----------
    atomic_numbers : sequence of int
    neighbours : mapping of int to tuple of int
        Neighbours of each atom, in ascending order.
    orders : mapping of (int, int) to float
        Known bond orders, keyed by (lower, higher).
    """

    atomic_numbers: Sequence[int]
    neighbours: Mapping[int, tuple[int, ...]]
    orders: Mapping[tuple[int, int], float]

    @classmethod
    def of(cls, bonds: Iterable[tuple[int, int, float | None]], atomic_numbers: Sequence[int]) -> BondGraph:
        """Return the graph of the bonds of a Topology, which may list a bond twice."""
        neighbours: dict[int, set[int]] = {}
        orders: dict[tuple[int, int], float] = {}
        for a, b, order in bonds:
            if atomic_numbers[a] == 0 or atomic_numbers[b] == 0:
                continue
            neighbours.setdefault(a, set()).add(b)
            neighbours.setdefault(b, set()).add(a)
            pair = (min(a, b), max(a, b))
            if order is not None:
                orders[pair] = max(order, orders.get(pair, 0.0))
        return cls(atomic_numbers, {atom: tuple(sorted(near)) for atom, near in neighbours.items()}, orders)

    def order(self, bond: tuple[int, int]) -> float | None:
        """Return the order of a bond, None if it is not known."""
        return self.orders.get((min(bond), max(bond)))

    def ring(self, bond: tuple[int, int], largest: int) -> tuple[int, ...]:
        """Return the smallest ring of at most `largest` atoms that holds a bond, or nothing."""
        start, end = bond
        paths: dict[int, tuple[int, ...]] = {start: (start,)}
        frontier = [start]
        while frontier and len(paths[frontier[0]]) < largest:
            reached = []
            for atom in frontier:
                for other in self.neighbours[atom]:
                    if other in paths or {atom, other} == {start, end}:
                        continue
                    paths[other] = (*paths[atom], other)
                    if other == end:
                        return paths[other]
                    reached.append(other)
            frontier = reached
        return ()

    def _covalent(self, atom: int) -> tuple[int, ...]:
        """Return neighbours other than metals: coordination does not change the hybridisation."""
        return tuple(n for n in self.neighbours[atom] if self.atomic_numbers[n] not in METALS)

    def is_unsaturated(self, atom: int) -> bool:
        """Return whether an atom has a double or triple bond or is aromatic, by its number of neighbours."""
        most = {CARBON: 3, NITROGEN: 2, OXYGEN: 1}.get(self.atomic_numbers[atom], 0)
        return len(self._covalent(atom)) <= most

    def has_lone_pair(self, atom: int) -> bool:
        """Return whether an atom without a double bond has a lone pair that a neighbour can share."""
        return LONE_PAIR_NEIGHBOURS.get(self.atomic_numbers[atom]) == len(self._covalent(atom))

    def is_oxidised(self, atom: int) -> bool:
        """Return whether an atom is phosphorus or sulfur with a terminal oxygen or sulfur."""
        return self.atomic_numbers[atom] in (PHOSPHORUS, SULFUR) and any(
            self.atomic_numbers[n] in (OXYGEN, SULFUR) and len(self._covalent(n)) == 1 for n in self._covalent(atom)
        )


def check_known(graph: BondGraph, bond: tuple[int, int], inside: set[int], labels: Sequence[str], name: str) -> None:
    """Raise if the Topology shows that a hydrogen cannot replace the outside atom of a bond.

    Parameters
    ----------
    graph : BondGraph
    bond : (int, int)
        Region atom and outside atom.
    inside : set of int
        Atoms of the region.
    labels : sequence of str
        Names of the particles in messages.
    name : str
        Name of the region, for messages.

    Raises
    ------
    RegionError
        If the bond cannot be cut; says what to cut instead.
    """
    elements = [graph.atomic_numbers[atom] for atom in bond]
    order = graph.order(bond)
    where = f"region {name!r} cuts the bond {labels[bond[0]]} - {labels[bond[1]]}"
    if 1 in elements:
        raise RegionError(f"{where}: a bond to hydrogen cannot be cut; take both atoms into the region")
    if order is not None and order > 1:
        raise RegionError(f"{where} of order {order:g}; cut a single bond between two sp3 carbons, such as CA-CB")
    ring = graph.ring(bond, LARGEST_RING)
    if ring:
        missing = listed((labels[atom] for atom in ring if atom not in inside), LARGEST_RING)
        raise RegionError(
            f"{where}, which lies in a ring of {len(ring)} atoms; take the whole ring into the region "
            f"(missing: {missing}) or leave it out{_proline_advice(graph, ring)}"
        )
    if elements in ([SULFUR, SULFUR], [SULFUR, SELENIUM], [SELENIUM, SULFUR], [SELENIUM, SELENIUM]):
        raise RegionError(
            f"{where}, a disulfide bridge; take both side chains (CYX) into the region and cut each at CA-CB"
        )


def check_inferred(graph: BondGraph, bond: tuple[int, int], labels: Sequence[str], name: str) -> None:
    """Raise if elements and numbers of neighbours show that a bond is no single covalent bond.

    Parameters
    ----------
    graph, bond, labels, name
        As in `check_known`.

    Raises
    ------
    RegionError
        If the bond cannot be cut; says what to cut instead.
    """
    where = f"region {name!r} cuts the bond {labels[bond[0]]} - {labels[bond[1]]}"
    if any(graph.atomic_numbers[atom] in METALS for atom in bond):
        raise RegionError(
            f"{where}, which binds a metal: with hydrogen instead of the metal the ligand is another one; take the "
            f"metal and the side chains of all its ligands into the region and cut these at CA-CB; {OVERRULE}"
        )
    if all(graph.is_unsaturated(atom) for atom in bond):
        if graph.order(bond) is None:
            raise RegionError(
                f"{where}, both ends of which have double bonds or are aromatic (by their numbers of neighbours); "
                f"cut a single bond between two sp3 carbons, such as CA-CB; {OVERRULE}"
            )
        return
    for one, other in (bond, bond[::-1]):
        if graph.is_unsaturated(one) and graph.has_lone_pair(other):
            raise RegionError(
                f"{where}, a partial double bond {_kind_of(graph, one, other)}; cut a single bond between two carbons "
                f"instead: CA-CB for a side chain, CA-C for the backbone (with C=O on the side of N); {OVERRULE}"
            )
        if graph.is_oxidised(one) and graph.atomic_numbers[other] in LONE_PAIR_NEIGHBOURS:
            raise RegionError(
                f"{where} of a phosphate, sulfonate or sulfonamide, whose charge is spread over all its oxygens; take "
                "the whole group and cut a C-C bond beyond it, in nucleic acids C4'-C5', or the glycosidic bond "
                f"C1'-N for only a base; {OVERRULE}"
            )


def _kind_of(graph: BondGraph, unsaturated: int, donor: int) -> str:
    """Return the name of a partial double bond."""
    nitrogen = graph.atomic_numbers[donor] == NITROGEN
    carbonyl = any(
        graph.atomic_numbers[n] in (OXYGEN, SULFUR) and len(graph.neighbours[n]) == 1
        for n in graph.neighbours[unsaturated]
    )
    if carbonyl:
        return "of an amide (peptide bond)" if nitrogen else "of an ester or acid"
    return "of an aryl amine, amidine or guanidinium" if nitrogen else "of an aryl or enol ether"


def _proline_advice(graph: BondGraph, ring: Sequence[int]) -> str:
    numbers = sorted(graph.atomic_numbers[atom] for atom in ring)
    if numbers != [CARBON] * 4 + [NITROGEN] or any(graph.is_unsaturated(atom) for atom in ring):
        return ""
    return (
        "; for proline take also C and O of the residue before it, which form a peptide bond with its N, "
        "and cut CA-C on both sides"
    )
