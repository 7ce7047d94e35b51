from __future__ import annotations

from qmmlmm.runs.report.hamiltonian_picture import hamiltonian_picture
from tests.html_pages import Page

TERM = {"region": "ligand", "potential": "P()", "embedding": "electrostatic", "backend": "PythonForce", "atoms": 18}


def term(name: str, **more):
    return {"name": name, "level": name.rpartition("/")[2].removeprefix("-"), "coefficient": 1.0, **TERM, **more}


def drawn(*terms) -> Page:
    regions = [{"name": "ligand", "atoms": list(range(18))}]
    return Page(hamiltonian_picture({"particles": 23817, "regions": regions, "terms": list(terms)}))


def test_levels_stand_above_the_force_field_with_their_signs():
    page = drawn(term("ligand/ML"), term("ligand/-ML", coefficient=-1.0), term("ligand/QM", link_atoms=2))
    text = page.text
    assert text.index("QM + ligand/QM") < text.index("ML + ligand/ML") < text.index("MM + Force field")
    assert "\N{MINUS SIGN} ligand/-ML" in text
    assert "18 atoms, 2 link atoms, electrostatic embedding, runs through PythonForce" in text
    assert "Force field, 23,817 particles everything but the inside of ligand" in text


def test_coefficients_are_shown():
    text = drawn(term("ligand/QM", coefficient="1 - lambda"), term("ligand/ML", coefficient=-0.5)).text
    assert "+ (1 - lambda) \N{MULTIPLICATION SIGN} ligand/QM" in text
    assert "\N{MINUS SIGN} 0.5 \N{MULTIPLICATION SIGN} ligand/ML" in text


def test_long_settings_are_cut_and_escaped():
    page = drawn(term("ligand/QM", potential="<b>" + 500 * "x"))
    assert "<b>x" in page.text
    assert "xxx..." in page.text
    assert 200 * "x" not in page.text


def test_a_force_field_alone_is_one_row():
    assert Page(hamiltonian_picture({})).text == "MM + Force field, all particles the whole System"
