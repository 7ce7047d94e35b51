from __future__ import annotations

import pickle

import numpy as np
import pytest

from qmmlmm.coupling.hamiltonian import COEFFICIENT_TOLERANCE, Hamiltonian, Term
from qmmlmm.coupling.region import Region
from qmmlmm.errors import HamiltonianError
from tests.toy_potentials import SettingsOnly

QM, ML, MM = SettingsOnly(), SettingsOnly("ML"), SettingsOnly("MM", frozenset({"mechanical"}))
SITE = Region("site", range(10))
CORE = Region("core", [2, 3, 4])
HEART = Region("heart", [3])
LIGAND = Region("ligand", range(20, 25), -1)


def term(potential=ML, region=SITE, coefficient=1.0, **options):
    return Term(potential, region, coefficient=coefficient, **({"embedding": "electrostatic"} | options))


def nested():
    return Hamiltonian(
        [
            term(),
            term(QM, CORE),
            term(ML, CORE, -1.0),
            term(QM, HEART),
            term(ML, HEART, -1.0),
            term(QM, LIGAND),
        ]
    )


def test_terms_keep_their_order_and_may_come_from_a_generator():
    terms = [term(), term(QM, CORE), term(ML, CORE, -1.0)]
    assert Hamiltonian(t for t in terms).terms == tuple(terms)


def test_regions_are_listed_once_in_the_order_of_the_terms():
    assert nested().regions == (SITE, CORE, HEART, LIGAND)


def test_the_outermost_regions_are_those_that_lie_in_no_other():
    assert nested().outermost == (SITE, LIGAND)


def test_the_parent_is_the_smallest_region_around():
    hamiltonian = nested()
    assert hamiltonian.parent(HEART) is CORE
    assert hamiltonian.parent(CORE) is SITE
    assert hamiltonian.parent(SITE) is None
    assert hamiltonian.parent(LIGAND) is None


def test_the_embedding_of_a_region_is_that_of_its_terms():
    hamiltonian = Hamiltonian([term(), term(MM, LIGAND, embedding="mechanical")])
    assert hamiltonian.embedding(SITE) == "electrostatic"
    assert hamiltonian.embedding(LIGAND) == "mechanical"


def test_a_correction_may_have_another_embedding_than_the_region_around_it():
    Hamiltonian(
        [
            term(),
            term(QM, CORE, embedding="mechanical"),
            term(ML, CORE, -1.0, embedding="mechanical"),
        ]
    )


def test_names_tell_region_sign_and_level():
    assert nested().term_names() == (
        "site/ML",
        "core/QM",
        "core/-ML",
        "heart/QM",
        "heart/-ML",
        "ligand/QM",
    )


def test_names_tell_coefficients_that_are_not_one():
    hamiltonian = Hamiltonian([term(QM, coefficient=0.25), term(ML, coefficient=0.75)])
    assert hamiltonian.term_names() == ("site/0.25*QM", "site/0.75*ML")


def test_terms_that_would_share_a_name_are_numbered():
    third = 1.0 / 3.0
    hamiltonian = Hamiltonian([term(coefficient=third) for _ in range(3)])
    assert hamiltonian.term_names() == ("site/0.333333*ML", "site/0.333333*ML#2", "site/0.333333*ML#3")


def test_a_name_of_the_users_wins_and_is_numbered_against():
    hamiltonian = Hamiltonian([term(coefficient=0.5, name="site/0.5*ML"), term(coefficient=0.5)])
    assert hamiltonian.term_names() == ("site/0.5*ML", "site/0.5*ML#2")


def test_a_name_of_the_users_is_kept_wherever_its_term_stands():
    hamiltonian = Hamiltonian([term(coefficient=0.5), term(coefficient=0.5, name="site/0.5*ML")])
    assert hamiltonian.term_names() == ("site/0.5*ML#2", "site/0.5*ML")


def test_weights_that_add_up_within_round_off_are_taken():
    Hamiltonian([term(coefficient=0.1) for _ in range(10)])  # adds up to 1 - 1.1e-16


def test_a_hamiltonian_cannot_be_changed_and_can_be_pickled():
    hamiltonian = nested()
    with pytest.raises(AttributeError, match="cannot assign"):
        hamiltonian.terms = ()
    assert pickle.loads(pickle.dumps(hamiltonian)) == hamiltonian


@pytest.mark.parametrize("count", [0, 31])
def test_the_first_and_the_last_force_group_are_taken(count):
    assert term(force_group=count).force_group == count


def test_a_term_needs_a_region():
    with pytest.raises(HamiltonianError, match=r"needs a Region, got list; write Region\("):
        Term(ML, [1, 2, 3], embedding="mechanical")


def test_a_term_needs_a_potential():
    with pytest.raises(HamiltonianError, match="potential such as PySCFPotential or MLPotential, got str"):
        term("B3LYP")


def test_a_class_with_half_of_the_contract_is_no_potential():
    class Half:
        level = "QM"
        embeddings = frozenset({"mechanical"})

    with pytest.raises(HamiltonianError, match="got Half"):
        term(Half(), embedding="mechanical")


@pytest.mark.parametrize("coefficient", [None, True, 1j])
def test_a_coefficient_is_a_number(coefficient):
    with pytest.raises(HamiltonianError, match="coefficient of a term is a number, or a sum"):
        term(coefficient=coefficient)


@pytest.mark.parametrize("coefficient", [0, 0.0, float("nan"), float("inf")])
def test_a_coefficient_is_finite_and_not_zero(coefficient):
    with pytest.raises(HamiltonianError, match=r"finite and not zero, got .*; leave the term out instead"):
        term(coefficient=coefficient)


def test_a_coefficient_of_numpy_is_a_number():
    assert term(coefficient=np.float64(0.5)).coefficient == 0.5


def test_an_unknown_embedding_is_refused_and_the_nearest_named():
    with pytest.raises(
        HamiltonianError,
        match=r"unknown embedding 'electronic'; the embeddings are mechanical, electrostatic\. "
        r"Nearest names: electrostatic",
    ):
        term(embedding="electronic")


@pytest.mark.parametrize("embedding", [None, 1, ["mechanical"]])
def test_an_embedding_that_is_no_string_is_refused(embedding):
    with pytest.raises(HamiltonianError, match="unknown embedding"):
        term(embedding=embedding)


def test_an_embedding_that_the_potential_does_not_have_is_refused():
    with pytest.raises(
        HamiltonianError, match="this MM potential has no electrostatic embedding; it can do: mechanical"
    ):
        term(MM)


def test_an_embedding_has_to_be_given():
    with pytest.raises(TypeError, match="embedding"):
        Term(ML, SITE)


def test_an_unknown_charge_scheme_is_refused_and_the_nearest_named():
    with pytest.raises(
        HamiltonianError,
        match=r"unknown boundary_charges 'rdc'; the schemes are rcd, rc, shift, zero\. Nearest names: .*rcd",
    ):
        term(boundary_charges="rdc")


@pytest.mark.parametrize("force_group", [-1, 32, 2.5, "1"])
def test_a_force_group_is_one_of_openmms(force_group):
    with pytest.raises(HamiltonianError, match="force groups are 0 to 31, got"):
        term(force_group=force_group)


def test_a_hamiltonian_needs_a_term():
    with pytest.raises(HamiltonianError, match="needs at least one Term"):
        Hamiltonian([])


def test_a_hamiltonian_is_made_of_terms_alone():
    with pytest.raises(HamiltonianError, match="list of Term objects, got Region, str"):
        Hamiltonian([term(), SITE, "QM"])


def test_two_terms_of_one_name_are_refused():
    with pytest.raises(HamiltonianError, match=r"different from each other and from 'MM', got a$"):
        Hamiltonian([term(coefficient=0.5, name="a"), term(coefficient=0.5, name="a")])


def test_a_term_is_not_named_like_the_force_field():
    with pytest.raises(HamiltonianError, match="different from each other and from 'MM', got MM"):
        Hamiltonian([term(name="MM")])


def test_different_regions_of_one_name_are_refused():
    with pytest.raises(HamiltonianError, match="different regions have the same name: site"):
        Hamiltonian([term(), term(QM, Region("site", range(20, 25)))])


@pytest.mark.parametrize(
    "other",
    [Region("twin", range(10)), Region("twin", range(10), 1), Region("twin", range(10), 0, 3)],
)
def test_two_regions_of_the_same_atoms_are_refused(other):
    with pytest.raises(
        HamiltonianError, match=r"'site' and 'twin' have the same atoms .* use one Region object for both"
    ):
        Hamiltonian([term(coefficient=0.5), term(QM, other, 0.5)])


def test_regions_that_overlap_in_part_are_refused():
    with pytest.raises(HamiltonianError, match="'site' and 'across' overlap in part, on atoms 8, 9;"):
        Hamiltonian([term(), term(QM, Region("across", range(8, 12)))])


def test_terms_of_one_region_that_differ_in_embedding_are_refused():
    with pytest.raises(
        HamiltonianError, match="region 'site' differ in embedding: electrostatic, mechanical; all terms"
    ):
        Hamiltonian([term(coefficient=0.5), term(coefficient=0.5, embedding="mechanical")])


def test_terms_of_one_region_that_differ_in_their_charge_scheme_are_refused():
    with pytest.raises(HamiltonianError, match="region 'core' differ in boundary_charges: rcd, zero"):
        Hamiltonian([term(), term(QM, CORE), term(ML, CORE, -1.0, boundary_charges="zero")])


@pytest.mark.parametrize("coefficients", [(2.0,), (1.0, -1.0), (0.5, 0.5 + 2 * COEFFICIENT_TOLERANCE)])
def test_the_coefficients_of_an_outermost_region_add_up_to_one(coefficients):
    with pytest.raises(HamiltonianError, match=r"coefficients of region 'site' add up to .* must add up"):
        Hamiltonian([term(coefficient=c) for c in coefficients])


@pytest.mark.parametrize("coefficients", [(1.0,), (1.0, -0.5), (2.0, -1.0)])
def test_the_coefficients_of_a_region_inside_another_add_up_to_zero(coefficients):
    with pytest.raises(
        HamiltonianError,
        match=r"'core' lies inside region 'site', but its coefficients add up to .* QM - ML adds up to 0",
    ):
        Hamiltonian([term(), *(term(QM, CORE, c) for c in coefficients)])
