"""Every kind of electronic state obeys the contract of a potential."""

from __future__ import annotations

import io

import numpy as np
import pytest

from qmmlmm import check_potential
from qmmlmm.qm import CASSCF, TDA, TDDFT, DeltaSCF, PySCFPotential
from systems.methanimine_water import METHANIMINE

WATER = [8, 1, 1], np.array([[0.0, 0.0, 0.0], [0.0985, 0.0, 0.0], [-0.025, 0.094, 0.01]])
METHYLENE = [6, 1, 1], np.array([[0.0, 0.0, 0.0], [0.001, 0.095, 0.05], [0.002, -0.097, 0.052]])
HYDROXYL = [8, 1], np.array([[0.0, 0.0, 0.0], [0.02, 0.01, 0.0957]])
HYDROGEN = [1, 1], np.array([[0.0, 0.0, 0.0], [0.01, 0.02, 0.072]])
IMINE = [6, 7, 1, 1, 1], 0.1 * np.array([atom[1:4] for atom in METHANIMINE])
TIGHT = 1e-8
EXACT, QUADRATURE = 1e-5, 5e-5  # hartree/bohr, of all coordinates together; grids move with the atoms


def qm(excited=None, method="hf", basis="sto-3g", **more):
    return PySCFPotential(method, basis, excited=excited, conv_tol=1e-11, embedding_grid_level=0, **more)


@pytest.mark.parametrize(
    ("potential", "molecule", "multiplicity"),
    [
        pytest.param(qm(), WATER, 1, id="ground state"),
        pytest.param(qm(), HYDROXYL, 2, id="unrestricted ground state"),
        pytest.param(qm(TDA(3, conv_tol=TIGHT), state=1), WATER, 1, id="TDA"),
        pytest.param(qm(TDA(2, conv_tol=TIGHT)), METHYLENE, 3, id="unrestricted TDA"),
        pytest.param(qm(TDDFT(3, conv_tol=TIGHT), state=2), WATER, 1, id="TDDFT"),
        pytest.param(qm(DeltaSCF(conv_tol=1e-7), basis="6-31g", state=1), HYDROGEN, 1, id="Delta-SCF"),
        pytest.param(qm(CASSCF(3, 2, 2), state=1), HYDROGEN, 1, id="CASSCF"),
        pytest.param(qm(CASSCF(2, 4, 3), state=1), IMINE, 1, id="CASSCF in a part", marks=pytest.mark.slow),
        pytest.param(qm(method="pbe"), HYDROXYL, 2, id="functional", marks=pytest.mark.slow),
        pytest.param(
            qm(TDDFT(2, conv_tol=TIGHT), "pbe0"), WATER, 1, id="TDDFT with a functional", marks=pytest.mark.slow
        ),
    ],
)
def test_a_solver_obeys_the_contract(potential, molecule, multiplicity, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a failed geometry goes
    tolerance = EXACT if potential.method == "hf" else QUADRATURE
    report = check_potential(potential, *molecule, 0, multiplicity, tolerance=tolerance, stream=io.StringIO())
    assert not report.failures
    assert len(report.results) > 15
