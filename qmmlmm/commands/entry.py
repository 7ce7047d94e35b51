"""Where the command ``qmmlmm`` begins."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command with OpenMP threads that sleep while they wait, unless ``OMP_WAIT_POLICY`` says otherwise.

    Threads that spin take the cores from those of other libraries and processes. The variable is read when torch and
    PySCF are loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from qmmlmm.commands.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
