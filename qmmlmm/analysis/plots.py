"""Figures of a run.

Each `plot_x` draws data into Axes, new ones if none are given, and returns them; save them with
``axes.figure.savefig(path)``. No display is needed, and pyplot is not used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from openmm import unit

from qmmlmm.analysis.model_quality import check_figure_path, checked_axes
from qmmlmm.analysis.tables import EnergyTable
from qmmlmm.errors import TableError
from qmmlmm.runs.report.colours import DIFFERENCE_COLOUR, MM_COLOUR, term_colours
from qmmlmm.setting_checks import check_array, check_instance
from qmmlmm.units import FloatArray, Vectors, in_unit

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

MOST_MARKED_POINTS = 60
MOST_WIDE_POINTS = 500


def plot_term_energies(table: EnergyTable, ax: Axes | None = None) -> Axes:
    """Plot the energy of each level along a run.

    Absolute energies of the levels differ by orders of magnitude and have no common zero, so each curve is the
    deviation from its mean, which the legend has. The force field has many more atoms and larger fluctuations: it has
    its own axis on the right. A subtracted term is drawn as the energy that is subtracted, and left out where the same
    energy is also added.

    Parameters
    ----------
    table : EnergyTable
    ax : matplotlib Axes, optional

    Returns
    -------
    Axes
        Axes on the left; those on the right, if any, are their twin.

    Raises
    ------
    SettingError
        If an argument has another type.
    """
    check_instance("table", table, EnergyTable)
    ax = axes_or_new(ax)
    time = in_unit(table.time, unit.picosecond)
    regional = [name for name in table.terms if name != "MM"]
    colours = term_colours(regional)
    handles: list[Artist] = []
    if "MM" in table.terms:
        right = ax.twinx() if regional else ax
        energy = in_unit(table.terms["MM"], unit.kilojoule_per_mole)
        handles += right.plot(
            time, energy - energy.mean(), color=MM_COLOUR, label=_with_mean("MM", energy), **_style(time, 1.0)
        )
        right.set_ylabel("MM: deviation from mean (kJ/mol)", color="#606060")
        right.tick_params(axis="y", colors="#606060")
        if regional:
            # Curves of the regions are drawn on top.
            ax.set_zorder(right.get_zorder() + 1)
            ax.patch.set_visible(False)
            _balance(right)
    for name in regional:
        energy = in_unit(table.terms[name], unit.kilojoule_per_mole)
        region, _, level = name.rpartition("/")
        label = name
        if level.startswith("-"):
            energy = -energy
            twin = table.terms.get(f"{region}/{level[1:]}")
            if twin is not None and np.allclose(energy, in_unit(twin, unit.kilojoule_per_mole)):
                # The region is its own core: this curve is drawn already.
                continue
            label = f"{region}/{level[1:]} (subtracted)"
        # Curves that agree overlap; the wider one is visible below the narrower one.
        learned = level.endswith("ML")
        handles += ax.plot(
            time,
            energy - energy.mean(),
            color=colours[name],
            linestyle=(0, (4, 2)) if level.startswith("-") else "-",
            label=_with_mean(label, energy),
            zorder=2 if learned else 3,
            **_style(time, 2.4 if learned else 1.2),
        )
    if regional:
        ax.set_ylabel("regions: deviation from mean (kJ/mol)")
        _balance(ax)
    ax.set_xlabel("time (ps)")
    ax.set_title("Energy of each level, single run", loc="left")
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.0, -0.2), ncols=2, frameon=False)
    return ax


def plot_difference(time: Vectors, difference: Vectors, ax: Axes | None = None) -> Axes:
    """Plot QM - ML along a run with its mean and standard deviation.

    Parameters
    ----------
    time : (n,) Quantity or float array, ps
    difference : (n,) Quantity or float array, kJ/mol
    ax : matplotlib Axes, optional

    Returns
    -------
    Axes

    Notes
    -----
    The mean may be large when the ML model has another zero of energy than the QM method; it has no effect on the
    forces. The scatter of the points around the mean is the error.
    """
    times = check_array("time", time, default=unit.picosecond, error=TableError)
    values = check_array("difference", difference, default=unit.kilojoule_per_mole, error=TableError)
    if times.shape != values.shape or times.ndim != 1 or not times.size:
        raise TableError(
            f"time and difference are one-dimensional and of one length, got {times.shape} and {values.shape}"
        )
    ax = axes_or_new(ax)
    mean = float(values.mean())
    handles: list[Artist] = [ax.axhline(mean, color=DIFFERENCE_COLOUR, linewidth=1.0, label=f"mean {mean:,.2f} kJ/mol")]
    if values.size > 1:
        spread = float(values.std(ddof=1))
        handles.append(
            ax.axhspan(
                mean - spread,
                mean + spread,
                color=DIFFERENCE_COLOUR,
                alpha=0.15,
                linewidth=0,
                label=f"standard deviation {spread:.2f} kJ/mol",
            )
        )
    handles += ax.plot(
        times,
        values,
        color=DIFFERENCE_COLOUR,
        label=f"QM - ML, {values.size} {'point' if values.size == 1 else 'points'}",
        **_style(times, 1.4),
    )
    ax.set_xlabel("time (ps)")
    ax.set_ylabel("QM - ML (kJ/mol)")
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.set_title("Difference of the levels, single run", loc="left")
    ax.legend(handles=handles[::-1], loc="upper left", bbox_to_anchor=(0.0, -0.2), ncols=3, frameon=False)
    return ax


def save_run_figure(table: EnergyTable, path: str | os.PathLike[str]) -> None:
    """Save a figure of a run: the energy of each level, and QM - ML of each corrected region.

    Parameters
    ----------
    table : EnergyTable
    path : str or path
        Path of the file; its ending selects the format: png, pdf, svg.

    Raises
    ------
    SettingError
        If an argument has another type, or the path another ending.
    """
    from matplotlib.figure import Figure

    check_instance("table", table, EnergyTable)
    path = check_figure_path(path)
    regions = table.corrected_regions()
    panels = 1 + len(regions)
    figure = Figure(figsize=(8.0, 4.0 + 3.0 * len(regions)), layout="constrained")
    ratios = [1.25] + [1.0] * len(regions)
    axes = figure.subplots(panels, 1, squeeze=False, height_ratios=ratios)[:, 0]
    plot_term_energies(table, axes[0])
    for region, ax in zip(regions, axes[1:], strict=True):
        plot_difference(table.time, table.difference(region), ax)
        ax.set_title(f"{region}: QM - ML, single run", loc="left")
    figure.savefig(path, dpi=150)


def axes_or_new(ax: Axes | None) -> Axes:
    """Return the Axes, or new ones if there are none."""
    if ax is not None:
        return checked_axes(ax)
    from matplotlib.figure import Figure

    return Figure(figsize=(8.0, 4.5), layout="constrained").subplots()


def _with_mean(name: str, energy: FloatArray) -> str:
    return f"{name}, mean {energy.mean():,.1f} kJ/mol"


class _Style(TypedDict):
    linewidth: float
    marker: str | None
    markersize: float


def _style(time: FloatArray, width: float) -> _Style:
    marked = len(time) <= MOST_MARKED_POINTS
    width = width if len(time) <= MOST_WIDE_POINTS else 0.5 * width
    return {"linewidth": width, "marker": "o" if marked else None, "markersize": 3.5}


def _balance(ax: Axes) -> None:
    """Put zero, the mean, in the middle, so that the zeros of both axes coincide."""
    most = max((float(np.abs(line.get_ydata()).max()) for line in ax.get_lines()), default=0.0) or 1.0
    ax.set_ylim(-1.1 * most, 1.1 * most)
