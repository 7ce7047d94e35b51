"""Tables of measurements: from the record that a benchmark writes to the page."""

from __future__ import annotations

import json
import re
import sys
from argparse import ArgumentParser

import pytest

from docs.benchmark_tables import DATA, differing, pages, shown, table_lines, tables_of, with_tables
from tests.benchmarks.record import Table, add_option, print_tables, quartiles, write_record
from tests.docs.pages import ROOT

PAGE = "before\n<!-- benchmark: xtb_step -->\nby hand\n<!-- end of benchmark -->\nafter\n"
SCRIPT_FOLDER = ROOT / "tests" / "benchmarks"
SCRIPTS = sorted(
    path.stem
    for path in SCRIPT_FOLDER.glob("*.py")
    if not path.stem.startswith("label_") and "ArgumentParser(" in path.read_text(encoding="utf-8")
)
"""All but those that make labels for others, and modules of theirs."""

BY_TESTS = "validation"
"""The record that tests write (`tests/truths.py`)."""

TABLES = [
    Table("Evaluation", ("level", "ms", "times"), (("MM", 82.04, [1.0, 1.0, 1.0]), ("a|b", 12345.6, [2.0, 2.2, 2.5])))
]


@pytest.fixture
def record(tmp_path, monkeypatch):
    script = ROOT / "tests" / "benchmarks" / "xtb_step.py"
    path = tmp_path / "xtb_step.json"
    given = ["--rounds", "3", "--output", str(tmp_path / "run"), "--json", str(path)]
    monkeypatch.setattr(sys, "argv", [str(script), *given])
    parser = ArgumentParser()
    add_option(parser)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--output")
    write_record(parser.parse_args().json, TABLES, "Processor time.")
    return path


def test_the_tables_of_a_record_replace_those_in_the_page(record):
    text = with_tables(PAGE, record.parent)
    assert "by hand" not in text
    assert text.startswith("before\n<!-- benchmark: xtb_step -->\nProcessor time.\n\nEvaluation:\n\n| level")
    assert "| level | ms | times |\n|---|---|---|\n| MM | 82 | 1.0 (1.0 to 1.0) |\n" in text
    assert "| a\\|b | 12,346 | 2.2 (2.0 to 2.5) |\n\nMeasured on 20" in text
    assert text.endswith(".\n<!-- end of benchmark -->\nafter\n")
    assert with_tables(text, record.parent) == text


def test_a_record_says_command_machine_and_versions_and_names_no_folder(record):
    found = json.loads(record.read_text(encoding="utf-8"))
    assert found["command"] == "python tests/benchmarks/xtb_step.py --rounds 3 --output run"
    assert {"processor", "cores", "system", "torch threads"} <= set(found["machine"])
    assert {"qmmlmm", "openmm", "torch", "pyscf"} <= set(found["versions"])
    assert str(record.parent) not in record.read_text(encoding="utf-8")
    assert "`python tests/benchmarks/xtb_step.py --rounds 3 --output run`" in tables_of(record)


def test_without_a_record_the_page_is_kept(tmp_path):
    assert with_tables(PAGE, tmp_path) == PAGE


def test_a_table_without_a_title_has_no_line_above_it(record):
    content = json.loads(record.read_text())
    content["tables"][0]["title"] = ""
    record.write_text(json.dumps(content))
    assert tables_of(record).startswith("Processor time.\n\n| level")


def test_a_record_that_lacks_machine_and_versions_says_date_and_command(record):
    record.write_text(
        json.dumps(json.loads(record.read_text()) | {"date": "2026-11-30", "machine": {}, "versions": {}})
    )
    end = "Measured on 2026-11-30 by `python tests/benchmarks/xtb_step.py --rounds 3 --output run`.\n"
    assert tables_of(record).endswith(end)


def test_a_transcribed_record_says_so_and_does_not_claim_to_be_measured(record):
    record.write_text(json.dumps(json.loads(record.read_text()) | {"transcribed": True, "date": "2026-11-26"}))
    text = tables_of(record)
    assert "Transcribed from the documentation of 2026-11-26" in text
    assert "Measured" not in text


def test_a_record_of_another_format_is_refused(record):
    record.write_text(json.dumps(json.loads(record.read_text()) | {"format": 0}))
    with pytest.raises(ValueError, match="format 0, expected 1"):
        tables_of(record)


def test_a_row_that_does_not_fit_its_columns_is_refused():
    with pytest.raises(ValueError, match="a row has 2 cells"):
        Table("x", ("a", "b"), ((1,),))


def test_a_benchmark_prints_the_tables_of_the_page(capsys, record):
    print_tables(TABLES)
    printed = capsys.readouterr().out
    assert printed.startswith("Evaluation:\n\n| level | ms | times |\n")
    assert printed.strip() in tables_of(record)


@pytest.mark.parametrize("cell", [[], [1.0], [1.0, 2.0, 3.0, 4.0]])
def test_a_cell_of_another_number_of_numbers_is_refused(cell):
    with pytest.raises(ValueError, match="a cell has one, two or three numbers, got"):
        Table("x", ("a",), ((cell,),))


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ([-3.3062, 0.6134], "-3.31 ± 0.61"),
        ([-101891.16, 1.42], "-101,891.2 ± 1.4"),
        ([0.0003, 0.0013], "0.0003 ± 0.0013"),
        ([55414.4, 213.0], "55,414 ± 213"),
        ([-0.001, 0.5], "0.00 ± 0.50"),
        ([7.1e-14, 0.0], "7.1e-14 ± 0"),
    ],
)
def test_a_value_has_the_decimals_of_its_error(cell, text):
    assert shown(cell) == text


def test_without_the_option_nothing_is_written(tmp_path):
    write_record(None, TABLES)


@pytest.mark.parametrize(
    ("cell", "text"), [(None, ""), (23817, "23,817"), (0.0123456, "0.0123"), (82.04, "82"), ("MM", "MM")]
)
def test_numbers_have_three_digits(cell, text):
    assert shown(cell) == text


def test_the_numbers_of_a_column_have_as_many_decimals_as_three_digits_allow():
    rows = [[4.59, "a"], [0.9, 21.0], [-12.34, 40.4], [1234.5, None], [2e-9, 0.0], [[1.0, 1.5, 2.25], 3]]
    lines = table_lines({"title": "", "columns": ["x", "y"], "rows": rows})
    assert lines[2:] == [
        "| 4.59 | a |",
        "| 0.90 | 21.0 |",
        "| -12.3 | 40.4 |",
        "| 1,234 |  |",
        "| 2e-09 | 0 |",
        "| 1.50 (1.00 to 2.25) | 3 |",
    ]


def test_quartiles_are_those_of_the_values():
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == [2.0, 3.0, 4.0]


def test_the_pages_have_the_tables_of_their_records():
    assert not differing(), "run python docs/benchmark_tables.py"


def test_every_record_has_a_page_and_every_place_a_record():
    places = [name for page in pages() for name in _names(page.read_text(encoding="utf-8"))]
    assert sorted(path.stem for path in DATA.glob("*.json")) == sorted(places)
    assert places


def test_pages_of_results_have_no_other_tables():
    for page in (ROOT / "docs" / "results").glob("*.md"):
        rest = re.sub(r"<!-- benchmark: .*?<!-- end of benchmark -->", "", page.read_text("utf-8"), flags=re.DOTALL)
        assert "|---" not in rest, page.name


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_that_measures_writes_a_record(name):
    script = (SCRIPT_FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert re.search(r"\badd_option\(parser\)", script)
    assert re.search(r"write_record\(\s*options\.json", script)


def test_every_record_is_of_the_script_in_its_name():
    for path in DATA.glob("*.json"):
        command = json.loads(path.read_text(encoding="utf-8"))["command"]
        name = path.stem.partition("__")[0]
        if name == BY_TESTS:
            assert command == "pytest -m truth"
        else:
            assert name in SCRIPTS
            assert command.startswith(f"python tests/benchmarks/{name}.py"), path.name


def test_no_page_has_tables_of_another_mechanism():
    for page in (ROOT / "docs").rglob("*.md"):
        assert not re.search(r"<!-- [^>]*: begin -->", page.read_text(encoding="utf-8")), page.name


def _names(text: str) -> list[str]:
    return [line.split()[2] for line in text.splitlines() if line.startswith("<!-- benchmark: ")]
