from __future__ import annotations

import pytest

from tests.runs.argon import Argon


@pytest.fixture
def argon():
    return Argon()
