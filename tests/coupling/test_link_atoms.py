from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmmlmm.coupling.link_atoms import (
    LinkBond,
    find_link_bonds,
    link_distance,
    link_ratio,
    topological_center,
)
from qmmlmm.coupling.region import Region
from qmmlmm.elements import COVALENT_RADII
from qmmlmm.errors import RegionError
from qmmlmm.units import ANGSTROM_IN_BOHR

RATIO_TOLERANCE = 1e-15  # one division of two sums

# C0-C1(-H6)-C2-B3(-H7)-C4(=O5); a virtual site 8 on O5. Hydrogens lack, so orders are given.
NUMBERS = [6, 6, 6, 5, 6, 8, 1, 1, 0]
BONDS = [
    (0, 1, 1.0),
    (1, 2, 1),
    (3, 2, 1),
    (3, 4, 1.5),
    (4, 5, 2),
    (1, 6, None),
    (3, 7, 1.0),
    (5, 8, None),
]
LABELS = [f"X{k}" for k in range(len(NUMBERS))]


def links(atoms, ratios=None, bonds=BONDS, numbers=NUMBERS, **options):
    region = Region("site", atoms, link_ratios=ratios, **options)
    return find_link_bonds(region, atoms, bonds, numbers, LABELS)


def test_a_cut_between_two_carbons_has_the_ratio_of_corderos_radii():
    # (0.76 + 0.31) / (0.76 + 0.76) angstrom: 1.07 of 1.52
    assert link_ratio(6, 6) == pytest.approx(1.07 / 1.52, rel=RATIO_TOLERANCE)
    assert round(link_ratio(6, 6), 4) == 0.7039


def test_the_ratio_depends_on_which_end_is_capped():
    assert link_ratio(6, 7) == pytest.approx(1.07 / 1.47, rel=RATIO_TOLERANCE)
    assert link_ratio(7, 6) == pytest.approx(1.02 / 1.47, rel=RATIO_TOLERANCE)


def test_a_link_hydrogen_lies_between_its_hosts_for_all_heavy_elements():
    heavy = range(3, len(COVALENT_RADII) + 1)  # helium is smaller than hydrogen, and has no bonds
    assert all(0.0 < link_ratio(a, b) < 1.0 for a in heavy for b in heavy)


@pytest.mark.parametrize("pair", [(92, 6), (6, 92)])
def test_an_element_without_a_radius_is_refused_with_what_to_do(pair):
    with pytest.raises(RegionError, match=r"no covalent radius for atomic number 92 .* link_ratios=\{"):
        link_ratio(*pair)


def test_a_cut_bond_knows_its_hosts_and_the_further_neighbours_outside():
    assert links([0, 1, 6]) == (LinkBond(1, 2, (3,), link_ratio(6, 6)),)


def test_the_further_neighbours_are_sorted_and_without_virtual_sites():
    (bond,) = links([0, 1, 2, 6])
    assert bond == LinkBond(2, 3, (4, 7), link_ratio(6, 5))


def test_a_region_without_a_cut_has_no_links():
    assert links(range(8)) == ()


def test_a_bond_to_a_virtual_site_is_not_a_cut():
    assert links([0, 1, 2, 3, 4, 5, 6, 7]) == ()
    assert links([5, 4, 3, 7]) == (LinkBond(3, 2, (1,), link_ratio(5, 6)),)


def test_several_cuts_come_in_the_order_of_the_region():
    found = links([1, 2, 6])
    assert [(bond.q1, bond.m1) for bond in found] == [(1, 0), (2, 3)]


def test_the_order_of_atoms_in_a_bond_does_not_matter():
    turned = [(b, a, order) for a, b, order in BONDS]
    assert links([1, 2, 6], bonds=turned) == links([1, 2, 6])


def test_a_bond_that_a_topology_lists_twice_is_cut_once():
    assert links([0, 1, 6], bonds=[*BONDS, (2, 1, None)]) == links([0, 1, 6])


def test_a_ratio_of_the_users_wins():
    (bond,) = links([0, 1, 6], {(1, 2): 0.65})
    assert bond.ratio == 0.65


def test_a_ratio_of_the_users_helps_an_element_without_a_radius():
    numbers = [92 if k == 2 else z for k, z in enumerate(NUMBERS)]
    assert links([0, 1, 6], {(1, 2): 0.65}, numbers=numbers)[0].ratio == 0.65


def test_the_distance_rule_takes_the_bond_length_of_covalent_radii_on_all_cuts():
    first, second = links([1, 2, 6], link_rule="distance")
    assert (first.ratio, second.ratio) == (0.0, 0.0)
    assert first.distance == second.distance == link_distance(6)
    assert link_distance(6) == pytest.approx(1.07 * ANGSTROM_IN_BOHR, rel=RATIO_TOLERANCE)


def test_a_distance_of_the_users_wins_for_its_bond_alone():
    first, second = links([1, 2, 6], link_distances={(2, 3): 0.109})
    assert first == LinkBond(1, 0, (), link_ratio(6, 6), 0.0)
    assert (second.ratio, second.distance) == (0.0, pytest.approx(1.09 * ANGSTROM_IN_BOHR, rel=RATIO_TOLERANCE))


def test_a_ratio_of_the_users_wins_over_the_distance_rule():
    first, second = links([1, 2, 6], {(1, 0): 0.6}, link_rule="distance")
    assert (first.ratio, first.distance) == (0.6, 0.0)
    assert (second.ratio, second.distance) == (0.0, link_distance(6))


def test_a_distance_for_a_bond_that_is_not_cut_is_refused():
    with pytest.raises(
        RegionError, match=r"link_distances for bonds that it does not cut: \(2, 1\); .* are: \(1, 2\)$"
    ):
        links([0, 1, 6], link_distances={(2, 1): 0.109})


def test_a_ratio_for_a_bond_that_is_not_cut_is_refused_and_the_cuts_listed():
    with pytest.raises(
        RegionError,
        match=r"link_ratios for bonds that it does not cut: \(2, 1\); .* are: \(1, 2\)$",
    ):
        links([0, 1, 6], {(2, 1): 0.65})


def test_a_ratio_without_any_cut_is_refused():
    with pytest.raises(RegionError, match="are: none"):
        links(range(8), {(0, 1): 0.65})


def test_a_cut_through_a_double_bond_is_refused():
    with pytest.raises(RegionError, match="'site' cuts the bond X5 - X4 of order 2; cut a single bond"):
        links([5])


def test_a_cut_through_an_aromatic_bond_is_refused():
    with pytest.raises(RegionError, match=r"cuts the bond X3 - X4 of order 1.5; cut a single bond"):
        links([0, 1, 2, 3, 6, 7])


@pytest.mark.parametrize("atoms", [[0, 1], [6]], ids=["hydrogen outside", "hydrogen inside"])
def test_a_cut_of_a_bond_to_hydrogen_is_refused(atoms):
    with pytest.raises(RegionError, match="a bond to hydrogen cannot be cut; take both atoms"):
        links(atoms)


def test_two_links_on_one_outside_atom_are_refused():
    bonds = [(0, 1, 1), (1, 2, 1), (1, 3, 1)]
    with pytest.raises(RegionError, match="'site' has two link atoms on one outside atom: X1; take that atom"):
        links([0, 2], bonds=bonds)


@pytest.mark.parametrize(
    ("atoms", "bonds", "expected"),
    [
        ([7], [], 0),
        ([10, 11, 12, 13, 14], [(10, 11), (11, 12), (12, 13), (13, 14)], 2),
        ([3, 1, 2], [(1, 2), (2, 3)], 2),  # the middle one stands last
        ([0, 1, 2, 3], [(0, 3), (1, 3), (2, 3)], 3),  # a star
        ([0, 1, 2, 3, 4], [(0, 1), (2, 3), (3, 4)], 3),  # the larger of two molecules
        ([0, 1, 2, 3], [(0, 1), (2, 3)], 0),  # the first of two equal ones
        ([0, 1, 2], [(0, 1), (1, 2), (2, 5), (5, 6), (6, 7)], 1),  # what is outside does not count
    ],
)
def test_the_topological_center_is_the_atom_nearest_to_all_others(atoms, bonds, expected):
    assert topological_center(atoms, bonds) == expected


@given(st.integers(1, 30), st.randoms())
def test_the_center_of_a_chain_is_its_middle_in_whatever_order_the_atoms_come(length, random):
    atoms = list(range(100, 100 + length))
    bonds = list(itertools.pairwise(atoms))
    random.shuffle(atoms)
    random.shuffle(bonds)
    middle = atoms[topological_center(atoms, bonds)] - 100
    assert middle in ((length - 1) // 2, length // 2)
