"""What tests state about truths: they fail like assertions, and a run writes them into a record."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from tests.truths import Collector, Truth


def report(*statements: tuple[object, ...], when: str = "call") -> SimpleNamespace:
    """Return the report of a test with these statements."""
    return SimpleNamespace(when=when, user_properties=[("truth", statement) for statement in statements])


def stated(file: str, *values: float) -> list[tuple[object, ...]]:
    """Return what a test states about one check."""
    made = Truth([], file)
    for value in values:
        made.below("forces", value, 1e-6, "hartree/bohr")
    return [statement for _, statement in made.properties]


def test_what_does_not_hold_fails_and_says_what_was_found():
    truth = Truth([], "mm/test_x.py")
    truth.below("forces", -5e-7, 1e-6, "hartree/bohr")
    truth.between("coverage", 95.0, 90.0, 99.0, "%")
    with pytest.raises(AssertionError, match=r"forces: found -2e-06 hartree/bohr, must be below 1e-06"):
        truth.below("forces", -2e-6, 1e-6, "hartree/bohr")
    with pytest.raises(AssertionError, match="forces: found nan"):
        truth.below("forces", float("nan"), 1e-6, "hartree/bohr")
    with pytest.raises(AssertionError, match="coverage: found 99.5 %, must be 90 to 99"):
        truth.between("coverage", 99.5, 90.0, 99.0, "%")


def test_a_record_has_the_largest_value_of_each_check_in_each_file(monkeypatch, tmp_path):
    path = tmp_path / "validation.json"
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/pytest", "-m", "truth", "--json", str(path)])
    collector = Collector(path)
    collector.pytest_runtest_logreport(report(*stated("qm/test_y.py", 2e-7)))
    collector.pytest_runtest_logreport(report(*stated("mm/test_x.py", 1e-8, -3e-8)))
    collector.pytest_runtest_logreport(report(*stated("mm/test_x.py", 2e-8)))
    collector.pytest_runtest_logreport(report(*stated("mm/test_x.py", 5e-7), when="teardown"))
    coverage = Truth([], "mm/test_x.py")
    for value in (95.0, 93.0):
        coverage.between("coverage", value, 90.0, 99.0, "%")
    collector.pytest_runtest_logreport(report(*(statement for _, statement in coverage.properties)))
    collector.pytest_sessionfinish(pytest.ExitCode.TESTS_FAILED)
    assert not path.exists()
    collector.pytest_sessionfinish(pytest.ExitCode.OK)
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["command"] == "pytest -m truth"
    assert [table["title"] for table in record["tables"]] == ["`mm/test_x.py`", "`qm/test_y.py`"]
    assert record["tables"][0]["rows"] == [
        ["forces", "below 1e-06 hartree/bohr", 3e-08],
        ["coverage", "90 to 99 %", "93 to 95"],
    ]
    assert record["tables"][1]["rows"] == [["forces", "below 1e-06 hartree/bohr", 2e-07]]


def test_the_fixture_knows_its_file_and_marks_its_test(request, truth):
    assert truth.file == "test_truths.py"
    assert request.node.get_closest_marker("truth") is not None
