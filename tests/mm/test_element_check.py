"""Elements of the Topology against masses of the System."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import app

from qmmlmm import Hamiltonian, Region, Term, create_mixed_system
from qmmlmm.errors import RegionError
from tests.toy_potentials import EvaluatedSprings

HYDROGEN, DEUTERIUM = 1.008, 2.014


def mixed_of(symbols, masses, region=None, hosts=None):
    """Return the mixed System of a molecule: all atoms are bonded to the first one, or to `hosts`."""
    topology, system, bonds = app.Topology(), openmm.System(), openmm.HarmonicBondForce()
    nonbonded = openmm.NonbondedForce()
    residue = topology.addResidue("LIG", topology.addChain("B"), "301")
    atoms = [topology.addAtom(f"{s.upper()}{k}", app.Element.getBySymbol(s), residue) for k, s in enumerate(symbols)]
    for k, mass in enumerate(masses):
        system.addParticle(mass)
        nonbonded.addParticle(0.0, 0.3, 0.1)
        if k:
            host = hosts[k] if hosts else 0
            topology.addBond(atoms[host], atoms[k])
            bonds.addBond(host, k, 0.11, 1e5)
    system.addForce(bonds)
    system.addForce(nonbonded)
    ratios = {} if region is None else {(0, 1): 0.7}
    chosen = Region("ligand", range(len(symbols)) if region is None else region, link_ratios=ratios)
    size = len(chosen.atoms) + (0 if region is None else 1)
    term = Term(EvaluatedSprings(np.zeros(size)), chosen, embedding="electrostatic", boundary_charges="zero")
    return create_mixed_system(topology, system, Hamiltonian([term]))


@pytest.mark.parametrize(
    ("symbol", "mass", "found"),
    [("B", 79.9, "bromine"), ("F", 55.85, "iron"), ("Hg", 1.008, "hydrogen"), ("Na", 14.01, "nitrogen")],
)
def test_an_element_that_was_guessed_from_a_name_is_refused(symbol, mass, found):
    with pytest.raises(RegionError, match=rf"LIG301:.* \(chain B, index 1\) is .* {mass:.2f} dalton .* as {found}"):
        mixed_of(("C", symbol), (12.011, mass))


@pytest.mark.parametrize(
    "masses",
    [
        (12.011, HYDROGEN, HYDROGEN, HYDROGEN),
        (12.0, 1.0, 1.0, 1.0),
        (12.011 - 3 * (4.0 - HYDROGEN), 4.0, 4.0, 4.0),
        (12.011 - 3 * (3.0 - HYDROGEN), 3.0, 3.0, 3.0),
        (12.011, DEUTERIUM, DEUTERIUM, HYDROGEN),
        (13.003, HYDROGEN, HYDROGEN, HYDROGEN),
        (0.0, 0.0, HYDROGEN, HYDROGEN),
    ],
    ids=["weights", "rounded", "4 dalton", "3 dalton", "deuterium", "carbon 13", "held"],
)
def test_masses_of_ordinary_simulations_are_accepted(masses):
    assert mixed_of(("C", "H", "H", "H"), masses).regions[0].atomic_numbers.tolist() == [6, 1, 1, 1]


@pytest.mark.parametrize(
    ("masses", "atom"),
    [
        ((15.035, HYDROGEN, HYDROGEN, HYDROGEN), "C0"),  # a united methyl group
        ((3.035, HYDROGEN, HYDROGEN, HYDROGEN), "C0"),  # lighter than its hydrogens are heavier
        ((12.011, 12.011, HYDROGEN, HYDROGEN), "H1"),
    ],
)
def test_a_mass_that_no_isotope_or_repartitioning_explains_is_refused(masses, atom):
    with pytest.raises(RegionError, match=rf"LIG301:{atom} \(chain B"):
        mixed_of(("C", "H", "H", "H"), masses)


def test_the_atom_beyond_a_cut_bond_is_checked_and_no_other_one():
    options = {"region": (0, 2), "hosts": (0, 0, 0, 1)}
    masses = (12.011, 12.011, 19.0, 12.011)
    assert mixed_of(("C", "C", "F", "C"), masses, **options).regions[0].link_bonds
    assert mixed_of(("C", "C", "F", "Ca"), masses, **options).regions[0].link_bonds  # it is no neighbour
    with pytest.raises(RegionError, match="LIG301:CA1"):
        mixed_of(("C", "Ca", "F", "C"), masses, **options)
