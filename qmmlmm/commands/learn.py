"""The command ``qmmlmm learn``: learn a potential while simulations run, with labels from PySCF."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from qmmlmm.commands.learn_input import read_loop
from qmmlmm.setting_checks import check_count


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parents: Sequence[argparse.ArgumentParser]
) -> None:
    """Add ``learn`` to the command ``qmmlmm``."""
    parser = commands.add_parser(
        "learn",
        help="learn a potential while simulations run, with labels from PySCF",
        description=(
            "Learn a potential while simulations run, with labels from PySCF. The exit status is 3 if the loop ended "
            "before the error bound held."
        ),
        epilog="example: qmmlmm learn loop.toml",
        parents=parents,
    )
    parser.set_defaults(run=_run)
    parser.add_argument("file", type=Path, help="description of the loop, TOML; continues a loop that was stopped")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--threads", type=int, default=1, help="number of threads for torch")


def _run(options: argparse.Namespace) -> int:
    torch.set_num_threads(check_count("--threads", options.threads))
    result = read_loop(options.file).run(progress=not options.quiet)
    sys.stdout.write(result.report.read_text(encoding="utf-8"))
    return 0 if result.passed else 3
