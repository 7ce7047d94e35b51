"""The report of a run in stages."""

from __future__ import annotations

import numpy as np
import pytest

from qmmlmm.errors import QmmlmmWarning
from qmmlmm.runs.report.stages_report import MinimisationFacts, StageFacts, write_stages_report
from tests.html_pages import Page

DESCRIPTION = {"terms": [{"name": "site/XTB", "level": "XTB", "potential": "XTBPotential('gfn2-xtb')"}]}
HEAD = (
    '#"Step","Time (ps)","Potential Energy (kJ/mol)","Kinetic Energy (kJ/mol)","Temperature (K)","Box Volume (nm^3)"\n'
)
PM = "\N{PLUS-MINUS SIGN}"
MINIMISATION = MinimisationFacts(100, 200, np.array([5000.0, -900.0, -1234.5]))
STAGES = [
    StageFacts("heat", 40, 40, 0.0005),
    StageFacts("equilibrate", 10, 10, 0.001, True),
    StageFacts("production", 3, 20, 0.001),
]


def write_energies(folder, stage, rows):
    (folder / stage).mkdir()
    lines = "".join(",".join(map(str, row)) + "\n" for row in rows)
    (folder / stage / "energies.csv").write_text(HEAD + lines)


def shown(folder, minimisation, stages):
    path = write_stages_report(folder, minimisation, stages, DESCRIPTION, "qmmlmm run <run>.toml")
    return Page(path.read_text(encoding="utf-8"))


def test_it_has_what_is_done_means_of_each_stage_and_links_to_their_reports(tmp_path):
    write_energies(tmp_path, "heat", [(k, 0.0005 * k, -90.0, 1.0, 10.0 * k, 8.0) for k in (10, 20, 30, 40)])
    write_energies(tmp_path, "equilibrate", [(k, 0.001 * k, -95.0 - k, 1.0, 300.0, 8.0 + 0.1 * k) for k in (5, 10)])
    (tmp_path / "heat" / "report.html").write_text("heat")
    page = shown(tmp_path, MINIMISATION, STAGES)
    for text in (
        "Production not complete.",
        "production 0.003 of 0.02 ps",
        "minimise 100 of 200 iterations -1,234.5",
        f"heat 40 of 40 steps 0.02 ps 350.0 {PM} 50.0 -90.0 {PM} 0.0",
        f"equilibrate, force field alone 10 of 10 steps 0.01 ps 300.0 {PM} 0.0 -105.0 {PM} 0.0 9.000",
        "production 3 of 20 steps 0.003 ps",
        "from 5,000.0 to -1,234.5 kJ/mol",
        "qmmlmm run <run>.toml",
        "It goes on at the last checkpoint",
        "GFN2-xTB: C. Bannwarth",
    ):
        assert text in page.text
    assert [link["href"] for link in page.elements("a") if "/" in link["href"] and ":" not in link["href"]] == [
        "heat/report.html"
    ]


def test_stages_follow_each_other_in_time(tmp_path):
    write_energies(tmp_path, "heat", [(40, 0.02, -90.0, 1.0, 200.0, 8.0)])
    write_energies(tmp_path, "equilibrate", [(10, 0.01, -91.0, 1.0, 300.0, 8.0)])
    write_energies(tmp_path, "production", [(3, 0.003, -92.0, 1.0, 310.0, 8.0)])
    page = shown(tmp_path, None, STAGES)
    places = [float(circle["cx"]) for circle in page.elements("circle")[:3]]
    # 0.02, 0.02 + 0.01 and 0.02 + 0.01 + 0.003 ps.
    assert (places[1] - places[0]) / (places[2] - places[1]) == pytest.approx(0.01 / 0.003, rel=0.01)
    assert "volume (nm" not in page.text


def test_before_the_first_row_it_says_so_and_a_folder_that_is_gone_is_a_warning(tmp_path):
    page = shown(tmp_path, None, STAGES[2:])
    assert "No row of energies yet." in page.text
    assert "Minimisation" not in page.text
    done = shown(tmp_path, None, [StageFacts("production", 20, 20, 0.001)])
    assert "A larger length in [dynamics] extends the run." in done.text
    with pytest.warns(QmmlmmWarning, match="cannot be written"):
        write_stages_report(tmp_path / "gone", None, STAGES[2:], DESCRIPTION, "qmmlmm run x.toml")
