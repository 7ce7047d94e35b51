"""Files of AIMNet2: TorchScript that takes a dictionary in angstrom and returns energy and charges in eV and e."""

from __future__ import annotations

import pickle
from typing import Dict  # noqa: UP035  (TorchScript reads it)

import numpy as np
import pytest
import torch
from torch import Tensor

from qmmlmm import Hamiltonian, MLPotential, Region, Term, check_potential, create_mixed_system
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import PotentialError
from qmmlmm.geometry import Geometry
from qmmlmm.ml import EmbeddedPotential, ModelCharges, aimnet2_potential
from qmmlmm.units import ANGSTROM_IN_BOHR, HARTREE_IN_EV
from tests.contexts import term_differences, term_forces
from tests.toy_systems import SIDE_CHAIN, peptide_in_water

RELATIVE = 1e-6  # of the largest force, from differences in double precision
SINGLE = 2e-6  # relative: a model in single precision

FORMALDEHYDE = np.array([[0.0, 0.0, 1.2], [0.0, 0.0, 0.0], [0.0, 0.94, -0.59], [0.0, -0.93, -0.6]])  # angstrom


class Toy(torch.nn.Module):
    """The interface of AIMNet2: springs, and charges that follow the distances and add up to the total charge."""

    def __init__(self, excess: float = 0.0) -> None:
        super().__init__()
        self.stiffness = torch.nn.Parameter(torch.tensor(0.3))
        self.excess = excess

    def forward(self, data: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        x, numbers = data["coord"], data["numbers"]
        delta = x[:, :, None, :] - x[:, None, :, :]
        squares = (delta * delta).sum(-1)
        spread = torch.exp(-squares / 4.0).sum(-1) * numbers
        charges = 0.1 * (spread - spread.mean(dim=1, keepdim=True))
        charges = charges + ((data["charge"] + self.excess) / x.shape[1]).unsqueeze(1)
        energy = self.stiffness * ((squares - 2.0) ** 2).sum(dim=(1, 2)) + 0.1 * (data["mult"] - 1.0)
        data["energy"] = energy
        data["charges"] = charges
        return data


class Flat(torch.nn.Module):
    """A module of another interface, which needs a list of neighbours."""

    def forward(self, data: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        return {"energy": data["coord"].sum() * data["nbmat"].sum(), "charges": data["coord"][0, :, 0]}


class Wrong(torch.nn.Module):
    """A module whose energy depends on nothing, or that has too many charges."""

    def __init__(self, constant: bool) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, data: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        energy = data["coord"].sum()
        if self.constant:
            energy = torch.zeros(1)
        return {"energy": energy, "charges": data["coord"].reshape(-1)}


def saved(tmp_path, module):
    file = tmp_path / "aimnet2_toy.jpt"
    torch.jit.save(torch.jit.script(module), file)
    return file


def region(numbers=(8, 6, 1, 1), charge=0, multiplicity=1):
    return RegionSpecification("mol/ML", np.array(numbers), charge, multiplicity)


@pytest.mark.parametrize("double", [False, True])
def test_a_file_is_read_with_its_units_and_its_precision(tmp_path, double):
    module = Toy().double() if double else Toy()
    potential = aimnet2_potential(saved(tmp_path, module), trust_code=True)
    assert isinstance(potential, MLPotential)
    x = torch.tensor(FORMALDEHYDE[None], requires_grad=True)
    energy = Toy().double()({"coord": x, "numbers": torch.tensor([[8, 6, 1, 1]]), "charge": torch.tensor([-1.0]),
                             "mult": torch.tensor([1.0])})["energy"]  # fmt: skip
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    found = potential.create_evaluator(region(charge=-1)).evaluate(Geometry(FORMALDEHYDE * ANGSTROM_IN_BOHR), None)
    tolerance = 1e-7 if double else SINGLE  # 0.3 is a number in single precision
    assert found.energy * HARTREE_IN_EV == pytest.approx(energy.item(), rel=tolerance)
    wanted = gradient[0].numpy() / HARTREE_IN_EV / ANGSTROM_IN_BOHR
    np.testing.assert_allclose(found.gradient, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("charge", [0, 1])
def test_its_charges_in_a_field_obey_the_contract(tmp_path, charge):
    base = aimnet2_potential(saved(tmp_path, Toy().double()), trust_code=True)
    check_potential(EmbeddedPotential(base, ModelCharges()), [8, 6, 1, 1], 0.1 * FORMALDEHYDE, charge=charge)


def test_its_charges_have_exact_forces_at_a_cut_bond_under_pme(tmp_path):
    case = peptide_in_water()
    base = aimnet2_potential(saved(tmp_path, Toy().double()), trust_code=True)
    term = Term(EmbeddedPotential(base, ModelCharges()), Region("site", SIDE_CHAIN), embedding="electrostatic")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    order = [int(k) for k in np.argsort(np.linalg.norm(case.positions - case.positions[10], axis=1)) if k >= 22]
    atoms = [10, 12, 8, 9, order[0], order[-1]]  # region, hosts, near and far surroundings
    forces = term_forces(mixed, "site/ML", case.positions)[atoms]
    numerical = term_differences(mixed, "site/ML", case.positions, atoms, 2e-5)
    np.testing.assert_allclose(forces, numerical, rtol=0, atol=RELATIVE * np.abs(forces).max())
    assert np.abs(forces[4]).max() > 0.01


def test_it_is_saved_and_pickled_as_any_other_model(tmp_path):
    potential = aimnet2_potential(saved(tmp_path, Toy()), trust_code=True, multiplicity=None)
    potential.save(tmp_path / "own.pt")
    geometry = Geometry(FORMALDEHYDE * ANGSTROM_IN_BOHR)
    found = [
        each.create_evaluator(region(multiplicity=3)).evaluate(geometry, None).energy
        for each in (
            potential,
            pickle.loads(pickle.dumps(potential)),
            MLPotential.load(tmp_path / "own.pt", trust_code=True),
        )
    ]
    assert found[0] == found[1] == found[2]
    singlet = potential.create_evaluator(region()).evaluate(geometry, None).energy
    assert (found[0] - singlet) * HARTREE_IN_EV == pytest.approx(0.2, rel=1e-4)


def test_regions_that_it_does_not_know_are_refused(tmp_path):
    potential = aimnet2_potential(saved(tmp_path, Toy()), trust_code=True)
    with pytest.raises(PotentialError, match="does not know the elements with atomic numbers 11; it was made for 1, 5"):
        potential.check(region((11, 1, 1, 1)))
    with pytest.raises(PotentialError, match="the ML model is for multiplicity 1, the region has multiplicity 2"):
        potential.check(region(charge=1, multiplicity=2))
    aimnet2_potential(saved(tmp_path, Toy()), trust_code=True, elements=["Na", "H"]).check(region((11, 1, 1, 1)))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Flat(), "is no AIMNet2 model: for water it raises .*"),
        (Wrong(True), "its energy does not depend on the positions"),
        (Wrong(False), "it returns 9 charges for the three atoms of water"),
        (Toy(excess=0.02), r"the charges of water add up to 0\.0200 e"),
    ],
)
def test_a_module_of_another_interface_is_refused(tmp_path, module, message):
    with pytest.raises(PotentialError, match=f"aimnet2_toy.jpt' is no AIMNet2 model: .*{message.rpartition(': ')[2]}"):
        aimnet2_potential(saved(tmp_path, module), trust_code=True)


def test_a_file_that_is_not_trusted_or_not_there_is_refused(tmp_path):
    with pytest.raises(PotentialError, match="trust_code=True"):
        aimnet2_potential(saved(tmp_path, Toy()))
    with pytest.raises(FileNotFoundError, match=r"no module 'none\.jpt'"):
        aimnet2_potential("none.jpt", trust_code=True)
    with pytest.raises(PotentialError, match="trust_code is True or False"):
        aimnet2_potential(saved(tmp_path, Toy()), trust_code="yes")
    program = torch.export.export(torch.nn.Linear(3, 1), (torch.zeros(2, 3),))
    torch.export.save(program, tmp_path / "aimnet2.pt2")
    with pytest.raises(PotentialError, match="it is a program of torch.export"):
        aimnet2_potential(tmp_path / "aimnet2.pt2", trust_code=True)
