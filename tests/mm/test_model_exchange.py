"""A System that got another model is the System that would have been built with it."""

from __future__ import annotations

import numpy as np
import openmm
import pytest

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from qmmlmm.errors import HamiltonianError, PotentialError
from qmmlmm.mm.model_exchange import exchange_model
from tests.contexts import energy_and_forces, make_context
from tests.torch_backends import BACKENDS
from tests.toy_potentials import ELEMENTS, Committee
from tests.toy_systems import PEPTIDE

SAME = 1e-9  # kJ/mol, kJ/(mol nm): the same sums


def build(case, only, backend):
    term = Term(potential_of(only), Region("site", PEPTIDE), embedding="electrostatic")
    return create_mixed_system(case.topology, case.system, Hamiltonian([term]), ml_backend=backend)


def potential_of(only):
    return MLPotential(Committee(only=only), elements=ELEMENTS, embeddings=["electrostatic"])


def seen(mixed, context):
    names = {name: energy._value for name, energy in mixed.term_energies(context).items()}
    return *energy_and_forces(context), names


@pytest.mark.parametrize("backend", BACKENDS)
def test_running_contexts_go_on_with_the_new_model(amber_vacuum, backend):
    case = amber_vacuum
    mixed = build(case, 0, backend)
    bias = openmm.CustomExternalForce("strength*x")
    bias.addGlobalParameter("strength", 0.0)
    bias.addParticle(3)
    mixed.system.addForce(bias)
    context = make_context(mixed.system, case.positions)
    context.setParameter("strength", 2.5)
    context.setVelocitiesToTemperature(300.0, 3)
    context.getIntegrator().step(2)
    before = context.getState(positions=True, velocities=True)
    old = seen(mixed, context)

    exchange_model(mixed, "site/ML", potential_of(2), [context])

    after = context.getState(positions=True, velocities=True)
    np.testing.assert_array_equal(before.getPositions(asNumpy=True)._value, after.getPositions(asNumpy=True)._value)
    np.testing.assert_array_equal(before.getVelocities(asNumpy=True)._value, after.getVelocities(asNumpy=True)._value)
    assert after.getTime() == before.getTime()
    assert context.getParameter("strength") == 2.5
    built = build(case, 2, backend)
    built.system.addForce(openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(bias)))
    other = make_context(built.system, after.getPositions())
    other.setParameter("strength", 2.5)
    found, wanted = seen(mixed, context), seen(built, other)
    assert found[0] == pytest.approx(wanted[0], abs=SAME)
    np.testing.assert_allclose(found[1], wanted[1], rtol=0, atol=SAME * 100)
    for name, energy in wanted[2].items():
        assert found[2][name] == pytest.approx(energy, abs=SAME * 10)
    assert abs(found[0] - old[0]) > 0.1
    assert mixed.describe()["terms"][0]["potential"] == built.describe()["terms"][0]["potential"]
    with pytest.raises(PotentialError, match="no committee"):
        mixed.force_uncertainty(context, "site/ML")
    exchange_model(mixed, "site/ML", potential_of(-1), [context])
    assert mixed.force_uncertainty(context, "site/ML")._value.min() > 0.0


def test_a_model_that_does_not_fit_is_refused_and_the_old_one_stays(amber_vacuum):
    mixed = build(amber_vacuum, 0, "pythonforce")
    context = make_context(mixed.system, amber_vacuum.positions)
    old = seen(mixed, context)[0]
    with pytest.raises(PotentialError, match="does not know the elements"):
        exchange_model(mixed, "site/ML", MLPotential(Committee(only=0), elements=[1], embeddings=["electrostatic"]))
    with pytest.raises(HamiltonianError, match="there is no term 'site/QM'"):
        exchange_model(mixed, "site/QM", potential_of(1))
    assert seen(mixed, context)[0] == old
