"""What the tests of xTB share: a water molecule among three charges, bohr."""

from __future__ import annotations

import numpy as np
import pytest

from qmmlmm.coupling.potential import ExternalField, RegionSpecification
from qmmlmm.geometry import Geometry

WATER = np.array([[0.0, 0.0, 0.0], [1.4, 0.1, 1.1], [-1.4, 0.2, 1.1]])
CHARGES = np.array([0.417, -0.834, 0.417])
PLACES = np.array([[0.0, 0.0, -3.6], [3.2, 0.3, 2.6], [-4.0, 2.0, 1.0]])


@pytest.fixture(autouse=True, scope="session")
def _separate_cache(tmp_path_factory):
    """Remember the test of tblite for these tests only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def water() -> RegionSpecification:
    return RegionSpecification("water/XTB", np.array([8, 1, 1]), 0, 1)


@pytest.fixture
def geometry() -> Geometry:
    return Geometry(WATER.copy())


@pytest.fixture
def field() -> ExternalField:
    return ExternalField(PLACES.copy(), CHARGES.copy(), np.zeros(3))
