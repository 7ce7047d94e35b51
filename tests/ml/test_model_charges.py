"""Charges that a model predicts itself, in the potential of the surroundings."""

from __future__ import annotations

import pickle
from typing import Dict  # noqa: UP035  (TorchScript reads it)

import numpy as np
import openmm
import pytest
import torch
from torch import Tensor

from qmmlmm import Hamiltonian, MLPotential, Region, Term, check_potential, create_mixed_system
from qmmlmm.errors import EvaluationError, NonFiniteError, PotentialError
from qmmlmm.ml import EmbeddedPotential, FixedResponse, ModelCharges, region_potential
from qmmlmm.units import BOHR_IN_NM
from tests.contexts import system_energy_and_forces, term_differences, term_forces
from tests.ml.networks import network
from tests.ml.responses import NUMBERS, X
from tests.toy_potentials import ELEMENTS, Contract, Springs, fixed_in_openmm
from tests.toy_systems import SIDE_CHAIN, molecule_among_ions, peptide_in_vacuum, peptide_in_water

NUMERICAL = 2e-3  # kJ/(mol nm): of forces of some 1e3, from differences over 2e-5 nm
SAME_ENERGY, SAME_FORCE = 1e-8, 1e-6  # kJ/mol, kJ/(mol nm)


class Charged(torch.nn.Module):
    """Springs, and charges that follow the distances and add up to the total charge and an excess."""

    def __init__(self, flux: float = 0.4, excess: float = 0.0) -> None:
        super().__init__()
        self.springs, self.flux, self.excess = Springs(0.01), flux, excess

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        x = inputs["positions"]
        delta = x[:, None, :] - x[None, :, :]
        spread = torch.exp(-(delta * delta).sum(-1) / 20.0).sum(-1) * inputs["atomic_numbers"]
        charges = self.flux * (spread - spread.mean()) + (inputs["charge"] + self.excess) / x.shape[0]
        return {"energy": self.springs(x), "charges": charges}


class Given(torch.nn.Module):
    """Springs, and the same charges at all geometries."""

    def __init__(self, charges: Tensor) -> None:
        super().__init__()
        self.springs = Springs(0.01)
        self.register_buffer("charges", charges)

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        return {"energy": self.springs(inputs["positions"]), "charges": self.charges}


class ChargedBeyond(torch.nn.Module):
    """Charges that add up to one, or are no numbers, where two atoms are closer than those of the trial."""

    def __init__(self, fault: float) -> None:
        super().__init__()
        self.springs, self.fault = Springs(0.01), fault

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        x = inputs["positions"]
        close = bool((x[0] - x[1]).norm() < 2.4)
        return {"energy": self.springs(x), "charges": torch.full_like(x[:, 0], self.fault if close else 0.0)}


def embedded(module, **options):
    base = MLPotential(module, elements=ELEMENTS, multiplicity=None, charge=None, **options)
    return EmbeddedPotential(base, ModelCharges())


def of_molecule(potential):
    """Return the energy of a molecule among ions in a periodic box, and the forces on all atoms."""
    case = molecule_among_ions()
    term = Term(potential, Region("mol", [0, 1, 2]), embedding="electrostatic", name="mol")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    return system_energy_and_forces(mixed.system, case.positions, groups={mixed.force_group("mol")})


@pytest.mark.parametrize("charge", [0, -1])
def test_forces_and_charges_are_derivatives(charge):
    check_potential(embedded(Charged()), NUMBERS, X.numpy() * BOHR_IN_NM, charge=charge)


def test_under_pme_forces_on_region_near_and_far_atoms_are_derivatives():
    case = molecule_among_ions()
    term = Term(embedded(Charged()), Region("mol", [0, 1, 2]), embedding="electrostatic", name="mol")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    order = np.argsort(np.linalg.norm(case.positions - case.positions[1], axis=1))
    atoms = [0, 1, int(order[3]), int(order[-1])]
    forces = term_forces(mixed, "mol", case.positions)[atoms]
    np.testing.assert_allclose(
        forces, term_differences(mixed, "mol", case.positions, atoms, 2e-5), rtol=0, atol=NUMERICAL
    )
    assert np.abs(forces[2]).max() > 0.1


def test_at_a_cut_bond_under_pme_forces_on_hosts_are_derivatives():
    case = peptide_in_water()
    term = Term(embedded(Charged()), Region("site", SIDE_CHAIN), embedding="electrostatic", name="site")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    order = [int(k) for k in np.argsort(np.linalg.norm(case.positions - case.positions[10], axis=1)) if k >= 22]
    atoms = [10, 12, 8, 9, order[0], order[-1]]
    forces = term_forces(mixed, "site", case.positions)[atoms]
    numerical = term_differences(mixed, "site", case.positions, atoms, 2e-5)
    np.testing.assert_allclose(forces, numerical, rtol=0, atol=NUMERICAL)
    assert np.abs(forces[4]).max() > 0.1


def test_charges_that_do_not_change_are_a_fixed_response():
    fixed = FixedResponse([1, 8, 1], [(0, 1), (1, 2)])
    coefficients = np.zeros(fixed.n_coefficients)
    coefficients[: fixed.counts["flow"]] = 0.35
    fixed = FixedResponse(fixed.atomic_numbers, fixed.bonds, 0, coefficients=coefficients)
    silent = [torch.zeros(shape, dtype=torch.float64) for shape in ((3, 3), (0, 3), (0,))]
    potential = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    energy = fixed.energy(fixed.coefficients, X[:3], potential, *silent)
    (charges,) = torch.autograd.grad(energy, potential)
    assert charges.abs().min() > 0.1
    springs = MLPotential(Springs(0.01), elements=ELEMENTS)
    found, wanted = (of_molecule(p) for p in (embedded(Given(charges)), EmbeddedPotential(springs, fixed)))
    assert found[0] == pytest.approx(wanted[0], abs=SAME_ENERGY)
    np.testing.assert_allclose(found[1], wanted[1], rtol=0, atol=SAME_FORCE)


def test_a_program_of_torch_export_returns_charges_as_well():
    inputs = {
        "atomic_numbers": torch.tensor([1, 8, 1]),
        "charge": torch.tensor(0.0, dtype=torch.float64),
        "positions": X[:3].clone(),
    }
    program = torch.export.export(Charged().eval(), (inputs,))
    found, wanted = of_molecule(embedded(program)), of_molecule(embedded(Charged()))
    assert found[0] == pytest.approx(wanted[0], abs=SAME_ENERGY)
    np.testing.assert_allclose(found[1], wanted[1], rtol=0, atol=SAME_FORCE)


def test_without_surroundings_it_is_the_base():
    case = peptide_in_vacuum()
    base = MLPotential(Charged(), elements=ELEMENTS)
    found, wanted = (
        create_mixed_system(
            case.topology, case.system, Hamiltonian([Term(p, Region("site", SIDE_CHAIN), embedding="mechanical")])
        )
        for p in (EmbeddedPotential(base, ModelCharges()), base)
    )
    one, other = (system_energy_and_forces(mixed.system, case.positions) for mixed in (found, wanted))
    np.testing.assert_allclose(one[0], other[0], rtol=1e-9)
    np.testing.assert_allclose(one[1], other[1], rtol=0, atol=SAME_FORCE)


def test_charges_that_do_not_add_up_are_refused():
    with pytest.raises(PotentialError, match=r"'mol': the charges of the model add up to 0\.01000 e, and the region"):
        of_molecule(embedded(Charged(excess=0.01)))
    with pytest.raises(PotentialError, match=r"returns charges of the shape \(2,\); there is one for each of 3 atoms"):
        of_molecule(embedded(Given(torch.tensor([0.5, -0.5]))))
    with pytest.raises(PotentialError, match='the model returns no "charges"'):
        of_molecule(embedded(Contract()))


@pytest.mark.parametrize(("fault", "error"), [(1.0, EvaluationError), (float("nan"), NonFiniteError)])
def test_charges_that_go_wrong_later_end_the_run(fault, error):
    case = molecule_among_ions()
    term = Term(embedded(ChargedBeyond(fault)), Region("mol", [0, 1, 2]), embedding="electrostatic", name="mol")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    with pytest.raises(openmm.OpenMMException) as ended:
        system_energy_and_forces(mixed.system, case.positions)
    with pytest.raises(error, match=r"add up to 3\.00000 e" if fault == 1.0 else "not numbers"):
        mixed.raise_original(ended.value)


def test_only_modules_have_charges():
    for base in (fixed_in_openmm([0.3, -0.6, 0.3]), region_potential(network())):
        with pytest.raises(PotentialError, match="uses the charges that a module returns beside its energy"):
            EmbeddedPotential(base, ModelCharges())
    with pytest.raises(
        PotentialError, match="an instance of FixedResponse, ResponseModel or GeneralResponse, or ModelCharges"
    ):
        EmbeddedPotential(MLPotential(Charged(), elements=ELEMENTS), ModelCharges)


def test_it_is_pickled_and_is_a_level_of_its_own():
    potential = embedded(Charged())
    again = pickle.loads(pickle.dumps(potential))
    assert again.level_of_theory == potential.level_of_theory
    assert again.response == potential.response
    assert potential.level_of_theory != potential.base.level_of_theory
    fixed = EmbeddedPotential(potential.base, FixedResponse([1, 8, 1], [(0, 1), (1, 2)]))
    assert potential.level_of_theory != fixed.level_of_theory
    assert "charges of the model" in repr(potential)
