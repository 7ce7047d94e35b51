"""The number of electrons of a region."""

from __future__ import annotations

import numpy as np

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import RegionError, listed


def check_electrons(specification: RegionSpecification) -> None:
    """Check that charge and multiplicity fit the number of electrons.

    Parameters
    ----------
    specification : RegionSpecification

    Raises
    ------
    RegionError
        If no electron is left, or the multiplicity is impossible for their number.
    """
    protons = int(np.sum(specification.atomic_numbers))
    electrons = protons - specification.charge
    term = f"term {specification.name!r}"
    if electrons < 1:
        raise RegionError(
            f"{term}: charge {specification.charge} leaves {electrons} electrons of {protons} protons; "
            "check the charge of the region"
        )
    multiplicity = specification.multiplicity
    if multiplicity < 1 or (electrons - multiplicity) % 2 == 0 or multiplicity > electrons + 1:
        possible = range(1 if electrons % 2 == 0 else 2, electrons + 2, 2)
        raise RegionError(
            f"{term}: {electrons} electrons (charge {specification.charge}) cannot have multiplicity "
            f"{multiplicity}; possible are {listed(possible)}. Check charge, multiplicity and the cut bonds "
            "of the region"
        )
