"""All exceptions and warnings of qmmlmm.

Each class is also the built-in exception that it is a case of, so that ``except ValueError`` works.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class QmmlmmError(Exception):
    """Root of all exceptions that qmmlmm raises on purpose."""


class QmmlmmWarning(UserWarning):
    """Root of all warnings that qmmlmm gives."""


class SettingError(QmmlmmError, ValueError):
    """A setting of the wrong type, out of range, or one that does not go with another."""


class SelectionError(QmmlmmError, ValueError):
    """A selection or a list of atoms that cannot be used."""


class RegionError(QmmlmmError, ValueError):
    """A region that is ill defined: atoms, charge, multiplicity, or its cut bonds."""


class HamiltonianError(QmmlmmError, ValueError):
    """Terms that do not add up to one energy."""


class UnsupportedSystemError(QmmlmmError, ValueError):
    """An `openmm.System` with a part that cannot be treated correctly."""


class PotentialError(QmmlmmError, ValueError):
    """A potential that cannot be created: unknown method, basis, model file or element."""


class InputFileError(QmmlmmError, ValueError):
    """A file that describes a calculation and has an unknown key, lacks one, or cannot be read."""


class DataSetError(QmmlmmError, ValueError):
    """A labelled frame, or a file of them, that is invalid."""


class TableError(QmmlmmError, ValueError):
    """A table that cannot be read or has no data."""


class ReweightingError(QmmlmmError, ValueError):
    """Samples from which no average can be made."""


class TransitionsError(QmmlmmError, ValueError):
    """Snapshots, states or a record of them that do not fit together."""


class PreparationError(QmmlmmError, ValueError):
    """A structure or a ligand from which no System can be made."""


class RunDirectoryError(QmmlmmError, ValueError):
    """A run directory that cannot be started, resumed or opened."""


class OutputFileError(QmmlmmError, ValueError):
    """An output file that cannot be written or continued."""


class FullDiskError(QmmlmmError, OSError):
    """A file that cannot be written because the disk or a quota is full. What was written before is safe."""


class TerminatedError(QmmlmmError, SystemExit):
    """A run that got the signal SIGTERM, saved a checkpoint and stopped.

    A script that does not catch it ends with the message and the exit status 1.
    """

    def __init__(self, message: str) -> None:
        # The constructor of Exception comes first otherwise, and would not set the code of the exit.
        SystemExit.__init__(self, message)


class MissingDependencyError(QmmlmmError, ImportError):
    """An optional package that is needed now cannot be imported."""


class EvaluationError(QmmlmmError, RuntimeError):
    """An energy or force evaluation failed while a simulation was running."""


class ConvergenceError(EvaluationError):
    """An SCF calculation did not converge."""


class NonFiniteError(EvaluationError):
    """Positions, energies or forces are not finite numbers."""


class UnstableReferenceError(EvaluationError, ArithmeticError):
    """The reference determinant is unstable, so that the response equations have no real solution."""


class TrainingError(QmmlmmError, RuntimeError):
    """A training that cannot start or continue."""


class LoopError(QmmlmmError, RuntimeError):
    """A learning loop that cannot start or continue."""


class LoopStoreError(LoopError, OSError):
    """The directory of a loop cannot be read or written. What was written before is safe."""


def listed(items: Iterable[object], limit: int = 5) -> str:
    """Return the items as text for a message, cut to `limit` entries."""
    texts = [str(item) for item in items]
    more = f", ... ({len(texts)} in all)" if len(texts) > limit else ""
    return ", ".join(texts[:limit]) + more


def signed(charge: int) -> str:
    """Return a charge as text with its sign; zero has none."""
    return f"{charge:+d}" if charge else "0"


def shown(value: object, limit: int = 80) -> str:
    """Return an object as text for a message, cut to `limit` characters."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integers of more than some thousand digits
        return "an integer of thousands of digits"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def nearest(name: str, valid: Sequence[str]) -> str:
    """Return a sentence with the valid names that resemble `name`, or an empty string."""
    lowered = {option.lower(): option for option in valid}
    close = difflib.get_close_matches(name.lower(), list(lowered), n=3, cutoff=0.5)
    return f" Nearest names: {listed(lowered[match] for match in close)}." if close else ""
