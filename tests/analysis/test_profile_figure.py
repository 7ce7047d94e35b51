"""The figures of free energies along a variable."""

from __future__ import annotations

import numpy as np
import pytest

from qmmlmm.analysis.profile_figure import plot_overlap, plot_profile
from qmmlmm.errors import SettingError

OVERLAP = np.array([[0.9, 0.1, 0.0], [0.1, 0.89, 0.01], [0.0, 0.01, 0.99]])


def test_an_overlap_that_is_too_small_has_its_number():
    axes = plot_overlap(OVERLAP, [0.1, 0.2, 0.3], "distance (nm)", least=0.03)
    assert [text.get_text() for text in axes.texts] == ["0.01", "0.01"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.1", "0.2", "0.3"]
    assert "distance (nm)" in axes.get_xlabel()


def test_an_overlap_is_in_the_order_of_the_centres():
    axes = plot_overlap(OVERLAP, [0.3, 0.1, 0.2], "distance (nm)", least=0.03)
    shown = np.asarray(axes.get_images()[0].get_array())
    assert np.array_equal(shown, OVERLAP[np.ix_([1, 2, 0], [1, 2, 0])])


def test_two_levels_have_their_names():
    x = np.linspace(0.0, 1.0, 5)
    axes = plot_profile(x, x**2, 0.1 * x, "distance (nm)", label="GFN2-xTB")
    plot_profile(x, x, 0.1 * x, "distance (nm)", axes, label="B3LYP", colour="#d55e00")
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["GFN2-xTB, two standard errors", "B3LYP, two standard errors"]


def test_wrong_arguments_are_refused():
    with pytest.raises(SettingError, match="overlap has the shape"):
        plot_overlap(OVERLAP[:2], [0.1, 0.2, 0.3], "distance (nm)", least=0.03)
    with pytest.raises(SettingError, match="least is a number above zero"):
        plot_overlap(OVERLAP, [0.1, 0.2, 0.3], "distance (nm)", least=0.0)
