"""Everything random in a loop, from its seed and from where it is."""

from __future__ import annotations

import itertools

import numpy as np

from qmmlmm.learning.loop.settings import LoopSettings


def draw_seed(settings: LoopSettings, number: int, walker: int, what: str) -> int:
    """Return a seed that OpenMM takes, 1 to 2^31 - 1, for one purpose in one round and walker."""
    word = int.from_bytes(what.encode(), "little") % (1 << 63)
    sequence = np.random.SeedSequence([settings.seed, number, walker, word])
    return int(sequence.generate_state(1)[0] % (2**31 - 1)) + 1


def draw_fresh_looks(settings: LoopSettings, number: int, walkers: int) -> list[list[int]]:
    """Return for each walker the looks of a round whose configurations tell the error, drawn before the walk.

    Parameters
    ----------
    settings : LoopSettings
    number : int
        Of the round.
    walkers : int
    """
    rng = np.random.default_rng(draw_seed(settings, number, 0, "fresh"))
    looks = settings.steps_per_round // settings.check_interval
    order = rng.permutation(walkers)
    counts = np.bincount(order[np.arange(settings.fresh_labels) % walkers], minlength=walkers)
    drawn = []
    for count in counts:
        # One look from each equal stretch, so that they are far apart in time.
        edges = np.linspace(0, looks, int(count) + 1)
        drawn.append(sorted({int(rng.uniform(low, high)) for low, high in itertools.pairwise(edges)}))
    return drawn
