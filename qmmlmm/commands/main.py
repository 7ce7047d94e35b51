"""The entry point of the command ``qmmlmm``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qmmlmm.commands import learn, prepare, site, spectrum, train
from qmmlmm.errors import QmmlmmError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="qmmlmm", description="QM/ML/MM simulations in one OpenMM System.")
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in (prepare, site, train, learn, spectrum):
        command.add_command(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (QmmlmmError, OSError) as error:
        sys.stderr.write(f"qmmlmm: error: {error}\n")
        return 1
