"""Figures of a learning loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from qmmlmm.analysis.model_quality import COLOUR, SECOND_COLOUR, label_few_ticks, own_axes
from qmmlmm.errors import SettingError, listed
from qmmlmm.setting_checks import check_array, check_mapping, check_positive, check_text
from qmmlmm.units import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KIND_COLOURS = {"start": "0.6", "fresh": COLOUR, "uncertain": SECOND_COLOUR, "runaway": "black", "given": "0.8"}


def plot_error_against_labels(
    labels: Sequence[int], errors: Sequence[float], limits: Sequence[float], bound: float, ax: Axes | None = None
) -> Axes:
    """Plot the error of forces on fresh configurations against the number of training labels.

    Parameters
    ----------
    labels : sequence of int
    errors, limits : sequences of float, kJ/(mol nm)
        Root mean squares and their upper limits.
    bound : float, kJ/(mol nm)
        Bound that the loop aims for.
    ax : matplotlib Axes, optional
    """
    x = check_array("labels", labels, (None,))
    y = check_array("errors", errors, x.shape)
    top = check_array("limits", limits, x.shape, finite=False)
    check_positive("bound", bound, "kJ/(mol nm)")
    ax = own_axes(ax)
    above = np.where(np.isfinite(top), top - y, 0.0)
    ax.errorbar(x, y, yerr=[np.zeros_like(y), above], fmt="o-", color=COLOUR, capsize=3, label="with upper limit")
    ax.axhline(bound, color=SECOND_COLOUR, linewidth=1.0, label="bound")
    if len(y):
        ax.set_yscale("log")
        label_few_ticks(ax.yaxis)
    ax.set_xlabel("labels trained on")
    ax.set_ylabel("error of forces on fresh configurations, kJ/(mol nm)")
    ax.legend(fontsize=8)
    return ax


def plot_uncertainty_along(
    times: FloatArray, uncertainties: FloatArray, walkers: Sequence[int], threshold: float, ax: Axes | None = None
) -> Axes:
    """Plot the uncertainty along the trajectories of all walkers.

    Parameters
    ----------
    times : (k,) float array, ps
        Simulated time of each walker over all rounds.
    uncertainties : (k,) float array, kJ/(mol nm)
    walkers : sequence of int
    threshold : float, kJ/(mol nm)
        Uncertainty above which configurations may be labelled.
    ax : matplotlib Axes, optional
    """
    times = check_array("times", times, (None,))
    uncertainties = check_array("uncertainties", uncertainties, times.shape, finite=False)
    which = check_array("walkers", walkers, times.shape).astype(int)
    check_positive("threshold", threshold, "kJ/(mol nm)")
    ax = own_axes(ax)
    for walker in np.unique(which):
        mine = which == walker
        ax.plot(times[mine], uncertainties[mine], ".", markersize=2, label=f"walker {walker}", rasterized=True)
    ax.axhline(threshold, color="black", linewidth=0.7)
    if len(times):
        ax.set_yscale("log")
        label_few_ticks(ax.yaxis)
    ax.set_xlabel("time of each walker, ps")
    ax.set_ylabel("largest expected error of a force, kJ/(mol nm)")
    if 0 < len(np.unique(which)) <= 8:
        ax.legend(fontsize=7, markerscale=3)
    return ax


def plot_labels_along(
    rounds: Mapping[str, Sequence[int]], values: Mapping[str, Sequence[float]], name: str, ax: Axes | None = None
) -> Axes:
    """Plot the values of a collective variable at which labels were taken, round by round.

    Parameters
    ----------
    rounds : mapping of kind of label to rounds
    values : mapping of kind of label to values of the variable
    name : str
        Name of the variable, with its unit.
    ax : matplotlib Axes, optional
    """
    check_mapping("rounds", rounds)
    if not set(rounds) <= set(check_mapping("values", values)):
        raise SettingError(f"values lack the kinds {listed(sorted(set(rounds) - set(values)))}")
    pairs = {}
    for kind in rounds:
        numbers = check_array(f"rounds of {kind}", rounds[kind], (None,))
        pairs[kind] = check_array(f"values of {kind}", values[kind], numbers.shape), numbers
    check_text("name", name)
    ax = own_axes(ax)
    for kind, (positions, numbers) in pairs.items():
        ax.plot(positions, numbers, "o", markersize=4, alpha=0.6, color=KIND_COLOURS.get(kind, COLOUR), label=kind)
    ax.set_xlabel(name)
    ax.set_ylabel("round")
    if rounds:
        ax.legend(fontsize=8)
    return ax
