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

from qmmlmm.commands.input_file import read_region, read_system, read_toml
from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.errors import InputFileError
from qmmlmm.mm.creation import create_mixed_system
from qmmlmm.qm import TDA, TDDFT, PySCFPotential
from qmmlmm.setting_checks import check_flag, check_positive, check_whole_number
from qmmlmm.spectra.absorption import write_spectrum_report
from qmmlmm.spectra.snapshots import read_snapshots
from qmmlmm.spectra.transitions import compute_transitions

TOP = ("directory", "system", "trajectory", "region", "qm", "states", "spectrum", "embedding")
STATES = {"TDA": TDA, "TDDFT": TDDFT}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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
        check_whole_number("frames", self.frames)
        check_whole_number("first", self.first, at_least=0)
        check_positive("full_width", self.full_width, "eV")
        check_flag("vacuum", self.vacuum)
        check_whole_number("workers", self.workers)


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``spectrum`` to the command ``qmmlmm``."""
    parser = commands.add_parser("spectrum", help="absorption spectrum of a region from snapshots of a trajectory")
    parser.set_defaults(run=_run)
    parser.add_argument("file", type=Path, help="description, TOML; continues a calculation that was stopped")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def _run(options: argparse.Namespace) -> int:
    content = read_toml(options.file, TOP)
    folder = options.file.parent
    settings = content.optional_table("spectrum").build(SpectrumSettings)
    topology, system, _ = read_system(content.table("system"), folder)
    states = content.table("states")
    kind = states.text("kind", "TDA")
    if kind not in STATES:
        raise InputFileError(f"[states] kind is {' or '.join(map(repr, STATES))}, got {kind!r}")
    excited = states.without("kind").build(STATES[kind])
    qm = content.table("qm")
    qm.check_keys(("method", "basis", "grid_level", "embedding_grid_level", "conv_tol", "max_cycle", "max_memory"))
    # No forces are needed, and those of the ground state are the cheapest. A fresh guess makes snapshots independent.
    potential = qm.build(PySCFPotential, {"excited": excited, "state": 0, "guess": "fresh"})
    region = read_region(content.table("region"), topology)
    term = Term(potential, region, embedding=content.text("embedding", "electrostatic"))
    mixed = create_mixed_system(topology, system, Hamiltonian([term]))
    path = folder / content.text("trajectory")
    frames = read_snapshots(path, topology, settings.frames, settings.first)
    output = folder / content.text("directory", options.file.stem + "_run")
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
    title = f"{region.name}: {kind}, {potential.method_name}"
    report = write_spectrum_report(output, transitions, title=title, full_width=settings.full_width)
    sys.stdout.write(report.read_text(encoding="utf-8"))
    return 0


@contextlib.contextmanager
def _executor(workers: int) -> Iterator[Executor | None]:
    if workers == 1:
        yield None
        return
    before = {name: os.environ.get(name) for name in THREADS}
    # The processes inherit the environment.
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
            yield executor
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
