from __future__ import annotations

import numpy as np
import pytest
from openmm import unit

from qmmlmm import units
from tests.contexts import coulomb_constant

# OpenMM's Coulomb constant is made of the same CODATA set, rounded on the way.
COULOMB_TOLERANCE = 1e-9
# OpenMM's unit module has the bohr and the hartree of older sets.
OLDER_CODATA_TOLERANCE = 2e-7
ROUND_OFF = 1e-14


def test_hartree_times_bohr_is_the_coulomb_constant_of_openmm():
    # In atomic units two unit charges at one bohr have one hartree.
    assert pytest.approx(coulomb_constant(), rel=COULOMB_TOLERANCE) == units.HARTREE_IN_KJ_PER_MOL * units.BOHR_IN_NM


def test_the_bohr_is_that_of_openmm_up_to_its_older_codata_set():
    theirs = (1.0 * unit.bohr).value_in_unit(unit.nanometer)
    assert theirs == pytest.approx(units.BOHR_IN_NM, rel=OLDER_CODATA_TOLERANCE)


def test_the_hartree_is_that_of_openmm_up_to_its_older_codata_set():
    theirs = (1.0 * unit.hartree * unit.AVOGADRO_CONSTANT_NA).value_in_unit(unit.kilojoule_per_mole)
    assert theirs == pytest.approx(units.HARTREE_IN_KJ_PER_MOL, rel=OLDER_CODATA_TOLERANCE)


def test_derived_factors_follow_from_the_two():
    assert pytest.approx(units.NM_IN_BOHR * units.BOHR_IN_NM, rel=ROUND_OFF) == 1.0
    assert pytest.approx(units.ANGSTROM_IN_BOHR * units.BOHR_IN_NM * 10.0, rel=ROUND_OFF) == 1.0
    assert pytest.approx(units.FORCE_AU_IN_OPENMM * units.BOHR_IN_NM, rel=ROUND_OFF) == (units.HARTREE_IN_KJ_PER_MOL)
    assert pytest.approx(2625.4996394799, rel=1e-13) == units.HARTREE_IN_KJ_PER_MOL


def test_a_quantity_is_converted_and_a_bare_number_taken_as_it_is():
    assert units.in_unit(3.0 * unit.angstrom, unit.nanometer) == pytest.approx(0.3)
    assert units.in_unit(0.3, unit.nanometer) == 0.3
    array = np.arange(3.0)
    assert units.in_unit(array, unit.nanometer) is array
    np.testing.assert_allclose(units.in_unit(array * unit.angstrom, unit.nanometer), array / 10)


def test_a_quantity_of_another_dimension_is_refused():
    with pytest.raises(TypeError, match="not compatible"):
        units.in_unit(1.0 * unit.picosecond, unit.nanometer)


def test_the_hartree_in_electronvolt_is_that_of_codata_2018():
    assert pytest.approx(27.211386245988, rel=1e-12) == units.HARTREE_IN_EV
