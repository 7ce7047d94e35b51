"""The map of energies over two variables."""

from __future__ import annotations

import numpy as np
import pytest

from qmmlmm.analysis.grid_figure import plot_grid, save_grid_figure
from qmmlmm.errors import SettingError

X, Y = np.array([0.3, 0.1, 0.2]), np.array([1.0, 2.0])
LABELS = ("first (nm)", "second (rad)")


def test_axes_have_their_names_and_the_path_its_values():
    path = np.array([[0.1, 1.0], [0.3, 2.0]])
    axes = plot_grid(X, Y, np.arange(6.0).reshape(3, 2), LABELS, path)
    assert (axes.get_xlabel(), axes.get_ylabel()) == LABELS
    (line,) = axes.get_lines()
    assert line.get_xydata() == pytest.approx(path)
    assert axes.get_xlim() == (0.1, 0.3)


def test_values_in_any_order_give_the_same_map():
    energies = np.array([[4.0, 1.0], [2.0, 8.0], [5.0, 7.0]])
    order = np.argsort(X)
    drawn = [plot_grid(*given, LABELS).collections[0] for given in ((X, Y, energies), (X[order], Y, energies[order]))]
    first, second = ([path.vertices for path in contours.get_paths()] for contours in drawn)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[:1], Y, np.zeros((1, 2)), LABELS), "two values or more of both variables, got 1 and 2"),
        ((X, Y, np.zeros((2, 3)), LABELS), "energies"),
        ((X, Y, np.zeros((3, 2)), ("one",)), "labels are two, got 1"),
        ((X, Y, np.eye(3)[:, :2], LABELS, np.zeros((4, 3))), "path"),
    ],
)
def test_arrays_of_other_lengths_are_refused(arguments, message, tmp_path):
    with pytest.raises(SettingError, match=message):
        plot_grid(*arguments)
    path = arguments[4] if len(arguments) > 4 else None
    with pytest.raises(SettingError, match=message):
        save_grid_figure(*arguments[:4], path, tmp_path / "map.png")
