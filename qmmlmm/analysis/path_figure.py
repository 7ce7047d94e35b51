"""Figures of energies along a reaction path."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from qmmlmm.analysis.model_quality import check_figure_path, checked_axes
from qmmlmm.errors import SettingError
from qmmlmm.setting_checks import check_array, check_mapping, check_text
from qmmlmm.units import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def plot_path(
    progress: FloatArray, energies: Mapping[str, FloatArray], progress_label: str, ax: Axes | None = None
) -> Axes:
    """Draw energies of one level or more along a path.

    Parameters
    ----------
    progress : (n,) float array
        Place of each structure, such as `ReactionPath.progress`.
    energies : mapping of str to (n,) float array, kJ/mol
        Energies by the name of their level or way.
    progress_label : str
        Label of the axis, with its unit, such as `ReactionPath.progress_label`.
    ax : matplotlib.axes.Axes, optional

    Raises
    ------
    SettingError
        If arrays have different lengths or there are none.
    """
    places = check_array("progress", progress, (None,))
    levels = check_mapping("energies", energies)
    if not levels:
        raise SettingError("energies has one level or more, got none")
    axes = _new_axes() if ax is None else checked_axes(ax)
    for k, (name, values) in enumerate(levels.items()):
        shown = check_array(f"energies {name!r}", values, (len(places),))
        axes.plot(places, shown, "o-", color=COLOURS[k % len(COLOURS)], label=name)
    axes.set_xlabel(check_text("progress_label", progress_label))
    axes.set_ylabel("potential energy (kJ/mol)")
    axes.legend(frameon=False)
    return axes


def save_path_figure(
    progress: FloatArray, energies: Mapping[str, FloatArray], progress_label: str, path: str | os.PathLike[str]
) -> None:
    """Write the figure of `plot_path` to a file; its ending selects the format."""
    target = check_figure_path(path)
    figure = plot_path(progress, energies, progress_label).get_figure(root=True)
    assert figure is not None
    figure.savefig(target, dpi=150)


def _new_axes() -> Axes:
    from matplotlib.figure import Figure

    return Figure(figsize=(5.5, 3.8), layout="constrained").add_subplot()
