"""The report of a run: what was run, what came out, what it cost, how to continue and what to cite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from openmm import app

from qmmlmm.durable_files import replace_file
from qmmlmm.errors import signed
from qmmlmm.geometry import Geometry
from qmmlmm.runs.report.citations import citations
from qmmlmm.runs.report.colours import DIFFERENCE_COLOUR, MM_COLOUR, MORE_COLOURS, term_colours
from qmmlmm.runs.report.energy_rows import (
    ENERGY_UNIT,
    KINETIC,
    POTENTIAL,
    TEMPERATURE,
    TIME,
    VOLUME,
    differences,
    read_columns,
    term_names,
)
from qmmlmm.runs.report.hamiltonian_picture import hamiltonian_picture, mappings, pairs
from qmmlmm.runs.report.line_figure import Curve, line_figure
from qmmlmm.runs.report.page import (
    code,
    figure,
    figures,
    items,
    numbers,
    page,
    paragraph,
    section,
    wide_table,
)
from qmmlmm.runs.report.region_picture import region_picture
from qmmlmm.units import FloatArray

REPORT_NAME = "report.html"
TIME_LABEL = "time (ps)"
SCRIPT = """with RunDirectory({path!r}, mixed, resume=True) as run:
    done = run.resume(simulation)  # {done} steps so far
    run.attach(simulation, ...)    # as in your script
    run.run(simulation, steps)     # steps that are left"""


@dataclass(frozen=True)
class RunFacts:
    """What the report of a run shows besides the tables in its directory.

    Parameters
    ----------
    folder : Path
    description : mapping of str to object
        Result of `MixedSystem.describe`.
    session : mapping of str to object
        Versions, platform, integrator and seeds, as in ``run.json``.
    integrator : mapping of str to object
        Class and step size.
    counts : mapping of str to mapping
        Result of `MixedSystem.summary`.
    steps : int
        Steps since the beginning of the run.
    time : float, ps
        Time of the last step.
    total_steps : int
        Steps that were asked for.
    wall_seconds : float
        Wall time of this session.
    session_steps : int
        Steps of this session.
    uncertainties : mapping of str to (n, 3) float array
        For each term that is a committee: rows of the time, ps, and of the mean and the largest expected error of the
        forces, kJ/(mol nm).
    continue_with : str or None
        Command or line of Python that continues the run; None for a script.
    failure : str
        Text of the error that ended the run; empty if there is none.
    """

    folder: Path
    description: Mapping[str, object]
    session: Mapping[str, object]
    integrator: Mapping[str, object]
    counts: Mapping[str, Mapping[str, object]]
    steps: int
    time: float
    total_steps: int
    wall_seconds: float
    session_steps: int
    uncertainties: Mapping[str, FloatArray] = field(default_factory=dict)
    continue_with: str | None = None
    failure: str = ""


def write_run_report(facts: RunFacts, topology: app.Topology, geometry: Geometry) -> Path:
    """Write ``report.html`` into a run directory and return its path.

    Parameters
    ----------
    facts : RunFacts
    topology : openmm.app.Topology
    geometry : Geometry, nm
        All particles at the last step.
    """
    path = facts.folder / REPORT_NAME
    replace_file(path, run_report(facts, topology, geometry).encode("utf-8"))
    return path


def run_report(facts: RunFacts, topology: app.Topology, geometry: Geometry) -> str:
    """Return the report of a run, HTML.

    Parameters
    ----------
    facts : RunFacts
    topology : openmm.app.Topology
    geometry : Geometry, nm
        All particles at the last step.
    """
    columns = read_columns(facts.folder / "energies.csv")
    state = (
        "stopped by an error" if facts.failure else "complete" if facts.steps >= facts.total_steps else "not complete"
    )
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return page(
        f"Run {facts.folder.resolve().name}",
        f"{facts.steps:,} of {facts.total_steps:,} steps, {state}. Written {now}.",
        [
            paragraph(f"Error: {facts.failure}") if facts.failure else "",
            numbers(_key_numbers(facts, columns)),
            section("What was run", hamiltonian_picture(facts.description), _regions(facts, topology, geometry)),
            section("Energies and temperature", figures(_run_figures(columns)), _means(columns)),
            section("QM \N{MINUS SIGN} ML", figures(_difference_figures(columns)), _difference_note(columns)),
            section("Uncertainty of the committee", figures(_uncertainty_figures(facts))),
            section("SCF", _scf(facts)),
            section("Cost by level", _cost(facts)),
            section("How it was made", _provenance(facts)),
            section("How to continue", *_continue(facts)),
            section("How to cite", items(citations(_version(facts), *_levels(facts)))),
        ],
    )


def _key_numbers(facts: RunFacts, columns: Mapping[str, FloatArray]) -> dict[str, str]:
    found = {"time": f"{facts.time:g} ps", "steps": f"{facts.steps:,}"}
    step = facts.integrator.get("step size (ps)")
    if isinstance(step, float):
        found["time step"] = f"{1000.0 * step:g} fs"
    if TEMPERATURE in columns:
        found["mean temperature"] = f"{columns[TEMPERATURE].mean():.0f} K"
    if facts.wall_seconds > 0.0 and facts.session_steps > 0:
        found["time per step"] = _duration(facts.wall_seconds / facts.session_steps)
        if isinstance(step, float):
            nanoseconds = 1e-3 * step * facts.session_steps / facts.wall_seconds * 86400.0
            found["speed"] = f"{nanoseconds:.3g} ns/day"
    return found


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1.0 else f"{1000.0 * seconds:.3g} ms"


def _regions(facts: RunFacts, topology: app.Topology, geometry: Geometry) -> str:
    drawn = []
    for region in mappings(facts.description.get("regions")):
        atoms = region.get("atoms")
        if not isinstance(atoms, Sequence) or not all(isinstance(atom, int) for atom in atoms):
            continue
        picture = region_picture(topology, geometry, atoms)
        cuts = region.get("link_bonds")
        n_cuts = len(cuts) if isinstance(cuts, Sequence) else 0
        text = [f"{len(atoms)} atoms"]
        if isinstance(charge := region.get("charge"), int):
            text.append(f"charge {signed(charge)}")
        if "multiplicity" in region:
            text.append(f"multiplicity {region['multiplicity']}")
        cut_text = f"; {n_cuts} cut bonds, dotted, with the atom outside" if n_cuts else ""
        if picture:
            drawn.append(figure(f"Region {region.get('name')}", picture, f"{', '.join(text)}{cut_text}"))
    return figures(drawn)


def _run_figures(columns: Mapping[str, FloatArray]) -> list[str]:
    if not columns:
        return []
    time, names = columns[TIME], term_names(dict(columns))
    colours = term_colours([name for name in names if name != "MM"]) | {"MM": MM_COLOUR}
    regional = [
        Curve(name, time, energy - energy.mean(), colours[name], "/-" in name)
        for name in names
        if name != "MM"
        for energy in [columns[name + ENERGY_UNIT]]
    ]
    found = []
    if regional:
        found.append(figure("Energy of each term", line_figure(regional, TIME_LABEL, "deviation from mean (kJ/mol)")))
    force_field = columns.get("MM" + ENERGY_UNIT)
    if force_field is not None:
        curves = [Curve("MM", time, force_field - force_field.mean(), MM_COLOUR)]
        found.append(
            figure("Energy of the force field", line_figure(curves, TIME_LABEL, "deviation from mean (kJ/mol)"))
        )
    total = columns[POTENTIAL] + columns[KINETIC]
    curves = [Curve("potential and kinetic", time, total - total.mean(), MORE_COLOURS[0])]
    found.append(figure("Total energy", line_figure(curves, TIME_LABEL, "deviation from mean (kJ/mol)")))
    curves = [Curve("", time, columns[TEMPERATURE], "#e69f00")]
    found.append(figure("Temperature", line_figure(curves, TIME_LABEL, "temperature (K)")))
    if VOLUME in columns and np.ptp(columns[VOLUME]) > 0.0:
        curves = [Curve("", time, columns[VOLUME], MORE_COLOURS[3])]
        found.append(figure("Volume", line_figure(curves, TIME_LABEL, "volume (nm\N{SUPERSCRIPT THREE})")))
    return found


def _means(columns: Mapping[str, FloatArray]) -> str:
    if not columns:
        return paragraph("No row of energies yet.", "note")
    rows = [
        (name.removesuffix(ENERGY_UNIT), f"{values.mean():,.2f}", f"{values.std():.2f}", f"{values[-1]:,.2f}")
        for name, values in columns.items()
        if name.endswith(ENERGY_UNIT)
    ]
    count = f"Means of {len(columns[TIME]):,} rows of energies.csv, with coefficients. Single run: no error bars."
    return wide_table(("energy, kJ/mol", "mean", "standard deviation", "last"), rows) + paragraph(count, "note")


def _difference_figures(columns: Mapping[str, FloatArray]) -> list[str]:
    return [
        figure(
            f"{region}: QM \N{MINUS SIGN} ML",
            line_figure(
                [Curve("", columns[TIME], values - values.mean(), DIFFERENCE_COLOUR)],
                TIME_LABEL,
                "deviation from mean (kJ/mol)",
            ),
            f"mean {values.mean():,.2f} kJ/mol, standard deviation {values.std():.2f} kJ/mol",
        )
        for region, values in differences(dict(columns)).items()
    ]


def _difference_note(columns: Mapping[str, FloatArray]) -> str:
    if not differences(dict(columns)):
        return ""
    return paragraph(
        "The mean has no consequence: levels have different zeros of energy. The standard deviation says how well the "
        "learned potential reproduces QM.",
        "note",
    )


def _uncertainty_figures(facts: RunFacts) -> list[str]:
    return [
        figure(
            name,
            line_figure(
                [Curve("mean over atoms", times, mean, "#0072b2"), Curve("largest", times, largest, "#56b4e9", True)],
                TIME_LABEL,
                "expected error (kJ/(mol nm))",
            ),
            f"of forces on the region, at {len(times)} checkpoints of this session",
        )
        for name, rows in facts.uncertainties.items()
        for times, mean, largest in [rows.T]
    ]


def _scf(facts: RunFacts) -> str:
    rows = []
    for name, counts in facts.counts.items():
        if "scf_cycles" not in counts:
            continue
        results = counts.get("scf_results", counts.get("calculations"))
        cycles = counts["scf_cycles"]
        mean = f"{cycles / results:.2f}" if isinstance(cycles, int) and isinstance(results, int) and results else None
        rows.append(
            (name, results, mean, _listed(counts.get("scf_converged_from")), _listed(counts.get("scf_failed_from")))
        )
    return wide_table(("term", "calculations", "cycles each", "converged from", "failed from"), rows)


def _listed(counts: object) -> str | None:
    if not isinstance(counts, Mapping):
        return None
    return ", ".join(f"{name}: {count}" for name, count in counts.items()) or "none"


def _cost(facts: RunFacts) -> str:
    if facts.wall_seconds <= 0.0:
        return ""
    colours = term_colours(list(facts.counts))
    seconds = {name: float(str(counts["seconds"])) for name, counts in facts.counts.items() if "seconds" in counts}
    rest = max(0.0, facts.wall_seconds - sum(seconds.values()))
    spent = {**seconds, "OpenMM, terms in its Forces, and output": rest}
    whole = sum(spent.values())
    rows = []
    bar = []
    for name, value in spent.items():
        counted = facts.counts.get(name, {})
        evaluations = counted.get("evaluations")
        each = _duration(value / evaluations) if isinstance(evaluations, int) and evaluations else None
        rows.append((name, evaluations, each, f"{value:.3g} s", f"{100.0 * value / whole:.1f} %"))
        bar.append(
            f'<span style="width:{100.0 * value / whole:.2f}%;background:{colours.get(name, MM_COLOUR)}"></span>'
        )
    note = f"Wall time of this session: {facts.wall_seconds:.3g} s for {facts.session_steps:,} steps."
    return (
        f'<div class="bar">{"".join(bar)}</div>'
        + wide_table(("level", "evaluations", "each", "wall time", "share"), rows)
        + paragraph(note, "note")
    )


def _provenance(facts: RunFacts) -> str:
    session = facts.session
    platform = pairs(session.get("platform"))
    integrator = [facts.integrator.get("class"), *(f"{a} {b}" for a, b in pairs(session.get("integrator")).items())]
    rows = [
        ("started", session.get("started")),
        ("platform", f"{platform.get('name')}, {platform.get('machine')}"),
        ("integrator", ", ".join(map(str, integrator))),
        ("seeds", _present(pairs(session.get("seeds")))),
        ("versions", _present(pairs(session.get("versions")))),
    ]
    note = "run.json has all settings, hashes of the inputs, and earlier sessions."
    return wide_table(("", ""), rows) + paragraph(note, "note")


def _present(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def _continue(facts: RunFacts) -> list[str]:
    if facts.continue_with is not None:
        return [code(facts.continue_with), paragraph("It goes on at the last checkpoint.", "note")]
    script = SCRIPT.format(path=facts.folder.name, done=f"{facts.steps:,}")
    return [
        paragraph("Run the same script again with resume=True; it goes on at the last checkpoint:"),
        code(script),
    ]


def _version(facts: RunFacts) -> str | None:
    version = pairs(facts.session.get("versions")).get("qmmlmm")
    return str(version) if version else None


def _levels(facts: RunFacts) -> tuple[set[str], str]:
    terms = mappings(facts.description.get("terms"))
    levels = {str(term.get("level")) for term in terms}
    return levels, " ".join(str(term.get("potential")) for term in terms)
