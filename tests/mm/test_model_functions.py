"""Models of openmm-ml that are called by their functions, and those that need a Context."""

from __future__ import annotations

import functools
import pickle
import threading

import numpy as np
import openmm
import pytest
import torch
from openmm import unit

from qmmlmm import Hamiltonian, OpenMMMLPotential, Region, Term, create_mixed_system
from qmmlmm.coupling.potential import RegionSpecification
from qmmlmm.errors import EvaluationError, PotentialError
from qmmlmm.geometry import Geometry
from qmmlmm.mm.model_functions import FunctionEvaluator, RegionState, created_functions
from qmmlmm.mm.openmm_potential import OpenMMEvaluator
from qmmlmm.sampling import MultipleTimeStepIntegrator
from tests.contexts import make_context, term_differences, term_forces
from tests.mm.tolerances import DIFFERENCE_FORCE, DIFFERENCE_STEP
from tests.torch_backends import needs_torch_force
from tests.toy_systems import SIDE_CHAIN

openmmml = pytest.importorskip("openmmml")

from openmmml.mlpotential import MLPotentialImpl, MLPotentialImplFactory

SAME_CALL = 1e-12  # relative; one function, in a Context and outside it
OH = RegionSpecification("site/ML", np.array([8, 1, 1]), 0, 1)
X = Geometry(np.array([[0.0, 0.0, 0.0], [2.0, 0.1, 0.0], [-0.5, 1.7, 0.3]]))


def springs(state):
    """Springs from the origin of the atoms' mean, with a stiffness that is a parameter."""
    x = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    k = state.getParameters()["stiffness"]
    away = x - x.mean(axis=0)
    return 0.5 * k * (away**2).sum() * unit.kilojoule_per_mole, -k * away


def springs_with_graph(state):
    """The same without a unit, the energy as a tensor with a derivative, as that of ANI."""
    x = torch.tensor(state.getPositions(asNumpy=True)._value, requires_grad=True)
    energy = 250.0 * ((x - x.mean(dim=0)) ** 2).sum().reshape(1)
    (gradient,) = torch.autograd.grad(energy, x, retain_graph=True)
    return energy, (-gradient).numpy()


def springs_in_torch(state):
    energy, forces = springs_with_graph(state)
    return energy.detach(), forces


def in_a_box(state):
    box = state.getPeriodicBoxVectors(asNumpy=True)._value
    volume = state.getPeriodicBoxVolume().value_in_unit(unit.nanometer**3)
    assert volume == pytest.approx(np.prod(np.diag(box)))
    assert (state.getStepCount(), state.getTime()) == (0, 0.0 * unit.picosecond)
    x = np.array([list(vector) for vector in state.getPositions().value_in_unit(unit.nanometer)])
    energy, forces = springs_in_torch(state)
    assert len(x) == len(forces)
    return energy + volume, forces


def short(state):
    return 0.0, np.zeros((2, 3))


def failing(state):
    raise ValueError("no such element")


class Springs(torch.nn.Module):
    """The springs as a module that TorchForce runs, positions in nm."""

    def forward(self, positions: torch.Tensor, stiffness: torch.Tensor) -> torch.Tensor:
        return 0.5 * stiffness * ((positions - positions.mean(dim=0)) ** 2).sum()


class Made(MLPotentialImpl):
    """A model of some forces, which a function adds to the System."""

    def __init__(self, add):
        self.add = add

    def addForces(self, topology, system, atoms, forceGroup, **options):
        self.add(system)


class Factory(MLPotentialImplFactory):
    def createImpl(self, name, **options):
        return Made(options["add"])


openmmml.MLPotential.registerImplFactory("made for a test", Factory())


def add_python_force(system, function, parameters, periodic):
    force = openmm.PythonForce(function, parameters)
    force.setUsesPeriodicBoundaryConditions(periodic)
    system.addForce(force)


def python_force(function, parameters=None, periodic=False):
    return functools.partial(add_python_force, function=function, parameters=parameters or {}, periodic=periodic)


def add_all(system, additions):
    for addition in additions:
        addition(system)


def potential_of(*additions, **options):
    add = functools.partial(add_all, additions=additions)
    return OpenMMMLPotential(openmmml.MLPotential("made for a test", add=add), **options)


def add_bond(system, stiffness=1000.0):
    force = openmm.HarmonicBondForce()
    force.addBond(0, 1, 0.1, stiffness)
    system.addForce(force)


add_nothing = functools.partial(add_bond, stiffness=0.0)
"""A force without energy, which makes a model need a Context."""


def add_torch_force(system):
    import openmmtorch

    force = openmmtorch.TorchForce(torch.jit.script(Springs()))
    force.addGlobalParameter("stiffness", 500.0)
    system.addForce(force)


STIFF = {"stiffness": 500.0}


def assert_same_as_in_a_context(potential, geometry=X):
    direct = potential.create_evaluator(OH)
    assert isinstance(direct, FunctionEvaluator)
    in_context = OpenMMEvaluator("in a Context", potential._system(OH), "Reference", None)
    found, expected = (evaluator.evaluate(geometry, None) for evaluator in (direct, in_context))
    assert found.energy == pytest.approx(expected.energy, rel=SAME_CALL)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=SAME_CALL, atol=SAME_CALL)
    assert np.abs(found.gradient).max() > 1e-4


@pytest.mark.parametrize(
    "additions",
    [
        [python_force(springs, STIFF)],
        [python_force(springs_in_torch)],
        [python_force(springs, STIFF), python_force(springs_in_torch)],
    ],
    ids=["with a unit and a parameter", "a tensor", "two"],
)
def test_functions_of_python_forces_give_what_they_give_in_a_context(additions):
    assert_same_as_in_a_context(potential_of(*additions))


def test_an_energy_may_be_a_tensor_with_a_derivative():
    found, wanted = (
        potential_of(python_force(function)).create_evaluator(OH).evaluate(X, None).energy
        for function in (springs_with_graph, springs_in_torch)
    )
    assert found == wanted


@needs_torch_force
@pytest.mark.parametrize("more", [[], [python_force(springs, STIFF)]], ids=["alone", "beside a function"])
def test_the_module_of_a_torch_force_gives_what_it_gives_in_a_context(more):
    assert_same_as_in_a_context(potential_of(add_torch_force, *more))


def test_a_periodic_model_gets_the_box():
    potential = potential_of(python_force(in_a_box, periodic=True), long_range=True)
    assert_same_as_in_a_context(potential, Geometry(X.positions, np.diag([50.0, 55.0, 60.0])))


def test_a_model_with_other_forces_is_evaluated_whole_in_a_context():
    both, spring, bond = (
        potential_of(*additions).create_evaluator(OH)
        for additions in (
            [python_force(springs, STIFF), add_bond],
            [python_force(springs, STIFF)],
            [add_bond],
        )
    )
    assert isinstance(both, OpenMMEvaluator)
    energies = [evaluator.evaluate(X, None).energy for evaluator in (both, spring, bond)]
    assert energies[0] == pytest.approx(energies[1] + energies[2], rel=1e-12)
    assert min(energies) > 0.0


def test_only_forces_of_this_thread_are_kept_and_openmm_is_as_before():
    original = openmm.PythonForce
    with created_functions() as created:
        other = threading.Thread(target=openmm.PythonForce, args=(failing,))
        other.start()
        other.join()
        openmm.PythonForce(springs, STIFF)
    assert created.functions == [springs]
    assert openmm.PythonForce is original


def test_a_state_gives_copies_and_only_what_openmm_documents():
    state = RegionState(X, STIFF)
    state.getPositions(asNumpy=True)._value[:] = 0.0
    state.getParameters()["stiffness"] = 0.0
    assert np.array_equal(state.getPositions(asNumpy=True)._value, X.positions)
    assert state.getParameters() == STIFF
    with pytest.raises(AttributeError, match="getVelocities"):
        state.getVelocities()


def test_forces_at_a_cut_bond_are_derivatives_and_the_term_survives_serialisation(amber_vacuum):
    case = amber_vacuum
    term = Term(potential_of(python_force(springs, STIFF)), Region("side", SIDE_CHAIN), embedding="mechanical")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    atoms = [10, 11, 8]
    expected = term_differences(mixed, "side/ML", case.positions, atoms, DIFFERENCE_STEP)
    assert np.abs(expected).max() > 1.0
    np.testing.assert_allclose(term_forces(mixed, "side/ML", case.positions)[atoms], expected, atol=DIFFERENCE_FORCE)
    region_term = mixed.terms["side/ML"].runner.region_term
    again = pickle.loads(pickle.dumps(region_term))
    assert isinstance(again.evaluator, FunctionEvaluator)
    for found, wanted in zip(*(each.compute(Geometry(case.positions)) for each in (again, region_term)), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert "PythonForce" in openmm.XmlSerializer.serialize(mixed.system)


def test_steps_of_two_lengths_are_those_in_a_context(amber_vacuum):
    case = amber_vacuum
    found = []
    for more in ([], [add_nothing]):
        soft = potential_of(python_force(springs, STIFF), *more)
        stiff = potential_of(python_force(springs_in_torch), *more)
        region = Region("side", SIDE_CHAIN)
        terms = [
            Term(potential, region, embedding="mechanical", coefficient=coefficient, name=name)
            for potential, coefficient, name in ((soft, 1, "soft"), (stiff, 1, "stiff"), (soft, -1, "minus"))
        ]
        mixed = create_mixed_system(case.topology, case.system, Hamiltonian(terms))
        integrator = MultipleTimeStepIntegrator(mixed, None, 1.0, 0.002, 4, slow=["stiff", "minus"])
        context = make_context(mixed.system, case.positions, integrator=integrator)
        integrator.step(3)
        found.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    assert np.abs(found[0] - case.positions).max() > 1e-4
    np.testing.assert_allclose(*found, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (short, r"'site/ML': the model returns forces of the shape \(2, 3\), and the region has 3 atoms"),
        (failing, "'site/ML': the model of openmm-ml failed: ValueError: no such element"),
    ],
)
def test_a_model_that_fails_ends_the_run(function, message):
    evaluator = potential_of(python_force(function)).create_evaluator(OH)
    with pytest.raises(EvaluationError, match=message):
        evaluator.evaluate(X, None)


def test_a_model_that_needs_a_box_or_lacks_one_is_refused():
    with pytest.raises(PotentialError, match="'site/ML': the model needs a periodic box, and a region is computed"):
        potential_of(python_force(in_a_box, periodic=True)).create_evaluator(OH)
    with pytest.raises(PotentialError, match="'site/ML': long_range=True, but the model has no periodic images"):
        potential_of(python_force(springs, STIFF), long_range=True).create_evaluator(OH)
    with pytest.raises(PotentialError, match="'site/ML': openmm-ml made a System of 4 particles, and the region has 3"):
        potential_of(lambda system: system.addParticle(1.0)).create_evaluator(OH)
