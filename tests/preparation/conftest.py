"""The tests of this folder need the extra ``prepare``; without it they are not collected."""

from __future__ import annotations

from importlib.util import find_spec

MISSING = [name for name in ("rdkit", "pdbfixer", "propka", "openff") if find_spec(name) is None]
collect_ignore_glob = ["test_*.py"] if MISSING else []


def pytest_report_header() -> str | None:
    """Return why the tests of this folder are left out, if they are."""
    return f'tests/preparation: left out, needs pip install "qmmlmm[prepare]" ({MISSING[0]})' if MISSING else None
