"""Writing of reports that never ends the calculation that they report on."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

from qmmlmm.errors import QmmlmmWarning


@contextlib.contextmanager
def harmless(path: Path) -> Iterator[None]:
    """Return a context in which an exception is a warning that a report cannot be written.

    Parameters
    ----------
    path : Path
        The report.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - no report is worth a calculation
        warnings.warn(
            f"the report {path} cannot be written ({type(error).__name__}: {error}); the calculation and its other "
            "files are not affected",
            QmmlmmWarning,
            stacklevel=3,
        )
