"""Bonds of the Topology and of the System: their union, and errors at the border of a region."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import app

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.errors import UnsupportedSystemError
from qmmlmm.mm.bonds import known_bonds
from tests.toy_potentials import EvaluatedSprings

ETHANE_LIKE = ("C", "H", "H", "H", "C", "H", "H", "H")
INSIDE = ((0, 1), (0, 2), (0, 3), (4, 5), (4, 6), (4, 7))
BETWEEN = (0, 4)
LENGTHS = {"C": {"C": 0.1526, "H": 0.109}, "H": {"C": 0.109}}


def topology_of(symbols, bonds=()):
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain("A"))
    atoms = [topology.addAtom(f"{s}{k}", app.Element.getBySymbol(s), residue) for k, s in enumerate(symbols)]
    for a, b in bonds:
        topology.addBond(atoms[a], atoms[b])
    return topology


def system_of(symbols, bonds=(), lengths=None, constraints=()):
    system, force = openmm.System(), openmm.HarmonicBondForce()
    nonbonded = openmm.NonbondedForce()
    for symbol in symbols:
        system.addParticle(app.Element.getBySymbol(symbol).mass)
        nonbonded.addParticle(0.0, 0.3, 0.1)
    for index, (a, b) in enumerate(bonds):
        length = LENGTHS[symbols[a]][symbols[b]] if lengths is None else lengths[index]
        force.addBond(a, b, length, 1e5)
    for a, b, length in constraints:
        system.addConstraint(a, b, length)
    system.addForce(force)
    system.addForce(nonbonded)
    return system


def bonds_of(topology, system):
    return known_bonds(topology, system, [atom.element.atomic_number for atom in topology.atoms()])


def methyl(topology, system):
    """Return the mixed System of the first methyl group, cut from the second."""
    term = Term(EvaluatedSprings(np.zeros(5)), Region("methyl", range(4)), embedding="electrostatic")
    return create_mixed_system(topology, system, Hamiltonian([term]))


def test_rigid_water_without_bonds_in_the_topology_is_one_molecule():
    """As GROMACS files have it: [ settles ] and no [ bonds ]."""
    symbols = ("O", "H", "H", "O", "H", "H")
    held = [(o + a, o + b, r) for o in (0, 3) for a, b, r in ((0, 1, 0.09572), (0, 2, 0.09572), (1, 2, 0.15139))]
    topology, system = topology_of(symbols), system_of(symbols, constraints=held)
    known = bonds_of(topology, system)
    assert known.only_system == {(0, 1), (0, 2), (3, 4), (3, 5)}  # and no bond between the hydrogens
    term = Term(EvaluatedSprings(np.zeros(3)), Region("water", (0, 1, 2)), embedding="electrostatic")
    mixed = create_mixed_system(topology, system, Hamiltonian([term]))
    assert mixed.regions[0].bonds == ((0, 1), (0, 2))
    assert mixed.regions[0].link_bonds == ()


def test_a_bond_across_the_border_that_only_the_system_has_is_an_error():
    system = system_of(ETHANE_LIKE, (*INSIDE, BETWEEN))
    assert len(methyl(topology_of(ETHANE_LIKE, (*INSIDE, BETWEEN)), system).regions[0].link_bonds) == 1
    with pytest.raises(UnsupportedSystemError, match=r"System bonds MOL1:C0 \(chain A, index 0\) - MOL1:C4 .*addBond"):
        methyl(topology_of(ETHANE_LIKE, INSIDE), system)


def test_a_bond_across_the_border_that_only_the_topology_has_is_an_error():
    topology = topology_of(ETHANE_LIKE, (*INSIDE, BETWEEN))
    with pytest.raises(UnsupportedSystemError, match=r"Topology bonds MOL1:C0 .* - MOL1:C4 .* has neither a bond term"):
        methyl(topology, system_of(ETHANE_LIKE, INSIDE))
    by_constraint = system_of(ETHANE_LIKE, INSIDE, constraints=[(*BETWEEN, 0.1526)])
    assert len(methyl(topology, by_constraint).regions[0].link_bonds) == 1


def test_bonds_that_only_one_of_the_two_has_elsewhere_do_no_harm():
    topology = topology_of(ETHANE_LIKE, (*INSIDE[:2], *INSIDE[3:], BETWEEN))  # a bond inside the region is missing
    mixed = methyl(topology, system_of(ETHANE_LIKE, (*INSIDE[:5], BETWEEN)))  # and one outside
    assert set(mixed.regions[0].bonds) == set(INSIDE[:3])
    assert len(mixed.regions[0].link_bonds) == 1


@pytest.mark.parametrize(
    ("pair", "length"),
    [((1, 2), 0.178), ((1, 4), 0.216), ((1, 5), 0.25), (BETWEEN, 0.3)],
    ids=["Urey-Bradley of a methyl group", "Urey-Bradley of three atoms", "restraint", "long restraint"],
)
def test_pairs_that_are_further_apart_than_a_bond_are_none(pair, length):
    topology = topology_of(ETHANE_LIKE, INSIDE)
    system = system_of(ETHANE_LIKE, (*INSIDE, pair), lengths=[0.109] * 6 + [length])
    assert bonds_of(topology, system).only_system == frozenset()
    assert methyl(topology, system).regions[0].link_bonds == ()


def with_custom_bond(kind, energy, *values):
    system = system_of(ETHANE_LIKE, INSIDE)
    force = kind(energy) if kind is openmm.CustomBondForce else kind(2, energy)
    for k in range(len(values)):
        force.addPerBondParameter(f"p{k}")
    if kind is openmm.CustomBondForce:
        force.addGlobalParameter("scale", 1.0)
        force.addBond(*BETWEEN, values)
        force.addBond(0, 5, (0.2, *values[1:]))  # at a length that no bond has
    else:
        force.addBond(BETWEEN, values)
    system.addForce(force)
    return system


def test_a_custom_bond_is_one_where_its_energy_is_lowest_at_the_length_of_a_bond():
    topology = topology_of(ETHANE_LIKE, INSIDE)
    morse = with_custom_bond(openmm.CustomBondForce, "scale*p1*(1-exp(-p2*(r-p0)))^2", 0.15, 300.0, 20.0)
    assert bonds_of(topology, morse).only_system == {BETWEEN}
    with pytest.raises(UnsupportedSystemError, match="the System bonds MOL1:C0"):
        methyl(topology, morse)
    scaled_pair = with_custom_bond(openmm.CustomBondForce, "scale*4*p1*((p0/r)^12-(p0/r)^6)", 0.34, 0.2)
    assert bonds_of(topology, scaled_pair).only_system == frozenset()


def test_a_compound_bond_of_two_particles_holds_a_bond_of_the_topology():
    topology = topology_of(ETHANE_LIKE, (*INSIDE, BETWEEN))
    system = with_custom_bond(openmm.CustomCompoundBondForce, "1000*(distance(p1,p2)-p0)^2", 0.15)
    assert bonds_of(topology, system).only_topology == frozenset()
