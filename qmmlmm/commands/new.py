"""The command ``qmmlmm new``: a commented input file to start from."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from qmmlmm.commands.templates import KINDS, first_command, template
from qmmlmm.errors import InputFileError


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], parents: Sequence[argparse.ArgumentParser]
) -> None:
    """Add ``new`` to the command ``qmmlmm``."""
    parser = commands.add_parser(
        "new",
        help="write a commented input file to start from",
        description="Write a commented input file with every key, its default and its meaning.",
        epilog="example: qmmlmm new run.toml --kind run",
        parents=parents,
    )
    parser.set_defaults(run=_run)
    parser.add_argument("name", type=Path, help="file to write; .toml is added if it has no ending")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="run",
        help="command that the file is for; reaction: optimise, scan, path, saddle, frequencies, umbrella, profile",
    )


def _run(options: argparse.Namespace) -> int:
    path: Path = options.name if options.name.suffix else options.name.with_suffix(".toml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template(options.kind, path.name))
    except FileExistsError as error:
        raise InputFileError(f"{path} exists already; name another file") from error
    sys.stdout.write(f"{path}: change it, then qmmlmm {first_command(options.kind)} {path}\n")
    return 0
