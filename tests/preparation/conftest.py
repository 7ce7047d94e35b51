"""The tests of this folder need the extra ``prepare``."""

from __future__ import annotations

import pytest

for _name in ("rdkit", "pdbfixer", "propka"):
    pytest.importorskip(_name, reason='needs pip install "qmmlmm[prepare]"', exc_type=ImportError)
