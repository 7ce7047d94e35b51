from __future__ import annotations

import re

import pytest

from qmmlmm.errors import QmmlmmWarning
from qmmlmm.runs.report.calculation_report import write_calculation_report
from tests.html_pages import Page

DESCRIPTION = {"terms": [{"name": "site/XTB", "level": "XTB", "potential": "XTBPotential('gfn2-xtb')"}]}
RESULTS = {"barrier (kJ/mol)": 42.5, "<converged>": True}


def test_a_report_has_results_figures_and_what_to_cite(tmp_path):
    (tmp_path / "scan.png").write_bytes(b"a picture")
    path = write_calculation_report(tmp_path, "qmmlmm scan", RESULTS, DESCRIPTION, "qmmlmm scan reaction.toml")
    text = path.read_text(encoding="utf-8")
    page = Page(re.sub(r"<img ([^>]*)>", r"<img \1/>", text))
    assert "barrier (kJ/mol) 42.5 <converged> True" in page.text
    assert "qmmlmm scan reaction.toml" in page.text
    assert "GFN2-xTB: C. Bannwarth" in page.text
    assert page.elements("img") == [{"alt": "scan", "src": "data:image/png;base64,YSBwaWN0dXJl"}]


def test_a_folder_that_is_gone_is_a_warning(tmp_path):
    with pytest.warns(QmmlmmWarning, match="cannot be written"):
        write_calculation_report(tmp_path / "gone", "scan", RESULTS, DESCRIPTION, "qmmlmm scan x.toml")
