from __future__ import annotations

import pytest

from tests.quick_torch import quick_torch


@pytest.fixture
def without_profiling():
    """Networks here run a few times each."""
    with quick_torch():
        yield
