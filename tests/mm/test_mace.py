"""A MACE model, brought in through openmm-ml, as the potential of a region."""

import pickle
import warnings

import numpy as np
import openmm
import pytest
import torch
from openmm import unit

from qmmlmm import Hamiltonian, OpenMMMLPotential, Region, Term, create_mixed_system
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import PotentialError
from qmmlmm.geometry import Geometry
from qmmlmm.mm.model_functions import FunctionEvaluator
from qmmlmm.mm.openmm_potential import OpenMMEvaluator
from tests.contexts import make_context, term_differences, term_forces
from tests.mm.tolerances import DIFFERENCE_FORCE, DIFFERENCE_STEP, ROUND_OFF_FORCE
from tests.toy_systems import SIDE_CHAIN

EV_IN_KJ_PER_MOL = 96.48533212331  # CODATA 2018: elementary charge times Avogadro constant
LINK_RATIO = (0.76 + 0.31) / (0.76 + 0.76)  # C-C, covalent radii of Cordero et al. (2008)
SAME_CALL = 1e-10  # relative; one function in double precision, in a Context and outside it

# What MACE and e3nn say at import and of their own files.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A small MACE model for H, C and O with random weights: all of its code runs, nothing is learned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mace import modules  # before e3nn, whose own files torch refuses otherwise

        from e3nn import o3  # isort: skip
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(7)
    try:
        model = modules.ScaleShiftMACE(
            r_max=4.0,
            num_bessel=6,
            num_polynomial_cutoff=5,
            max_ell=2,
            interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            num_interactions=2,
            num_elements=3,
            hidden_irreps=o3.Irreps("8x0e + 8x1o"),
            MLP_irreps=o3.Irreps("8x0e"),
            gate=torch.nn.functional.silu,
            atomic_energies=np.array([-13.6, -1030.0, -2040.0]),
            avg_num_neighbors=4.0,
            atomic_numbers=[1, 6, 8],
            correlation=2,
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
        )
    finally:
        torch.set_default_dtype(default)
    file = tmp_path_factory.mktemp("mace") / "random.model"
    torch.save(model, file)
    return file


def mace_term(model_file):
    import openmmml

    potential = openmmml.MLPotential("mace", modelPath=str(model_file))
    # Its default leaves the energies of the free atoms out.
    return OpenMMMLPotential(potential, options={"returnEnergyType": "energy"})


def test_a_mace_model_gives_a_region_with_a_link_atom_the_energy_of_its_own_calculator(amber_vacuum, model_file):
    import ase
    from mace.calculators import MACECalculator

    case = amber_vacuum
    region = Region("side chain", SIDE_CHAIN)
    hamiltonian = Hamiltonian([Term(mace_term(model_file), region, embedding="mechanical")])
    mixed = create_mixed_system(case.topology, case.system, hamiltonian)
    energy = mixed.term_energies(make_context(mixed.system, case.positions))["side chain/ML"]
    # CB and its hydrogens, and the hydrogen on the cut bond to CA.
    cb, ca = case.positions[10], case.positions[8]
    inside = np.vstack([case.positions[list(SIDE_CHAIN)], cb + LINK_RATIO * (ca - cb)])
    molecule = ase.Atoms("CH4", positions=10.0 * inside)
    molecule.calc = MACECalculator(model_paths=str(model_file), device="cpu", default_dtype="float64")
    expected = molecule.get_potential_energy() * EV_IN_KJ_PER_MOL
    # openmm-ml takes 96.4853 kJ/mol for an electronvolt, 3e-7 less than CODATA.
    assert energy.value_in_unit(unit.kilojoule_per_mole) == pytest.approx(expected, rel=1e-6)


def test_a_mace_model_that_is_called_directly_gives_what_it_gives_in_a_context(model_file):
    region = RegionSpecification("acetaldehyde/ML", np.array([6, 1, 1, 1, 6, 8, 1]), 0, 1)
    x = np.random.default_rng(4).uniform(-4.0, 4.0, size=(7, 3))
    potential = mace_term(model_file)
    direct = potential.create_evaluator(region)
    assert isinstance(direct, FunctionEvaluator)
    found = direct.evaluate(Geometry(x), None)
    expected = OpenMMEvaluator("in a Context", potential._system(region), "Reference", None).evaluate(Geometry(x), None)
    assert found.energy == pytest.approx(expected.energy, rel=SAME_CALL)
    np.testing.assert_allclose(
        found.gradient, expected.gradient, rtol=0, atol=SAME_CALL * np.abs(expected.gradient).max()
    )
    again = pickle.loads(pickle.dumps(potential)).create_evaluator(region).evaluate(Geometry(x), None)
    assert again.energy == found.energy


def test_forces_of_a_mace_term_are_central_differences_on_region_and_link_host(amber_vacuum, model_file):
    case = amber_vacuum
    hamiltonian = Hamiltonian([Term(mace_term(model_file), Region("side chain", SIDE_CHAIN), embedding="mechanical")])
    mixed = create_mixed_system(case.topology, case.system, hamiltonian)
    forces = term_forces(mixed, "side chain/ML", case.positions)
    atoms = [10, 11, 8]
    expected = term_differences(mixed, "side chain/ML", case.positions, atoms, DIFFERENCE_STEP)
    assert np.abs(expected).max() > 1.0
    # The energies of the free atoms, 1e5 kJ/mol, limit what differences can tell.
    np.testing.assert_allclose(forces[atoms], expected, atol=10 * DIFFERENCE_FORCE)
    assert np.abs(forces.sum(axis=0)).max() < 1e3 * ROUND_OFF_FORCE
    integrator = openmm.VerletIntegrator(0.0001)
    context = make_context(mixed.system, case.positions, integrator=integrator)
    integrator.step(3)
    assert np.isfinite(context.getState(energy=True).getPotentialEnergy()._value)


def test_an_element_that_the_mace_model_lacks_is_refused(amber_vacuum, model_file):
    case = amber_vacuum
    region = Region("peptide", range(22))  # with nitrogen
    with pytest.raises(PotentialError, match="'peptide/ML'.*openmm-ml cannot treat this region"):
        create_mixed_system(
            case.topology,
            case.system,
            Hamiltonian([Term(mace_term(model_file), region, embedding="mechanical")]),
        )
