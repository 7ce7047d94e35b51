"""Conversion factors between OpenMM's units and atomic units.

All conversion factors of qmmlmm are defined in this module.

Notes
-----
Source: CODATA 2018 (Tiesinga et al., Rev. Mod. Phys. 93, 025010 (2021)) for the bohr, the hartree, the
electron mass and the Avogadro constant. They agree with the Coulomb constant that OpenMM uses, 138.93545764438198
kJ nm/(mol e^2), to 4e-10, which a test checks.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from openmm import unit

BOHR_IN_NM = 0.0529177210903
AVOGADRO = 6.02214076e23
HARTREE_IN_JOULE = 4.3597447222071e-18
HARTREE_IN_KJ_PER_MOL = HARTREE_IN_JOULE * AVOGADRO * 1e-3
ELEMENTARY_CHARGE_IN_COULOMB = 1.602176634e-19
HARTREE_IN_EV = HARTREE_IN_JOULE / ELEMENTARY_CHARGE_IN_COULOMB
PLANCK_IN_JOULE_SECOND = 6.62607015e-34
LIGHT_IN_CM_PER_SECOND = 2.99792458e10
HARTREE_IN_PER_CM = HARTREE_IN_JOULE / (PLANCK_IN_JOULE_SECOND * LIGHT_IN_CM_PER_SECOND)
"""One hartree in wave numbers, 1/cm."""
EV_IN_PER_CM = HARTREE_IN_PER_CM / HARTREE_IN_EV
"""Wave number of a photon of 1 eV, 1/cm."""
KJ_PER_MOL_IN_EV = HARTREE_IN_EV / HARTREE_IN_KJ_PER_MOL
SPEED_OF_LIGHT = 137.035999084
"""In atomic units: the inverse of the fine-structure constant."""
ANGSTROM_IN_BOHR = 0.1 / BOHR_IN_NM
ELECTRON_MASS_IN_DALTON = 5.48579909065e-4

NM_IN_BOHR = 1.0 / BOHR_IN_NM
FORCE_AU_IN_OPENMM = HARTREE_IN_KJ_PER_MOL / BOHR_IN_NM
"""One hartree/bohr in kJ/(mol nm)."""
ATOMIC_TIME_IN_PS = (ELECTRON_MASS_IN_DALTON / HARTREE_IN_KJ_PER_MOL) ** 0.5 * BOHR_IN_NM
HBAR_IN_OPENMM = HARTREE_IN_KJ_PER_MOL * ATOMIC_TIME_IN_PS
"""The reduced Planck constant in kJ/mol ps: one in atomic units."""

GAS_CONSTANT = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)
"""The molar gas constant in kJ/(mol K), as OpenMM has it."""

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]

Scalar: TypeAlias = "unit.Quantity | float"
"""A number with a unit, or a bare number in OpenMM's default unit."""

Vectors: TypeAlias = "unit.Quantity | npt.ArrayLike"
"""An array with a unit, or bare numbers in OpenMM's default unit."""


_Bare = TypeVar("_Bare")


def in_unit(value: unit.Quantity | _Bare, default: unit.Unit) -> _Bare:
    """Return the bare number or array of a Quantity; what has no unit is returned unchanged.

    Parameters
    ----------
    value : Quantity, float or array
    default : openmm.unit.Unit
        Unit of the result, and of a bare number.
    """
    return value.value_in_unit(default) if isinstance(value, unit.Quantity) else value
