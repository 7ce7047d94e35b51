"""Traps of PySCF 2.14 that reach ground states: each is refused or repaired.

| trap | where it is dealt with | test |
|---|---|---|
| small `max_memory`: wrong QM/MM gradients in silence | refused below 1000 MB; charges in blocks of our own | here |
| PySCF's bohr is an older one | molecules are made in bohr | here |
| X2C, GHF, MP2, CCSD, double hybrids: no gradient with charges, or a wrong one | not a method | here |
| functionals: gradient without the response of the grid | always with it | `test_derivatives.py` |
| a charge on an atom | an error that names both | `test_external_field.py`, `test_periodic.py` |
"""

from __future__ import annotations

import numpy as np
import pytest

from qmmlmm.errors import PotentialError
from qmmlmm.qm import PySCFPotential
from qmmlmm.qm.field import compact_charges

SAME_SUM = 1e-10  # hartree, hartree/bohr: the same integrals in other blocks; the density is converged to 1e-12


def test_gradients_do_not_depend_on_memory_and_blocks(water, monkeypatch):
    found = []
    for memory, block in ((None, compact_charges.BLOCK_BYTES), (1000, 1)):  # one charge at a time
        monkeypatch.setattr(compact_charges, "BLOCK_BYTES", block)
        potential = PySCFPotential("hf", "6-31g", conv_tol=1e-12, embedding_grid_level=0, max_memory=memory)
        found.append(potential.create_evaluator(water.specification).evaluate(water.geometry, water.field))
    first, second = found
    assert second.energy == pytest.approx(first.energy, rel=0, abs=SAME_SUM)
    np.testing.assert_allclose(second.gradient, first.gradient, rtol=0, atol=SAME_SUM)
    np.testing.assert_allclose(second.charge_gradient, first.charge_gradient, rtol=0, atol=SAME_SUM)
    np.testing.assert_allclose(second.smooth_charges, first.smooth_charges, rtol=0, atol=SAME_SUM)


def test_pyscf_gets_positions_in_bohr_and_returns_the_same_numbers(water):
    evaluator = PySCFPotential("hf", "sto-3g").create_evaluator(water.specification)
    molecule = evaluator.mean_field(water.geometry, None).mol
    np.testing.assert_array_equal(molecule.atom_coords(), water.positions)


@pytest.mark.parametrize("method", ["ghf", "x2c", "x2c-hf", "mp2", "df-mp2", "ccsd(t)", "casscf", "b2plyp"])
def test_methods_without_a_right_gradient_in_a_field_are_refused(method):
    with pytest.raises(PotentialError, match=f"unknown method {method!r}".replace("(", r"\(").replace(")", r"\)")):
        PySCFPotential(method, "sto-3g")
