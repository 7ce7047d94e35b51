"""A region of several molecules whose potential runs in Python: whole near half the box, refused beyond."""

from __future__ import annotations

import numpy as np
import openmm
import pytest

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.errors import EvaluationError
from tests.contexts import make_context, system_energy
from tests.toy_potentials import EvaluatedSprings
from tests.toy_systems import N_CHAIN, chains_among_ions

SAME = 1e-9  # relative; round-off of positions that are shifted by box vectors

pytestmark = pytest.mark.filterwarnings("ignore:region 'both' has charge")


@pytest.fixture(scope="module")
def two_chains():
    """The mixed System of a region of two chains in a cubic box, and positions in which they are close and whole."""
    case = chains_among_ions(n_chains=2)
    term = Term(EvaluatedSprings(np.zeros(2 * N_CHAIN)), Region("both", range(2 * N_CHAIN)), embedding="electrostatic")
    mixed = create_mixed_system(case.topology, case.system, Hamiltonian([term]))
    positions = case.positions.copy()
    first = positions[:N_CHAIN]
    positions[N_CHAIN : 2 * N_CHAIN] = first + np.array([0.0, 0.25, 0.0])
    return case, mixed, positions


def test_chains_in_other_images_have_the_energy_of_the_region_that_is_whole(two_chains):
    case, mixed, positions = two_chains
    expected = system_energy(mixed.system, positions)
    moved = positions.copy()
    moved[3] += case.box[0] - case.box[2]  # one atom of the first chain
    moved[N_CHAIN + 2 : 2 * N_CHAIN] -= case.box[1]  # a part of the second one
    assert system_energy(mixed.system, moved) == pytest.approx(expected, rel=SAME)


def test_a_chain_that_drifts_half_a_box_away_is_an_error_that_names_both_ends(two_chains):
    case, mixed, positions = two_chains
    apart = positions.copy()
    apart[N_CHAIN : 2 * N_CHAIN] += [0.0, 0.5 * case.box[1, 1] - 0.3, 0.0]
    context = make_context(mixed.system, apart)
    with pytest.raises(openmm.OpenMMException) as caught:
        context.getState(energy=True)
    with pytest.raises(
        EvaluationError, match=r"term 'both/QM': the region is wider than half the box: CHN1:A\d .* CHN2:A"
    ):
        mixed.raise_original(caught.value)
    with pytest.raises(EvaluationError, match="1.1 nm. Take a larger box"):
        mixed.term_energies(context)
