"""Figures of the free energy that the hills of metadynamics leave."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qmmlmm.analysis.grid_figure import LEVELS
from qmmlmm.analysis.model_quality import check_figure_path, checked_axes
from qmmlmm.analysis.plots import axes_or_new
from qmmlmm.errors import SettingError
from qmmlmm.setting_checks import check_array, check_text
from qmmlmm.units import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR = "#0072b2"


def plot_hills(
    grids: Sequence[FloatArray], free_energy: FloatArray, labels: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Plot a free energy over one variable as a curve, and over two as a map; zero is its least value.

    Parameters
    ----------
    grids : one or two (n,) float arrays
        Values of each variable.
    free_energy : (n,) or (n, m) float array, kJ/mol
    labels : one or two str
        Names of the variables with their units.
    ax : matplotlib.axes.Axes, optional

    Raises
    ------
    SettingError
        If the arrays do not go together.
    """
    if len(grids) not in (1, 2) or len(labels) != len(grids):
        raise SettingError(f"one or two variables with a label each, got {len(grids)} and {len(labels)} labels")
    axes = axes_or_new(ax) if ax is None else checked_axes(ax)
    points = [check_array(f"grids[{k}]", grid, (None,)) for k, grid in enumerate(grids)]
    values = check_array("free_energy", free_energy, tuple(len(grid) for grid in points))
    values = values - values.min()
    axes.set_xlabel(check_text("labels", labels[0]))
    if len(points) == 1:
        axes.plot(points[0], values, color=COLOUR, lw=1.6)
        axes.set_ylabel("free energy (kJ/mol)")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        return axes
    drawn = axes.contourf(points[0], points[1], values.T, levels=LEVELS, cmap="viridis")
    axes.figure.colorbar(drawn, ax=axes, label="free energy (kJ/mol)")
    axes.set_ylabel(check_text("labels", labels[1]))
    return axes


def save_hills_figure(
    grids: Sequence[FloatArray], free_energy: FloatArray, labels: Sequence[str], file: str | os.PathLike[str]
) -> None:
    """Write the figure of `plot_hills` to a file; its ending selects the format."""
    target = check_figure_path(file)
    figure = plot_hills(grids, free_energy, labels).get_figure(root=True)
    assert figure is not None
    figure.savefig(target, dpi=150)
