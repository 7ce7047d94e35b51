"""Figures of energies over two variables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qmmlmm.analysis.model_quality import check_figure_path, checked_axes
from qmmlmm.errors import SettingError
from qmmlmm.setting_checks import check_array, check_text
from qmmlmm.units import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS = 16
"""Number of steps of the colours."""


def plot_grid(
    first: FloatArray,
    second: FloatArray,
    energies: FloatArray,
    labels: Sequence[str],
    path: FloatArray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw energies over two variables as a map, with a path.

    Parameters
    ----------
    first, second : (n,) and (m,) float arrays
        Values of the variables, two or more, in any order.
    energies : (n, m) float array, kJ/mol
    labels : two str
        Names of the variables with their units.
    path : (k, 2) float array, optional
        Values of both variables along a path.
    ax : matplotlib.axes.Axes, optional

    Raises
    ------
    SettingError
        If arrays have different lengths, or a variable has one value only.
    """
    x, y = check_array("first", first, (None,)), check_array("second", second, (None,))
    values = check_array("energies", energies, (len(x), len(y)))
    if len(x) < 2 or len(y) < 2:
        raise SettingError(f"a map needs two values or more of both variables, got {len(x)} and {len(y)}")
    if len(labels) != 2:
        raise SettingError(f"labels are two, got {len(labels)}")
    axes = _new_axes() if ax is None else checked_axes(ax)
    rows, columns = np.argsort(x), np.argsort(y)
    shown = values[np.ix_(rows, columns)].T
    drawn = axes.contourf(x[rows], y[columns], shown, levels=LEVELS, cmap="viridis")
    axes.contour(x[rows], y[columns], shown, levels=LEVELS, colors="white", linewidths=0.4)
    axes.figure.colorbar(drawn, ax=axes, label="potential energy (kJ/mol)")
    if path is not None:
        way = check_array("path", path, (None, 2))
        axes.plot(way[:, 0], way[:, 1], "o-", color="#d55e00", markersize=4, label="lowest pass")
        axes.legend(frameon=False, labelcolor="white")
    axes.set_xlabel(check_text("labels", labels[0]))
    axes.set_ylabel(check_text("labels", labels[1]))
    return axes


def save_grid_figure(
    first: FloatArray,
    second: FloatArray,
    energies: FloatArray,
    labels: Sequence[str],
    path: FloatArray | None,
    file: str | os.PathLike[str],
) -> None:
    """Write the figure of `plot_grid` to a file; its ending selects the format."""
    target = check_figure_path(file)
    figure = plot_grid(first, second, energies, labels, path).get_figure(root=True)
    assert figure is not None
    figure.savefig(target, dpi=150)


def _new_axes() -> Axes:
    from matplotlib.figure import Figure

    return Figure(figsize=(5.5, 4.4), layout="constrained").add_subplot()
