"""Exceptions of runs and their files."""

from __future__ import annotations

from qmmlmm.errors import QmmlmmError


class RunDirectoryError(QmmlmmError, ValueError):
    """A run directory that cannot be started, resumed or opened as asked."""


class OutputFileError(QmmlmmError, ValueError):
    """An existing output file that cannot be continued."""
