from __future__ import annotations

import pytest

from tests.toy_systems import PAIR_REACH


@pytest.fixture
def far_reach(monkeypatch):
    """Let the short-range part reach as far as that of the NonbondedForce of the chains."""
    monkeypatch.setattr("qmmlmm.mm.term_layouts.SHORT_RANGE_REACH", PAIR_REACH)
