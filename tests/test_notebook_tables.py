"""Results have tables for notebooks, whose numbers are those of the result and in which nothing is markup."""

from __future__ import annotations

import numpy as np
import pytest
from openmm import unit

from qmmlmm.analysis.barrier_residues import BarrierTable, plot_barrier_residues
from qmmlmm.analysis.interaction import MOST_SHOWN, InteractionTable
from qmmlmm.errors import SettingError
from qmmlmm.free_energy import Correction, LegResult, StageResult, work_estimate
from qmmlmm.reactions import ReactionPath, Structure, vibrational_thermochemistry
from tests.html_pages import Page

KJ = unit.kilojoule_per_mole


def interactions(energies) -> InteractionTable:
    energies = np.asarray(energies, dtype=float)
    labels = (*(f"<R{k}>" for k in range(len(energies) - 1)), "water")
    return InteractionTable(
        term="<site>/QM",
        labels=labels,
        residues=np.array([1] * (len(energies) - 1) + [700]),
        electrostatic=energies * KJ,
        lennard_jones=None,
        distance=None,
        images=0.25 * KJ,
        polarisation=1.0 * KJ,
        bonded=0.0 * KJ,
    )


def shown(result) -> str:
    """Return the text of the table of a result, after a check that it is well formed and escaped."""
    text = result._repr_html_()
    assert "<R0>" not in text
    assert "<site>" not in text
    return Page(text).text


def test_interactions_show_the_strongest_residues_and_all_water():
    text = shown(interactions([*range(-30, 0), -7.5]))
    assert "<site>/QM: electrostatic interaction with all rows -472.2 kJ/mol" in text
    assert text.count("<R") == MOST_SHOWN
    assert "<R0> 1 -30.0 -30.0" in text
    assert text.endswith("water 700 -7.5 -7.5")


def test_residues_of_a_barrier_show_their_differences():
    text = shown(BarrierTable(interactions([1.0, 2.0, 0.0]), interactions([-4.0, 2.5, 0.0])))
    assert "<R0> -5.0" in text
    assert "<R1> +0.5" in text
    assert "saddle point less reactant (kJ/mol)" in text


def test_residues_of_two_other_structures_are_shown_with_their_names(tmp_path):
    pair = (interactions([1.0, 2.0, 0.0]), interactions([-4.0, 2.5, 0.0]))
    table = BarrierTable(*pair, names=("first point", "top of <scan>"))
    assert "top of <scan> less first point (kJ/mol)" in shown(table)
    assert str(table).startswith("top of <scan> less first point; negative favours the top of <scan>\n")
    assert plot_barrier_residues(table).get_xlabel().startswith("interaction, top of <scan> less first point (kJ/mol)")
    table.write_csv(tmp_path / "residues.csv")
    header = (tmp_path / "residues.csv").read_text().splitlines()[0]
    assert header.startswith('#"Residue","First Point (kJ/mol)","Top Of <Scan> (kJ/mol)"')
    with pytest.raises(SettingError, match="names has two names, of the first structure and of the second, got 1"):
        BarrierTable(*pair, names=("first",))
    with pytest.raises(SettingError, match="names has one or more different names, got top, top"):
        BarrierTable(*pair, names=("top", "top"))


def test_a_path_shows_its_energies_above_the_first():
    structures = tuple(Structure(None, None, None, energy * KJ) for energy in (-100.0, -58.0, -112.5))
    text = shown(ReactionPath(None, structures, np.array([0.1, 0.0, -0.1]), "xi <nm>"))
    assert text == "xi <nm> potential energy above the first (kJ/mol) 0.1 0.00 0 42.00 -0.1 -12.50"


def test_thermochemistry_shows_what_it_has():
    found = vibrational_thermochemistry([-300.0, 50.0, 1000.0])
    text = shown(found)
    assert "modes 2, 1 below 100 1/cm, 1 negative left out" in text
    assert f"free energy (kJ/mol) {found.free_energy.value_in_unit(KJ):.2f}" in text


def test_a_correction_shows_legs_and_their_difference():
    random = np.random.default_rng(1)

    def leg(shift: float) -> LegResult:
        works = random.normal(shift + 1.0, 1.0, 50), random.normal(1.0 - shift, 1.0, 50)
        return LegResult((StageResult("FF-XTB", work_estimate(*works, 300.0, resamples=20), *works),))

    found = Correction({"<complex>": leg(5.0), "solvent": leg(2.0)})
    text = Page(found._repr_html_()).text
    value, error = found.difference("<complex>", "solvent")
    assert f"<complex> - solvent {value.value_in_unit(KJ):.2f} {error.value_in_unit(KJ):.2f}" in text
    assert "<complex>" not in found._repr_html_()
    assert value.value_in_unit(KJ) == pytest.approx(3.0, abs=1.0)
