from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmmlmm.coupling.boundary_charges import SCHEMES, check_scheme, redistribute
from qmmlmm.coupling.link_atoms import LinkBond
from qmmlmm.errors import HamiltonianError, RegionError

CHARGE_ROUND_OFF = 1e-13  # e; sums of charges below 20 e, two of which nearly cancel in the scheme shift
DIPOLE_ROUND_OFF = 1e-10  # e bohr; the same charges at distances of 100 bohr

# Outside hosts 3 and 7 with their neighbours; 5 belongs to both.
LINKS = (LinkBond(0, 3, (4, 5, 6), 0.7), LinkBond(1, 7, (5, 8), 0.7))
N = 10


def seen(charges, scheme, excess=0.0, links=LINKS):
    return redistribute(np.array(charges, dtype=float), links, excess, scheme, "site")


def places(positions, result):
    """Positions of the particles and of the derived charges."""
    origins, targets = positions[result.derived_bonds[:, 0]], positions[result.derived_bonds[:, 1]]
    return np.concatenate([positions, origins + result.derived_fractions[:, None] * (targets - origins)])


def dipole(positions, result, origin):
    charges = np.concatenate([result.charges, result.derived_charges])
    return charges @ (places(positions, result) - origin)


def arrays(low, high, count):
    return st.lists(st.floats(low, high), min_size=count, max_size=count).map(np.array)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(charges=arrays(-2, 2, N), excess=st.floats(-0.5, 0.5))
def test_every_scheme_keeps_the_total_charge(scheme, charges, excess):
    result = seen(charges, scheme, excess)
    total = result.charges.sum() + result.derived_charges.sum()
    assert total == pytest.approx(charges.sum() + excess, abs=CHARGE_ROUND_OFF)


@pytest.mark.parametrize("scheme", ["rcd", "shift"])
@given(
    charges=arrays(-2, 2, N),
    excess=st.floats(-0.5, 0.5),
    coordinates=arrays(-20, 20, 3 * N),
    origin=arrays(-50, 50, 3),
)
def test_two_schemes_keep_the_dipole_about_any_origin(scheme, charges, excess, coordinates, origin):
    positions = coordinates.reshape(N, 3)
    # The excess sits on the hosts before it is moved with their charge.
    before = charges.copy()
    before[[3, 7]] += excess / 2
    expected = before @ (positions - origin)
    found = dipole(positions, seen(charges, scheme, excess), origin)
    np.testing.assert_allclose(found, expected, rtol=0, atol=DIPOLE_ROUND_OFF)


@pytest.mark.parametrize("scheme", ["rc", "zero"])
def test_the_two_other_schemes_change_the_dipole(scheme):
    positions = np.random.default_rng(1).uniform(-5, 5, (N, 3))
    charges = np.linspace(0.1, 0.9, N)
    changed = dipole(positions, seen(charges, scheme), np.zeros(3)) - charges @ positions
    assert abs(changed).max() > 0.01


@st.composite
def many_links(draw):
    """One to five hosts, each with one to three further neighbours that are its own or shared."""
    n_links = draw(st.integers(1, 5))
    first = 2 * n_links  # region atoms, then hosts, then ten atoms beyond them
    beyond = range(first, first + 10)
    return n_links, tuple(
        LinkBond(k, n_links + k, tuple(sorted(draw(st.sets(st.sampled_from(beyond), min_size=1, max_size=3)))), 0.7)
        for k in range(n_links)
    )


@pytest.mark.parametrize("scheme", SCHEMES)
@given(links=many_links(), seed=st.integers(0, 10_000), excess=st.floats(-0.5, 0.5))
def test_any_number_of_cuts_gives_the_charge_and_the_dipole_of_the_sum_over_hosts(scheme, links, seed, excess):
    n_links, bonds = links
    n = 2 * n_links + 10
    rng = np.random.default_rng(seed)
    positions, charges = rng.uniform(-10, 10, (n, 3)), rng.uniform(-1, 1, n)
    result = seen(charges, scheme, excess, bonds)
    assert result.charges.sum() + result.derived_charges.sum() == pytest.approx(
        charges.sum() + excess, abs=CHARGE_ROUND_OFF
    )
    # By hand: "zero" takes q from the host and puts it, on average, on its neighbours; "rc" half as far.
    moved = np.zeros(3)
    for bond in bonds:
        share = charges[bond.m1] + excess / n_links
        moved += share * (positions[list(bond.m2)].mean(axis=0) - positions[bond.m1])
    before = charges @ positions + excess / n_links * positions[[bond.m1 for bond in bonds]].sum(axis=0)
    expected = before + {"zero": 1.0, "rc": 0.5, "rcd": 0.0, "shift": 0.0}[scheme] * moved
    np.testing.assert_allclose(dipole(positions, result, np.zeros(3)), expected, rtol=0, atol=DIPOLE_ROUND_OFF)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_outside_host_keeps_no_charge_and_others_are_left_alone(scheme):
    charges = np.linspace(0.1, 1.0, N)
    result = seen(charges, scheme)
    assert result.charges[3] == result.charges[7] == 0.0
    untouched = [0, 1, 2, 9]
    np.testing.assert_array_equal(result.charges[untouched], charges[untouched])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_given_charges_are_not_changed(scheme):
    charges = np.linspace(0.1, 1.0, N)
    before = charges.copy()
    redistribute(charges, LINKS, 0.3, scheme, "site")
    np.testing.assert_array_equal(charges, before)


ONE = (LinkBond(0, 1, (2, 3), 0.7),)


@pytest.mark.parametrize(
    ("scheme", "charges", "bonds", "fractions", "derived"),
    [
        ("rcd", [0, 0, -0.2, -0.1], [(1, 2), (1, 3)], [0.5, 0.5], [0.6, 0.6]),
        ("rc", [0, 0, 0.1, 0.2], [(1, 2), (1, 3)], [0.5, 0.5], [0.3, 0.3]),
        (
            "shift",
            [0, 0, 0.4, 0.5],
            [(2, 1), (2, 1), (3, 1), (3, 1)],
            [0.06, -0.06, 0.06, -0.06],
            [2.5, -2.5, 2.5, -2.5],
        ),
        ("zero", [0, 0, 0.4, 0.5], [], [], []),
    ],
)
def test_the_schemes_put_the_charge_where_their_papers_say(scheme, charges, bonds, fractions, derived):
    result = seen([0.0, 0.6, 0.1, 0.2], scheme, links=ONE)
    np.testing.assert_allclose(result.charges, charges, rtol=0, atol=CHARGE_ROUND_OFF)
    np.testing.assert_array_equal(result.derived_bonds, np.array(bonds).reshape(-1, 2))
    np.testing.assert_array_equal(result.derived_fractions, fractions)
    np.testing.assert_allclose(result.derived_charges, derived, rtol=0, atol=CHARGE_ROUND_OFF)


def test_the_excess_is_shared_by_the_hosts():
    result = seen(np.zeros(N), "rc", excess=0.6)
    assert result.derived_charges == pytest.approx([0.1] * 3 + [0.15] * 2, abs=CHARGE_ROUND_OFF)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_a_cut_bond_all_charges_stay(scheme):
    charges = np.linspace(0.1, 1.0, N)
    result = seen(charges, scheme, excess=0.4, links=())
    np.testing.assert_array_equal(result.charges, charges)
    assert result.derived_bonds.shape == (0, 2)
    assert result.derived_charges.shape == result.derived_fractions.shape == (0,)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(HamiltonianError, match="unknown boundary_charges 'dipole'; the schemes are rcd, rc"):
        seen(np.zeros(N), "dipole")


@pytest.mark.parametrize("scheme", [None, 3, ["rcd"]])
def test_a_scheme_that_is_no_string_is_refused(scheme):
    with pytest.raises(HamiltonianError, match="unknown boundary_charges"):
        check_scheme(scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_known_schemes_pass(scheme):
    check_scheme(scheme)


def test_a_host_with_nobody_to_take_its_charge_is_refused():
    with pytest.raises(
        RegionError, match=r"'site': the outside atom 3 of a cut bond has no other neighbour .* take it"
    ):
        seen(np.zeros(N), "rcd", links=(LinkBond(0, 3, (), 0.7),))


def test_two_cuts_whose_outside_hosts_are_neighbours_are_refused():
    links = (LinkBond(0, 3, (4, 7), 0.7), LinkBond(1, 7, (3, 8), 0.7))
    with pytest.raises(
        RegionError, match="'site': the outside atoms 3 and 7 of two cut bonds are neighbours; take both"
    ):
        seen(np.zeros(N), "zero", links=links)
