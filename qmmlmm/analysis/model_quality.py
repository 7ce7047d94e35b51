"""Figures of the accuracy of a learned potential."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

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
    ax = own_axes(ax)
    x, y = np.ravel(computed), np.ravel(predicted)
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
    ax = own_axes(ax)
    expected = scale * np.ravel(spread)
    true = np.ravel(error)
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
    correlation = np.corrcoef(np.ravel(spread), true)[0, 1]
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
    """Return the Axes, or new ones that need no display."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(5.0, 4.5), layout="constrained").subplots()


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
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * columns, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False)
    return figure, list(axes[0])
