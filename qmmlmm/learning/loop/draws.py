"""Random numbers of a loop, from its seed and the numbers of round and walker."""

from __future__ import annotations

import itertools

import numpy as np

from qmmlmm.learning.loop.settings import LoopSettings


def draw_seed(settings: LoopSettings, number: int, walker: int, what: str) -> int:
    """Return a seed for one purpose in one round and walker, 1 to 2^31 - 1 as OpenMM requires."""
    word = int.from_bytes(what.encode(), "little") % (1 << 63)
    sequence = np.random.SeedSequence([settings.seed, number, walker, word])
    return int(sequence.generate_state(1)[0] % (2**31 - 1)) + 1


def draw_fresh_checks(settings: LoopSettings, number: int, walkers: int) -> list[list[int]]:
    """Return the checks of each walker, drawn before a round, whose configurations are fresh.

    Parameters
    ----------
    settings : LoopSettings
    number : int
        Number of the round.
    walkers : int
        Number of walkers.
    """
    rng = np.random.default_rng(draw_seed(settings, number, 0, "fresh"))
    checks = settings.steps_per_round // settings.check_interval
    order = rng.permutation(walkers)
    counts = np.bincount(order[np.arange(settings.fresh_labels) % walkers], minlength=walkers)
    drawn = []
    for count in counts:
        # One check from each of equal intervals, so that they are far apart in time.
        edges = np.linspace(0, checks, int(count) + 1)
        drawn.append(sorted({int(rng.uniform(low, high)) for low, high in itertools.pairwise(edges)}))
    return drawn
