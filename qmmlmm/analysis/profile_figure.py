"""Figures of free energies along a variable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from openmm import unit

from qmmlmm.analysis.plots import axes_or_new
from qmmlmm.setting_checks import check_array, check_positive, check_text
from qmmlmm.units import FloatArray, Vectors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR = "#0072b2"
WINDOW_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
OTHER_COLOUR = "#d55e00"
POOR = "#d55e00"
HISTOGRAM_BINS = 120
MOST_TICKS = 6


def plot_profile(
    values: Vectors,
    free_energy: Vectors,
    error: Vectors,
    name: str,
    ax: Axes | None = None,
    *,
    label: str | None = None,
    colour: str = COLOUR,
) -> Axes:
    """Plot a free energy along a variable, with a band of two standard errors.

    Parameters
    ----------
    values : (n,) float array
        Values of the variable.
    free_energy, error : (n,) Quantity or float array, kJ/mol
    name : str
        Name of the variable with its unit, for the axis.
    ax : matplotlib Axes, optional
    label : str, optional
        Name of the level, if several are drawn.
    colour : str

    Returns
    -------
    Axes

    Raises
    ------
    SettingError
        If the arrays have different lengths, or an argument has another type.
    """
    x = check_array("values", values, (None,))
    y = check_array("free_energy", free_energy, (len(x),), unit.kilojoule_per_mole, finite=False)
    e = check_array("error", error, (len(x),), unit.kilojoule_per_mole, finite=False)
    check_text("name", name)
    check_text("colour", colour)
    band = "two standard errors" if label is None else f"{check_text('label', label)}, two standard errors"
    ax = axes_or_new(ax)
    ax.fill_between(x, y - 2.0 * e, y + 2.0 * e, color=colour, alpha=0.25, lw=0, label=band)
    ax.plot(x, y, color=colour, lw=1.6)
    ax.set_ylabel("free energy (kJ/mol)")
    ax.set_xlabel(name)
    ax.legend(frameon=False, fontsize="small")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def plot_windows(
    samples: Sequence[FloatArray], name: str, ax: Axes | None = None, *, period: float | None = None
) -> Axes:
    """Plot the distributions of the variable in umbrella windows; neighbours have to overlap.

    Parameters
    ----------
    samples : sequence of (n_k,) float arrays
    name : str
        Name of the variable with its unit, for the axis.
    ax : matplotlib Axes, optional
    period : float, optional
        Period of the variable.
    """
    series = [check_array("each of samples", one, (None,)) for one in samples]
    check_text("name", name)
    ax = axes_or_new(ax)
    if period is not None:
        series = [one - period * np.floor(one / period + 0.5) for one in series]
    together = np.concatenate(series)
    edges = np.linspace(together.min(), together.max(), HISTOGRAM_BINS + 1)
    for k, one in enumerate(series):
        counts, _ = np.histogram(one, edges, density=True)
        colour = WINDOW_COLOURS[k % len(WINDOW_COLOURS)]
        ax.fill_between(0.5 * (edges[1:] + edges[:-1]), counts, color=colour, alpha=0.35, lw=0)
    ax.set_xlabel(name)
    ax.set_ylabel("density")
    ax.set_yticks([])
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    return ax


def plot_overlap(overlap: Vectors, centres: Vectors, name: str, ax: Axes | None = None, *, least: float) -> Axes:
    """Plot an overlap matrix of umbrella windows; each element between neighbours that is too small has its number.

    Parameters
    ----------
    overlap : (k, k) float array
    centres : (k,) float array
        Centres of the umbrellas, for the axes.
    name : str
        Name of the variable with its unit, for the axes.
    ax : matplotlib Axes, optional
    least : float
        Smallest element between neighbours that is sufficient.

    Returns
    -------
    Axes

    Raises
    ------
    SettingError
        If the arrays have other shapes, or an argument has another type.
    """
    centre = check_array("centres", centres, (None,))
    matrix = check_array("overlap", overlap, (len(centre), len(centre)))
    check_text("name", name)
    check_positive("least", least)
    ax = axes_or_new(ax)
    order = np.argsort(centre)
    sorted_matrix = matrix[np.ix_(order, order)]
    ax.imshow(sorted_matrix, cmap="Blues", vmin=0.0, vmax=1.0, origin="lower")
    for k in range(len(centre) - 1):
        for i, j in ((k, k + 1), (k + 1, k)):
            if sorted_matrix[i, j] < least:
                ax.text(j, i, f"{sorted_matrix[i, j]:.2f}", ha="center", va="center", fontsize="xx-small", color=POOR)
    shown = np.unique(np.linspace(0, len(centre) - 1, min(len(centre), MOST_TICKS)).round().astype(int))
    labels = [f"{centre[order][k]:.3g}" for k in shown]
    ax.set_xticks(shown, labels, fontsize="small", rotation=45)
    ax.set_yticks(shown, labels, fontsize="small")
    ax.set_xlabel(f"window, {name}")
    ax.set_title("overlap of windows", fontsize="medium")
    return ax
