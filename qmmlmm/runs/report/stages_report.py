"""The report of a run in stages: what is done, energies and temperature over all of it, and where the rest is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from qmmlmm.durable_files import replace_file
from qmmlmm.runs.provenance import package_versions
from qmmlmm.runs.report.citations import citations
from qmmlmm.runs.report.colours import LEVEL_COLOURS, MORE_COLOURS
from qmmlmm.runs.report.energy_rows import POTENTIAL, TEMPERATURE, TIME, VOLUME, read_columns
from qmmlmm.runs.report.hamiltonian_picture import hamiltonian_picture, mappings
from qmmlmm.runs.report.harmless import harmless
from qmmlmm.runs.report.line_figure import Curve, line_figure
from qmmlmm.runs.report.page import code, figure, figures, items, links, numbers, page, paragraph, section, wide_table
from qmmlmm.runs.report.run_report import REPORT_NAME
from qmmlmm.units import FloatArray

COLOURS = (MORE_COLOURS[2], MORE_COLOURS[0], LEVEL_COLOURS["ML"])
"""Of the stages, in order."""


@dataclass(frozen=True, eq=False)
class StageFacts:
    """A stage of a run with dynamics.

    Parameters
    ----------
    name : str
        Also that of its folder.
    done, steps : int
        Steps that are on disk, and that were asked for.
    step : float, ps
        Length of one.
    force_field_only : bool
        Whether the regions have no terms in it.
    """

    name: str
    done: int
    steps: int
    step: float
    force_field_only: bool = False


@dataclass(frozen=True, eq=False)
class MinimisationFacts:
    """The minimisation of a run.

    Parameters
    ----------
    done, iterations : int
        Iterations that are on disk, and that were asked for.
    energies : (n,) float array, kJ/mol
        Before it, and after equal numbers of iterations.
    """

    done: int
    iterations: int
    energies: FloatArray


def write_stages_report(
    folder: Path,
    minimisation: MinimisationFacts | None,
    stages: Sequence[StageFacts],
    description: Mapping[str, object],
    command: str,
) -> Path:
    """Write ``report.html`` into the folder of a run in stages and return its path; a failure is a warning.

    Parameters
    ----------
    folder : Path
        Folder with one of each stage.
    minimisation : MinimisationFacts or None
    stages : sequence of StageFacts
        In order; the last one is that of the production.
    description : mapping of str to object
        Result of `MixedSystem.describe` of the production.
    command : str
        Command that continues the run.
    """
    path = folder / REPORT_NAME
    with harmless(path):
        tables = {stage.name: read_columns(folder / stage.name / "energies.csv") for stage in stages}
        terms = mappings(description.get("terms"))
        levels = {str(term.get("level")) for term in terms}
        potentials = " ".join(str(term.get("potential")) for term in terms)
        versions = package_versions()
        made = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        production = stages[-1]
        finished = production.done >= production.steps
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        text = page(
            f"All stages of {folder.resolve().name}",
            f"Production {'complete' if finished else 'not complete'}. Written {now}.",
            [
                numbers(_key_numbers(production, tables[production.name])),
                section("Stages", _stages(minimisation, stages, tables), _reports(folder, stages)),
                section("What was run", hamiltonian_picture(description)),
                section("Minimisation", _minimisation(minimisation)),
                section("Whole run", figures(_whole_run(stages, tables)), _seam(tables)),
                section("How it was made", paragraph(f"Versions: {made}.", "note")),
                section("How to continue", code(command), paragraph(_how(finished), "note")),
                section("How to cite", items(citations(versions["qmmlmm"], levels, potentials))),
            ],
        )
        replace_file(path, text.encode("utf-8"))
    return path


def _key_numbers(production: StageFacts, columns: Mapping[str, FloatArray]) -> dict[str, str]:
    found = {
        "production": f"{production.done * production.step:g} of {production.steps * production.step:g} ps",
        "time step": f"{1000.0 * production.step:g} fs",
    }
    if TEMPERATURE in columns:
        found["mean temperature"] = f"{columns[TEMPERATURE].mean():.0f} K"
    return found


def _stages(
    minimisation: MinimisationFacts | None,
    stages: Sequence[StageFacts],
    tables: Mapping[str, Mapping[str, FloatArray]],
) -> str:
    rows: list[tuple[object, ...]] = []
    if minimisation is not None:
        done = f"{minimisation.done:,} of {minimisation.iterations:,} iterations"
        rows.append(("minimise", done, None, None, _last(minimisation.energies), None))
    for stage in stages:
        columns = tables[stage.name]
        rows.append(
            (
                f"{stage.name}, force field alone" if stage.force_field_only else stage.name,
                f"{stage.done:,} of {stage.steps:,} steps",
                f"{stage.done * stage.step:g} ps",
                _spread(columns.get(TEMPERATURE), 1),
                _spread(columns.get(POTENTIAL), 1),
                _spread(columns.get(VOLUME), 3) if _varies(columns.get(VOLUME)) else None,
            )
        )
    head: tuple[str, ...] = (
        "stage",
        "done",
        "time",
        "temperature, K",
        "potential energy, kJ/mol",
        "volume, nm\N{SUPERSCRIPT THREE}",
    )
    if all(row[-1] is None for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    note = "Means of the second half of each stage with standard deviations; of the minimisation the last energy."
    return wide_table(head, rows) + paragraph(note, "note")


def _spread(values: FloatArray | None, decimals: int) -> str | None:
    """Return mean and standard deviation of the second half of a column."""
    if values is None:
        return None
    half = values[len(values) // 2 :]
    return f"{half.mean():,.{decimals}f} \N{PLUS-MINUS SIGN} {half.std():.{decimals}f}"


def _last(energies: FloatArray) -> str | None:
    return f"{energies[-1]:,.1f}" if len(energies) else None


def _varies(values: FloatArray | None) -> bool:
    return values is not None and bool(np.ptp(values) > 0.0)


def _reports(folder: Path, stages: Sequence[StageFacts]) -> str:
    """Return links to the reports of the stages that there are."""
    found = {
        f"{stage.name}: regions, energy of each term, cost by level": f"{stage.name}/{REPORT_NAME}"
        for stage in stages
        if (folder / stage.name / REPORT_NAME).exists()
    }
    return links(found)


def _minimisation(minimisation: MinimisationFacts | None) -> str:
    if minimisation is None or len(minimisation.energies) < 2:
        return ""
    energies = minimisation.energies
    iterations = np.linspace(0.0, minimisation.done, len(energies))
    curve = Curve("", iterations, energies - energies[-1], MORE_COLOURS[0])
    drawing = line_figure([curve], "iteration", "above the last energy (kJ/mol)")
    return figures([figure("Energy", drawing, f"from {energies[0]:,.1f} to {energies[-1]:,.1f} kJ/mol")])


def _whole_run(stages: Sequence[StageFacts], tables: Mapping[str, Mapping[str, FloatArray]]) -> list[str]:
    def drawn(title: str, column: str, label: str, change: Callable[[FloatArray], FloatArray] = lambda y: y) -> str:
        curves, before = [], 0.0
        for stage, colour in zip(stages, COLOURS[-len(stages) :], strict=True):
            columns = tables[stage.name]
            if column in columns:
                values = change(columns[column])
                curves.append(Curve(stage.name, before + columns[TIME], values, colour))
            before += stage.done * stage.step
        return figure(title, line_figure(curves, "time since the minimisation (ps)", label)) if curves else ""

    found = [
        drawn("Temperature", TEMPERATURE, "temperature (K)"),
        drawn("Potential energy", POTENTIAL, "from mean of stage (kJ/mol)", lambda y: y - y.mean()),
    ]
    if any(_varies(tables[stage.name].get(VOLUME)) for stage in stages):
        found.append(drawn("Volume", VOLUME, "volume (nm\N{SUPERSCRIPT THREE})"))
    return [text for text in found if text]


def _seam(tables: Mapping[str, Mapping[str, FloatArray]]) -> str:
    if not any(tables.values()):
        return paragraph("No row of energies yet.", "note")
    return paragraph(
        "Stages with and without terms have different zeros of energy, and are shown about their means.", "note"
    )


def _how(finished: bool) -> str:
    if finished:
        return "All steps are done. A larger length in [dynamics] extends the run."
    return "It goes on at the last checkpoint of the stage in which it stopped."
