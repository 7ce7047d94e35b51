"""Exceptions and warnings of qmmlmm.

Each class is also the built-in exception that it is a case of, so that ``except ValueError`` works.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class QmmlmmError(Exception):
    """Root of all exceptions that qmmlmm raises on purpose."""


class QmmlmmWarning(UserWarning):
    """Root of all warnings that qmmlmm gives."""


class SelectionError(QmmlmmError, ValueError):
    """A selection or a list of atoms that cannot be used."""


class RegionError(QmmlmmError, ValueError):
    """A region that is ill defined: atoms, charge, multiplicity, or its cut bonds."""


class HamiltonianError(QmmlmmError, ValueError):
    """Terms that do not add up to one energy."""


class UnsupportedSystemError(QmmlmmError, ValueError):
    """An `openmm.System` that holds something which cannot be treated correctly."""


class PotentialError(QmmlmmError, ValueError):
    """A potential that cannot be built as asked: unknown method, basis, model file or element."""


class InputFileError(QmmlmmError, ValueError):
    """A file that describes a calculation and has an unknown key, lacks one, or cannot be read."""


class MissingDependencyError(QmmlmmError, ImportError):
    """An optional package that is needed now cannot be imported."""


class EvaluationError(QmmlmmError, RuntimeError):
    """An energy or force evaluation failed while a simulation was running."""


class ConvergenceError(EvaluationError):
    """An SCF calculation did not converge."""


class NonFiniteError(EvaluationError):
    """Positions, energies or forces are not finite numbers."""


def listed(items: Iterable[object], limit: int = 5) -> str:
    """Return the items as text for a message, cut to `limit` entries."""
    texts = [str(item) for item in items]
    more = f", ... ({len(texts)} in all)" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more


def nearest(name: str, valid: Sequence[str]) -> str:
    """Return a sentence with the valid names that resemble `name`, or an empty string."""
    lowered = {option.lower(): option for option in valid}
    close = difflib.get_close_matches(name.lower(), list(lowered), n=3, cutoff=0.5)
    return f" Nearest names: {listed(lowered[match] for match in close)}." if close else ""
