"""Bad input about electronic states, as a user meets it: through a System and a Context."""

import numpy as np
import openmm
import pytest
from openmm import app

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.errors import HamiltonianError, PotentialError, RegionError
from qmmlmm.qm import CASSCF, TDA, DeltaSCF, PySCFPotential
from tests.contexts import make_context

PLACES = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.074]])  # nm


def hydrogen(potential, charge=0, multiplicity=1, spin=None):
    """Return a mixed System of one hydrogen molecule; `spin` is the multiplicity of the term."""
    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("H2", topology.addChain())
    for _ in range(2):
        topology.addAtom("H", app.Element.getBySymbol("H"), residue)
        system.addParticle(1.008)
    force = openmm.NonbondedForce()
    for _ in range(2):
        force.addParticle(0.0, 0.1, 0.0)
    system.addForce(force)
    region = Region("dye", (0, 1), charge=charge, multiplicity=multiplicity)
    term = Term(potential, region, embedding="mechanical", multiplicity=spin)
    return create_mixed_system(topology, system, Hamiltonian([term]))


def qm(excited=None, state=0, **more):
    return PySCFPotential("hf", "sto-3g", excited=excited, state=state, **more)


def context_of(mixed):
    return make_context(mixed.system, PLACES)


@pytest.mark.parametrize("excited", [TDA(2), DeltaSCF(), CASSCF(2, 2, 2)], ids=["TDA", "Delta-SCF", "CASSCF"])
def test_a_state_that_does_not_exist_is_refused_wherever_it_is_named(excited):
    with pytest.raises(PotentialError, match=r"state 2 does not exist: n_states=2 gives states 0 .* to 1; raise"):
        qm(excited, 2)
    mixed = hydrogen(qm(excited, 1))
    context = context_of(mixed)
    for state in (2, -1, 0.5, "S1", True):
        with pytest.raises(HamiltonianError, match="of term 'dye/QM' does not exist: there are states 0 to 1"):
            mixed.select_state(context, "dye/QM", state)
    context.setParameter("dye/QM state", 5)
    with pytest.raises(openmm.OpenMMException, match=r"EvaluationError.*'dye/QM state' .* is 5, and there are states"):
        context.getState(energy=True)


def test_one_state_alone_has_none_to_choose():
    with pytest.raises(PotentialError, match=r"state=1.*without excited: give the method for excited states"):
        qm(None, 1)
    mixed = hydrogen(qm())
    with pytest.raises(HamiltonianError, match="it has only one state"):
        mixed.select_state(context_of(mixed), "dye/QM", 1)


@pytest.mark.parametrize(
    ("excited", "message"),
    [
        (TDA(3), "n_states=3 asks for 2 excited states, but the basis set has 1"),
        (DeltaSCF(hole=1), r"DeltaSCF\(hole=1, particle=0\) needs an orbital that does not exist: .* 1 are occupied"),
        (CASSCF(2, 2, 3), "3 active orbitals do not fit: of the 2 orbitals of the basis set 0 are doubly occupied"),
        (CASSCF(2, 2, 2, active=(1, 2)), "active orbitals 2 do not exist; the basis set has 2, counted from 0"),
    ],
    ids=["TDA", "Delta-SCF", "too many orbitals", "orbital"],
)
def test_states_and_active_spaces_beyond_the_basis_set_are_named_at_the_first_energy(excited, message):
    mixed = hydrogen(qm(excited, 1))
    with pytest.raises(openmm.OpenMMException, match=f"(?s)EvaluationError at step 0: term 'dye.*{message}"):
        context_of(mixed).getState(energy=True)


def test_active_spaces_that_do_not_fit_the_electrons_are_refused_before_any_energy():
    for space, charge, multiplicity, message in (
        (CASSCF(2, 4, 4), 0, 1, "leaves -2 of 2 electrons for doubly occupied orbitals; n_electrons is even here"),
        (CASSCF(2, 2, 2), 1, 2, "leaves -1 of 1 electrons for doubly occupied orbitals; n_electrons is odd here"),
        (CASSCF(4, 2, 2), 0, 1, "has 3 states of multiplicity 1, and n_states=4; take a larger active space"),
        (CASSCF(2, 2, 2), 0, 3, "has 1 states of multiplicity 3, and n_states=2; take a larger active space"),
    ):
        with pytest.raises(PotentialError, match=message):
            hydrogen(qm(space, 1), charge, multiplicity)


def test_a_multiplicity_that_the_electrons_forbid_is_refused_in_a_region_and_in_a_term():
    message = r"2 electrons \(charge 0\) cannot have multiplicity 2; possible are 1, 3"
    with pytest.raises(RegionError, match=message):
        hydrogen(qm(), multiplicity=2)
    with pytest.raises(RegionError, match=message):
        hydrogen(qm(), spin=2)
