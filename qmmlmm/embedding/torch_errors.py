"""Errors of terms that are torch modules.

Of an exception TorchScript keeps only the text. The text names the class, and `original_error` makes the exception
again, for a module that Python calls and for one that TorchForce runs.
"""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

import re

import torch
from torch import Tensor

from qmmlmm.errors import EvaluationError, NonFiniteError

HOLDS_LOCK = (
    "the call holds Python's lock, and torch computes no forces then; give create_mixed_system "
    "ml_backend='pythonforce', or use a call without it: a minimisation without a reporter, step() instead of stepTo()"
)
"""What to do about calls of OpenMM that run a TorchForce and do not release Python's lock."""

_CLASSES: dict[str, type[EvaluationError]] = {"EvaluationError": EvaluationError, "NonFiniteError": NonFiniteError}
_NAMED = re.compile(r"RuntimeError: qmmlmm (\w+): ([^\n]+)")
_LAST_LINE = re.compile(r"^\s*((?:\w+\.)*\w*(?:Error|Exception)\b.*)", re.MULTILINE)


@torch.jit.unused
def _raise(name: str, message: str) -> None:
    raise _CLASSES[name](message)


def raise_error(name: str, message: str) -> None:
    """Raise an exception, also in TorchScript.

    Parameters
    ----------
    name : {"EvaluationError", "NonFiniteError"}
        Class of the exception; in TorchScript it is a RuntimeError whose text names the class.
    message : str
        One line.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        raise RuntimeError("qmmlmm " + name + ": " + message)
    _raise(name, message)


def check_positions(positions: Tensor, term: str) -> None:
    """Raise NonFiniteError if a position is not a number; in TorchScript, where it would end the process later."""
    if bool(torch.isfinite(positions.sum())):
        return
    wrong = torch.nonzero(torch.logical_not(torch.isfinite(positions)).any(dim=1))[:, 0]
    if wrong.shape[0] == 0:  # the sum alone is too large
        return
    shown = ""
    for k in range(min(5, wrong.shape[0])):
        shown += (", " if k > 0 else "") + str(int(wrong[k]))
    if wrong.shape[0] > 5:
        shown += ", ... (" + str(wrong.shape[0]) + " in all)"
    raise_error(
        "NonFiniteError",
        "positions that are not numbers reached term '"
        + term
        + "', on atoms "
        + shown
        + "; the simulation was unstable before: use a smaller step or minimise first",
    )


def is_of_torch(text: str) -> bool:
    """Return whether the text of an OpenMMException is that of an exception in torch."""
    return "TorchScript" in text or "holding the GIL" in text


def original_error(term: str, text: str) -> EvaluationError:
    """Return the exception that the text of TorchScript's exception stands for.

    Parameters
    ----------
    term : str
        Name of the term, or of all terms that it may be.
    text : str
        Text of a `torch.jit.Error` or RuntimeError, or of the OpenMMException that it became.
    """
    named = _NAMED.findall(text)
    if named and named[-1][0] in _CLASSES:
        name, message = named[-1]
        return _CLASSES[name](message)
    if "holding the GIL" in text:
        return EvaluationError(f"{term}: {HOLDS_LOCK}")
    lines = _LAST_LINE.findall(text) or text.strip().splitlines()[-1:]
    return EvaluationError(f"{term}: the model failed: {lines[-1] if lines else 'no reason given'}")
