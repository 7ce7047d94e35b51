"""Any potential, embedded by a response."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from qmmlmm import Hamiltonian, MLPotential, Region, Term, check_potential, create_mixed_system
from qmmlmm.coupling import Capabilities, Difference, LevelOfTheory
from qmmlmm.errors import PotentialError
from qmmlmm.ml import EmbeddedPotential
from qmmlmm.units import BOHR_IN_NM
from tests.contexts import system_energy_and_forces, term_differences, term_forces
from tests.ml.responses import NUMBERS, X, methyl, response, response_of_ion
from tests.toy_potentials import ELEMENTS, EvaluatedSprings, SettingsOnly, Springs
from tests.toy_systems import SIDE_CHAIN, peptide_in_vacuum, peptide_in_water

NUMERICAL = 2e-3  # kJ/(mol nm): of forces of some 1e3, from differences over 2e-5 nm


def springs():
    return MLPotential(Springs(0.01), elements=ELEMENTS, multiplicity=None, charge=None)


def test_forces_and_response_are_derivatives():
    potential = EmbeddedPotential(springs(), response_of_ion())
    check_potential(potential, NUMBERS, X.numpy() * BOHR_IN_NM, charge=-1)


@pytest.mark.slow
def test_at_a_cut_bond_under_pme_forces_are_derivatives():
    case = peptide_in_water()
    potential = EmbeddedPotential(springs(), methyl())
    term = Term(potential, Region("site", SIDE_CHAIN), embedding="electrostatic")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    assert list(mixed.terms) == ["site/ML"]
    positions = case.positions
    away = np.linalg.norm(positions - positions[10], axis=1)
    order = [int(k) for k in np.argsort(away) if k >= 22]
    atoms = [10, 12, 8, 9, order[0], order[-1]]
    numerical = term_differences(mixed, "site/ML", positions, atoms, 2e-5)
    forces = term_forces(mixed, "site/ML", positions)[atoms]
    np.testing.assert_allclose(forces, numerical, rtol=0, atol=NUMERICAL)
    assert np.abs(forces[4]).max() > 0.1


def test_without_surroundings_it_is_the_base():
    case = peptide_in_vacuum()
    region = Region("site", SIDE_CHAIN)
    found, wanted = (
        system_energy_and_forces(
            create_mixed_system(
                case.topology, case.system, Hamiltonian([Term(p, region, embedding="mechanical")])
            ).system,
            case.positions,
        )
        for p in (EmbeddedPotential(springs(), methyl()), springs())
    )
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-9)
    np.testing.assert_allclose(found[1], wanted[1], rtol=0, atol=1e-6)


def test_it_is_pickled_and_is_a_level_of_its_own():
    potential = EmbeddedPotential(springs(), methyl())
    again = pickle.loads(pickle.dumps(potential))
    assert again.level_of_theory == potential.level_of_theory
    assert EmbeddedPotential(springs(), response()).level_of_theory != potential.level_of_theory
    assert potential.method_name == "MLPotential with a response"
    assert potential.response.fingerprint() in repr(potential)


def test_what_cannot_be_a_base_is_refused():
    own = Difference(LevelOfTheory("a"), LevelOfTheory("b"))
    with pytest.raises(PotentialError, match="base is an instance of EvaluatedPotential"):
        EmbeddedPotential("mace", methyl())
    with pytest.raises(PotentialError, match="response is an instance of FixedResponse"):
        EmbeddedPotential(springs(), None)
    with pytest.raises(PotentialError, match="EvaluatedSprings has no energy without surroundings"):
        EmbeddedPotential(EvaluatedSprings(np.zeros(5)), methyl())
    with pytest.raises(PotentialError, match="the difference a - b and no energy of a level"):
        EmbeddedPotential(MLPotential(Springs(), elements=ELEMENTS, difference=own), methyl())
    with pytest.raises(PotentialError, match="computes periodic images, which are part of the embedding"):
        EmbeddedPotential(LongRange(), methyl())


class LongRange(SettingsOnly):
    """A potential with its own images."""

    @property
    def capabilities(self):
        return Capabilities(frozenset({"mechanical"}), long_range=True)


def test_a_region_of_another_molecule_is_refused():
    case = peptide_in_vacuum()
    term = Term(EmbeddedPotential(springs(), response()), Region("site", SIDE_CHAIN), embedding="electrostatic")
    with pytest.raises(PotentialError, match="the response is for the atoms"):
        create_mixed_system(case.topology, case.system, Hamiltonian([term]))
