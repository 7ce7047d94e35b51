from __future__ import annotations

import numpy as np
import pytest

from qmmlmm.geometry import Geometry
from qmmlmm.sampling.collective_variables import Distance, DistanceDifference, Torsion
from tests.toy_systems import OCTAHEDRON

ROUND_OFF = 1e-12


def test_the_nearest_image_in_a_cubic_box_with_an_edge_of_one_nanometer():
    """The unit matrix is a box like any other."""
    positions = np.array([[0.05, 0.5, 0.5], [0.95, 0.5, 0.5]])
    assert Distance(0, 1)(Geometry(positions, np.eye(3))) == pytest.approx(0.100, abs=ROUND_OFF)
    assert Distance(0, 1)(Geometry(positions)) == pytest.approx(0.900, abs=ROUND_OFF)


@pytest.mark.parametrize("box", [np.eye(3), 1.3 * OCTAHEDRON, np.array([[1.2, 0, 0], [0.4, 1.1, 0], [-0.5, 0.5, 1.3]])])
@pytest.mark.parametrize("variable", [Distance(0, 3), DistanceDifference(0, 1, 2), Torsion(0, 1, 2, 3)])
def test_a_molecule_that_the_box_cuts_has_the_value_of_the_whole_one(variable, box):
    rng = np.random.default_rng(1)
    whole = np.array([[0.0, 0.1, 0.0], [0.0, 0.0, 0.0], [0.15, 0.0, 0.0], [0.2, 0.05, 0.1]])
    expected = variable(Geometry(whole))
    for _ in range(10):
        moved = whole + rng.integers(-2, 3, (4, 3)) @ box
        assert variable(Geometry(moved, box)) == pytest.approx(expected, abs=1e3 * ROUND_OFF)
