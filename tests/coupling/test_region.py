from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmmlmm.coupling.region import Region
from qmmlmm.errors import RegionError


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
