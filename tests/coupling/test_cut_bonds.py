"""Cuts through molecules whose Topology knows no bond orders, as those of PDB and Amber files."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openmm import app

from qmmlmm.coupling.cut_bonds import METALS, BondGraph
from qmmlmm.coupling.link_atoms import find_link_bonds
from qmmlmm.coupling.region import Region
from qmmlmm.elements import covalent_radius
from qmmlmm.errors import RegionError

H, C = 1, 6


class Molecule:
    """Atoms by name, hydrogens as a number on their atom."""

    def __init__(self, atoms: str, bonds: str) -> None:
        self.names: list[str] = []
        self.numbers: list[int] = []
        self.bonds: list[tuple[int, int, float | None]] = []
        for text in atoms.split():
            name, _, hydrogens = text.partition(":")
            element = app.Element.getBySymbol(name.rstrip("0123456789'*").split("_")[0].capitalize())
            parent = self.add(name, element.atomic_number)
            for k in range(int(hydrogens or 0)):
                self.bonds.append((parent, self.add(f"H{k}{name}", H), None))
        for text in bonds.split():
            chain = text.split("-")
            for a, b in itertools.pairwise(chain):
                self.bonds.append((self.names.index(a), self.names.index(b), None))

    def add(self, name: str, number: int) -> int:
        self.names.append(name)
        self.numbers.append(number)
        return len(self.names) - 1

    def cut(self, atoms: str, named: str = "", orders: dict[str, float] | None = None):
        """Cut out some heavy atoms with their hydrogens; return the cut bonds by name."""
        heavy = set(atoms.split())
        inside = [k for k, name in enumerate(self.names) if name in heavy or (name[0] == "H" and name[2:] in heavy)]
        pair = tuple(self.names.index(a) for a in named.split("-")) if named else None
        region = Region("site", inside, link_ratios={pair: 0.7} if pair else None)
        known = {frozenset(text.split("-")): order for text, order in (orders or {}).items()}
        bonds = [(a, b, known.get(frozenset((self.names[a], self.names[b])), order)) for a, b, order in self.bonds]
        found = find_link_bonds(region, inside, bonds, self.numbers, self.names)
        return [f"{self.names[bond.q1]}-{self.names[bond.m1]}" for bond in found]


# Names begin with their element; what follows an underscore tells atoms of one element apart.
TYROSINE = Molecule(
    "C_1:3 C_0 O_0 N:1 C_A:1 C_B:2 C_G C_D1:1 C_D2:1 C_E1:1 C_E2:1 C_Z O_H:1 C O N_2:1 C_A2:3",
    "C_1-C_0-O_0 C_0-N-C_A-C_B-C_G C_G-C_D1-C_E1-C_Z C_G-C_D2-C_E2-C_Z C_Z-O_H C_A-C-O C-N_2-C_A2",
)
PROLINE = Molecule(
    "C_1:3 C_0 O_0 N C_A:1 C_B:2 C_G:2 C_D:2 C O N_2:1 C_A2:3",
    "C_1-C_0-O_0 C_0-N-C_A-C_B-C_G-C_D-N C_A-C-O C-N_2-C_A2",
)
ARGININE = Molecule("C_A:3 C_B:2 C_G:2 C_D:2 N_E:1 C_Z N_1:2 N_2:2", "C_A-C_B-C_G-C_D-N_E-C_Z-N_1 C_Z-N_2")
# Two cysteines of a tetrapeptide of glycines: the bridge closes a ring through the backbone.
CYSTINE = Molecule(
    "C_A1:1 C_B1:2 S_1 S_2 C_B2:2 C_A2:1 C_1 O_1 N_2:1 N_1:2 C_G:2 C_3 O_3 N_G:1 C_2:3",
    "C_A1-C_B1-S_1-S_2-C_B2-C_A2 C_A1-C_1-O_1 C_1-N_G-C_G-C_3-O_3 C_3-N_2-C_A2 C_A1-N_1 C_A2-C_2",
)
NUCLEOTIDE = Molecule(
    "P O_P1 O_P2 O_5 C_5:2 C_4:1 O_4 C_3:1 O_3:1 C_2:2 C_1:1 N_1 C_6:1 C_7:1 C_8 N_4:2 N_3 C_9 O_2 O_0 C_0:3",
    "C_0-O_0-P-O_P1 P-O_P2 P-O_5-C_5-C_4-O_4-C_1-C_2-C_3-C_4 C_3-O_3 C_1-N_1-C_6-C_7-C_8-N_3-C_9-N_1 C_8-N_4 C_9-O_2",
)
ZINC_FINGER = Molecule("C_A:3 C_B:2 S_G Zn O:2", "C_A-C_B-S_G-Zn-O")
ACYL_SERINE = Molecule("C_A:3 C_B:2 O_G C_1 O_1 C_2:3", "C_A-C_B-O_G-C_1-O_1 C_1-C_2")
COVALENT_LIGAND = Molecule("C_A:3 C_B:2 S_G C_1:2 C_2:2 C_3 O_3 N_3:2", "C_A-C_B-S_G-C_1-C_2-C_3-O_3 C_3-N_3")
GLYCAN = Molecule("C_1:1 C_2:2 C_3:2 C_4:2 C_5:2 O_5 O_1 C_A:2 C_B:3", "C_1-C_2-C_3-C_4-C_5-O_5-C_1 C_1-O_1-C_A-C_B")
SULFONAMIDE = Molecule("C_1:3 C_2:2 S O_1 O_2 N:1 C_3:3", "C_1-C_2-S-O_1 S-O_2 S-N-C_3")
LYSINE_WITH_RETINAL = Molecule("C_D:3 C_E:2 N_Z:1 C_1:1 C_2:1 C_3:3", "C_D-C_E-N_Z-C_1-C_2-C_3")
SILICA = Molecule("Si_1:3 O_1 Si_2:2 O_2:1", "Si_1-O_1-Si_2-O_2")
SIDE_CHAIN = "C_B C_G C_D1 C_D2 C_E1 C_E2 C_Z O_H"


@pytest.mark.parametrize(
    ("molecule", "atoms", "cuts"),
    [
        (TYROSINE, SIDE_CHAIN, ["C_B-C_A"]),
        (TYROSINE, "C_G C_D1 C_D2 C_E1 C_E2 C_Z O_H", ["C_G-C_B"]),
        (TYROSINE, "C_0 O_0 N C_A " + SIDE_CHAIN, ["C_0-C_1", "C_A-C"]),
        (TYROSINE, "C_A C O N_2 C_A2 " + SIDE_CHAIN, ["C_A-N"]),
        (PROLINE, "C_0 O_0 N C_A C_B C_G C_D", ["C_0-C_1", "C_A-C"]),
        (ARGININE, "C_G C_D N_E C_Z N_1 N_2", ["C_G-C_B"]),
        (ARGININE, "N_E C_Z N_1 N_2", ["N_E-C_D"]),
        (CYSTINE, "C_B1 S_1 S_2 C_B2", ["C_B1-C_A1", "C_B2-C_A2"]),
        (NUCLEOTIDE, "N_1 C_6 C_7 C_8 N_4 N_3 C_9 O_2", ["N_1-C_1"]),
        (NUCLEOTIDE, "C_4 O_4 C_3 O_3 C_2 C_1 N_1 C_6 C_7 C_8 N_4 N_3 C_9 O_2", ["C_4-C_5"]),
        (NUCLEOTIDE, "P O_P1 O_P2 O_5 O_0 C_0", ["O_5-C_5"]),
        (ZINC_FINGER, "C_B S_G Zn O", ["C_B-C_A"]),
        (ACYL_SERINE, "C_B O_G C_1 O_1 C_2", ["C_B-C_A"]),
        (COVALENT_LIGAND, "C_1 C_2 C_3 O_3 N_3", ["C_1-S_G"]),
        (GLYCAN, "O_1 C_A C_B", ["O_1-C_1"]),
        (SULFONAMIDE, "C_2 S O_1 O_2 N C_3", ["C_2-C_1"]),
        (LYSINE_WITH_RETINAL, "N_Z C_1 C_2 C_3", ["N_Z-C_E"]),
        (SILICA, "Si_2 O_2", ["Si_2-O_1"]),
    ],
)
def test_single_bonds_may_be_cut_though_no_bond_order_is_known(molecule, atoms, cuts):
    assert molecule.cut(atoms) == cuts


@pytest.mark.parametrize(
    ("molecule", "atoms", "message"),
    [
        (TYROSINE, "N C_A C O " + SIDE_CHAIN, r"bond N - C_0, a partial double bond of an amide \(peptide bond\)"),
        (TYROSINE, "C_1 C_0 O_0", r"bond C_0 - N, a partial double bond of an amide.*CA-CB for a side chain"),
        (TYROSINE, "O_0", "bond O_0 - C_0, both ends of which have double bonds"),
        (TYROSINE, "O_H", "bond O_H - C_Z, a partial double bond of an aryl or enol ether"),
        (TYROSINE, "C_Z O_H", r"bond C_Z - C_E1, which lies in a ring of 6 atoms; .*\(missing: C_E2, C_D2, C_G, "),
        (ARGININE, "C_Z N_1 N_2", "bond C_Z - N_E, a partial double bond of an aryl amine, amidine or guanidinium"),
        (ARGININE, "N_1", "bond N_1 - C_Z, a partial double bond of an aryl amine, amidine or guanidinium"),
        (CYSTINE, "C_B1 S_1", r"bond S_1 - S_2, a disulfide bridge; take both side chains \(CYX\) .* at CA-CB"),
        (NUCLEOTIDE, "C_1 N_1 C_6 C_7 C_8 N_4 N_3 C_9 O_2", r"bond C_1 - .* in a ring of 5 atoms"),
        (NUCLEOTIDE, "N_1 C_6 C_7", r"bond .* in a ring of 6 atoms"),
        (NUCLEOTIDE, "C_0 O_0", "bond O_0 - P of a phosphate.* C4'-C5', or the glycosidic bond"),
        (NUCLEOTIDE, "N_4", "bond N_4 - C_8, a partial double bond of an aryl amine"),
        (ZINC_FINGER, "C_B S_G", "bond S_G - Zn, which binds a metal.*all its ligands"),
        (ZINC_FINGER, "Zn O", "bond Zn - S_G, which binds a metal"),
        (ACYL_SERINE, "C_1 O_1 C_2", "bond C_1 - O_G, a partial double bond of an ester or acid"),
        (SULFONAMIDE, "N C_3", "bond N - S of a phosphate, sulfonate or sulfonamide"),
        (LYSINE_WITH_RETINAL, "C_1 C_2 C_3", "bond C_1 - N_Z, a partial double bond"),
        (LYSINE_WITH_RETINAL, "C_2 C_3", "bond C_2 - C_1, both ends of which have double bonds or are aromatic"),
    ],
)
def test_what_is_no_single_bond_is_refused_with_what_to_cut_instead(molecule, atoms, message):
    with pytest.raises(RegionError, match="region 'site' cuts the " + message):
        molecule.cut(atoms)


@pytest.mark.parametrize("atoms", ["C_B C_G C_D", "C_A C_B C_G", "N C_A C_B C_G", "C_B"])
def test_a_cut_through_proline_is_refused_with_the_way_around_it(atoms):
    message = r"in a ring of 5 atoms; take the whole ring .*for proline take also C and O of the residue before"
    with pytest.raises(RegionError, match=message):
        PROLINE.cut(atoms)


def test_the_whole_ring_of_proline_alone_still_cuts_its_peptide_bond():
    with pytest.raises(RegionError, match="bond N - C_0, a partial double bond of an amide"):
        PROLINE.cut("N C_A C_B C_G C_D")


def test_a_ring_through_a_disulfide_bridge_is_too_large_to_matter():
    # CA1-CB1-S-S-CB2-CA2-N2-C3-CG-NG-C1: eleven atoms
    graph = BondGraph.of(CYSTINE.bonds, CYSTINE.numbers)
    bond = (CYSTINE.names.index("C_B1"), CYSTINE.names.index("C_A1"))
    assert len(graph.ring(bond, 20)) == 11
    assert graph.ring(bond, 10) == ()


@given(st.integers(3, 12), st.integers(3, 12))
def test_the_ring_of_a_bond_is_found_up_to_the_largest_size(members, largest):
    bonds = [(k, (k + 1) % members, None) for k in range(members)]
    ring = BondGraph.of(bonds, [C] * members).ring((0, members - 1), largest)
    assert sorted(ring) == (list(range(members)) if members <= largest else [])


def test_of_two_fused_rings_the_smaller_is_named():
    bonds = [(0, 1, None), (1, 2, None), (2, 0, None), (1, 3, None), (3, 4, None), (4, 0, None)]
    assert sorted(BondGraph.of(bonds, [C] * 5).ring((0, 1), 8)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("molecule", "atoms", "named"),
    [
        (TYROSINE, "C_1 C_0 O_0", "C_0-N"),
        (ZINC_FINGER, "C_B S_G", "S_G-Zn"),
        (NUCLEOTIDE, "C_0 O_0", "O_0-P"),
    ],
)
def test_a_bond_that_the_user_names_is_cut_against_what_is_inferred(molecule, atoms, named):
    if named == "S_G-Zn":
        assert set(molecule.cut(atoms + " C_A", named)) == {named}
    else:
        assert molecule.cut(atoms, named) == [named]


@pytest.mark.parametrize(
    ("molecule", "atoms", "named"),
    [(CYSTINE, "C_B1 S_1", "S_1-S_2"), (PROLINE, "C_B C_G C_D", "C_B-C_A")],
)
def test_a_disulfide_and_a_ring_stay_refused_when_named(molecule, atoms, named):
    with pytest.raises(RegionError, match="disulfide|ring of 5"):
        molecule.cut(atoms, named)


def test_a_conjugated_bond_that_the_topology_calls_single_may_be_cut():
    assert LYSINE_WITH_RETINAL.cut("C_2 C_3", orders={"C_2-C_1": 1.0}) == ["C_2-C_1"]


def test_an_amide_that_the_topology_calls_single_is_still_refused():
    with pytest.raises(RegionError, match="of an amide"):
        TYROSINE.cut("C_1 C_0 O_0", orders={"C_0-N": 1.0})


def test_a_known_double_bond_is_refused_though_it_was_named():
    with pytest.raises(RegionError, match="of order 2; cut a single bond"):
        GLYCAN.cut("C_B", "C_B-C_A", orders={"C_A-C_B": 2.0})


def test_a_metal_on_a_nitrogen_does_not_change_what_the_nitrogen_is():
    # A deprotonated amide bound to copper still has no double bond to its alpha carbon.
    amide = Molecule("C_1:3 C_0 O_0 N C_A:3 Cu", "C_1-C_0-O_0 C_0-N-C_A N-Cu")
    assert amide.cut("C_0 O_0 N Cu") == ["C_0-C_1", "N-C_A"]


def test_a_bond_listed_twice_keeps_the_higher_order():
    graph = BondGraph.of([(0, 1, 1.0), (1, 0, 2.0), (0, 1, None)], [C, C])
    assert graph.order((1, 0)) == 2.0
    assert graph.neighbours == {0: (1,), 1: (0,)}


def test_metals_are_no_elements_of_organic_molecules():
    assert not METALS & {1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 34, 35, 53}
    metals = {12, 20, 25, 26, 27, 28, 29, 30}
    assert metals <= METALS
    assert all(covalent_radius(number) > covalent_radius(C) for number in metals)
