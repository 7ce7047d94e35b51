"""The notebook of the documentation is well formed, holds no outputs, and its cells run in order."""

from __future__ import annotations

import ast
import json

import pytest

from docs.notebook_pages import cells_of, notebook_page
from tests.docs.pages import DOCS, ROOT
from tests.html_pages import Page
from tests.quick_torch import quick_torch

NOTEBOOK = DOCS / "tutorials" / "notebook.ipynb"


def content() -> dict:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def run_cell(text: str, names: dict[str, object]) -> object:
    """Run a cell as a notebook does, and return the value of its last expression."""
    tree = ast.parse(text)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_the_notebook_has_the_fields_of_its_format_and_no_outputs():
    found = content()
    assert (found["nbformat"], found["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in found["cells"]}) == len(found["cells"])
    for cell in found["cells"]:
        code = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert set(cell) == {"cell_type", "id", "metadata", "source"} | code
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_page_has_all_cells_in_order():
    page = notebook_page(NOTEBOOK)
    places = [page.index(cell.text) for cell in cells_of(NOTEBOOK)[1:]]
    assert places == sorted(places)


def test_a_notebook_of_another_format_is_refused(tmp_path):
    path = tmp_path / "old.ipynb"
    path.write_text(json.dumps({"nbformat": 3, "worksheets": []}))
    with pytest.raises(ValueError, match="format 3, expected 4"):
        notebook_page(path)


@pytest.mark.slow
def test_the_cells_run_in_order_and_show_tables_and_a_view(tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "notebook"}
    with quick_torch():
        values = [run_cell(cell.text, names) for cell in cells_of(NOTEBOOK) if cell.kind == "code"]
    mixed, view, energies = (value for value in values if value is not None)
    assert "water/QM" in Page(mixed._repr_html_()).text
    # Its own `_repr_html_` works in the kernel of a notebook only.
    assert "3Dmol" in view._make_html()
    assert "water/-ML (kJ/mol)" in Page(energies._repr_html_()).text
    assert (tmp_path / "notebook_run" / "report.html").is_file()
