"""Figures of surface hopping: states along a trajectory, its total energy, populations of an ensemble."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qmmlmm.analysis.model_quality import check_figure_path, own_axes
from qmmlmm.nonadiabatic.ensemble import TrajectoryRecord
from qmmlmm.nonadiabatic.populations import Populations
from qmmlmm.runs.report.colours import MORE_COLOURS
from qmmlmm.setting_checks import check_flag, check_instance, check_items, check_text, check_whole_number
from qmmlmm.units import KJ_PER_MOL_IN_EV, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STATE_COLOURS = ("#8c8c8c", "#0072b2", "#d55e00", *MORE_COLOURS)
"""Colours of Okabe and Ito; the ground state is grey."""
PS_IN_FS = 1000.0


def plot_states(record: TrajectoryRecord, ax: Axes | None = None) -> Axes:
    """Plot the energies of all states along one trajectory; the active state is thick, and its changes are marked.

    Parameters
    ----------
    record : TrajectoryRecord
    ax : matplotlib Axes, optional

    Notes
    -----
    Zero is state 0 at the start. A change is a hop, or a crossing of states within a step at which the trajectory keeps
    the character of its state.
    """
    check_instance("record", record, TrajectoryRecord)
    ax = own_axes(ax)
    times = PS_IN_FS * record.times
    energies = KJ_PER_MOL_IN_EV * (record.energies - record.energies[0, 0])
    for k in range(energies.shape[1]):
        ax.plot(times, energies[:, k], color=_colour(k), linewidth=1.2, label=_name(k))
    rows = np.arange(len(times))
    ax.plot(
        times, energies[rows, record.states], color="black", linewidth=5.0, alpha=0.2, label="active", zorder=1,
        solid_capstyle="butt",
    )  # fmt: skip
    changed = 1 + np.flatnonzero(np.diff(record.states))
    for number, row in enumerate(changed):
        before, after = energies[row, record.states[row - 1]], energies[row, record.states[row]]
        ax.plot([times[row]] * 2, [before, after], color="black", linewidth=0.8, zorder=4)
        ax.plot(
            times[row], after, "v" if after <= before else "^", color="black", markersize=6, zorder=5, linestyle="none",
            label="change of the active state" if number == 0 else None,
        )  # fmt: skip
    ax.set_xlabel("time (fs)")
    ax.set_ylabel("energy above the first of state 0 (eV)")
    ax.set_xlim(times[0], times[-1])
    ax.legend(fontsize=8, ncols=2, frameon=False)
    return ax


def plot_total_energy(records: Sequence[TrajectoryRecord], ax: Axes | None = None) -> Axes:
    """Plot the change of the total energy along each trajectory; the title has the largest drift.

    Parameters
    ----------
    records : sequence of TrajectoryRecord
    ax : matplotlib Axes, optional
    """
    records = check_items("records", records, TrajectoryRecord)
    ax = own_axes(ax)
    for number, record in enumerate(records):
        change = 1000.0 * KJ_PER_MOL_IN_EV * (record.total_energies - record.total_energies[0])
        ax.plot(PS_IN_FS * record.times, change, linewidth=1.0, color="black", alpha=1.0 if number == 0 else 0.35)
    ax.axhline(0.0, color="0.6", linewidth=0.6)
    ax.set_xlabel("time (fs)")
    ax.set_ylabel("change of the total energy (meV)")
    ax.set_title(f"largest drift {max(abs(energy_drift(c)) for c in records):.3f} eV", loc="left", fontsize=9)
    return ax


def plot_state_populations(
    populations: Populations, ax: Axes | None = None, *, dashed: bool = False, label: str = ""
) -> Axes:
    """Plot the shares of the trajectories on each state with their bands of 95 %.

    Parameters
    ----------
    populations : Populations
    ax : matplotlib Axes, optional
        Axes to draw into; pass the same Axes twice to compare two ensembles.
    dashed : bool
        Whether the lines are dashed, to distinguish a second ensemble.
    label : str
        Name of the ensemble, in front of the names of the states.
    """
    check_instance("populations", populations, Populations)
    check_flag("dashed", dashed)
    if label != "":
        check_text("label", label)
    ax = own_axes(ax)
    times = PS_IN_FS * populations.times
    for k in range(populations.shares.shape[1]):
        # The band of a state without trajectories has no information.
        if populations.shares[:, k].any():
            ax.fill_between(
                times, populations.lower[:, k], populations.upper[:, k], color=_colour(k), alpha=0.15, linewidth=0
            )
        ax.plot(
            times, populations.shares[:, k], color=_colour(k), linewidth=1.6, linestyle="--" if dashed else "-",
            label=f"{label} {_name(k)}".strip(),
        )  # fmt: skip
    ax.set_xlabel("time (fs)")
    ax.set_ylabel("share of the trajectories")
    ax.set_xlim(times[0], times[-1])
    ax.set_ylim(-0.02, 1.02)
    ax.set_title(f"{populations.n_trajectories} trajectories, bands of 95 %", loc="left", fontsize=9)
    ax.legend(fontsize=8, loc="center right")
    return ax


def energy_drift(record: TrajectoryRecord) -> float:
    """Return the largest deviation of the total energy from its first value, with its sign, eV."""
    check_instance("record", record, TrajectoryRecord)
    change: FloatArray = KJ_PER_MOL_IN_EV * (record.total_energies - record.total_energies[0])
    return float(change[np.abs(change).argmax()])


def save_hopping_figure(
    records: Sequence[TrajectoryRecord],
    populations: Populations,
    path: str | os.PathLike[str],
    *,
    title: str,
    shown: int = 0,
) -> None:
    """Save a figure of an ensemble: the states along a trajectory, the total energies, and the populations.

    Parameters
    ----------
    records : sequence of TrajectoryRecord
    populations : Populations
    path : str or path
        Path of the file; its ending selects the format: png, pdf, svg.
    title : str
    shown : int
        Index of the trajectory whose states are drawn.
    """
    from matplotlib.figure import Figure

    records = check_items("records", records, TrajectoryRecord)
    check_instance("populations", populations, Populations)
    check_whole_number("shown", shown, at_least=0, at_most=len(records) - 1)
    check_text("title", title)
    path = check_figure_path(path)
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1.15, 1.0])[0]
    states = left.subplots()
    plot_states(records[shown], states)
    states.set_title(f"trajectory {shown} of {len(records)}", loc="left", fontsize=9)
    above, below = right.subplots(2, 1, sharex=True)
    plot_state_populations(populations, above)
    above.set_xlabel("")
    plot_total_energy([records[shown], *(c for k, c in enumerate(records) if k != shown)], below)
    below.set_ylabel("change of the\ntotal energy (meV)")
    figure.savefig(path, dpi=110)


def _colour(state: int) -> str:
    return STATE_COLOURS[state % len(STATE_COLOURS)]


def _name(state: int) -> str:
    return f"state {state}"
