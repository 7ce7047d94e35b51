from __future__ import annotations

from qmmlmm.html_tables import html_table
from tests.html_pages import Page


def test_a_table_has_a_row_of_names_and_one_for_each_entry():
    page = Page(html_table(("term", "atoms"), [("ligand/QM", 18), ("site/ML", None)]))
    assert len(page.elements("tr")) == 3
    assert len(page.elements("th")) == 2
    assert page.text == "term atoms ligand/QM 18 site/ML"


def test_nothing_in_a_table_is_markup():
    text = html_table(("<b>",), [('<script>alert(1)</script> & "so on"',)])
    assert "<script>" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;so on&quot;" in text


def test_a_table_without_names_has_no_row_of_them():
    assert not Page(html_table(("", ""), [("seed", 1)])).elements("th")
