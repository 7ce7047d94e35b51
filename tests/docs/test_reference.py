"""The reference has every key that the commands read and every public name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from docs.input_tables import COMMANDS, SAME_KEYS, InputTable, Key, all_names, record_keys
from docs.reference_pages import (
    command_line,
    errors,
    input_files,
    public_names,
    subcommands,
    write_reference_pages,
)
from qmmlmm.commands.main import create_parser
from qmmlmm.learning.loop.settings import LoopSettings
from qmmlmm.ml import ResponseSettings
from qmmlmm.qm import PySCFPotential
from tests.docs.pages import ROOT

READERS = {
    "text", "texts", "number", "numbers", "whole_number", "whole_numbers", "flag", "table", "tables", "optional_table",
}  # fmt: skip
"""Methods of `qmmlmm.commands.input_file.Table` whose first argument is a key."""
TABLES = [table for tables in COMMANDS.values() for table in tables]


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / "qmmlmm" / "commands").glob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def calls(method: set[str]) -> Iterator[tuple[Path, ast.Call]]:
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in method:
                yield path, node


def texts(node: ast.AST) -> list[str]:
    return [found.value for found in ast.walk(node) if isinstance(found, ast.Constant) and isinstance(found.value, str)]


def test_every_key_that_a_command_reads_is_in_the_reference():
    known = all_names(TABLES)
    missing = []
    for path, call in calls(READERS):
        if call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value not in known:
            missing.append(f"{path.name}:{call.lineno} {call.args[0].value}")
    for path, call in calls({"check_keys"}):
        missing += [f"{path.name}:{call.lineno} {key}" for key in texts(call) if key not in known]
    for path, tree in modules():
        for node in tree.body:
            if isinstance(node, ast.Assign) and [target.id for target in node.targets] == ["TOP"]:
                missing += [f"{path.name}:{node.lineno} {key}" for key in texts(node.value) if key not in known]
    assert not missing, "write these keys into docs/input_tables.py"


def test_every_record_that_a_command_builds_is_in_the_reference():
    known = {record.__name__ for table in TABLES for record in table.records} | {one.__name__ for one in SAME_KEYS}
    built = {
        name.id
        for _, call in calls({"build"})
        for name in ast.walk(call.args[0])
        if isinstance(name, ast.Name) and name.id[0].isupper() and not name.id.isupper()
    }
    assert built - known == set(), "write these records into docs/input_tables.py"
    assert {"LoopSettings", "PySCFPotential", "XTBPotential", "JobLimits"} <= built


def test_every_command_with_an_input_file_is_in_the_reference():
    reading = {path.stem.removesuffix("_input") for path, call in modules() if "read_toml(" in ast.unparse(call)}
    assert reading - {"input_file"} <= set(COMMANDS), "write this command into docs/input_tables.py"


def test_a_row_has_type_unit_default_and_description():
    rows = {key.name: key for key in record_keys(LoopSettings)}
    assert rows["time_step"].columns()[:3] == ("number", "ps", "`0.0005`")
    assert rows["retrain"].columns()[:3] == ('`"anew"` or `"continue"`', "", '`"anew"`')
    assert rows["energy_error"].default == ""
    assert rows["force_limit"].text.startswith("Largest force on an atom")
    qm = {key.name: key for key in record_keys(PySCFPotential)}
    assert qm["method"].default == "required"
    assert qm["basis"].kind == "text, or table of texts"
    assert rows["bond_limit"].text.endswith('`"none"` if bonds may break.')
    network = {key.name: key for key in record_keys(ResponseSettings)}
    assert network["layers"].kind == "whole number"
    assert network["response"].columns()[:3] == ("true or false", "", "`true`")
    assert qm["max_memory"].columns()[:3] == ("whole number", "MB", "")


@pytest.mark.parametrize("record", sorted({record for table in TABLES for record in table.records}, key=str), ids=str)
def test_every_field_of_a_record_has_a_row(record):
    assert [key.name for key in record_keys(record)] == [field.name for field in fields(record) if field.init]


def test_a_field_without_description_is_an_error():
    @dataclass
    class Settings:
        """Settings.

        Parameters
        ----------
        known : int
        """

        known: int
        unknown: int

    with pytest.raises(LookupError, match="does not describe 'unknown'"):
        record_keys(Settings)


def test_a_table_can_leave_fields_out_and_have_other_defaults():
    table = InputTable(
        "[loop]", "", (Key("mine", "text", "", "", ""),), (LoopSettings,), ("seed",), (("members", "`9`"),)
    )
    rows = {key.name: key.default for key in table.rows()}
    assert next(iter(rows)) == "mine"
    assert "seed" not in rows
    assert rows["members"] == "`9`"


def test_the_generated_pages_have_keys_commands_names_and_errors(tmp_path):
    assert "| `force_error` | number | kJ/(mol nm) | `30.0` |" in input_files()
    text = command_line()
    assert all(f"## `qmmlmm {name}`" in text for name in subcommands(create_parser()))
    assert "qmmlmm.errors.ConvergenceError" in errors()
    names = [name for room in public_names().values() for name in room]
    assert len(names) == len(set(names))
    assert "qmmlmm.Region" in public_names()[""]
    assert "qmmlmm.sampling.Torsion" in public_names()["sampling"]
    folder = tmp_path / "generated"
    write_reference_pages(folder)
    (folder / "api_gone.md").write_text("# Gone\n")
    before = (folder / "errors.md").stat().st_mtime_ns
    write_reference_pages(folder)
    assert not (folder / "api_gone.md").exists()
    assert (folder / "errors.md").stat().st_mtime_ns == before
