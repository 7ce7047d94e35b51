from __future__ import annotations

import base64
import re

import pytest

from qmmlmm.errors import QmmlmmWarning
from qmmlmm.runs.report.markdown_page import markdown_page, write_markdown_page
from tests.html_pages import Page

REPORT = """# Learning loop

**The bounds hold** for `model.pt` & a < b.
It goes on.

| round | error |
|---|---|
| 1 | 99.0 (120.0) |
| 2 | <b> |

## Failures

- walker 1
- walker 2

![figures](report.png)
"""
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@pytest.fixture
def report(tmp_path):
    (tmp_path / "report.md").write_text(REPORT, encoding="utf-8")
    (tmp_path / "report.png").write_bytes(PNG)
    return tmp_path / "report.md"


def test_a_report_becomes_one_page_with_its_figure_inside(report):
    path = write_markdown_page(report)
    assert path == report.with_name("report.html")
    text = path.read_text(encoding="utf-8")
    page = Page(re.sub(r"<img ([^>]*)>", r"<img \1/>", text))
    (image,) = page.elements("img")
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == PNG
    assert image["alt"] == "figures"
    assert "<strong>The bounds hold</strong> for <code>model.pt</code> &amp; a &lt; b. It goes on." in text
    assert "round error 1 99.0 (120.0) 2 <b> Failures walker 1 walker 2" in page.text
    assert "<h1>Learning loop</h1>" in text
    assert "<h2>Failures</h2>" in text


def test_a_figure_that_is_missing_is_a_warning(report):
    report.with_name("report.png").unlink()
    with pytest.warns(QmmlmmWarning, match=r"report\.html cannot be written \(FileNotFoundError"):
        write_markdown_page(report)


def test_further_sections_come_last(report):
    assert markdown_page("# Title\n\ntext\n", report.parent, ["<p>more</p>"]).index("more") > 0
