"""Tables of measurements: from the record that a benchmark writes to the page."""

from __future__ import annotations

import json
import re
import sys
from argparse import ArgumentParser

import pytest

from docs.benchmark_tables import DATA, differing, pages, shown, tables_of, with_tables
from tests.benchmarks.record import Table, add_option, quartiles, write_record
from tests.docs.pages import ROOT

PAGE = "before\n<!-- benchmark: xtb_step -->\nby hand\n<!-- end of benchmark -->\nafter\n"
TABLES = [
    Table("Evaluation", ("level", "ms", "times"), (("MM", 82.04, [1.0, 1.0, 1.0]), ("a|b", 12345.6, [2.0, 2.2, 2.5])))
]


@pytest.fixture
def record(tmp_path, monkeypatch):
    script = ROOT / "tests" / "benchmarks" / "xtb_step.py"
    path = tmp_path / "xtb_step.json"
    monkeypatch.setattr(sys, "argv", [str(script), "--rounds", "3", "--json", str(path)])
    parser = ArgumentParser()
    add_option(parser)
    parser.add_argument("--rounds", type=int)
    write_record(parser.parse_args().json, TABLES, "Processor time.")
    return path


def test_the_tables_of_a_record_replace_those_in_the_page(record):
    text = with_tables(PAGE, record.parent)
    assert "by hand" not in text
    assert text.startswith("before\n<!-- benchmark: xtb_step -->\nProcessor time. Measured on 20")
    assert (
        "| level | ms | times |\n|---|---|---|\n| MM | 82 | 1 (1 to 1) |\n| a\\|b | 12,346 | 2.2 (2 to 2.5) |" in text
    )
    assert text.endswith("<!-- end of benchmark -->\nafter\n")
    assert with_tables(text, record.parent) == text


def test_a_record_says_command_machine_and_versions_and_names_no_folder(record):
    found = json.loads(record.read_text(encoding="utf-8"))
    assert found["command"] == "python tests/benchmarks/xtb_step.py --rounds 3"
    assert {"processor", "cores", "system", "torch threads"} <= set(found["machine"])
    assert {"qmmlmm", "openmm", "torch", "pyscf"} <= set(found["versions"])
    assert str(record.parent) not in record.read_text(encoding="utf-8")
    assert "`python tests/benchmarks/xtb_step.py --rounds 3`" in tables_of(record)


def test_without_a_record_the_page_is_kept(tmp_path):
    assert with_tables(PAGE, tmp_path) == PAGE


def test_a_record_of_another_format_is_refused(record):
    record.write_text(json.dumps(json.loads(record.read_text()) | {"format": 0}))
    with pytest.raises(ValueError, match="format 0, expected 1"):
        tables_of(record)


def test_a_row_that_does_not_fit_its_columns_is_refused():
    with pytest.raises(ValueError, match="a row has 2 cells"):
        Table("x", ("a", "b"), ((1,),))


def test_without_the_option_nothing_is_written(tmp_path):
    write_record(None, TABLES)


@pytest.mark.parametrize(
    ("cell", "text"), [(None, ""), (23817, "23,817"), (0.0123456, "0.0123"), (82.04, "82"), ("MM", "MM")]
)
def test_numbers_have_three_digits(cell, text):
    assert shown(cell) == text


def test_quartiles_are_those_of_the_values():
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == [2.0, 3.0, 4.0]


def test_the_pages_have_the_tables_of_their_records():
    assert not differing(), "run python docs/benchmark_tables.py"


def test_every_record_has_a_page_and_every_table_a_script():
    places = {name for page in pages() for name in _names(page.read_text(encoding="utf-8"))}
    assert {path.stem for path in DATA.glob("*.json")} <= places
    assert places
    for name in places:
        script = (ROOT / "tests" / "benchmarks" / f"{name.partition('__')[0]}.py").read_text(encoding="utf-8")
        assert re.search(r"write_record\(\s*options\.json", script)


def _names(text: str) -> list[str]:
    return [line.split()[2] for line in text.splitlines() if line.startswith("<!-- benchmark: ")]
