"""Whether a directory holds the loop that is to go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from qmmlmm.errors import listed
from qmmlmm.learning.loop.errors import LoopError
from qmmlmm.learning.loop.store import LoopStore

EARLIER: dict[str, dict[str, Any]] = {"network": {"tensor_features": 0}}
"""What settings were before they had a name: loops of earlier versions did not note them."""


def check_same(store: LoopStore, made_of: Mapping[str, Any]) -> None:
    """Compare with what the store was made with; a new one notes it.

    Parameters
    ----------
    store : LoopStore
    made_of : mapping
        All that the course of the loop depends on; tables of them are compared key by key.

    Raises
    ------
    LoopError
        If something differs.
    """
    text = json.dumps(made_of, sort_keys=True, default=str)
    known = store.get("loop")
    if known is None:
        store.put("loop", text)
        return
    old, new = json.loads(known), json.loads(text)
    differences = []
    for key in sorted({*old, *new}):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            before = EARLIER.get(key, {}) | before
            names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
            differences += [f"{key} {name}: {before.get(name)} then, {now.get(name)} now" for name in names]
        elif before != now:
            differences.append(f"{key}: {str(before)[:60]} then, {str(now)[:60]} now")
    if differences:
        raise LoopError(
            f"{store.directory} holds a loop with other settings ({listed(differences)}); use the same, or another "
            "directory"
        )
