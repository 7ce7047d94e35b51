import importlib.util
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import MissingDependencyError, PotentialError, RegionError
from qmmlmm.qm import PySCFPotential
from qmmlmm.qm.basis import core_potentials


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "b3lpy"}, "unknown method 'b3lpy'.*Nearest names: .*b3lyp"),
        ({"method": "rhf"}, "unknown method 'rhf'.*hf"),
        ({"method": "ccsd"}, "Post-Hartree-Fock methods"),
        ({"method": "b2plyp"}, "double hybrids"),
        ({"method": ""}, "method is 'hf' or"),
        ({"method": "scanl"}, "Laplacian"),
        ({"method": "GGA_K_TFVW"}, "kinetic-energy functional"),
        ({"basis": "def2-spv"}, "unknown basis 'def2-spv'.*Nearest names: .*def2svp"),
        ({"basis": "gth-dzvp"}, "pseudopotentials of periodic"),
        ({"basis": 3}, "basis is the name"),
        ({"auxiliary_basis": "def2-universal-jkfti"}, "unknown auxiliary_basis.*def2universaljkfit"),
        ({"auxiliary_basis": "def2-universal-jfit"}, "fits the Coulomb term only"),
        ({"auxiliary_basis": "weigend"}, "fits the Coulomb term only"),
        ({"auxiliary_basis": "weigend", "density_fit": False}, "density_fit is False"),
        ({"density_fit": "yes"}, "density_fit is True or False"),
        ({"grid_level": 10}, "grid_level is an integer from 0 to 9"),
        ({"embedding_grid_level": 1.5}, "embedding_grid_level is an integer"),
        ({"conv_tol": 1e-3}, "conv_tol lies above 0"),
        ({"max_cycle": 0}, "max_cycle is a whole number of 1 or more"),
        ({"max_memory": 100}, "max_memory is at least 1000 MB"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(PotentialError, match=message):
        PySCFPotential(**({"method": "hf", "basis": "sto-3g"} | settings))


def test_a_coulomb_fit_is_allowed_for_a_functional_without_exact_exchange():
    assert PySCFPotential("pbe", "def2-svp", auxiliary_basis="def2-universal-jfit").level == "QM"


def test_dispersion_without_its_package_is_a_missing_dependency(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "pyscf.dispersion" else find_spec(name)
    )
    with pytest.raises(MissingDependencyError, match="pyscf-dispersion; install it, or use 'b3lyp'"):
        PySCFPotential("b3lyp-d3bj", "sto-3g")


def test_a_file_with_the_name_of_the_basis_is_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sto-3g").write_text("surprise")
    with pytest.raises(PotentialError, match="name of a file in the current directory"):
        PySCFPotential("hf", "sto-3g")


@pytest.mark.parametrize(
    ("charge", "multiplicity", "message"),
    [
        (0, 2, "10 electrons .charge 0. cannot have multiplicity 2; possible are 1, 3, 5, 7, 9"),
        (1, 1, "9 electrons .charge 1. cannot have multiplicity 1; possible are 2, 4, 6, 8, 10"),
        (0, 13, "cannot have multiplicity 13"),
        (10, 1, "leaves 0 electrons of 10 protons"),
    ],
)
def test_charge_and_multiplicity_that_do_not_fit_are_refused(water, charge, multiplicity, message):
    specification = replace(water.specification, charge=charge, multiplicity=multiplicity)
    with pytest.raises(RegionError, match=message):
        PySCFPotential("hf", "sto-3g").create_evaluator(specification)


def test_an_atomic_number_that_is_no_element_is_refused():
    specification = RegionSpecification("site", np.array([8, 0, 1]), 0, 1)
    with pytest.raises(RegionError, match=r"atom 1 has atomic number 0.*virtual sites"):
        PySCFPotential("hf", "sto-3g").check(specification)


def test_a_region_without_atoms_is_refused():
    with pytest.raises(RegionError, match="no atoms"):
        PySCFPotential("hf", "sto-3g").check(RegionSpecification("none", np.array([], dtype=int), 0, 1))


def test_an_element_that_the_basis_lacks_is_named():
    specification = RegionSpecification("ion", np.array([92, 8, 8]), 2, 1)
    with pytest.raises(PotentialError, match="basis '6-31g' has no functions for U"):
        PySCFPotential("hf", "6-31g").check(specification)
    with pytest.raises(PotentialError, match="auxiliary_basis 'cc-pvdz-jkfit' has no functions for U"):
        PySCFPotential("hf", "lanl2dz", auxiliary_basis="cc-pvdz-jkfit").check(specification)


def test_a_restricted_open_shell_is_refused(radical):
    with pytest.raises(PotentialError, match="restricted open shell"):
        PySCFPotential("hf", "sto-3g", unrestricted=False).check(radical.specification)


def test_a_heavy_element_gets_the_core_potential_of_its_basis():
    assert core_potentials("def2-svp", ["H", "Fe", "I"], "term 'x'") == {"I": "def2-svp"}
    assert core_potentials("lanl2dz", ["H", "C", "Fe"], "term 'x'") == {"Fe": "lanl2dz"}


def test_a_valence_basis_without_its_core_potential_is_refused():
    with pytest.raises(PotentialError, match="no functions for the core of C"):
        core_potentials("ccecp-ccpvdz", ["C"], "term 'x'")


def test_a_potential_is_frozen_and_survives_pickling(tmp_path):
    potential = PySCFPotential("b3lyp", "6-31g*", grid_level=4, failure_directory=tmp_path)
    assert pickle.loads(pickle.dumps(potential)) == potential
    with pytest.raises(FrozenInstanceError):
        potential.method = "hf"


def test_a_potential_offers_both_embeddings():
    assert PySCFPotential("hf", "sto-3g").capabilities.embeddings == {"mechanical", "electrostatic"}


WITHOUT_PYSCF = """
import sys
sys.modules["pyscf"] = None
import qmmlmm.qm
from qmmlmm.errors import MissingDependencyError
try:
    qmmlmm.qm.PySCFPotential("hf", "sto-3g")
except MissingDependencyError as error:
    assert "pip install pyscf" in str(error)
else:
    raise SystemExit("no error")
"""


def test_the_package_can_be_imported_without_pyscf():
    subprocess.run([sys.executable, "-c", WITHOUT_PYSCF], check=True)


WITH_PYSCF = "import sys, qmmlmm.qm; raise SystemExit('pyscf' in sys.modules)"


def test_importing_the_package_does_not_import_pyscf():
    subprocess.run([sys.executable, "-c", WITH_PYSCF], check=True)
