"""The report of a loop: a Markdown page and its figure, written again after every round."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qmmlmm.analysis.loop_figures import plot_error_against_labels, plot_labels_along, plot_uncertainty_along
from qmmlmm.analysis.model_quality import plot_calibration, report_figure
from qmmlmm.durable_files import replace_file
from qmmlmm.errors import listed
from qmmlmm.learning.labels.label_job import FAILED, LABELLED, Job
from qmmlmm.learning.loop.round_record import Round, RoundResult
from qmmlmm.learning.loop.settings import LoopSettings
from qmmlmm.learning.loop.store import LoopStore
from qmmlmm.learning.loop.timer import overhead
from qmmlmm.runs.report.markdown_page import write_markdown_page
from qmmlmm.sampling.collective_variables import CollectiveVariable
from qmmlmm.sampling.metadynamics import Metadynamics, mean_profile, profile_table

REPORT_NAME, FIGURE_NAME, PROFILE_NAME = "report.md", "report.png", "free_energy.csv"
MOST_FAILURES = 20


def write_loop_report(directory: Path, store: LoopStore, settings: LoopSettings) -> Path:
    """Write ``report.md``, ``report.png`` and both in ``report.html``; return the path of the first.

    Parameters
    ----------
    directory : Path
    store : LoopStore
    settings : LoopSettings
    """
    rounds = store.rounds()
    jobs = store.jobs(LABELLED, FAILED)
    judged = [(number, result) for number, _, result in rounds if "error" in result and result["error"]["count"]]
    lines = [
        "# Learning loop",
        "",
        f"Bounds: root mean square error of force components below {settings.force_error:g} kJ/(mol nm)"
        + ("" if settings.energy_error is None else f", of the energy below {settings.energy_error:g} kJ/mol")
        + f" on fresh configurations, with {100 * settings.confidence:g} % confidence.",
        "",
        *_reacting(settings),
        _verdict(rounds),
        "",
        "| round | training labels | fresh | force error (limit) | energy error (limit) | walkers stopped | new |",
        "|---|---|---|---|---|---|---|",
    ]
    trained = {number: result.get("frames", 0) for number, _, result in rounds}
    for number, _, result in rounds:
        mine = [job for job in jobs if job.round == number]
        lines.append(_row(number, result, trained.get(number - 1, 0), mine))
    lines += [
        "",
        "Errors are those of the model that ran in the round, on configurations that were drawn at random before the "
        "round; forces in kJ/(mol nm), energies, without their mean error, in kJ/mol.",
        "",
    ]
    if (directory / PROFILE_NAME).exists():
        count = len(store.hills(store.round()[0] + 1))
        lines += [f"The free energy from {count} hills of metadynamics is in `{PROFILE_NAME}`.", ""]
    lines += _stops(store) + _failures(jobs) + _times(store, jobs)
    lines += [f"![figures]({FIGURE_NAME})", ""]
    replace_file(directory / FIGURE_NAME, _figure(store, settings, judged, trained, jobs))
    path = directory / REPORT_NAME
    replace_file(path, "\n".join(lines).encode("utf-8"))
    write_markdown_page(path)
    return path


def write_free_energy(
    directory: Path,
    store: LoopStore,
    metadynamics: Metadynamics,
    settings: LoopSettings,
    walkers: int,
    variables: Mapping[str, CollectiveVariable],
) -> Path:
    """Write the free energy from all hills so far to ``free_energy.csv``; return its path.

    Walkers that share their hills give one profile without an error, others a mean profile with its standard error.

    Parameters
    ----------
    directory : Path
    store : LoopStore
    metadynamics : Metadynamics
    settings : LoopSettings
    walkers : int
        Number of walkers.
    variables : mapping of str to collective variable
        Collective variables by name, for the header.
    """
    after = store.round()[0] + 1
    each = [None] if metadynamics.shared else range(walkers)
    profile, error = mean_profile(
        [metadynamics.free_energy(metadynamics.bias(store.hills(after, walker))) for walker in each],
        settings.temperature,
    )
    path = directory / PROFILE_NAME
    replace_file(path, profile_table(metadynamics, variables, profile, error).encode("utf-8"))
    return path


def _reacting(settings: LoopSettings) -> list[str]:
    if not settings.reacting_bonds or settings.bond_limit is None:
        return []
    bonds = listed((f"{first}-{second}" for first, second in settings.reacting_bonds), 20)
    return [f"Bonds of the region that may break, by the atoms of the topology: {bonds}.", ""]


def _verdict(rounds: Sequence[Round]) -> str:
    if rounds and rounds[-1].result.get("passed"):
        return f"**The bounds hold** for the model that ran in round {rounds[-1].number}; it is in `model.pt`."
    return "The bounds do not hold yet; `model.pt` is the newest model."


def _row(number: int, result: RoundResult, frames: int, jobs: list[Job]) -> str:
    kinds = [kind for kind in ("start", "fresh", "uncertain", "runaway") if any(job.kind == kind for job in jobs)]
    new = ", ".join(f"{sum(job.kind == kind and job.status == LABELLED for job in jobs)} {kind}" for kind in kinds)
    error = result.get("error")
    if error is None:
        return f"| {number} | | | | | | {new} |"
    return (
        f"| {number} | {frames} | {error['count']} | {error['force_error']:.1f} ({error['force_limit']:.1f}) | "
        f"{error['energy_error']:.2f} ({error['energy_limit']:.2f}) | {result['stopped']} | {new} |"
    )


def _stops(store: LoopStore) -> list[str]:
    events = store.events()
    if not events:
        return []
    rows = [f"| {number} | {walker} | {text} |" for number, walker, text in events]
    return ["Walkers that were stopped and set back:", "", "| round | walker | reason |", "|---|---|---|", *rows, ""]


def _failures(jobs: list[Job]) -> list[str]:
    failed = [job for job in jobs if job.status == FAILED]
    if not failed:
        return []
    lines = [f"{len(failed)} labels failed; their geometries are in `loop.sqlite`, table `jobs`:", ""]
    for job in failed[:MOST_FAILURES]:
        lines.append(f"- {job.name}, walker {job.walker}, {job.attempts} attempts: {job.reason.splitlines()[0][:300]}")
    return [*lines, ""]


def _times(store: LoopStore, jobs: list[Job]) -> list[str]:
    times = store.times()
    total = sum(times.values())
    if not total:
        return []
    shares = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in times.items())
    made = [job.seconds for job in jobs if job.status == LABELLED and job.kind != "given"]
    each = f" A label took {np.mean(made):.2f} s on average." if made else ""
    return [f"Wall time: {shares}; {100 * overhead(times):.1f} % was not QM, ML or OpenMM.{each}", ""]


def _figure(
    store: LoopStore,
    settings: LoopSettings,
    judged: list[tuple[int, RoundResult]],
    trained: dict[int, int],
    jobs: list[Job],
) -> bytes:
    names = sorted({name for job in jobs for name in (job.variables or {})})
    calibrated = [result["calibration"] for _, result in judged if "calibration" in result]
    figure, axes = report_figure(2 + bool(calibrated) + len(names))
    plot_error_against_labels(
        [trained.get(number - 1, 0) for number, _ in judged],
        [result["error"]["force_error"] for _, result in judged],
        [result["error"]["force_limit"] for _, result in judged],
        settings.force_error,
        axes[0],
    )
    trace = store.trace()
    length = settings.steps_per_round * settings.time_step
    plot_uncertainty_along(
        np.array([(number - 1) * length + step * settings.time_step for number, _, step, *_ in trace]),
        np.array([uncertainty for *_, uncertainty, _, _ in trace]),
        [walker for _, walker, *_ in trace],
        settings.threshold,
        axes[1],
    )
    if calibrated:
        plot_calibration(np.array(calibrated[-1]["expected"]), np.array(calibrated[-1]["true"]), 1.0, axes[2])
    for name, ax in zip(names, axes[2 + bool(calibrated) :], strict=True):
        known = [job for job in jobs if name in (job.variables or {})]
        kinds = sorted({job.kind for job in known})
        plot_labels_along(
            {kind: [job.round for job in known if job.kind == kind] for kind in kinds},
            {kind: [(job.variables or {})[name] for job in known if job.kind == kind] for kind in kinds},
            name,
            ax,
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    return buffer.getvalue()
