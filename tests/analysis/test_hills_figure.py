"""Figures of the free energy of hills."""

from __future__ import annotations

import numpy as np
import pytest

from qmmlmm.analysis.hills_figure import plot_hills, save_hills_figure
from qmmlmm.errors import SettingError

X, Y = np.linspace(0.0, 1.0, 5), np.linspace(-1.0, 1.0, 4)


def test_one_variable_is_a_curve_from_zero():
    axes = plot_hills([X], -3.0 + X**2, ["apart (nm)"])
    (line,) = axes.get_lines()
    np.testing.assert_allclose(line.get_ydata(), X**2, atol=1e-12)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("apart (nm)", "free energy (kJ/mol)")


def test_two_variables_are_a_map_with_the_first_along_x(tmp_path):
    values = X[:, None] ** 2 + 0.0 * Y
    axes = plot_hills([X, Y], values, ["x", "y"])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")
    assert axes.dataLim.bounds == pytest.approx((0.0, -1.0, 1.0, 2.0))
    save_hills_figure([X, Y], values, ["x", "y"], tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_what_does_not_go_together_is_refused():
    with pytest.raises(SettingError, match="one or two variables with a label each, got 2 and 1 labels"):
        plot_hills([X, Y], np.zeros((5, 4)), ["x"])
    with pytest.raises(SettingError, match="free_energy"):
        plot_hills([X, Y], np.zeros((4, 5)), ["x", "y"])
