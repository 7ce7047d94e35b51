"""One basis set for some elements and another one for the rest."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from pyscf import gto, scf
from pyscf.gto.basis import bse

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import PotentialError
from qmmlmm.geometry import Geometry
from qmmlmm.qm import PySCFPotential
from qmmlmm.qm.basis import core_potentials
from qmmlmm.qm.basis_by_element import BasisByElement

AQUO_ZINC = np.array([[0, 0, 0], [0, 0, 3.7], [1.4, 0, 4.6], [-1.4, 0, 4.6]])
SPECIFICATION = RegionSpecification("x/QM", np.array([30, 8, 1, 1]), 2, 1)
SAME = 1e-9  # hartree


@pytest.mark.parametrize(
    "basis",
    [
        {"Zn": "lanl2dz", "O": "6-31g", "H": "6-31g"},
        {"zn": "lanl2dz", "default": "6-31g"},
    ],
)
def test_each_element_has_its_basis_and_its_core_potential(basis):
    molecule = gto.M(
        atom=list(zip(["Zn", "O", "H", "H"], AQUO_ZINC, strict=True)),
        unit="Bohr",
        basis={"Zn": "lanl2dz", "O": "6-31g", "H": "6-31g"},
        ecp={"Zn": "lanl2dz"},
        charge=2,
        verbose=0,
    )
    expected = scf.RHF(molecule).density_fit().kernel()
    evaluator = PySCFPotential("hf", basis).create_evaluator(SPECIFICATION)
    assert evaluator.evaluate(Geometry(AQUO_ZINC), None).energy == pytest.approx(expected, abs=SAME)


def test_a_basis_by_element_is_a_setting_like_any_other():
    potential = PySCFPotential("hf", {"default": "6-31g*", "Zn": "def2-tzvp"})
    assert potential == PySCFPotential("hf", {"zn": "def2-tzvp", "Default": "6-31g*"})
    assert hash(potential) == hash(pickle.loads(pickle.dumps(potential)))
    assert potential.method_name == "hf/Zn:def2-tzvp,default:6-31g*"
    assert "basis={'Zn': 'def2-tzvp', 'default': '6-31g*'}" in repr(potential)
    assert dict(potential.basis) == {"Zn": "def2-tzvp", "default": "6-31g*"}
    assert len(potential.basis) == 2


@pytest.mark.parametrize(
    ("basis", "message"),
    [
        ({}, "the basis by element is empty"),
        ({30: "sto-3g"}, "keys of a basis by element are element symbols and 'default', such as .* got 30"),
        ({"zinc": "sto-3g"}, "got 'zinc'"),
        ({"Xx": "sto-3g"}, "entry for 'Xx', which is no element"),
        ({"Zn": "sto-3g", "ZN": "sto-3g"}, "two entries for 'Zn'"),
        ({"Zn": 3}, "basis of Zn is the name of a basis set"),
        ({"Zn": "def2-spv", "default": "sto-3g"}, "unknown basis of Zn 'def2-spv'.*Nearest names: .*def2svp"),
    ],
)
def test_a_basis_by_element_that_makes_no_sense_is_refused(basis, message):
    with pytest.raises(PotentialError, match=message):
        PySCFPotential("hf", basis)


@pytest.mark.parametrize(
    ("basis", "message"),
    [
        ({"Zn": "lanl2dz"}, "names no basis set for H, O; add them, or a 'default'"),
        ({"default": "6-31g", "O": "sto-3g", "Zn": "def2-universal-jkfit"}, None),
        ({"Zn": "6-311g", "default": "6-31g"}, "basis '6-311g' has no functions for Zn"),
    ],
)
def test_elements_without_a_basis_are_named(basis, message):
    if message is None:
        PySCFPotential("hf", basis).check(SPECIFICATION)
        return
    with pytest.raises(PotentialError, match=message):
        PySCFPotential("hf", basis).check(SPECIFICATION)


def test_core_potentials_need_a_basis_for_each_element():
    with pytest.raises(PotentialError, match="names no basis set for C"):
        core_potentials(BasisByElement({"Zn": "lanl2dz"}), ["C"], "term 'x'")


@pytest.mark.skipif(bse.basis_set_exchange is None, reason="needs the package basis-set-exchange")
def test_names_of_the_basis_set_exchange_are_known_with_their_core_potentials():
    potential = PySCFPotential("hf", {"Zn": "Stuttgart RSC 1997", "default": "MIDI!"})
    potential.check(SPECIFICATION)
    assert core_potentials(potential.basis_sets, ["Zn", "O"], "term 'x'") == {"Zn": "Stuttgart RSC 1997"}
