"""Coefficients that depend on global parameters: from the force field to a model to QM, and back."""

import copy

import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm import (
    ForceFieldPotential,
    Hamiltonian,
    MLPotential,
    Region,
    Term,
    create_mixed_system,
)
from qmmlmm.errors import HamiltonianError, UnsupportedSystemError
from tests.contexts import energy_and_forces, make_context
from tests.toy_potentials import ELEMENTS, BondedSprings, EvaluatedSprings
from tests.toy_systems import PEPTIDE, SIDE_CHAIN

# OpenMM adds terms of up to 1e4 kJ/mol in another order.
ROUND_OFF = 1e-8  # relative
MECHANICAL, ELECTROSTATIC = "mechanical", "electrostatic"
PARAMETERS = {"lambda_ml": 0.0, "lambda_qm": 0.0}


class Potentials:
    """A model and a stand-in for QM with different energies, of a number of sites."""

    def __init__(self, n_sites):
        charges = 0.05 * np.cos(np.arange(n_sites))
        self.ml = MLPotential(
            BondedSprings(charges, stiffness=0.002), elements=ELEMENTS, embeddings=[MECHANICAL, ELECTROSTATIC]
        )
        self.qm = EvaluatedSprings(charges - charges.mean())
        self.ff = ForceFieldPotential()


CASES = {"whole molecule": (PEPTIDE, 22), "side chain, cut": (SIDE_CHAIN, 5)}


def path(case, atoms, n_sites, embedding=ELECTROSTATIC, **options):
    """Force field, model and QM on one region, with two parameters."""
    region, potentials = Region("site", atoms), Potentials(n_sites)
    terms = [Term(potentials.ff, region, embedding=embedding, coefficient="1-lambda_ml")]
    if embedding == ELECTROSTATIC:
        terms += [
            Term(potentials.ml, region, embedding=embedding, coefficient="lambda_ml-lambda_qm"),
            Term(potentials.qm, region, embedding=embedding, coefficient="lambda_qm"),
        ]
        parameters = PARAMETERS
    else:
        terms.append(Term(potentials.ml, region, embedding=embedding, coefficient="lambda_ml"))
        parameters = {"lambda_ml": 0.0}
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian(terms, parameters=parameters), **options)
    return mixed, region, potentials


def assert_same(found, wanted):
    scale = max(1.0, np.abs(wanted[1]).max())
    assert found[0] == pytest.approx(wanted[0], rel=ROUND_OFF)
    np.testing.assert_allclose(found[1], wanted[1], rtol=0, atol=ROUND_OFF * scale)


def set_to(context, **values):
    for name, value in values.items():
        context.setParameter(name, value)


@pytest.mark.parametrize("atoms", CASES)
@pytest.mark.parametrize("embedding", [MECHANICAL, ELECTROSTATIC])
@pytest.mark.parametrize("surroundings", ["amber_vacuum", "tip4p_cube", "charmm_vacuum"])
def test_the_ends_are_the_pure_hamiltonians(request, surroundings, embedding, atoms):
    """Energy and forces of all atoms: bonded terms, CMAP, custom nonbonded forces, PME, virtual sites, a cut bond."""
    case = request.getfixturevalue(surroundings)
    mixed, region, potentials = path(case, *CASES[atoms], embedding)
    context = make_context(mixed.system, case.positions)
    assert_same(energy_and_forces(context), energy_and_forces(make_context(case.system, case.positions)))

    pure = create_mixed_system(
        case.topology, case.system, Hamiltonian([Term(potentials.ml, region, embedding=embedding)])
    )
    set_to(context, lambda_ml=1.0)
    assert_same(energy_and_forces(context), energy_and_forces(make_context(pure.system, case.positions)))
    if embedding == ELECTROSTATIC:
        pure = create_mixed_system(
            case.topology, case.system, Hamiltonian([Term(potentials.qm, region, embedding=embedding)])
        )
        set_to(context, lambda_qm=1.0)
        assert_same(energy_and_forces(context), energy_and_forces(make_context(pure.system, case.positions)))


def test_smeared_charges_leave_the_force_field_end_as_it_is(tip4p_cube):
    """The potentials feel Gaussian charges; what the force field gives back has the points that it had."""
    region, potentials, ends = Region("site", SIDE_CHAIN), Potentials(5), {}
    for widths in (None, 0.08 * unit.nanometer):
        terms = [
            Term(potentials.ff, region, embedding=ELECTROSTATIC, coefficient="1-lambda_ml", smeared_charges=widths),
            Term(potentials.ml, region, embedding=ELECTROSTATIC, coefficient="lambda_ml", smeared_charges=widths),
        ]
        hamiltonian = Hamiltonian(terms, parameters={"lambda_ml": 0.0})
        mixed = create_mixed_system(tip4p_cube.topology, tip4p_cube.system, hamiltonian)
        context = make_context(mixed.system, tip4p_cube.positions)
        assert_same(
            energy_and_forces(context), energy_and_forces(make_context(tip4p_cube.system, tip4p_cube.positions))
        )
        set_to(context, lambda_ml=1.0)
        ends[widths is None] = energy_and_forces(context)[0]
    assert abs(ends[True] - ends[False]) > 0.01


def test_every_value_between_is_the_mean_of_the_ends(amber_vacuum):
    mixed, *_ = path(amber_vacuum, PEPTIDE, 22)
    context = make_context(mixed.system, amber_vacuum.positions)
    ends = []
    for ml, qm in ((0, 0), (1, 0), (1, 1)):
        set_to(context, lambda_ml=ml, lambda_qm=qm)
        ends.append(energy_and_forces(context))
    set_to(context, lambda_ml=0.7, lambda_qm=0.2)
    weights = (0.3, 0.5, 0.2)
    mean = tuple(sum(w * end[k] for w, end in zip(weights, ends, strict=True)) for k in (0, 1))
    assert_same(energy_and_forces(context), mean)
    assert abs(ends[0][0] - ends[1][0]) > 1.0
    assert abs(ends[1][0] - ends[2][0]) > 1.0
    terms = mixed.term_energies(context)
    assert list(terms) == ["MM", "site/FF", "site/ML", "site/QM"]
    assert sum(energy._value for energy in terms.values()) == pytest.approx(mean[0], rel=ROUND_OFF)


@pytest.mark.parametrize("values", [(0.0, 0.0), (0.6, 0.3), (1.0, 1.0)])
def test_derivatives_are_those_of_the_energy(tip4p_cube, values):
    mixed, *_ = path(tip4p_cube, SIDE_CHAIN, 5)
    context = make_context(mixed.system, tip4p_cube.positions)
    set_to(context, lambda_ml=values[0], lambda_qm=values[1])
    found = mixed.parameter_derivatives(context)
    assert list(found) == ["lambda_ml", "lambda_qm"]
    for name, value in zip(PARAMETERS, values, strict=True):
        energies = []
        for shift in (-0.5, 0.5):
            set_to(context, **{name: value + shift})
            energies.append(context.getState(energy=True).getPotentialEnergy()._value)
        set_to(context, **{name: value})
        difference = energies[1] - energies[0]
        assert found[name]._value == pytest.approx(difference, abs=1e-6)
        assert abs(difference) > 0.1


def evaluations(mixed):
    return tuple(mixed.terms[name].runner.evaluations for name in ("site/ML", "site/QM"))


def test_a_term_that_is_switched_off_is_not_computed(amber_vacuum):
    mixed, *_ = path(amber_vacuum, PEPTIDE, 22)
    context = make_context(mixed.system, amber_vacuum.positions)
    context.getState(energy=True)
    assert evaluations(mixed) == (0, 0)
    set_to(context, lambda_ml=0.5)
    context.getState(energy=True)
    assert evaluations(mixed) == (1, 0)
    # One geometry at many values, as replica exchange and MBAR ask for, costs one evaluation of each term.
    for k in range(11):
        set_to(context, lambda_ml=0.1 * k, lambda_qm=0.05 * k)
        context.getState(energy=True)
    mixed.parameter_derivatives(context)
    assert evaluations(mixed) == (1, 1)


def test_slow_switching_does_the_work_of_the_derivative(amber_vacuum):
    """Work done by changing the parameter and heat by dynamics add up to the change of the energy."""
    mixed, *_ = path(amber_vacuum, SIDE_CHAIN, 5)
    integrator = openmm.VerletIntegrator(0.00002)
    context = make_context(mixed.system, amber_vacuum.positions, integrator=integrator)

    def total():
        state = context.getState(energy=True)
        return (state.getPotentialEnergy() + state.getKineticEnergy())._value

    start, work = total(), 0.0
    for k in range(20):
        derivative = mixed.parameter_derivatives(context)["lambda_ml"]._value
        set_to(context, lambda_ml=(k + 1) / 20)
        work += derivative / 20
        integrator.step(10)
    assert abs(work) > 1.0
    assert total() - start == pytest.approx(work, rel=0.002)


def test_parameters_survive_copies_checkpoints_and_shared_groups(amber_vacuum):
    mixed, *_ = path(amber_vacuum, PEPTIDE, 22)
    context = make_context(mixed.system, amber_vacuum.positions)
    set_to(context, lambda_ml=0.4, lambda_qm=0.1)
    wanted = energy_and_forces(context)
    clone = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(mixed.system))
    for system in (clone, copy.deepcopy(mixed.system)):
        other = make_context(system, amber_vacuum.positions)
        other.setState(context.getState(positions=True, velocities=True, parameters=True))
        assert other.getParameter("lambda_ml") == 0.4
        assert_same(energy_and_forces(other), wanted)

    terms = [
        Term(t.potential, t.region, embedding=t.embedding, coefficient=t.coefficient, force_group=9)
        for t in mixed.hamiltonian.terms
    ]
    shared = create_mixed_system(amber_vacuum.topology, amber_vacuum.system, Hamiltonian(terms, parameters=PARAMETERS))
    other = make_context(shared.system, amber_vacuum.positions)
    set_to(other, lambda_ml=0.4, lambda_qm=0.1)
    apart = mixed.term_energies(context)
    for name, energy in shared.term_energies(other).items():
        assert energy._value == pytest.approx(apart[name]._value, abs=1e-6), name


def test_first_values_are_those_of_the_hamiltonian(amber_vacuum):
    region, potentials = Region("site", PEPTIDE), Potentials(22)
    terms = [
        Term(potentials.ml, region, embedding=ELECTROSTATIC, coefficient="1-lambda_qm"),
        Term(potentials.qm, region, embedding=ELECTROSTATIC, coefficient="lambda_qm"),
    ]
    mixed = create_mixed_system(
        amber_vacuum.topology, amber_vacuum.system, Hamiltonian(terms, parameters={"lambda_qm": 0.25})
    )
    context = make_context(mixed.system, amber_vacuum.positions)
    assert context.getParameter("lambda_qm") == 0.25
    assert [term["coefficient"] for term in mixed.describe()["terms"]] == ["1-lambda_qm", "lambda_qm"]
    assert [term["backend"] for term in mixed.describe()["terms"]] == ["PythonForce", "PythonForce"]


def test_constraints_that_no_bond_stands_for_are_refused(amber_vacuum):
    case = amber_vacuum
    options = {"nonbondedMethod": app.NoCutoff, "constraints": app.HBonds, "rigidWater": True}
    held = case.force_field.createSystem(case.topology, **options)
    region, potentials = Region("site", PEPTIDE), Potentials(22)
    terms = [
        Term(potentials.ff, region, embedding=ELECTROSTATIC, coefficient="1-lambda_ml"),
        Term(potentials.ml, region, embedding=ELECTROSTATIC, coefficient="lambda_ml"),
    ]
    hamiltonian = Hamiltonian(terms, parameters={"lambda_ml": 0.0})
    with pytest.raises(UnsupportedSystemError, match="flexibleConstraints=True"):
        create_mixed_system(case.topology, held, hamiltonian)
    flexible = case.force_field.createSystem(case.topology, flexibleConstraints=True, **options)
    assert create_mixed_system(case.topology, flexible, hamiltonian).system.getNumConstraints() == 9


def test_force_field_terms_where_they_mean_nothing_are_refused(amber_vacuum):
    case = amber_vacuum
    first, second, core = Region("first", PEPTIDE), Region("water", [22, 23, 24]), Region("core", SIDE_CHAIN)
    ff, ml = ForceFieldPotential(), Potentials(22).ml

    def terms_of(region, name):
        return [
            Term(ff, region, embedding=MECHANICAL, coefficient=f"1-{name}"),
            Term(ml, region, embedding=MECHANICAL, coefficient=name),
        ]

    with pytest.raises(HamiltonianError, match="outermost region, of which there is only one; .* first, water"):
        create_mixed_system(
            case.topology,
            case.system,
            Hamiltonian([*terms_of(first, "a"), Term(ml, second, embedding=MECHANICAL)], parameters={"a": 0.0}),
        )
    nested = [
        Term(ml, first, embedding=MECHANICAL),
        Term(ff, core, embedding=MECHANICAL),
        Term(ml, core, embedding=MECHANICAL, coefficient=-1.0),
    ]
    with pytest.raises(HamiltonianError, match="is for the outermost region"):
        create_mixed_system(case.topology, case.system, Hamiltonian(nested))


def test_a_force_field_term_alone_is_the_force_field(amber_vacuum):
    term = Term(ForceFieldPotential(), Region("site", SIDE_CHAIN), embedding=ELECTROSTATIC)
    mixed = create_mixed_system(amber_vacuum.topology, amber_vacuum.system, Hamiltonian([term]))
    found = energy_and_forces(make_context(mixed.system, amber_vacuum.positions))
    assert_same(found, energy_and_forces(make_context(amber_vacuum.system, amber_vacuum.positions)))
    assert mixed.parameter_derivatives(make_context(mixed.system, amber_vacuum.positions)) == {}
    assert unit.is_quantity(mixed.term_energies(make_context(mixed.system, amber_vacuum.positions))["site/FF"])


SINGLE_PRECISION = 1e-5
"""Relative, of energies and forces on OpenMM's CPU platform."""


def test_a_force_field_term_runs_on_platforms_that_want_the_same_exclusions_of_all_forces(tip4p_cube):
    # A region's pairs are excluded in the System without it, and those beyond 1-4 are not in the force field.
    mixed, *_ = path(tip4p_cube, PEPTIDE, 22)
    found = energy_and_forces(make_context(mixed.system, tip4p_cube.positions, platform="CPU"))
    wanted = energy_and_forces(make_context(tip4p_cube.system, tip4p_cube.positions, platform="CPU"))
    assert found[0] == pytest.approx(wanted[0], rel=SINGLE_PRECISION)
    assert np.abs(found[1] - wanted[1]).max() < SINGLE_PRECISION * np.abs(wanted[1]).max()
