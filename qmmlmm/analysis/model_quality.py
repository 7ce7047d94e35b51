"""Figures of the accuracy of a learned potential."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qmmlmm.errors import SettingError
from qmmlmm.setting_checks import (
    check_array,
    check_instance,
    check_path,
    check_positive,
    check_text,
    check_whole_number,
)
from qmmlmm.units import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOUR = "#0072b2"
SECOND_COLOUR = "#d55e00"
N_BINS = 8


def plot_parity(computed: FloatArray, predicted: FloatArray, label: str, ax: Axes | None = None) -> Axes:
    """Plot predicted against computed values; the title has the mean absolute error.

    Parameters
    ----------
    computed, predicted : float arrays of one shape
    label : str
        Quantity and unit, for both axes.
    ax : matplotlib Axes, optional
    """
    x = check_array("computed", computed)
    y = check_array("predicted", predicted, x.shape).ravel()
    x = x.ravel()
    if not x.size:
        raise SettingError("computed and predicted have no values")
    check_text("label", label)
    ax = own_axes(ax)
    ax.plot(x, y, ".", markersize=3, color=COLOUR, rasterized=len(x) > 5000)
    ax.axline((float(x.mean()), float(x.mean())), slope=1.0, color="black", linewidth=0.7)
    ax.set_xlabel(f"computed {label}")
    ax.set_ylabel(f"predicted {label}")
    ax.set_title(f"mean absolute error {np.abs(x - y).mean():.3g}, spread of the labels {x.std():.3g}", fontsize=9)
    return ax


def plot_calibration(spread: FloatArray, error: FloatArray, scale: float, ax: Axes | None = None) -> Axes:
    """Plot the error of forces against the scaled spread of a committee, as single values and as means of bins.

    Parameters
    ----------
    spread, error : (count,) float arrays, kJ/(mol nm)
    scale : float
        Factor of the spread, found on other frames.
    ax : matplotlib Axes, optional
    """
    spread = check_array("spread", spread, (None,))
    true = check_array("error", error, spread.shape)
    if not len(true):
        raise SettingError("spread and error have no values")
    expected = check_positive("scale", scale) * spread
    ax = own_axes(ax)
    ax.loglog(expected, true, ".", markersize=3, color=COLOUR, alpha=0.6)
    order = np.argsort(expected)
    bins = [part for part in np.array_split(order, min(N_BINS, len(order))) if len(part)]
    x = [np.sqrt(np.mean(expected[part] ** 2)) for part in bins]
    y = [np.sqrt(np.mean(true[part] ** 2)) for part in bins]
    ax.loglog(x, y, "o-", color=SECOND_COLOUR, label="root mean square of equal bins")
    ax.axline((x[0], x[0]), (x[0] * 2, x[0] * 2), color="black", linewidth=0.7)
    label_few_ticks(ax.xaxis, ax.yaxis)
    ax.set_xlabel("scaled spread of the forces, kJ/(mol nm)")
    ax.set_ylabel("error of the forces, kJ/(mol nm)")
    correlation = np.corrcoef(spread, true)[0, 1]
    ax.set_title(f"spread times {scale:.2f}, correlation {correlation:.2f}", fontsize=9)
    ax.legend(fontsize=8)
    return ax


def plot_learning_curve(sizes: Sequence[int], errors: FloatArray, label: str, ax: Axes | None = None) -> Axes:
    """Plot an error against the number of frames trained on.

    Parameters
    ----------
    sizes : sequence of int
    errors : (len(sizes),) float array
        Errors, each of a single training.
    label : str
        Quantity and unit.
    ax : matplotlib Axes, optional
    """
    counts = [check_whole_number("each of sizes", size) for size in check_array("sizes", sizes, (None,)).astype(int)]
    check_array("errors", errors, (len(counts),))
    if not counts:
        raise SettingError("sizes has no number of frames")
    check_text("label", label)
    ax = own_axes(ax)
    ax.loglog(sizes, errors, "o-", color=COLOUR, label="single run")
    label_few_ticks(ax.yaxis)
    ax.set_xticks(list(sizes), [str(size) for size in sizes])
    ax.minorticks_off()
    ax.set_xlabel("frames trained on")
    ax.set_ylabel(label)
    ax.legend(fontsize=8)
    return ax


def own_axes(ax: Axes | None) -> Axes:
    """Return the Axes, or new ones that need no display.

    Raises
    ------
    SettingError
        If they are no Axes.
    """
    if ax is not None:
        return checked_axes(ax)
    from matplotlib.figure import Figure

    return Figure(figsize=(5.0, 4.5), layout="constrained").subplots()


def checked_axes(ax: Axes) -> Axes:
    """Return the Axes.

    Raises
    ------
    SettingError
        If they are no Axes.
    """
    from matplotlib.axes import Axes

    return check_instance("ax", ax, Axes, "Axes of matplotlib")


def check_figure_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a figure.

    Raises
    ------
    SettingError
        If it is no path, its folder does not exist, or its ending names no format.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    found = check_path("path", path)
    formats = sorted(FigureCanvasBase.get_supported_filetypes())
    if found.suffix and found.suffix[1:].lower() not in formats:
        raise SettingError(f"path ends with a format of figures, such as .png, .pdf or .svg, got {str(path)!r}")
    if not found.parent.is_dir():
        raise SettingError(f"path is in a folder that does not exist: {str(path)!r}; create it")
    return found


def label_few_ticks(*axes: Axis) -> None:
    """Label one, two and five of each power of ten on logarithmic axes, as plain numbers that do not overlap."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def report_figure(columns: int) -> tuple[Figure, list[Axes]]:
    """Return a figure that needs no display, with one row of Axes.

    Parameters
    ----------
    columns : int

    Raises
    ------
    SettingError
        If it is no whole number from 1 to 100.
    """
    check_whole_number("columns", columns, at_most=100)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * columns, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False)
    return figure, list(axes[0])
