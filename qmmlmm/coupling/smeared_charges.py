"""Charges of the surroundings as Gaussian distributions instead of points.

A point charge within 2 angstrom of a region over-polarises it: the region's electrons feel the whole attraction of the
charge and nothing of the Pauli repulsion of its atom, and spill over to it. A Gaussian distribution avoids this,

    rho(r) = q (pi w^2)^(-3/2) exp(-r^2/w^2),    phi(r) = q erf(r/w)/r,

with the width w. It differs from the point charge by q erfc(r/w)/r: by 16 % at r = w, 0.5 % at 2 w, 2e-5 at 3 w. The
total charge, and with it the potential far away, is the same.

Notes
-----
Source: Das et al., J. Chem. Phys. 117, 10534 (2002), for the idea and for widths; Amara and Field, Theor. Chem. Acc.
109, 43 (2003), for charges at a cut bond. The width is PySCF's radius (`pyscf.qmmm.mm_charge(..., radii=...)`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from qmmlmm.errors import HamiltonianError, RegionError, SettingError, listed
from qmmlmm.setting_checks import check_length, is_whole_number
from qmmlmm.units import ANGSTROM_IN_BOHR, NM_IN_BOHR, FloatArray, IntArray, Scalar

Widths: TypeAlias = "Scalar | Mapping[int, Scalar]"
"""One width of all charges, or widths by particle."""

REACH = 6.0
"""Distance in widths beyond which a Gaussian charge is a point: erfc(6) is 2e-17."""

LARGEST_WIDTH = 2.0 * ANGSTROM_IN_BOHR
"""Largest width, bohr; with larger ones charges at the distance of a hydrogen bond lose half their field."""


def widths_in_bohr(smeared_charges: Widths | None) -> float | dict[int, float] | None:
    """Return the widths of `Term(..., smeared_charges=...)`, bohr.

    Parameters
    ----------
    smeared_charges : Quantity, nm, or mapping of int to Quantity, nm, or None

    Raises
    ------
    HamiltonianError
        If a width is no length or out of range, or a key is no atom.
    """
    if smeared_charges is None:
        return None
    if not isinstance(smeared_charges, Mapping):
        return _width(smeared_charges, "smeared_charges")
    wrong = [a for a in smeared_charges if not is_whole_number(a) or a < 0]
    if wrong or not smeared_charges:
        raise HamiltonianError(
            "smeared_charges as a mapping is {atom index: width}, got "
            + (f"the keys {listed(map(repr, wrong))}" if wrong else "no atoms")
            + "; write {17: 0.05 * unit.nanometer}, or one width for all charges"
        )
    return {int(a): _width(width, f"smeared_charges of atom {a}") for a, width in smeared_charges.items()}


def _width(value: Scalar, what: str) -> float:
    try:
        width = check_length(what, value) * NM_IN_BOHR
    except SettingError as error:
        raise HamiltonianError(
            f"{what} is a width, got {value!r}; write 0.05 * unit.nanometer, or a number in nm"
        ) from error
    if not 0.0 < width <= LARGEST_WIDTH:
        raise HamiltonianError(
            f"{what} is a width above 0 and not above {LARGEST_WIDTH / ANGSTROM_IN_BOHR:g} angstrom, got {value!r}; a "
            "bare number is in nm. For point charges leave it out"
        )
    return width


def source_widths(
    widths: float | Mapping[int, float],
    n_particles: int,
    own: Sequence[int],
    derived_bonds: IntArray,
    name: str,
) -> FloatArray:
    """Return the width of each source of a region's field, (n_particles + n_derived,) bohr, zero for points.

    Parameters
    ----------
    widths : float or mapping of int to float, bohr
        One width of all charges around the region, or widths of some particles.
    n_particles : int
    own : sequence of int
        Particles of the region. Only their images act on it, at distances at which they are points.
    derived_bonds : (n_derived, 2) int array
        Atoms of the derived charges, each of which has the larger width of its two atoms.
    name : str
        Name of the region, for messages.

    Raises
    ------
    RegionError
        If a width is given for a particle that is not around the region.
    """
    result = np.zeros(n_particles)
    if isinstance(widths, Mapping):
        inside = sorted(set(widths) & set(own))
        beyond = [a for a in widths if a >= n_particles]
        if inside or beyond:
            raise RegionError(
                f"smeared_charges of region {name!r} name atoms that "
                + ("are in the region" if inside else f"are beyond the last particle {n_particles - 1}")
                + f": {listed(inside or beyond)}; they are for charges around the region"
            )
        result[list(widths)] = list(widths.values())
    else:
        result[:] = widths
        result[list(own)] = 0.0
    return np.concatenate([result, result[derived_bonds].max(axis=1)])
