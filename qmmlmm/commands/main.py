"""Where the command ``qmmlmm`` starts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qmmlmm.commands import spectrum
from qmmlmm.errors import QmmlmmError
from qmmlmm.learning import command as learning


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="qmmlmm", description="QM/ML/MM simulations in one OpenMM System.")
    commands = parser.add_subparsers(required=True, metavar="command")
    learning.add_commands(commands)
    spectrum.add_command(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (QmmlmmError, OSError) as error:
        sys.stderr.write(f"qmmlmm: error: {error}\n")
        return 1
