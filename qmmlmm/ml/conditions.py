"""What a network was trained for: total charges with a multiplicity and an electronic state."""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from qmmlmm.errors import PotentialError
from qmmlmm.setting_checks import check_whole_number, is_whole_number

Condition = tuple[int, int, int]
"""Total charge, multiplicity, electronic state."""


def find_condition(conditions: Tensor, charge: Tensor, multiplicity: Tensor, state: Tensor) -> Tensor:
    """Return the row of a condition in a table of them, () int64.

    Raises
    ------
    RuntimeError
        If it is not there; the text names PotentialError, because TorchScript raises built-in exceptions only.
    """
    asked = torch.stack([charge.reshape(()), multiplicity.reshape(()), state.reshape(())]).to(torch.float64)
    same = (conditions.to(torch.float64) - asked).abs().sum(-1) < 1e-6
    if not bool(same.any()):
        raise RuntimeError(
            "PotentialError: the model was not trained for this charge, multiplicity and electronic state"
        )
    return torch.argmax(same.to(torch.int64))


def check_conditions(conditions: object) -> list[Condition]:
    """Return different triples of charge, multiplicity and electronic state, in the given order.

    Raises
    ------
    PotentialError
        If they are none, or a multiplicity or a state cannot be.
    """
    wanted = "conditions is a list of different triples of integers (charge, multiplicity, state)"
    if isinstance(conditions, str) or not isinstance(conditions, Iterable):
        raise PotentialError(f"{wanted}, got {conditions!r}")
    rows: list[Condition] = []
    for row in conditions:
        if not isinstance(row, Sequence) or len(row) != 3 or not all(is_whole_number(value) for value in row):
            raise PotentialError(f"{wanted}, got {row!r}")
        charge, multiplicity, state = (int(value) for value in row)
        check_whole_number("conditions: charge", charge, at_least=-1000, at_most=1000, error=PotentialError)
        check_whole_number("conditions: multiplicity, 2S + 1,", multiplicity, at_most=1000, error=PotentialError)
        check_whole_number("conditions: state", state, at_least=0, at_most=1000, error=PotentialError)
        rows.append((charge, multiplicity, state))
    if not rows or len(set(rows)) < len(rows):
        raise PotentialError(f"{wanted}, got {rows}")
    return rows
