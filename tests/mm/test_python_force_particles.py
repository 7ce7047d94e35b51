"""From OpenMM 8.6 on a PythonForce passes only the particles that a term without surroundings depends on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import openmm
import pytest
from openmm import unit

from qmmlmm import Hamiltonian, MLPotential, Region, Term, create_mixed_system
from tests.contexts import make_context, system_energy_and_forces
from tests.toy_potentials import Springs, SpringsInField
from tests.toy_systems import PEPTIDE, SIDE_CHAIN, peptide_in_water

SAME = 1e-12  # kJ/mol and kJ/(mol nm); the same operations on the same numbers


@pytest.fixture(scope="module")
def case():
    return peptide_in_water()


def mixed_system(case, atoms=SIDE_CHAIN, coefficient=1.0, embedding="mechanical", **options):
    module = SpringsInField() if embedding == "electrostatic" else Springs()
    potential = MLPotential(module, elements=["H", "C", "N", "O"], embeddings=[embedding])
    region = Region("part", atoms)
    terms = [Term(potential, region, embedding=embedding, coefficient=coefficient)]
    if isinstance(coefficient, str):
        terms.append(Term(potential, region, embedding=embedding, coefficient=f"1-{coefficient}", name="rest"))
    return create_mixed_system(case.topology, case.system, Hamiltonian(terms, **options), ml_backend="pythonforce")


class SomePositions(SimpleNamespace):
    """A State of some particles, as OpenMM 8.6 passes it."""

    def getPositions(self, asNumpy):
        return self.positions * unit.nanometer

    def getPeriodicBoxVectors(self, asNumpy):
        return self.box * unit.nanometer

    def getParameters(self):
        return self.parameters

    def getStepCount(self):
        return 0


def test_a_term_on_its_particles_has_the_energy_and_forces_of_a_term_on_all(case):
    runner = mixed_system(case).terms["part/ML"].runner
    layout = runner.region_term.layout
    outside = layout.link_bonds[:, 1]
    assert set(layout.particles) == {*layout.atoms, *outside}
    assert len(outside) > 0
    box = [vector.value_in_unit(unit.nanometer) for vector in case.system.getDefaultPeriodicBoxVectors()]
    everything = SomePositions(positions=np.asarray(case.positions), box=np.array(box), parameters={})
    some = SomePositions(positions=np.asarray(case.positions)[layout.particles], box=np.array(box), parameters={})
    energy, forces = runner(everything)
    runner.forget()
    energy_of_some, forces_on_some = runner(some)
    assert energy_of_some == pytest.approx(energy, abs=SAME)
    assert forces_on_some.shape == (len(layout.particles), 3)
    np.testing.assert_allclose(forces_on_some, forces[layout.particles], rtol=0, atol=SAME)
    rest = np.setdiff1d(np.arange(layout.n_particles), layout.particles)
    assert not forces[rest].any()


def test_a_weight_of_zero_returns_forces_of_the_shape_that_was_passed(case):
    mixed = mixed_system(case, coefficient="scale", parameters={"scale": 1.0})
    runner = mixed.terms["part/ML"].runner
    particles = runner.region_term.layout.particles
    box = [vector.value_in_unit(unit.nanometer) for vector in case.system.getDefaultPeriodicBoxVectors()]
    state = SomePositions(positions=np.asarray(case.positions)[particles], box=np.array(box), parameters={"scale": 0.0})
    energy, forces = runner(state)
    assert energy == 0.0
    assert forces.shape == (len(particles), 3)


def test_the_energy_without_its_weight_is_not_computed_again(case):
    mixed = mixed_system(case, coefficient="scale", parameters={"scale": 1.0})
    context = make_context(mixed.system, case.positions)
    context.getState(energy=True)
    runner = mixed.terms["part/ML"].runner
    before = runner.evaluations
    mixed.parameter_derivatives(context)
    assert runner.evaluations == before


needs_particles = pytest.mark.skipif(
    not hasattr(openmm.PythonForce, "setParticles"), reason="OpenMM 8.5 passes all particles"
)


@needs_particles
def test_openmm_passes_the_particles_of_mechanical_terms_only(case):
    mechanical = mixed_system(case)
    layout = mechanical.terms["part/ML"].layout
    assert list(mechanical.force("part/ML").getParticles()) == layout.particles.tolist()
    electrostatic = mixed_system(case, PEPTIDE, embedding="electrostatic")
    assert not electrostatic.force("part/ML").getParticles()


@needs_particles
def test_forces_on_some_particles_reach_them(case):
    mixed = mixed_system(case)
    found = system_energy_and_forces(mixed.system, case.positions)
    mixed.force("part/ML").setParticles([])
    expected = system_energy_and_forces(mixed.system, case.positions)
    assert found[0] == pytest.approx(expected[0], abs=1e-9 * abs(expected[0]))
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-8)
