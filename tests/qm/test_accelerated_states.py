"""Excited states with array operations of this package against PySCF's own code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.geometry import Geometry
from qmmlmm.qm import TDA, TDDFT, PySCFPotential
from qmmlmm.qm.states import repulsion_gradient as repulsion_module

ENERGY = 1e-9
"""hartree."""
FORCES = 2e-8
"""hartree/bohr: amplitudes and the response of the orbitals are converged to 1e-9 by two ways."""

NUMBERS = np.array([8, 6, 1, 1])
FORMALDEHYDE = np.array([[0.0, 0.0, 1.27], [0.0, 0.0, -1.0], [1.77, 0.1, -2.1], [-1.77, 0.0, -2.1]])


def specification(multiplicity=1):
    return RegionSpecification("region", NUMBERS, 0, multiplicity)


def evaluated(method, settings, multiplicity, accelerated, **changes):
    settings = replace(settings, conv_tol=1e-9)
    potential = PySCFPotential(
        method, "sto-3g", excited=settings, state=1, conv_tol=1e-12, grid_level=1, accelerated=accelerated, **changes
    )
    return potential.create_evaluator(specification(multiplicity)).evaluate(Geometry(FORMALDEHYDE), None)


CASES = [
    ("hf", TDA(3), 1),
    ("lda,vwn", TDDFT(3), 1),
    ("pbe", TDA(3, "triplet"), 1),
    ("b3lyp", TDA(3), 1),
    ("b3lyp", TDDFT(3, "triplet"), 1),
    ("cam-b3lyp", TDDFT(3), 1),
    ("hse06", TDA(3), 1),
    ("r2scan", TDA(3), 1),
    ("hf", TDDFT(3), 3),
    ("b3lyp", TDDFT(3), 3),
]


@pytest.mark.parametrize(("method", "settings", "multiplicity"), CASES)
def test_energies_and_forces_are_those_of_pyscfs_own_code(method, settings, multiplicity):
    ours, theirs = (evaluated(method, settings, multiplicity, accelerated) for accelerated in (True, False))
    np.testing.assert_allclose(ours.states.state_energies, theirs.states.state_energies, rtol=0.0, atol=ENERGY)
    np.testing.assert_allclose(ours.gradient, theirs.gradient, rtol=0.0, atol=FORCES)
    np.testing.assert_allclose(ours.results["dipole"], theirs.results["dipole"], rtol=0.0, atol=1e-7)
