"""The command ``qmmlmm spectrum``: the absorption of a region from snapshots of a trajectory."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass
from pathlib import Path

from qmmlmm.commands.hamiltonian_input import read_region
from qmmlmm.commands.input_file import read_toml, reading
from qmmlmm.commands.system_input import read_system
from qmmlmm.commands.worker_pool import worker_pool
from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.coupling.potential import EMBEDDINGS
from qmmlmm.errors import EvaluationError, InputFileError
from qmmlmm.mm.creation import create_mixed_system
from qmmlmm.progress_display import progress_bar
from qmmlmm.qm import TDA, TDDFT, PySCFPotential
from qmmlmm.setting_checks import check_choice, check_count, check_flag, check_number
from qmmlmm.spectra.absorption import write_spectrum_report
from qmmlmm.spectra.snapshots import read_snapshots
from qmmlmm.spectra.transitions import compute_transitions

TOP = ("directory", "system", "trajectory", "region", "qm", "states", "spectrum", "embedding")
STATES = {"TDA": TDA, "TDDFT": TDDFT}
LARGEST_WIDTH = 10.0
"""Largest width of a line, eV; a larger one is a number in another unit."""


@dataclass(frozen=True)
class SpectrumSettings:
    """The table [spectrum].

    Parameters
    ----------
    frames : int
        Number of snapshots, evenly spaced over the trajectory.
    first : int
        First frame of the trajectory that may be a snapshot.
    full_width : float, eV
        Full width of a line at half maximum.
    vacuum : bool
        Whether to compute each geometry also without surroundings.
    workers : int
        Number of processes, with one thread each.

    Raises
    ------
    SettingError
        If a value is out of range.
    """

    frames: int = 50
    first: int = 0
    full_width: float = 0.3
    vacuum: bool = True
    workers: int = 1

    def __post_init__(self) -> None:
        width = check_number("full_width", self.full_width, above=0.0, at_most=LARGEST_WIDTH, unit_name="eV")
        checked = {
            "frames": check_count("frames", self.frames),
            "first": check_count("first", self.first, at_least=0),
            "full_width": width,
            "vacuum": check_flag("vacuum", self.vacuum),
            "workers": check_count("workers", self.workers),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parents: Sequence[argparse.ArgumentParser]
) -> None:
    """Add ``spectrum`` to the command ``qmmlmm``."""
    parser = commands.add_parser(
        "spectrum",
        help="absorption spectrum of a region from snapshots of a trajectory",
        description="Compute the absorption spectrum of a region from snapshots of a trajectory.",
        epilog="example: qmmlmm spectrum dye.toml",
        parents=parents,
    )
    parser.set_defaults(run=_run)
    parser.add_argument("file", type=Path, help="description, TOML; continues a calculation that was stopped")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def _run(options: argparse.Namespace) -> int:
    with reading(options.file):
        return _compute(options.file, quiet=options.quiet)


def _compute(file: Path, *, quiet: bool) -> int:
    content = read_toml(file, TOP)
    folder = file.parent
    settings = content.optional_table("spectrum").build(SpectrumSettings)
    path = folder / content.text("trajectory")
    output = folder / content.text("directory", file.stem + "_run")
    if output.exists() and not output.is_dir():
        raise InputFileError(f"directory {str(output)!r} is a file; name a folder")
    states = content.table("states")
    kind = states.text("kind", "TDA")
    if kind not in STATES:
        raise InputFileError(f"[states] kind is {' or '.join(map(repr, STATES))}, got {kind!r}")
    excited = states.without("kind").build(STATES[kind])
    qm = content.table("qm")
    qm.check_keys(("method", "basis", "grid_level", "embedding_grid_level", "conv_tol", "max_cycle", "max_memory"))
    # No forces are needed, and those of the ground state are the cheapest. A fresh guess makes snapshots independent.
    potential = qm.build(PySCFPotential, {"excited": excited, "state": 0, "guess": "fresh"})
    embedding = check_choice("embedding", content.text("embedding", "electrostatic"), EMBEDDINGS, error=InputFileError)
    start = read_system(content.table("system"), folder)
    region = read_region(content.table("region"), start, folder)
    with content.place():
        term = Term(potential, region, embedding=embedding)
        mixed = create_mixed_system(start.topology, start.system, Hamiltonian([term]))
    frames = read_snapshots(path, start.topology, settings.frames, settings.first)
    output.mkdir(parents=True, exist_ok=True)
    with (
        _executor(settings.workers) as executor,
        progress_bar(len(frames), "snapshots", "snapshot", shown=False if quiet else None) as bar,
    ):
        transitions = compute_transitions(
            mixed.evaluated_term(f"{region.name}/{potential.level}"),
            frames,
            vacuum=settings.vacuum,
            executor=executor,
            record=output / "transitions.csv",
            progress=lambda done: bar.update(done - bar.n),
        )
    title = f"{region.name}: {kind}, {potential.method_name}"
    report = write_spectrum_report(output, transitions, title=title, full_width=settings.full_width)
    sys.stdout.write(report.read_text(encoding="utf-8"))
    return 0


@contextlib.contextmanager
def _executor(workers: int) -> Iterator[Executor | None]:
    try:
        with worker_pool(workers) as executor:
            yield executor
    except BrokenExecutor as error:
        raise EvaluationError(
            f"a process of the {workers} workers died ({error}), most likely because memory is short; run "
            "again with fewer workers: snapshots that are in transitions.csv are kept"
        ) from error
