"""Functionals with dispersion: energy and gradient are those of the functional and of the dispersion's own library."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf import gto

from qmmlmm.qm import PySCFPotential

dispersion = pytest.importorskip("pyscf.dispersion")

CONVERGED = 1e-12
SAME = 1e-8  # hartree, hartree/bohr; the density moves by the square root of conv_tol


def library(case, method, version):
    from pyscf.dispersion import dftd3, dftd4

    numbers = case.specification.atomic_numbers
    atoms = list(zip((int(z) for z in numbers), case.positions.tolist(), strict=True))
    molecule = gto.M(atom=atoms, unit="Bohr", charge=case.specification.charge, spin=None, verbose=0)
    model = dftd4.DFTD4Dispersion if version == "d4" else dftd3.DFTD3Dispersion
    options = {} if version == "d4" else {"version": version}
    return model(molecule, xc=method, **options).get_dispersion(grad=True)


@pytest.mark.parametrize("embedded", [True, False])
@pytest.mark.parametrize(("method", "version"), [("b3lyp", "d3bj"), ("pbe", "d4"), ("hf", "d3bj")])
def test_dispersion_is_added_to_energy_and_gradient_once(water, method, version, embedded):
    settings = {"grid_level": 1, "embedding_grid_level": 0, "conv_tol": CONVERGED}
    field = water.field if embedded else None
    bare, full = (
        PySCFPotential(name, "sto-3g", **settings).create_evaluator(water.specification).evaluate(water.geometry, field)
        for name in (method, f"{method}-{version}")
    )
    expected = library(water, method, version)
    assert full.energy - bare.energy == pytest.approx(float(expected["energy"]), abs=SAME)
    np.testing.assert_allclose(full.gradient - bare.gradient, expected["gradient"], rtol=0, atol=SAME)
    np.testing.assert_allclose(full.charge_gradient, bare.charge_gradient, rtol=0, atol=SAME)
    assert abs(float(expected["energy"])) > 1e-5
