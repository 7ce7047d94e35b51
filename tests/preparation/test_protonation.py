"""States of residues from pKa values, files, metal ions and by hand."""

from __future__ import annotations

import pytest
from openmm import app

from qmmlmm.preparation.findings import Findings
from qmmlmm.preparation.protonation import PkaValue, choose_states

NAMES = ["ALA", "ASP", "GLU", "HIS", "LYS", "CYS", "CYS", "CYS", "ALA"]


@pytest.fixture
def topology():
    """One chain, with a disulfide bridge between residues 7 and 8."""
    made = app.Topology()
    chain = made.addChain("A")
    sulfurs = []
    for number, name in enumerate(NAMES, start=1):
        residue = made.addResidue(name, chain, str(number))
        made.addAtom("CA", app.element.carbon, residue)
        if name == "CYS":
            sulfurs.append(made.addAtom("SG", app.element.sulfur, residue))
    made.addBond(sulfurs[1], sulfurs[2])
    return made


def states(topology, values=(), given=None, read=None, metal=None):
    findings = Findings()
    pka = tuple(PkaValue(f"A:{n}", NAMES[n - 1], group or NAMES[n - 1], value) for n, group, value in values)
    chosen = choose_states(
        topology, pka, ph=7.4, given=given or {}, read=read or {}, metal=metal or {}, findings=findings
    )
    return chosen, findings.report()


def test_without_pka_values_residues_have_their_usual_states(topology):
    chosen, report = states(topology)
    # Hydrogen bonds decide between HID and HIE.
    assert chosen == {"A:2": "ASP", "A:3": "GLU", "A:5": "LYS", "A:6": "CYS", "A:7": "CYX", "A:8": "CYX"}
    assert report.findings == ()


def test_a_pka_on_the_other_side_of_the_ph_changes_the_state(topology):
    values = [(2, "", 9.0), (3, "", 9.0), (4, "", 9.0), (5, "", 5.0), (6, "", 5.0)]
    chosen, report = states(topology, values)
    assert [chosen[f"A:{n}"] for n in (2, 3, 4, 5, 6)] == ["ASH", "GLH", "HIP", "LYN", "CYM"]
    assert len(report.done) == 5


def test_a_pka_near_the_ph_is_to_decide(topology):
    _, report = states(topology, [(4, "", 7.0)])
    (finding,) = report.decide
    assert "HIS A:4 has the estimated pKa 7.0, within 1 of pH 7.4" in finding.text


def test_states_by_hand_win_over_pka_values_and_metals(topology):
    chosen, report = states(topology, [(2, "", 9.0)], given={"A:2": "ASP", "A:4": "HID"}, metal={"A:4": "HIE"})
    assert (chosen["A:2"], chosen["A:4"]) == ("ASP", "HID")
    assert not report.refused


def test_a_cysteine_in_a_bridge_has_one_state(topology):
    _, report = states(topology, given={"A:7": "CYM"})
    assert report.refused[0].text == "CYS A:7 is in a disulfide bridge and cannot be CYM"


def test_ends_and_side_chains_without_templates_are_reported(topology):
    _, report = states(topology, [(1, "N+", 6.1), (9, "C-", 8.0), (1, "TYR", 6.0), (1, "ARG", 6.0)])
    texts = [finding.text for finding in report.decide]
    assert texts[0].startswith("the N terminus A:1 has the estimated pKa 6.1, which means the neutral state; the force")
    assert texts[1].startswith("the C terminus A:9 has the estimated pKa 8.0, which means the neutral state")
    assert texts[2].startswith("TYR A:1 has the estimated pKa 6.0, which means the charged state")
    assert texts[3].startswith("ARG A:1 has the estimated pKa 6.0, which means the neutral state")


def test_a_state_without_a_template_at_the_end_of_a_chain_is_refused():
    made = app.Topology()
    chain = made.addChain("A")
    for number, name in enumerate(("ASP", "ALA"), start=1):
        made.addAtom("CA", app.element.carbon, made.addResidue(name, chain, str(number)))
    _, report = states(made, [], given={"A:1": "ASH"})
    assert "ASP A:1 would be ASH at the end of a chain" in report.refused[0].text
