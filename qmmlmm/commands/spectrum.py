"""The command ``qmmlmm spectrum``: the absorption of a region from snapshots of a trajectory."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from qmmlmm.analysis.absorption import write_spectrum_report
from qmmlmm.analysis.snapshots import read_snapshots
from qmmlmm.analysis.transitions import compute_transitions
from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.coupling.region import Region
from qmmlmm.errors import InputFileError
from qmmlmm.mm.creation import create_mixed_system
from qmmlmm.mm.input_file import build_from, check_keys, needed, read_system, read_toml, table_of
from qmmlmm.mm.selection import select
from qmmlmm.qm import TDA, TDDFT, PySCFPotential

TOP = ("directory", "system", "trajectory", "region", "qm", "states", "spectrum", "embedding")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class SpectrumSettings:
    """The table [spectrum].

    Parameters
    ----------
    frames : int
        Snapshots, evenly spaced over the trajectory.
    first : int
        Frame of the trajectory at which they begin.
    full_width : float, eV
        Of a line at half of its maximum.
    vacuum : bool
        Whether each geometry is also computed without surroundings.
    workers : int
        Processes, of one thread each.
    """

    frames: int = 50
    first: int = 0
    full_width: float = 0.3
    vacuum: bool = True
    workers: int = 1


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``spectrum`` to the command ``qmmlmm``."""
    parser = commands.add_parser("spectrum", help="absorption spectrum of a region from snapshots of a trajectory")
    parser.set_defaults(run=_run)
    parser.add_argument("file", type=Path, help="description, TOML; a calculation that was stopped goes on")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def _run(options: argparse.Namespace) -> int:
    content = read_toml(options.file, TOP)
    folder = options.file.parent
    settings: SpectrumSettings = build_from("spectrum", content.get("spectrum", {}), SpectrumSettings)
    topology, system, _ = read_system(table_of(content, "system"), folder)
    states = dict(table_of(content, "states"))
    kinds = {"TDA": TDA, "TDDFT": TDDFT}
    kind = states.pop("kind", "TDA")
    if kind not in kinds:
        raise InputFileError(f"[states] kind is 'TDA' or 'TDDFT', got {kind!r}")
    excited = build_from("states", states, kinds[kind])
    qm = table_of(content, "qm")
    check_keys(
        "qm", qm, ("method", "basis", "grid_level", "embedding_grid_level", "conv_tol", "max_cycle", "max_memory")
    )
    # The ground state's forces are the cheapest; nobody uses them here. Each snapshot stands for itself.
    method, basis = needed("qm", qm, "method"), needed("qm", qm, "basis")
    options_of_qm = {key: value for key, value in qm.items() if key not in ("method", "basis")}
    potential = PySCFPotential(method, basis, excited=excited, state=0, guess="fresh", **options_of_qm)
    table = table_of(content, "region")
    check_keys("region", table, ("name", "select", "charge", "multiplicity"))
    atoms = select(topology, str(needed("region", table, "select")))
    region = Region(table.get("name", "region"), atoms, table.get("charge", 0), table.get("multiplicity", 1))
    term = Term(potential, region, embedding=content.get("embedding", "electrostatic"))
    mixed = create_mixed_system(topology, system, Hamiltonian([term]))
    path = folder / str(needed("", content, "trajectory"))
    frames = read_snapshots(path, topology, settings.frames, settings.first)
    output = folder / content.get("directory", options.file.stem + "_run")
    output.mkdir(parents=True, exist_ok=True)
    with (
        _executor(settings.workers) as executor,
        tqdm(total=len(frames), disable=options.quiet, desc="snapshots") as bar,
    ):
        transitions = compute_transitions(
            mixed.evaluated_term(f"{region.name}/{potential.level}"),
            frames,
            vacuum=settings.vacuum,
            executor=executor,
            record=output / "transitions.csv",
            progress=lambda done: bar.update(done - bar.n),
        )
    title = f"{region.name}: {kind}, {potential.method}/{potential.basis}"
    report = write_spectrum_report(output, transitions, title=title, full_width=settings.full_width)
    sys.stdout.write(report.read_text(encoding="utf-8"))
    return 0


@contextlib.contextmanager
def _executor(workers: int) -> Iterator[Executor | None]:
    if workers < 1:
        raise InputFileError(f"[spectrum] workers is 1 or more, got {workers}")
    if workers == 1:
        yield None
        return
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))  # the processes inherit it
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
            yield executor
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
