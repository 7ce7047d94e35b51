"""Small systems that the tests of qmmlmm.mm share."""

from __future__ import annotations

import pytest

from tests import toy_systems


@pytest.fixture(scope="session")
def amber_vacuum():
    """Alanine dipeptide and three flexible TIP3P waters, without cutoff."""
    return toy_systems.peptide_in_vacuum("amber")


@pytest.fixture(scope="session")
def charmm_vacuum():
    """Alanine dipeptide and three waters in CHARMM36, with CMAP and CustomNonbondedForce."""
    return toy_systems.peptide_in_vacuum("charmm")


@pytest.fixture(scope="session")
def tip4p_cube():
    """Alanine dipeptide in TIP4P-Ew."""
    return toy_systems.peptide_in_water("amber")


@pytest.fixture(scope="session")
def tip4p_octahedron():
    """Alanine dipeptide in TIP4P-Ew, in a truncated octahedron."""
    return toy_systems.peptide_in_water("amber", "octahedron")


@pytest.fixture(scope="session")
def charmm_cube():
    """Alanine dipeptide in TIP3P, in CHARMM36."""
    return toy_systems.peptide_in_water("charmm")
