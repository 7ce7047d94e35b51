"""The report of an end-state correction: Markdown, figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from openmm import unit
from scipy.stats import norm

from qmmlmm.durable_files import replace_file
from qmmlmm.free_energy.correction_result import Correction, StageResult
from qmmlmm.free_energy.switching_settings import SwitchingSettings
from qmmlmm.free_energy.work_estimate import POOR_OVERLAP
from qmmlmm.runs.provenance import package_versions
from qmmlmm.runs.report.markdown_page import write_markdown_page
from qmmlmm.units import GAS_CONSTANT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REPORT_NAME = "report.md"
FORWARD_COLOUR, REVERSE_COLOUR = "#0072b2", "#d55e00"
_KJ = unit.kilojoule_per_mole


def write_correction_report(folder: Path, found: Correction, settings: Sequence[SwitchingSettings]) -> Path:
    """Write ``report.md``, ``report.html`` and the files that they show; return the path of the first.

    Parameters
    ----------
    folder : Path
    found : Correction
    settings : sequence of SwitchingSettings
        Of all stages of all legs, in order.
    """
    replace_file(folder / "works.csv", _works_table(found).encode())
    replace_file(folder / "stages.csv", _stages_table(found).encode())
    _save_figure(folder / "works.png", found)
    path = folder / REPORT_NAME
    replace_file(path, _text(found, settings).encode())
    write_markdown_page(path)
    return path


def plot_works(stage: StageResult, ax: Axes) -> Axes:
    """Plot the works of both directions, with the normal distributions that cross at the free energy.

    Parameters
    ----------
    stage : StageResult
    ax : matplotlib Axes
    """
    value = stage.estimate.free_energy.value_in_unit(_KJ)
    error = stage.estimate.error.value_in_unit(_KJ)
    series = [("lower to upper: W", stage.forward - value, FORWARD_COLOUR)]
    series += [("upper to lower: -W", -stage.reverse - value, REVERSE_COLOUR)]
    together = np.concatenate([works for _, works, _ in series])
    margin = max(0.1 * float(np.ptp(together)), 1e-3)
    edges = np.linspace(together.min() - margin, together.max() + margin, 31)
    grid = np.linspace(edges[0], edges[-1], 400)
    for label, works, colour in series:
        ax.hist(
            works,
            bins=list(edges),
            density=True,
            color=colour,
            alpha=0.35,
            label=f"{label} ({len(works)} trajectories)",
        )
        spread = float(works.std(ddof=1))
        if spread > 1e-3 * margin:
            ax.plot(grid, norm.pdf(grid, works.mean(), spread), color=colour, linewidth=1.4)
    ax.axvline(0.0, color="black", linewidth=1.0)
    ax.axvspan(-error, error, color="black", alpha=0.15, linewidth=0, label=f"free energy ± {error:.2f} kJ/mol")
    ax.set_xlabel("work less free energy (kJ/mol)")
    ax.set_ylabel("density (mol/kJ)")
    ax.legend(frameon=False, fontsize="small")
    return ax


def sampling_notes(settings: Sequence[SwitchingSettings]) -> list[str]:
    """Return the advice on sampling of all stages, each once."""
    return list(dict.fromkeys(one.sampling_advice for one in settings if one.sampling_advice))


def _save_figure(path: Path, found: Correction) -> None:
    from matplotlib.figure import Figure

    columns = max(len(leg.stages) for leg in found.legs.values())
    figure = Figure(figsize=(5.2 * columns, 3.4 * len(found.legs)), layout="constrained")
    axes = figure.subplots(len(found.legs), columns, squeeze=False)
    for row, (name, leg) in zip(axes, found.legs.items(), strict=True):
        for ax, stage in zip(row, leg.stages, strict=True):
            plot_works(stage, ax)
            ax.set_title(f"{name}, {stage.name}: overlap {stage.estimate.overlap:.2f}", loc="left")
    figure.savefig(path, dpi=150)


def _works_table(found: Correction) -> str:
    lines = ['#"Leg","Stage","Direction","Trajectory","Work (kJ/mol)"']
    for name, leg in found.legs.items():
        for stage in leg.stages:
            for direction, works in (("forward", stage.forward), ("reverse", stage.reverse)):
                lines += [f'"{name}","{stage.name}","{direction}",{k},{work:.10g}' for k, work in enumerate(works)]
    return "\n".join(lines) + "\n"


def _stages_table(found: Correction) -> str:
    columns = ["Leg", "Stage", "Free Energy (kJ/mol)", "Error (kJ/mol)", "Crossing (kJ/mol)"]
    columns += ["Crossing Error (kJ/mol)", "Overlap", "Lost Forward (kJ/mol)", "Lost Reverse (kJ/mol)"]
    lines = ["#" + ",".join(f'"{column}"' for column in columns)]
    for name, leg in found.legs.items():
        for stage in leg.stages:
            e = stage.estimate
            numbers = [e.free_energy, e.error, e.crossing, e.crossing_error]
            values = [x.value_in_unit(_KJ) for x in numbers] + [e.overlap]
            values += [e.lost_forward.value_in_unit(_KJ), e.lost_reverse.value_in_unit(_KJ)]
            lines.append(f'"{name}","{stage.name}",' + ",".join(f"{value:.10g}" for value in values))
    return "\n".join(lines) + "\n"


def _text(found: Correction, settings: Sequence[SwitchingSettings]) -> str:
    kt = GAS_CONSTANT * settings[0].temperature
    lines = ["# End-state correction", ""]
    names = list(found.legs)
    for other in names[1:]:
        value, error = found.difference(names[0], other)
        lines += [
            f"**{names[0]} less {other}: {value.value_in_unit(_KJ):.2f} ± {error.value_in_unit(_KJ):.2f} kJ/mol** "
            f"at {settings[0].temperature:g} K (kT = {kt:.3f} kJ/mol). Add this to the free energy of the lower level.",
            "",
        ]
    for text in found.warnings():
        lines += [f"**Warning.** {text[0].upper()}{text[1:]}.", ""]
    for text in sampling_notes(settings):
        lines += [f"**Note.** {text[0].upper()}{text[1:]}.", ""]
    lines += [
        "| leg | stage | free energy (Bennett) | error | crossing (Crooks) | error | overlap | lost, both ways |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, leg in found.legs.items():
        for stage in leg.stages:
            e = stage.estimate
            numbers = [e.free_energy, e.error, e.crossing, e.crossing_error]
            cells = [f"{x.value_in_unit(_KJ):.2f}" for x in numbers]
            lost = f"{e.lost_forward.value_in_unit(_KJ):.2f}, {e.lost_reverse.value_in_unit(_KJ):.2f}"
            lines.append(f"| {name} | {stage.name} | {' | '.join(cells)} | {e.overlap:.3f} | {lost} |")
        if len(leg.stages) > 1:
            value, error = (x.value_in_unit(_KJ) for x in (leg.free_energy, leg.error))
            lines.append(f"| {name} | sum | {value:.2f} | {error:.2f} | | | | |")
    lines += [
        "",
        "All free energies in kJ/mol, upper level less lower level, with standard errors of a bootstrap over "
        "trajectories. Levels have different zeros of energy, so that only differences of legs have a meaning. "
        f"An overlap below {POOR_OVERLAP:g} is poor. Where the works are not normal distributions, Bennett's ratio is "
        "right and the crossing is off.",
        "",
        "![Works of both directions](works.png)",
        "",
        "| stage | trajectories | switch (ps) | frames every (ps) | equilibration (ps) | replicas |",
        "|---|---|---|---|---|---|",
    ]
    stages = [f"{name}, {stage.name}" for name, leg in found.legs.items() for stage in leg.stages]
    for name, one in zip(stages, settings, strict=True):
        times = [one.step_size * n for n in (one.switch_steps, one.steps_between_frames, one.equilibration_steps)]
        row = " | ".join(f"{time:g}" for time in times)
        lines.append(f"| {name} | 2 x {one.trajectories} | {row} | {one.replicas} |")
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items() if version)
    lines += ["", f"Steps of {settings[0].step_size * 1000:g} fs. Versions: {versions}.", ""]
    return "\n".join(lines)
