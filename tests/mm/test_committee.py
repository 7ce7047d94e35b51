"""Uncertainty of a committee inside a System, against each member as a model of its own."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import app

from qmmlmm import Hamiltonian, MLPotential, OpenMMPotential, Region, Term, create_mixed_system
from qmmlmm.errors import HamiltonianError, PotentialError
from qmmlmm.sampling.adaptive_correction import AdaptiveCorrection
from tests.contexts import make_context, term_forces
from tests.toy_potentials import COMMITTEE_MEMBERS, COMMITTEE_SCALE, ELEMENTS, Committee, EvaluatedSprings
from tests.toy_systems import PEPTIDE, SIDE_CHAIN


def mixed_with(case, module, atoms, embedding):
    potential = MLPotential(module, elements=ELEMENTS, embeddings=["electrostatic", "mechanical"])
    hamiltonian = Hamiltonian([Term(potential, Region("site", atoms), embedding=embedding)])
    return create_mixed_system(case.topology, case.system, hamiltonian, ml_backend="pythonforce")


def one_by_one(case, atoms, embedding):
    """Return the forces of each member as a model of its own, (members, n, 3) kJ/(mol nm)."""
    forces = []
    for k in range(COMMITTEE_MEMBERS):
        mixed = mixed_with(case, Committee(only=k), atoms, embedding)
        forces.append(term_forces(mixed, "site/ML", case.positions)[list(atoms)])
    return np.array(forces)


@pytest.mark.parametrize("embedding", ["electrostatic", "mechanical"])
@pytest.mark.parametrize("atoms", [PEPTIDE, SIDE_CHAIN], ids=["whole", "cut"])
@pytest.mark.parametrize("surroundings", ["amber_vacuum", "tip4p_cube"])
def test_the_spread_is_that_of_the_members_run_one_by_one(request, surroundings, atoms, embedding):
    case = request.getfixturevalue(surroundings)
    plain = np.var(one_by_one(case, atoms, embedding), axis=0, ddof=1)
    alone = one_by_one(case, atoms, "mechanical")
    parts = np.var(alone, axis=0, ddof=1) + np.var(one_by_one(case, atoms, embedding) - alone, axis=0, ddof=1)
    for separate, variance in ((False, plain), (True, parts)):
        wanted = COMMITTEE_SCALE * np.sqrt(variance.mean(axis=-1))
        mixed = mixed_with(case, Committee(separate=separate), atoms, embedding)
        found = mixed.force_uncertainty(make_context(mixed.system, case.positions), "site/ML")
        np.testing.assert_allclose(found._value, wanted, rtol=1e-6)
        assert wanted.min() > 1.0
    differ = np.abs(parts - plain).max() > 0.01 * plain.max()
    assert differ == (embedding == "electrostatic")


def test_what_has_no_members_is_refused(amber_vacuum):
    single = mixed_with(amber_vacuum, Committee(only=0), PEPTIDE, "mechanical")
    context = make_context(single.system, amber_vacuum.positions)
    with pytest.raises(PotentialError, match="train one with members=4"):
        single.force_uncertainty(context, "site/ML")
    with pytest.raises(HamiltonianError, match="there is no term 'site/QM'; terms are: site/ML"):
        single.force_uncertainty(context, "site/QM")
    inner = openmm.System()
    for _ in PEPTIDE:
        inner.addParticle(12.0)
    term = Term(OpenMMPotential(inner), Region("site", PEPTIDE), embedding="mechanical")
    mixed = create_mixed_system(amber_vacuum.topology, amber_vacuum.system, Hamiltonian([term]))
    with pytest.raises(HamiltonianError, match="'site/MM' is no learned potential and has no committee"):
        mixed.force_uncertainty(make_context(mixed.system, amber_vacuum.positions), "site/MM")


def test_qm_runs_where_the_committee_is_unsure(amber_vacuum):
    """The whole way: the level that is not needed is not computed, and total energy less booked work is conserved."""
    case, region = amber_vacuum, Region("site", PEPTIDE)
    ml = MLPotential(Committee(), elements=ELEMENTS, embeddings=["electrostatic"])
    qm = EvaluatedSprings(0.05 * np.cos(np.arange(22)))
    terms = [
        Term(ml, region, embedding="electrostatic", coefficient="1-lambda_qm"),
        Term(qm, region, embedding="electrostatic", coefficient="lambda_qm"),
    ]
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian(terms, parameters={"lambda_qm": 0.0}))
    integrator = openmm.VerletIntegrator(0.00002)
    simulation = app.Simulation(case.topology, mixed.system, integrator, openmm.Platform.getPlatform("Reference"))
    context = simulation.context
    context.setPositions(case.positions)

    def total():
        state = context.getState(energy=True)
        return (state.getPotentialEnergy() + state.getKineticEnergy())._value

    def evaluations(name):
        return mixed.terms[name].runner.evaluations

    start = total()
    highest = mixed.force_uncertainty(context, "site/ML")._value.max()
    calm = AdaptiveCorrection(mixed, simulation, "site/ML", upper=2 * highest, lower=highest)
    calm.step(20)
    assert evaluations("site/QM") == calm.steps_with_qm == 0
    unsure = AdaptiveCorrection(mixed, simulation, "site/ML", upper=0.5 * highest, lower=0.4 * highest, ramp_steps=15)
    unsure.step(40)
    assert context.getParameter("lambda_qm") == 1.0
    assert unsure.steps_with_qm == 40
    assert evaluations("site/QM") <= 41
    before = evaluations("site/ML")
    unsure.step(10)
    assert evaluations("site/ML") == before
    work = unsure.work._value
    assert abs(work) > 10.0
    assert total() - start == pytest.approx(work, rel=5e-3)
