from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from openmm import unit

from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.coupling.region import Region
from qmmlmm.coupling.smeared_charges import source_widths, widths_in_bohr
from qmmlmm.errors import HamiltonianError, RegionError
from qmmlmm.units import NM_IN_BOHR
from tests.toy_potentials import SettingsOnly

POTENTIAL = SettingsOnly(smeared_charges=True)
SITE, CORE = Region("site", range(10)), Region("core", [2, 3, 4])


def term(smeared_charges, region=SITE, coefficient=1.0, **options):
    options = {"embedding": "electrostatic"} | options
    return Term(POTENTIAL, region, coefficient=coefficient, smeared_charges=smeared_charges, **options)


@pytest.mark.parametrize("given", [0.05, 0.5 * unit.angstrom, 50 * unit.picometer, np.float64(0.05)])
def test_a_width_is_a_quantity_or_a_number_in_nm(given):
    assert term(given).widths == pytest.approx(0.05 * NM_IN_BOHR, rel=1e-12)
    assert term({np.int64(12): given}).widths == {12: pytest.approx(0.05 * NM_IN_BOHR, rel=1e-12)}


def test_without_the_option_all_charges_are_points():
    assert term(None).widths is None
    assert Term(POTENTIAL, SITE, embedding="electrostatic").widths is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("broad", "smeared_charges is a width, got 'broad'; write 0.05"),
        (0.5 * unit.kelvin, "smeared_charges is a width, got .*K; write"),
        (True, "smeared_charges is a width, got True; write"),
        ("0.05", "smeared_charges is a width, got '0.05'; write"),
        (0.0, "above 0 and not above 2 angstrom, got 0.0.*For point charges leave it out"),
        (-0.05, "above 0"),
        (float("nan"), "smeared_charges is a width, got nan"),
        (0.5, "not above 2 angstrom, got 0.5; a bare number is in nm"),
        ({}, "got no atoms; write {17: 0.05"),
        ({"CA": 0.05}, "got the keys 'CA'"),
        ({-1: 0.05}, "got the keys -1"),
        ({True: 0.05}, "got the keys True"),
        ({12: 0.05, 13: 0.7}, "smeared_charges of atom 13 is a width above 0"),
    ],
)
def test_a_width_that_makes_no_sense_is_refused(given, message):
    with pytest.raises(HamiltonianError, match=message):
        term(given)


def test_mechanical_embedding_has_no_charges_to_smear():
    with pytest.raises(HamiltonianError, match=r"smeared_charges=0\.05 goes with electrostatic embedding"):
        term(0.05, embedding="mechanical")


def test_a_potential_that_does_not_know_widths_is_refused():
    with pytest.raises(HamiltonianError, match="SettingsOnly does not declare smeared_charges among its Capabilities"):
        Term(SettingsOnly(), SITE, embedding="electrostatic", smeared_charges=0.05)


@pytest.mark.parametrize("other", [None, 0.06, {12: 0.05}])
def test_terms_of_a_region_that_differ_in_it_are_refused(other):
    with pytest.raises(HamiltonianError, match=r"terms of region 'core' differ in smeared_charges: 0\.05"):
        Hamiltonian([term(0.05), term(0.05, CORE), term(other, CORE, -1.0)])


def test_the_same_width_in_two_units_is_the_same_and_regions_may_differ():
    Hamiltonian([term(None), term(0.05, CORE), term(0.5 * unit.angstrom, CORE, -1.0)])
    Hamiltonian([term({12: 0.05}, coefficient=0.5), term({12: 0.5 * unit.angstrom}, coefficient=0.5)])


def test_a_term_with_widths_can_be_changed_pickled_and_hashed():
    for given in (0.05, 0.5 * unit.angstrom, {12: 0.05}):
        first = term(given)
        assert replace(first, coefficient=0.5).widths == first.widths
        assert pickle.loads(pickle.dumps(first)).widths == first.widths
        assert {first: 1}[first] == 1


def test_every_source_around_a_region_has_the_width_and_those_of_the_region_are_points():
    bonds = np.array([[3, 4], [3, 5]])
    np.testing.assert_array_equal(source_widths(0.9, 6, (0, 1), bonds, "site"), [0, 0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9])


def test_a_boundary_charge_has_the_larger_width_of_its_two_atoms():
    bonds = np.array([[3, 4], [3, 5], [5, 4]])
    found = source_widths({3: 0.9, 4: 1.2}, 6, (0, 1), bonds, "site")
    np.testing.assert_array_equal(found, [0, 0, 0, 0.9, 1.2, 0, 1.2, 0.9, 1.2])
    assert source_widths({3: 0.9}, 6, (0, 1), np.zeros((0, 2), dtype=int), "site").shape == (6,)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({1: 0.9, 3: 0.9}, "region 'site' name atoms that are in the region: 1; they are for charges around"),
        ({6: 0.9}, "beyond the last particle 5: 6"),
    ],
)
def test_widths_of_particles_that_are_not_around_the_region_are_refused(widths, message):
    with pytest.raises(RegionError, match=message):
        source_widths(widths, 6, (0, 1), np.zeros((0, 2), dtype=int), "site")


def test_widths_come_out_in_bohr():
    assert widths_in_bohr(0.1) == pytest.approx(1.8897261246)
