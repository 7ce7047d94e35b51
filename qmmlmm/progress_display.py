"""Where progress is shown: on terminals and in notebooks."""

from __future__ import annotations

import sys


def is_hidden() -> bool:
    """Return whether standard error is neither a terminal nor the output of a notebook."""
    return not (sys.stderr.isatty() or in_notebook())


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, whose output is no terminal but shows progress."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and type(ipython.get_ipython()).__name__ == "ZMQInteractiveShell"
