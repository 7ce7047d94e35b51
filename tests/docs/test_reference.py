"""The reference has every key that the commands read and every public name."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from docs.input_tables import COMMANDS, all_names
from docs.reference_pages import (
    command_line,
    errors,
    input_files,
    public_names,
    subcommands,
    write_reference_pages,
)
from qmmlmm.commands.main import create_parser
from tests.docs.pages import ROOT

READERS = {
    "text", "texts", "number", "numbers", "whole_number", "whole_numbers", "flag", "table", "tables", "optional_table",
}  # fmt: skip
"""Methods of `qmmlmm.commands.input_file.Table` whose first argument is a key."""
MADE_BY_THE_COMMAND = {"limits", "isolated", "variables"}
"""Fields of records that are no keys."""
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
    assert not missing, "write these keys into qmmlmm/commands/templates.py or run_keys.py"


def test_every_field_of_a_record_that_a_command_builds_is_in_the_reference():
    known = all_names(TABLES)
    missing, built = [], set()
    for path, call in calls({"build"}):
        module = importlib.import_module(f"qmmlmm.commands.{path.stem}")
        for node in ast.walk(call.args[0]):
            record = vars(module).get(node.id) if isinstance(node, ast.Name) else None
            if isinstance(record, type) and not record.__name__.startswith("_"):
                built.add(record.__name__)
                names = {field.name for field in fields(record) if field.init} - MADE_BY_THE_COMMAND
                missing += [f"{record.__name__}.{name}" for name in sorted(names - known)]
    assert not missing, "write these keys into qmmlmm/commands/templates.py or run_keys.py"
    assert {"LoopSettings", "PySCFPotential", "XTBPotential", "JobLimits"} <= built


def test_every_command_with_an_input_file_is_in_the_reference():
    reading = {path.stem.removesuffix("_input") for path, call in modules() if "read_toml(" in ast.unparse(call)}
    assert reading - {"input_file"} <= set(COMMANDS), "write this command into docs/input_tables.py"


def test_the_generated_pages_have_keys_commands_names_and_errors(tmp_path):
    assert "| `force_error` | number, kJ/(mol nm) | `30.0` |" in input_files()
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
