"""Settings, elements, charges and multiplicities of xTB regions."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from openmm import unit

from qmmlmm import XTBPotential
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import EvaluationError, PotentialError, RegionError
from qmmlmm.geometry import Geometry

SAME_FIELD = 1e-8
"""Hartree: the accuracy of the field."""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "gfn3-xtb"}, "method is one of 'gfn2-xtb', 'gfn1-xtb', got 'gfn3-xtb'.*Nearest names: gfn"),
        ({"method": "GFN2-xTB"}, "got 'GFN2-xTB'.*Nearest names: gfn2-xtb"),
        ({"method": 2}, "method is one of"),
        ({"multipoles": 3}, "multipoles is the highest rank.*from 0 to 2, got 3"),
        ({"multipoles": "dipoles"}, "multipoles is the highest rank"),
        ({"multipoles": True}, "multipoles is the highest rank"),
        ({"accuracy": 10}, "accuracy lies between 1e-05"),
        ({"accuracy": float("nan")}, "accuracy lies between"),
        ({"electronic_temperature": 0.0}, "electronic_temperature is a number above zero, in kelvin"),
        ({"electronic_temperature": 1.0 * unit.nanometer}, "electronic_temperature has a unit like kelvin"),
        ({"damping": 0.0}, "damping is a finite number above 0 and at most 1, got 0.0"),
        ({"damping": 1.5}, "damping is a finite number above 0 and at most 1, got 1.5"),
        ({"threads": 0}, "threads is a number of threads from 1 to 1024, got 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(PotentialError, match=message):
        XTBPotential(**settings)


def test_defaults_are_dipoles_with_gfn2_and_charges_with_gfn1():
    assert XTBPotential().method == "gfn2-xtb"
    assert XTBPotential().rank == 1
    assert XTBPotential("gfn1-xtb").rank == 0
    assert XTBPotential("gfn1-xtb", multipoles=2).rank == 2


def test_a_temperature_with_a_unit_is_one_in_kelvin():
    assert XTBPotential(electronic_temperature=500 * unit.kelvin) == XTBPotential(electronic_temperature=500)


def test_settings_are_frozen_and_can_be_copied_and_pickled():
    potential = XTBPotential("gfn1-xtb", threads=2)
    with pytest.raises(FrozenInstanceError):
        potential.threads = 1
    assert pickle.loads(pickle.dumps(potential)) == potential
    assert copy.deepcopy(potential) == potential
    assert (potential.level, potential.method_name) == ("XTB", "gfn1-xtb")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"atomic_numbers": np.array([8, 0, 87])}, r"elements 1 to 86, and atoms 1, 2 .* atomic numbers 0, 87"),
        ({"atomic_numbers": np.zeros(0, dtype=int)}, "the region has no atoms"),
        ({"multiplicity": 2}, "10 electrons .charge 0. cannot have multiplicity 2; possible are 1, 3"),
        ({"charge": 10}, "leaves 0 electrons of 10 protons"),
    ],
)
def test_a_region_without_parameters_or_with_impossible_electrons_is_refused(water, changes, message):
    with pytest.raises(RegionError, match="water/XTB.*" + message):
        XTBPotential().create_evaluator(replace(water, **changes))


@pytest.mark.parametrize(("number", "multiplicity"), [(8, 5), (11, 4)], ids=["oxygen", "sodium"])
def test_a_multiplicity_for_which_the_minimal_basis_is_too_small_is_refused(number, multiplicity):
    atom = RegionSpecification("atom/XTB", np.array([number]), 0, multiplicity)
    evaluator = XTBPotential("gfn1-xtb").create_evaluator(atom)
    message = f"valence electrons.*cannot have multiplicity {multiplicity} with charge 0"
    with pytest.raises(EvaluationError, match=message):
        evaluator.evaluate(Geometry(np.zeros((1, 3))), None)


def test_the_damping_changes_how_fast_the_field_converges_and_not_to_what(water):
    geometry = Geometry(np.array([[0.0, 0.0, 0.0], [1.9, 0.0, 0.0], [-0.5, 1.8, 0.0]]))
    found = [XTBPotential(damping=value).create_evaluator(water).evaluate(geometry, None) for value in (0.1, 0.4)]
    slow, fast = (evaluation.results["scf_cycles"] for evaluation in found)
    assert slow > fast
    assert found[0].energy == pytest.approx(found[1].energy, abs=SAME_FIELD)


def test_a_higher_electronic_temperature_lowers_the_free_energy(water):
    # Stretched to 4 bohr the bonds have a small gap.
    geometry = Geometry(np.array([[0.0, 0.0, 0.0], [4.0, 0.0, 0.0], [-1.0, 4.0, 0.0]]))
    cold, hot = (
        XTBPotential(electronic_temperature=kelvin).create_evaluator(water).evaluate(geometry, None).energy
        for kelvin in (300.0, 6000.0)
    )
    assert hot < cold - 1e-3
