"""Where and how progress is shown: bars on terminals and in notebooks, lines now and then elsewhere."""

from __future__ import annotations

import sys
from typing import TextIO

from tqdm import tqdm

PAUSE = 60.0
"""Seconds before the first line of progress and between two of them, where there is no terminal."""

LINE = "{desc}: {n_fmt}/{total_fmt} {unit} [{elapsed} done, {remaining} left{postfix}]"
LINE_WITHOUT_END = "{desc}: {n_fmt} {unit} [{elapsed} done{postfix}]"


def is_hidden() -> bool:
    """Return whether standard error is neither a terminal nor the output of a notebook."""
    return not (sys.stderr.isatty() or in_notebook())


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, whose output is no terminal but shows progress."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and type(ipython.get_ipython()).__name__ == "ZMQInteractiveShell"


def progress_bar(
    total: int | None,
    description: str,
    unit: str,
    *,
    initial: int = 0,
    shown: bool | None = None,
    leave: bool = True,
) -> tqdm:
    """Return a progress bar on standard error, which is a context manager.

    On a terminal and in a notebook it is a bar. Elsewhere, such as in the log of a batch job, it is a line every
    `PAUSE` seconds; what takes less time writes none.

    Parameters
    ----------
    total : int or None
        Number of units; None if it is not known.
    description : str
        What is done.
    unit : str
    initial : int
        Number of units that were done before.
    shown : bool, optional
        False for nothing; True for a bar wherever standard error goes.
    leave : bool
        Whether a bar stays at its end; False for one within another.
    """
    if shown or not is_hidden():
        return tqdm(total=total, desc=description, unit=unit, initial=initial, disable=shown is False, leave=leave)
    return tqdm(
        total=total,
        desc=description,
        unit=f"{unit[:-1]}ies" if unit.endswith("y") else f"{unit}s",
        initial=initial,
        disable=shown is False,
        file=_Lines(sys.stderr),
        mininterval=PAUSE,
        miniters=1,  # else a thread of tqdm writes lines in between
        delay=PAUSE,
        leave=leave,
        bar_format=LINE_WITHOUT_END if total is None else LINE,
    )


class _Lines:
    """A text file that turns the redrawing of a bar into lines."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write a line, unless it is blank."""
        line = text.strip()
        if line:
            self._file.write(line + "\n")
        return len(text)

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()
