"""The command ``qmmlmm run``: dynamics in stages from an input file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from qmmlmm.commands.run_input import read_run
from qmmlmm.commands.run_summary import summary
from qmmlmm.commands.staged_run import StagedRun


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parents: Sequence[argparse.ArgumentParser]
) -> None:
    """Add ``run`` to the command ``qmmlmm``."""
    parser = commands.add_parser(
        "run",
        help="minimise, heat, equilibrate and run dynamics from an input file",
        description="Minimise, heat, equilibrate and run dynamics from an input file.",
        epilog="example: qmmlmm run run.toml --check",
        parents=parents,
    )
    parser.set_defaults(run=_run)
    parser.add_argument("file", type=Path, help="description of the run, TOML; continues a run that was stopped")
    parser.add_argument("--check", action="store_true", help="check everything, show what would run, and end")


def _run(options: argparse.Namespace) -> int:
    given = read_run(options.file)
    run = StagedRun(given)
    sys.stdout.write(summary(given, run))
    if options.check:
        sys.stdout.write(f"\n{options.file} can run: qmmlmm run {options.file}\n")
        return 0
    sys.stdout.write("\n")
    torch.set_num_threads(given.platform.threads or 1)
    run.run(report=_report)
    return 0


def _report(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
