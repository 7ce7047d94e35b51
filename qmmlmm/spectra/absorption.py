"""Absorption spectra from the excitations of snapshots."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qmmlmm.errors import SettingError, TransitionsError
from qmmlmm.runs.report.markdown_page import write_markdown_page
from qmmlmm.setting_checks import (
    check_array,
    check_choice,
    check_instance,
    check_path,
    check_positive,
    check_text,
    check_whole_number,
)
from qmmlmm.spectra.transitions import Transitions
from qmmlmm.time_series import statistical_inefficiency
from qmmlmm.units import EV_IN_PER_CM, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STRENGTH_OF_ABSORPTION = 4.3190e-9
"""Oscillator strength of an integrated molar absorption coefficient of 1 L/(mol cm) times 1/cm:
4 epsilon_0 m_e c^2 ln(10) / (N_A e^2), with vacuum's refractive index."""

EMBEDDED_COLOUR, VACUUM_COLOUR = "#0072b2", "#8c8c8c"

MOST_POINTS = 1_000_000
"""Largest number of energies of a spectrum."""


@dataclass(frozen=True)
class Spectrum:
    """A broadened spectrum, the mean over snapshots.

    Parameters
    ----------
    energies : (m,) float array, eV
    absorption : (m,) float array, L/(mol cm)
        Molar absorption coefficient.
    error : (m,) float array, L/(mol cm)
        Standard error, from the scatter of the snapshots.
    """

    energies: FloatArray
    absorption: FloatArray
    error: FloatArray


@dataclass(frozen=True)
class Mean:
    """A mean over snapshots.

    Parameters
    ----------
    value, error : float
        Mean and its standard error.
    spread : float
        Standard deviation of the snapshots.
    n_effective : float
        Number of snapshots that count as independent.
    """

    value: float
    error: float
    spread: float
    n_effective: float


def mean_of(series: FloatArray) -> Mean:
    """Return the mean of a time series, with an error that takes its correlation into account.

    Parameters
    ----------
    series : (n,) float array
        Values in the order of time, n at least 2.

    Raises
    ------
    TransitionsError
        If there are fewer than two values, or one is not finite.

    Notes
    -----
    The variance of the mean is that of the series times g/n, with the statistical inefficiency g.
    """
    series = check_array("series", series, (None,), error=TransitionsError)
    n = len(series)
    if n < 2:
        raise TransitionsError(f"an error bar needs a series of two snapshots or more, got {n}")
    effective = max(1.0, n / statistical_inefficiency(series))
    spread = float(series.std(ddof=1))
    return Mean(float(series.mean()), spread / math.sqrt(effective), spread, effective)


def broadened(
    energies: FloatArray, strengths: FloatArray, grid: FloatArray, full_width: float, shape: str = "gaussian"
) -> FloatArray:
    """Return the molar absorption coefficient of each snapshot, (frames, m) L/(mol cm).

    Parameters
    ----------
    energies : (frames, states) float array, eV
    strengths : (frames, states) float array
        Oscillator strengths.
    grid : (m,) float array, eV
    full_width : float, eV
        Full width of a line at half maximum.
    shape : {"gaussian", "lorentzian"}

    Raises
    ------
    SettingError
        If the width is not positive, the shape unknown, or an array has another shape or is not finite.

    Notes
    -----
    Each line has the area f / 4.319e-9 on the scale of wave numbers.
    """
    check_positive("full_width", full_width, "eV")
    check_choice("shape", shape, ("gaussian", "lorentzian"))
    grid = check_array("grid", grid, (None,))
    if not len(grid):
        raise SettingError("grid has no energy")
    energies = check_array("energies", energies, (None, None))
    strengths = check_array("strengths", strengths, energies.shape)
    away = grid - energies[..., None]
    if shape == "gaussian":
        sigma = full_width / math.sqrt(8.0 * math.log(2.0))
        line = np.exp(-0.5 * (away / sigma) ** 2) / (sigma * math.sqrt(2.0 * math.pi))
    else:
        line = (0.5 * full_width / math.pi) / (away**2 + (0.5 * full_width) ** 2)
    result: FloatArray = (strengths[..., None] * line).sum(1) / (STRENGTH_OF_ABSORPTION * EV_IN_PER_CM)
    return result


def spectrum_of(
    energies: FloatArray, strengths: FloatArray, grid: FloatArray, full_width: float = 0.3, shape: str = "gaussian"
) -> Spectrum:
    """Return the spectrum of snapshots. The parameters are those of `broadened`.

    Notes
    -----
    All energies share one statistical inefficiency, their mean weighted by variance. That of a single energy jumps from
    point to point, because its sum ends where a noisy correlation falls below zero.
    """
    lines = broadened(energies, strengths, grid, full_width, shape)
    means = [mean_of(column) for column in lines.T]
    variances = lines.var(axis=0, ddof=1)
    inefficiencies = len(lines) / np.array([mean.n_effective for mean in means])
    shared = float(np.average(inefficiencies, weights=variances)) if variances.any() else 1.0
    return Spectrum(grid, lines.mean(0), np.sqrt(variances * shared / len(lines)))


def usual_grid(transitions: Transitions, full_width: float, points: int = 400) -> FloatArray:
    """Return energies from two widths below the lowest excitation to two above the highest, eV.

    Raises
    ------
    SettingError
        If the width is not positive, there are fewer than two points, or an argument has another type.
    """
    check_instance("transitions", transitions, Transitions)
    check_positive("full_width", full_width, "eV")
    check_whole_number("points", points, at_least=2, at_most=MOST_POINTS)
    parts = [transitions.energies]
    if transitions.vacuum_energies is not None:
        parts.append(transitions.vacuum_energies)
    low, high = min(part.min() for part in parts), max(part.max() for part in parts)
    return np.linspace(max(0.05, low - 2.0 * full_width), high + 2.0 * full_width, points)


def plot_spectra(transitions: Transitions, full_width: float = 0.3, ax: Axes | None = None) -> Axes:
    """Draw the spectrum in the surroundings and, if known, that of the same geometries without them.

    Raises
    ------
    SettingError
        If the width is not positive, or an argument has another type.
    TransitionsError
        If there are fewer than two snapshots.
    """
    from matplotlib.axes import Axes

    grid = usual_grid(transitions, full_width)
    if ax is not None:
        check_instance("ax", ax, Axes, "Axes of matplotlib")
    else:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.subplots()
    sets = [("in its surroundings", EMBEDDED_COLOUR, transitions.energies, transitions.strengths)]
    if transitions.vacuum_energies is not None and transitions.vacuum_strengths is not None:
        bare = (transitions.vacuum_energies, transitions.vacuum_strengths)
        sets.append(("the same geometries in vacuum", VACUUM_COLOUR, *bare))
    for label, colour, energies, strengths in sets:
        spectrum = spectrum_of(energies, strengths, grid, full_width)
        ax.plot(grid, spectrum.absorption, color=colour, label=label)
        low, high = spectrum.absorption - spectrum.error, spectrum.absorption + spectrum.error
        ax.fill_between(grid, low, high, color=colour, alpha=0.25, linewidth=0)
    bottom = -0.04 * ax.get_ylim()[1]
    for row, (_, colour, energies, _) in enumerate(sets):
        height = np.full(energies[:, 0].size, (row + 1) * bottom)
        ax.plot(energies[:, 0], height, "|", color=colour, markersize=6, alpha=0.7)
    ax.set_xlabel("excitation energy, eV")
    ax.set_ylabel("molar absorption coefficient, L/(mol cm)")
    ax.set_title(f"{len(transitions.energies)} snapshots, lines of {full_width:g} eV; ticks: first state", fontsize=10)
    ax.legend(frameon=False)
    return ax


def transition_table(transitions: Transitions) -> str:
    """Return a Markdown table of the states: means over the snapshots with standard errors.

    Raises
    ------
    SettingError
        If it is no `Transitions`.
    TransitionsError
        If there are fewer than two snapshots.
    """
    check_instance("transitions", transitions, Transitions)
    known = transitions.vacuum_energies is not None
    lines = [
        "| state | energy, eV | spread, eV | oscillator strength |" + (" in vacuum, eV | shift, eV |" if known else ""),
        "|---|---|---|---|" + ("---|---|" if known else ""),
    ]
    for state in range(transitions.energies.shape[1]):
        energy = mean_of(transitions.energies[:, state])
        strength = mean_of(transitions.strengths[:, state])
        line = f"| {state + 1} | {energy.value:.3f} ± {energy.error:.3f} | {energy.spread:.3f} "
        line += f"| {strength.value:.2g} ± {strength.error:.1g} |"
        if transitions.vacuum_energies is not None:
            bare, shift = mean_of(transitions.vacuum_energies[:, state]), mean_of(transitions.shifts()[:, state])
            line += f" {bare.value:.3f} ± {bare.error:.3f} | {shift.value:+.3f} ± {shift.error:.3f} |"
        lines.append(line)
    return "\n".join(lines) + "\n"


def write_spectrum_report(
    folder: str | os.PathLike[str], transitions: Transitions, *, title: str, full_width: float = 0.3
) -> Path:
    """Write ``spectrum.csv``, ``spectrum.png``, ``report.html`` and ``report.md``, and return the path of the last.

    Parameters
    ----------
    folder : path
        Folder of the files, created if necessary.
    transitions : Transitions
    title : str
        Heading of the report.
    full_width : float, eV
        Full width of a line at half maximum.

    Raises
    ------
    SettingError
        If the width is not positive, or an argument has another type.
    TransitionsError
        If there are fewer than two snapshots, or the folder cannot be created.
    """
    grid = usual_grid(transitions, full_width)
    check_text("title", title)
    table = transition_table(transitions)
    directory = check_path("folder", folder)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TransitionsError(f"the folder {directory} cannot be created: {error}") from error
    columns = [grid]
    names = ["energy_ev"]
    sets = {"": (transitions.energies, transitions.strengths)}
    if transitions.vacuum_energies is not None and transitions.vacuum_strengths is not None:
        sets["vacuum_"] = (transitions.vacuum_energies, transitions.vacuum_strengths)
    for name, (energies, strengths) in sets.items():
        spectrum = spectrum_of(energies, strengths, grid, full_width)
        columns += [spectrum.absorption, spectrum.error]
        names += [f"{name}absorption_l_per_mol_cm", f"{name}error_l_per_mol_cm"]
    np.savetxt(
        directory / "spectrum.csv",
        np.stack(columns, axis=1),
        delimiter=",",
        header=",".join(names),
        comments="",
        fmt="%.6g",
    )
    figure = plot_spectra(transitions, full_width).get_figure(root=True)
    assert figure is not None
    figure.savefig(directory / "spectrum.png", dpi=150)
    n = mean_of(transitions.energies[:, 0]).n_effective
    text = f"# {title}\n\n{len(transitions.energies)} snapshots, of which {n:.0f} count as independent for the first "
    text += (
        "state. Means over the snapshots with standard errors; states are in the order of energy at each snapshot.\n\n"
    )
    text += table
    if transitions.vacuum_energies is not None:
        text += "\nVacuum means the same geometries without surroundings: the shift is the direct effect of the "
        text += "surroundings on the excitation. Their effect on the geometry is in both columns.\n"
    text += f"\n![spectrum](spectrum.png)\n\nLines are Gaussians of {full_width:g} eV full width at half maximum; "
    text += "bands are standard errors.\n"
    report = directory / "report.md"
    report.write_text(text, encoding="utf-8")
    write_markdown_page(report)
    return report
