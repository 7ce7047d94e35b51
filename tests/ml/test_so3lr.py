"""SO3LR: the pretrained potential of so3krates-torch, in a vacuum and with its charges in a field."""

from __future__ import annotations

import contextlib
import io
import pickle
import sys

import numpy as np
import pytest
import torch

from qmmlmm import Hamiltonian, Region, Term, check_potential, create_mixed_system
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import MissingDependencyError, PotentialError
from qmmlmm.geometry import Geometry
from qmmlmm.ml import EmbeddedPotential, ModelCharges, SO3LRPotential, so3lr
from qmmlmm.units import ANGSTROM_IN_BOHR, BOHR_IN_NM, HARTREE_IN_EV
from tests.contexts import term_differences, term_forces
from tests.toy_systems import SIDE_CHAIN, molecule_among_ions, peptide_in_water

# The calculator divides by the number of atoms in its default precision, the model here in single precision.
SAME_ENERGY, SAME_FORCE, SAME_CHARGE = 1e-8, 1e-6, 1e-6  # eV, eV/angstrom, e
RELATIVE = 1e-6  # of the largest force: differences over four points of 2e-5 nm in double precision

# Acetone, angstrom.
NUMBERS = [8, 6, 6, 6, 1, 1, 1, 1, 1, 1]
X = np.array(
    [
        [0.0, 0.0, 1.28], [0.0, 0.0, 0.06], [0.0, 1.30, -0.69], [0.0, -1.28, -0.71], [0.03, 2.14, 0.0],
        [0.88, 1.31, -1.33], [-0.87, 1.33, -1.36], [0.0, -2.13, -0.02], [-0.88, -1.31, -1.36], [0.89, -1.30, -1.34],
    ]
)  # fmt: skip


@pytest.fixture
def potential():
    pytest.importorskip("so3krates_torch")
    return SO3LRPotential(trust_code=True)


def region(numbers=NUMBERS, charge=0, multiplicity=1):
    return RegionSpecification("mol/ML", np.array(numbers), charge, multiplicity)


@pytest.mark.filterwarnings("ignore:path is deprecated:DeprecationWarning")  # of its calculator
@pytest.mark.parametrize("charge", [0, -1])
def test_it_gives_what_its_own_calculator_gives(potential, charge):
    import ase

    if charge:
        numbers, x = [8, 6, 8, 1], X[[0, 1, 2, 3]] * [1.0, 0.9, 1.0]  # formate
    else:
        numbers, x = NUMBERS, X
    with contextlib.redirect_stdout(io.StringIO()):
        from so3krates_torch.calculator.so3 import SO3LRCalculator

        default = torch.get_default_dtype()
        try:
            calculator = SO3LRCalculator(default_dtype="float64")
            atoms = ase.Atoms(numbers=numbers, positions=x, calculator=calculator, info={"charge": charge})
            energy, forces, charges = atoms.get_potential_energy(), atoms.get_forces(), calculator.results
        finally:
            torch.set_default_dtype(default)
    found = potential.create_evaluator(region(numbers, charge)).evaluate(Geometry(x * ANGSTROM_IN_BOHR), None)
    assert found.energy * HARTREE_IN_EV == pytest.approx(energy, abs=SAME_ENERGY)
    np.testing.assert_allclose(-found.gradient * HARTREE_IN_EV * ANGSTROM_IN_BOHR, forces, rtol=0, atol=SAME_FORCE)
    inputs = {
        "positions": torch.tensor(x * ANGSTROM_IN_BOHR),
        "atomic_numbers": torch.tensor(numbers),
        "charge": torch.tensor(float(charge), dtype=torch.float64),
        "multiplicity": torch.tensor(1.0, dtype=torch.float64),
    }
    result = potential.charged_module()(inputs)["charges"].detach()
    np.testing.assert_allclose(result, charges["partial_charges"], rtol=0, atol=SAME_CHARGE)
    assert float(result.sum()) == pytest.approx(charge, abs=1e-12)


@pytest.mark.parametrize("charges", [False, True], ids=["alone", "with charges"])
def test_it_obeys_the_contract(potential, charges):
    base = EmbeddedPotential(potential, ModelCharges()) if charges else potential
    check_potential(base, [*NUMBERS[:2], 1, 1], X[[0, 1, 2, 3]] * 0.9 / 10.0)


def test_its_charges_have_exact_forces_at_a_cut_bond_under_pme(potential):
    case = peptide_in_water()
    embedded = EmbeddedPotential(potential, ModelCharges())
    term = Term(embedded, Region("site", SIDE_CHAIN), embedding="electrostatic", name="site")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    order = [int(k) for k in np.argsort(np.linalg.norm(case.positions - case.positions[10], axis=1)) if k >= 22]
    atoms = [10, 12, 8, 9, order[0], order[-1]]  # region, hosts, near and far surroundings
    forces = term_forces(mixed, "site", case.positions)[atoms]
    numerical = term_differences(mixed, "site", case.positions, atoms, 2e-5)
    np.testing.assert_allclose(forces, numerical, rtol=0, atol=RELATIVE * np.abs(forces).max())
    assert np.abs(forces[4]).max() > 0.1


def test_without_surroundings_it_is_the_model(potential):
    case = molecule_among_ions()
    x = Geometry(case.positions[:3] / BOHR_IN_NM)
    found, wanted = (
        each.create_evaluator(region([8, 1, 1])).evaluate(x, None)
        for each in (EmbeddedPotential(potential, ModelCharges()), potential)
    )
    assert found.energy == wanted.energy
    np.testing.assert_array_equal(found.gradient, wanted.gradient)


def test_it_is_pickled_and_its_file_is_its_level(potential):
    again = pickle.loads(pickle.dumps(EmbeddedPotential(potential, ModelCharges())))
    assert again.base == potential
    assert again.base.level_of_theory == potential.level_of_theory
    assert potential.level_of_theory.method == "SO3LR"
    assert len(potential.level_of_theory.settings["fingerprint"]) == 16


def test_elements_and_electrons_that_it_does_not_know_are_refused(potential):
    with pytest.raises(
        PotentialError, match=r"'mol/ML': SO3LR does not know the elements .* 5, 35; it was trained for 1"
    ):
        potential.check(region([35, 5, 1]))
    with pytest.raises(PotentialError, match="trained for singlets, and the region has the multiplicity 3"):
        potential.check(region(multiplicity=3))
    with pytest.raises(PotentialError, match="multiplicity 1 and 33 electrons"):
        EmbeddedPotential(potential, ModelCharges()).check(region(charge=-1))


def test_its_pickle_has_to_be_trusted():
    for wrong in ({}, {"trust_code": False}):
        with pytest.raises(PotentialError, match=r"are a pickle, and code in a pickle runs.*trust_code=True"):
            SO3LRPotential(**wrong)
    with pytest.raises(PotentialError, match="trust_code is True or False, got 1"):
        SO3LRPotential(trust_code=1)


def test_without_its_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "so3krates_torch", None)
    with pytest.raises(MissingDependencyError, match="pip install so3krates-torch"):
        SO3LRPotential(trust_code=True)


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    """A package of the same name, with a file of weights that is none."""
    file = tmp_path / "so3krates_torch" / so3lr.WEIGHTS
    file.parent.mkdir(parents=True)
    (tmp_path / "so3krates_torch" / "__init__.py").write_text("")
    file.write_bytes(b"no pickle")
    monkeypatch.delitem(sys.modules, "so3krates_torch", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(so3lr, "_model", so3lr._model.__wrapped__)
    return file


def test_a_package_of_another_version_is_refused(other_package):
    potential = SO3LRPotential(trust_code=True)
    with pytest.raises(PotentialError, match=r"so3lr\.model' cannot be read by torch"):
        potential.create_evaluator(region())
    other_package.unlink()
    with pytest.raises(PotentialError, match=r"has no file 'pretrained/so3lr/so3lr.model'; install version 0\.2\.1"):
        SO3LRPotential(trust_code=True)


def test_a_missing_package_of_the_package_is_named(other_package, monkeypatch):
    def load(*arguments, **options):
        raise ModuleNotFoundError("No module named 'matscipy'")

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(MissingDependencyError, match="SO3LR needs the packages of so3krates-torch: .*matscipy"):
        SO3LRPotential(trust_code=True).create_evaluator(region())
