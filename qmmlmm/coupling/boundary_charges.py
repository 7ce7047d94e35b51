"""The charge of the outside atom on a cut bond, as the region feels it.

The charge of m1 is 1 angstrom from the link hydrogen and would polarise the region far too much. Each scheme moves
it and keeps the total charge. Only the charges that the region feels change; the force field between the outside
atoms does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qmmlmm.coupling.link_atoms import LinkBond
from qmmlmm.errors import HamiltonianError, RegionError, nearest
from qmmlmm.units import FloatArray, IntArray

SCHEMES = ("rcd", "rc", "shift", "zero")

DIPOLE_ARM = 0.06
"""Half the length of the dipoles of the scheme ``shift``, as a fraction of the m1-m2 bond."""


@dataclass(frozen=True)
class BoundaryCharges:
    """The charges outside a region that it feels.

    Parameters
    ----------
    charges : (n_particles,) float array, e
    derived_bonds : (n_derived, 2) int array
    derived_fractions : (n_derived,) float array
        A derived charge sits at origin + fraction * (towards - origin).
    derived_charges : (n_derived,) float array, e
    """

    charges: FloatArray
    derived_bonds: IntArray
    derived_fractions: FloatArray
    derived_charges: FloatArray


def check_scheme(scheme: str) -> None:
    """Raise HamiltonianError if `scheme` is not one of `SCHEMES`."""
    if not isinstance(scheme, str) or scheme not in SCHEMES:
        raise HamiltonianError(
            f"unknown boundary_charges {scheme!r}; the schemes are {', '.join(SCHEMES)}.{nearest(str(scheme), SCHEMES)}"
        )


def redistribute(
    charges: FloatArray, link_bonds: Sequence[LinkBond], excess: float, scheme: str, name: str
) -> BoundaryCharges:
    """Return the charges outside a region after the charges of its outside hosts were moved.

    Parameters
    ----------
    charges : (n_particles,) float array, e
        Charges of the force field, zero for the region's particles.
    link_bonds : sequence of LinkBond
    excess : float, e
        The force field's charge of the region minus the region's total charge. The outside hosts get it first, in
        equal parts, so that region and surroundings together keep the System's charge.
    scheme : {"rcd", "rc", "shift", "zero"}
    name : str
        Name of the region, for messages.

    Notes
    -----
    With q the charge of m1 and n its further neighbours m2:

    ``rcd``   2q/n at the middle of each m1-m2 bond, -q/n added to each m2: total charge and the dipoles of the
              bonds are kept. Source: Lin and Truhlar, J. Phys. Chem. A 109, 3991 (2005), section 2.
    ``rc``    q/n at the middle of each m1-m2 bond. Source: as ``rcd``.
    ``shift`` q/n added to each m2, with a small dipole of two charges there that keeps the total dipole.
              Source: Sherwood et al., J. Mol. Struct. THEOCHEM 632, 1 (2003), section 2.2.
    ``zero``  m1 has no charge; the charge is spread evenly over all m2, so that the total is unchanged.

    Raises
    ------
    RegionError
        If m1 has no further neighbour to take its charge, or is itself the neighbour of another cut.
    """
    check_scheme(scheme)
    result = charges.copy()
    bonds: list[tuple[int, int]] = []
    fractions: list[float] = []
    derived: list[float] = []
    hosts = {bond.m1 for bond in link_bonds}
    for bond in link_bonds:
        if not bond.m2:
            raise RegionError(
                f"region {name!r}: the outside atom {bond.m1} of a cut bond has no other neighbour that could take "
                "its charge; take it into the region"
            )
        touching = hosts.intersection(bond.m2)
        if touching:
            raise RegionError(
                f"region {name!r}: the outside atoms {bond.m1} and {min(touching)} of two cut bonds are neighbours; "
                "take both into the region, or cut elsewhere"
            )
        result[bond.m1] += excess / len(link_bonds)
    total = result[[bond.m1 for bond in link_bonds]].copy() if link_bonds else np.zeros(0)
    for bond, charge in zip(link_bonds, total, strict=True):
        share = charge / len(bond.m2)
        result[bond.m1] = 0.0
        for m2 in bond.m2:
            if scheme == "rcd":
                bonds.append((bond.m1, m2))
                fractions.append(0.5)
                derived.append(2.0 * share)
                result[m2] -= share
            elif scheme == "rc":
                bonds.append((bond.m1, m2))
                fractions.append(0.5)
                derived.append(share)
            else:
                result[m2] += share
            if scheme == "shift":
                # Moving the share along the bond adds share * (m2 - m1) to the dipole; the pair subtracts it.
                pair = share / (2.0 * DIPOLE_ARM)
                bonds += [(m2, bond.m1), (m2, bond.m1)]
                fractions += [DIPOLE_ARM, -DIPOLE_ARM]
                derived += [pair, -pair]
    return BoundaryCharges(
        result,
        np.array(bonds, dtype=np.int64).reshape(-1, 2),
        np.array(fractions, dtype=float),
        np.array(derived, dtype=float),
    )
