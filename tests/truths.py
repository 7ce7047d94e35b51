"""What must hold and what was found: the tables of the pages on validation, written by the tests themselves.

    pytest -m truth --json docs/results/data/validation.json

A test with the fixture `truth` states each quantity that it checks with `truth.below` or `truth.between`, which fail
like an assertion. With --json a run writes them into a record (`tests/benchmarks/record.py`), a table for each file of
tests and a row for each check: the largest of all values that the tests found. The marker comes with the fixture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

PROPERTY = "truth"
COLUMNS = ("check", "must hold", "found")
Statement = tuple[str, str, float, float, str]
"""Check, what must hold, the least and the largest value that was found, test file."""


@dataclass(frozen=True)
class Truth:
    """The statements of one test.

    Parameters
    ----------
    properties : list
        Those of the test, which pytest-xdist carries from its processes.
    file : str
        That of the test, in the folder of all tests.
    """

    properties: list[tuple[str, object]]
    file: str

    def below(self, check: str, found: float, limit: float, unit: str) -> None:
        """State that an error is smaller than a limit."""
        self._state(check, f"below {_with_unit(limit, unit)}", abs(float(found)))
        assert abs(found) < limit, f"{check}: found {found:.3g} {unit}, must be below {limit:g}"

    def between(self, check: str, found: float, low: float, high: float, unit: str) -> None:
        """State that a quantity is in a range, bounds included."""
        self._state(check, f"{low:g} to {_with_unit(high, unit)}", float(found))
        assert low <= found <= high, f"{check}: found {found:.4g} {unit}, must be {low:g} to {high:g}"

    def _state(self, check: str, must: str, found: float) -> None:
        self.properties.append((PROPERTY, (check, must, found, found, self.file)))


@pytest.fixture
def truth(request: pytest.FixtureRequest) -> Truth:
    """Return what states that something must hold."""
    folder = Path(__file__).resolve().parent
    return Truth(request.node.user_properties, request.path.resolve().relative_to(folder).as_posix())


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the record."""
    parser.addoption("--json", type=Path, help="file for a record of what the tests with the fixture truth found")


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker, and what collects statements in the process that the user started."""
    config.addinivalue_line("markers", "truth: states what must hold; its numbers stand in the documentation")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(config.getoption("--json")))


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that have the fixture."""
    for item in items:
        if "truth" in getattr(item, "fixturenames", ()):
            item.add_marker("truth")


class Collector:
    """What the tests of a run state.

    Parameters
    ----------
    path : Path or None
        File of the record.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.statements: dict[tuple[str, str, str], Statement] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Merge the statements of a test with those of others about the same check."""
        if report.when != "call":
            return
        found = self.statements
        for name, value in report.user_properties:
            if name == PROPERTY:
                check, must, low, high, file = value
                key = (file, check, must)
                if key in found:
                    low, high = min(low, found[key][2]), max(high, found[key][3])
                found[key] = (check, must, low, high, file)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the record of a run in which everything held."""
        if self.path is None or exitstatus != pytest.ExitCode.OK or not self.statements:
            return
        # Imported here: the number of threads is set before NumPy and torch are loaded.
        from tests.benchmarks.record import Table, write_record

        tables: dict[str, list[tuple[str, str, float | str]]] = {}
        for check, must, low, high, file in sorted(self.statements.values(), key=lambda statement: statement[4]):
            found = high if must.startswith("below") or low == high else f"{low:.3g} to {high:.3g}"
            tables.setdefault(file, []).append((check, must, found))
        write_record(self.path, [Table(f"`{file}`", COLUMNS, tuple(rows)) for file, rows in tables.items()])


def _with_unit(value: float, unit: str) -> str:
    return f"{value:g} {unit}".strip()
