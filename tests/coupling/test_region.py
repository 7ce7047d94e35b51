from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openmm import unit

from qmmlmm.coupling.region import Region
from qmmlmm.errors import RegionError
from qmmlmm.units import ANGSTROM_IN_BOHR


@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=50), st.randoms())
def test_atoms_are_sorted_whatever_their_order(atoms, random):
    shuffled = list(atoms)
    random.shuffle(shuffled)
    region = Region("site", shuffled)
    assert region.atoms == tuple(sorted(atoms))
    assert len(region) == len(atoms)


def test_integers_of_numpy_become_plain_ones():
    region = Region("site", np.array([5, 2]), np.int64(-1), np.int32(2))
    assert region.atoms == (2, 5)
    assert {type(value) for value in (*region.atoms, region.charge, region.multiplicity)} == {int}


@pytest.mark.parametrize("name", ["", "  ", "a/b", "MM", None, 3])
def test_a_name_that_would_confuse_terms_is_refused(name):
    with pytest.raises(RegionError, match=r"non-empty string without '/' that is not 'MM', got"):
        Region(name, [0])


def test_a_region_without_atoms_is_refused():
    with pytest.raises(RegionError, match=r"'site' has no atoms; use qmmlmm.select"):
        Region("site", [])


@pytest.mark.parametrize("atom", [1.0, "1", True, None])
def test_atoms_that_are_no_integers_are_refused(atom):
    with pytest.raises(RegionError, match="integer indices, got"):
        Region("site", [0, atom])


def test_a_long_list_of_wrong_atoms_is_cut():
    with pytest.raises(RegionError, match=r"0.0, 1.0, 2.0, 3.0, 4.0, ... \(9 in all\)"):
        Region("site", np.arange(9.0).tolist())


def test_a_negative_index_is_refused():
    with pytest.raises(RegionError, match="indices start at 0, got -2"):
        Region("site", [3, -2])


def test_an_atom_that_is_listed_twice_is_named():
    with pytest.raises(RegionError, match="more than once: 4, 7"):
        Region("site", [7, 4, 1, 7, 4])


@pytest.mark.parametrize("value", [0.0, "0", True, None])
def test_charge_and_multiplicity_are_integers(value):
    with pytest.raises(RegionError, match="charge is an integer, got"):
        Region("site", [0], value)
    with pytest.raises(RegionError, match="multiplicity is an integer, got"):
        Region("site", [0], 0, value)


@pytest.mark.parametrize("multiplicity", [0, -1])
def test_a_multiplicity_below_one_is_refused_and_the_singlet_explained(multiplicity):
    with pytest.raises(RegionError, match=r"at least 1, got .*a singlet has multiplicity 1"):
        Region("site", [0], 0, multiplicity)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 1.4, float("nan")])
def test_a_link_ratio_lies_between_the_two_atoms(ratio):
    with pytest.raises(RegionError, match=r"link ratio of bond \(0, 5\) lies between 0 and 1"):
        Region("site", [0], link_ratios={(0, 5): ratio})


def test_a_region_cannot_be_changed_and_can_be_a_key():
    region = Region("site", [0, 1])
    with pytest.raises(AttributeError, match="cannot assign"):
        region.charge = 1
    assert {region: 1}[Region("site", [1, 0])] == 1


def test_regions_of_different_link_ratios_differ():
    assert Region("site", [0], link_ratios={(0, 5): 0.7}) != Region("site", [0])


def test_a_region_survives_pickling():
    region = Region("site", [4, 2], -1, 2, link_ratios={(2, 9): 0.7})
    assert pickle.loads(pickle.dumps(region)) == region


def test_a_link_distance_is_a_quantity_or_a_number_in_nm():
    given = {(0, 5): 1.09 * unit.angstrom, (1, 6): 0.109}
    distances = Region("site", [0, 1], link_distances=given).link_distances
    assert distances[0, 5] == pytest.approx(distances[1, 6], rel=1e-15)
    assert distances[0, 5] == pytest.approx(1.09 * ANGSTROM_IN_BOHR, rel=1e-15)


@pytest.mark.parametrize("distance", [1.09, 0.0, -0.109, 5.0 * unit.angstrom])
def test_a_link_distance_that_no_bond_to_hydrogen_has_is_refused_and_the_unit_named(distance):
    with pytest.raises(RegionError, match=r"link distance of bond \(0, 5\) lies between 0.7 and 2.0 angstrom.*in nm"):
        Region("site", [0], link_distances={(0, 5): distance})


@pytest.mark.parametrize("distance", ["long", "0.109", True, 1.09 * unit.kelvin, None, float("nan"), [0.109]])
def test_a_link_distance_is_a_length(distance):
    with pytest.raises(RegionError, match=r"link distance of bond \(0, 5\) is a length, got .*1.09 \* unit.angstrom"):
        Region("site", [0], link_distances={(0, 5): distance})


def test_a_bond_has_a_link_ratio_or_a_link_distance():
    with pytest.raises(RegionError, match=r"bonds \(0, 5\) are in link_ratios and in link_distances"):
        Region("site", [0], link_ratios={(0, 5): 0.7}, link_distances={(0, 5): 0.109})


def test_an_unknown_link_rule_is_refused_with_the_nearest():
    with pytest.raises(RegionError, match="link_rule is 'ratio' or 'distance', got 'distances'. Nearest.*: distance"):
        Region("site", [0], link_rule="distances")


def test_regions_of_different_link_rules_or_distances_differ():
    plain = Region("site", [0])
    assert plain != Region("site", [0], link_rule="distance")
    assert plain != Region("site", [0], link_distances={(0, 5): 0.109})
