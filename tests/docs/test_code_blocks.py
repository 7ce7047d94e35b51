"""What the pages show is true: Python runs or at least compiles, input files are read, commands exist."""

from __future__ import annotations

import re
import shlex
import tomllib
import warnings

import pytest

from docs.input_tables import COMMANDS, all_names
from docs.reference_pages import subcommands
from qmmlmm.commands.main import create_parser
from qmmlmm.errors import QmmlmmWarning
from tests.docs.pages import PAGES, blocks_of, is_slow, name_of
from tests.quick_torch import quick_torch

PYTHON = [page for page in PAGES if blocks_of(page, "python")]
RUNNING = [page for page in PYTHON if any(block.runs for block in blocks_of(page, "python"))]
MOST_LINES_OF_THE_README = 150


@pytest.mark.parametrize("page", PYTHON, ids=name_of)
def test_python_in_the_pages_compiles(page):
    for block in blocks_of(page, "python"):
        compile("\n" * block.line + block.text, str(page), "exec")


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] if is_slow(page) else []) for page in RUNNING], ids=name_of
)
def test_python_in_the_pages_runs(page, tmp_path, monkeypatch):
    """The blocks of a page belong together. A block that cannot run here has ``<!-- not run: reason -->`` above it."""
    (tmp_path / "examples").symlink_to(page.parents[len(page.relative_to(PAGES[0].parent).parts) - 1] / "examples")
    monkeypatch.chdir(tmp_path)
    # torch reads the source of modules from the file; each line is where it is in the page.
    lines = [""] * len(page.read_text(encoding="utf-8").splitlines())
    for block in blocks_of(page, "python"):
        if block.runs:
            text = block.text.splitlines()
            lines[block.line : block.line + len(text)] = text
    script = tmp_path / f"{page.stem}.py"
    script.write_text("\n".join(lines), encoding="utf-8")
    with quick_torch(), warnings.catch_warnings():
        # Examples are small: a few frames or labels.
        warnings.simplefilter("ignore", QmmlmmWarning)
        exec(compile(script.read_text(encoding="utf-8"), str(script), "exec"), {"__name__": page.stem})


def test_the_first_page_is_short_and_marks_its_commands():
    text = PAGES[0].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES_OF_THE_README
    commands = re.findall(r"<!-- command: (\w+) -->\n```bash\n(.+?)\n```", text)
    assert [name for name, _ in commands] == ["example", "tests"]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page, "toml")], ids=name_of)
def test_keys_of_input_files_in_the_pages_are_known(page):
    for block in blocks_of(page, "toml"):
        content = tomllib.loads(block.text)
        command = block.mark.removeprefix("input file: ")
        tables = COMMANDS[command] if command in COMMANDS else [table for found in COMMANDS.values() for table in found]
        unknown = set(_keys(content)) - all_names(tables)
        assert not unknown, f"{name_of(page)}:{block.line} has keys that no input file has: {sorted(unknown)}"


def _keys(content):
    for key, value in content.items():
        yield key
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, dict):
                yield from _keys(entry)


def test_commands_in_the_pages_have_their_options():
    commands = subcommands(create_parser())
    checked = 0
    for page in PAGES:
        for block in blocks_of(page, "bash"):
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] != ["qmmlmm"] or len(words) < 2 or not words[1].islower() or words[1].startswith("-"):
                    continue
                assert words[1] in commands, f"{name_of(page)}: there is no command {words[1]!r}"
                known = set(commands[words[1]]._option_string_actions)
                options = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
                assert options <= known, f"{name_of(page)}: qmmlmm {words[1]} has no {options - known}"
                checked += 1
    assert checked > 3
