"""Comparison of a loop with the one that its directory holds."""

from __future__ import annotations

import json
from collections.abc import Mapping

from qmmlmm.errors import LoopError, LoopStoreError, listed
from qmmlmm.learning.loop.store import LoopStore


def check_loop_identity(store: LoopStore, identity: Mapping[str, object]) -> None:
    """Compare the identity of a loop with that in its store; a new store keeps it.

    Parameters
    ----------
    store : LoopStore
    identity : mapping of str to object
        All values that determine the results of the loop; mappings in it are compared key by key.

    Raises
    ------
    LoopError
        If a value differs.
    LoopStoreError
        If the identity in the store is damaged.
    """
    text = json.dumps(identity, sort_keys=True, default=str)
    known = store.get("loop")
    if known is None:
        store.put("loop", text)
        return
    try:
        old = json.loads(known)
    except ValueError as error:
        raise LoopStoreError(
            f"{store.path}: the row 'loop' in the table meta is damaged ({error}); start a loop in another directory "
            f"with the labels in {store.mirror.path}"
        ) from error
    new = json.loads(text)
    differences = []
    for key in sorted({*old, *new}):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
            differences += [f"{key} {name}: {before.get(name)} then, {now.get(name)} now" for name in names]
        elif before != now:
            differences.append(f"{key}: {str(before)[:60]} then, {str(now)[:60]} now")
    if differences:
        raise LoopError(
            f"{store.directory} holds a loop with other settings ({listed(differences)}); use the same, or another "
            "directory"
        )
