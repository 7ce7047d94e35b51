"""The figure of energies along a path."""

from __future__ import annotations

import numpy as np
import pytest

from qmmlmm.analysis.path_figure import plot_path, save_path_figure
from qmmlmm.errors import SettingError

PLACES = np.array([0.0, 1.0, 2.0])
LEVELS = {"GFN2-xTB": np.array([0.0, 80.0, 5.0]), "B3LYP": np.array([0.0, 60.0, 3.0])}


def test_each_level_is_a_line_with_its_name(tmp_path):
    axes = plot_path(PLACES, LEVELS, "Value (nm)")
    assert [line.get_label() for line in axes.get_lines()] == list(LEVELS)
    assert np.array_equal(axes.get_lines()[1].get_ydata(), LEVELS["B3LYP"])
    assert "kJ/mol" in axes.get_ylabel()
    save_path_figure(PLACES, LEVELS, "Value (nm)", tmp_path / "path.png")
    assert (tmp_path / "path.png").stat().st_size > 1000


def test_wrong_arrays_are_refused():
    with pytest.raises(SettingError, match="has the shape"):
        plot_path(PLACES, {"x": np.zeros(2)}, "Value (nm)")
    with pytest.raises(SettingError, match="one level or more"):
        plot_path(PLACES, {}, "Value (nm)")
