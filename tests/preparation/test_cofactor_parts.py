"""Cofactors of which a site takes a part: NADP+ in its pose, with formal charges and some charge over a cut."""

from __future__ import annotations

import numpy as np
import openmm
import pytest

from qmmlmm import Hamiltonian, PySCFPotential, Term, create_mixed_system
from qmmlmm.errors import RegionError, SelectionError
from qmmlmm.preparation import Ligand, pick_site
from qmmlmm.preparation.ligand_xml import ligand_topology
from systems.raw_structures import raw_structure

NADP = (
    "NC(=O)c1ccc[n+](c1)[C@@H]1O[C@H](COP(=O)([O-])OP(=O)([O-])OC[C@H]2O[C@H]([C@H](OP(=O)([O-])[O-])[C@@H]2O)"
    "n2cnc3c(N)ncnc32)[C@@H](O)[C@H]1O"
)
FORMAL = {"N1N": 1.0, "O2A": -1.0, "O2N": -1.0, "O2X": -1.0, "O3X": -1.0}
SPREAD = 0.3
"""e; what a force field spreads over a bond of a charged group."""


def cofactor(spread=SPREAD, formal=FORMAL):
    """Return Topology, System and positions of NADP+ with charge over the bond C4D - C5D."""
    ligand = Ligand.from_residue(raw_structure("1AFS.pdb"), "NAP", NADP, residue="A:324")
    charges = {**formal, "C4D": -spread, "C5D": spread}
    system, force = openmm.System(), openmm.NonbondedForce()
    topology = ligand_topology(ligand)
    bonds = openmm.HarmonicBondForce()
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
        force.addParticle(charges.get(atom.name, 0.0), 0.3, 0.1)
    for first, second in topology.bonds():
        bonds.addBond(first.index, second.index, 0.12, 1000.0)
    system.addForce(force)
    system.addForce(bonds)
    return topology, system, 0.1 * ligand.positions


@pytest.fixture(scope="module")
def nadp():
    return cofactor()


def picked(given, cut, around="resname NAP"):
    topology, system, positions = given
    return pick_site(topology, system, positions, around, 0.1, cut=cut)


def label(topology):
    (residue,) = topology.residues()
    return f"{residue.chain.id}:{residue.id}"


def names(topology, site):
    atoms = list(topology.atoms())
    return {atoms[index].name for index in site.atoms}


@pytest.mark.parametrize(
    ("cuts", "charge", "inside", "outside"),
    [
        # Nicotinamide with its ribose, nicotinamide, the rest of either, and the ribose between two cuts.
        (["C4D-C5D"], 1, {"C4D", "N1N", "O3D"}, {"C5D", "PN"}),
        (["N1N-C1D"], 1, {"N1N", "C7N"}, {"C1D", "C4D"}),
        (["C5D-C4D"], -4, {"C5D", "PN", "N9A"}, {"C4D", "N1N"}),
        (["C1D-N1N", "C4D-C5D"], 0, {"C1D", "C4D", "O4D"}, {"N1N", "C5D"}),
    ],
)
def test_the_part_with_the_first_atom_is_taken_with_the_charge_of_a_closed_shell(nadp, cuts, charge, inside, outside):
    topology = nadp[0]
    site = picked(nadp, [f"{label(topology)}:{cut}" for cut in cuts])
    found = names(topology, site)
    assert inside <= found
    assert not outside & found
    assert site.charge == charge
    assert (site.electrons % 2, site.multiplicity) == (0, 1)
    assert len(site.cuts) == len(cuts)
    assert site.residues[0].part == "part, cut at " + ", ".join(cuts)


def test_a_part_is_a_region_that_can_be_cut(nadp):
    topology, system, _ = nadp
    site = picked(nadp, [f"{label(topology)}:C4D-C5D"])
    term = Term(PySCFPotential("hf", "sto-3g"), site.region(), embedding="electrostatic")
    mixed = create_mixed_system(topology, system, Hamiltonian([term]))
    assert len(mixed.describe()["regions"][0]["link_bonds"]) == 1


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ("C3D-C4D", "lies in a ring of 5 atoms"),
        ("C7N-O7N", "both ends of which have double bonds"),
        ("C7N-N7N", "partial double bond of an amide"),
        ("O5D-PN", r"of a phosphate, sulfonate or sulfonamide.*in nucleic acids C4'-C5'"),
        ("C4D-H{}", "a bond to hydrogen cannot be cut"),
    ],
)
def test_a_bond_that_cannot_be_cut_is_refused_with_advice(nadp, cut, message):
    topology = nadp[0]
    neighbours = [b.name for a, b in topology.bonds() if a.name == "C4D" and b.element.symbol == "H"]
    cut = cut.replace("H{}", neighbours[0])
    with pytest.raises(RegionError, match=message):
        picked(nadp, [f"{label(topology)}:{cut}"])


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ("C4D-C5D", "cut names a bond as CHAIN:NUMBER:ATOM-ATOM, such as 'L:1:C5D-C4D', got 'C4D-C5D'"),
        ("Q:7:C4D-C5D", "cut names 'Q:7', and the Topology has no such residue"),
        ("{}:C4D-C5Q", "NAP .* has no atom C5Q. Nearest names: "),
        ("{}:C4D-PN", "is no bond of NAP .*; C4D is bonded to "),
    ],
)
def test_a_cut_that_names_no_bond_is_refused(nadp, cut, message):
    with pytest.raises(SelectionError, match=message):
        picked(nadp, [cut.replace("{}", label(nadp[0]))])


def test_cuts_that_leave_one_piece_are_refused(nadp):
    here = label(nadp[0])
    with pytest.raises(SelectionError, match="the cuts C4D-C5D, C5D-C4D leave both sides of NAP .* connected"):
        picked(nadp, [f"{here}:C4D-C5D", f"{here}:C5D-C4D"])


def test_a_centre_beyond_the_cut_is_refused(nadp):
    with pytest.raises(SelectionError, match="the centre is the part of NAP .* that the cut C4D-C5D leaves out"):
        picked(nadp, [f"{label(nadp[0])}:C4D-C5D"], around="name PN")


def test_a_charge_that_is_not_clear_is_refused():
    given = cofactor(spread=0.9)
    with pytest.raises(SelectionError, match=r"it is \+0\.10 in the force field, and \+1 would be a closed shell"):
        picked(given, [f"{label(given[0])}:C4D-C5D"])
    given = cofactor(formal={**FORMAL, "N1N": 0.0})
    with pytest.raises(SelectionError, match=r"an odd number of electrons with its charge -4"):
        picked(given, [f"{label(given[0])}:C4D-C5D"])


def test_a_residue_is_not_left_out_and_taken_at_once(nadp):
    topology, system, positions = nadp
    here = label(topology)
    with pytest.raises(SelectionError, match="is to be left out, and to be taken whole or in part"):
        pick_site(topology, system, positions, "resname NAP", 0.1, leave=[here], cut=[f"{here}:C4D-C5D"])


def test_amino_acids_have_their_own_cuts():
    from qmmlmm.preparation.cofactor_parts import cofactor_parts
    from systems.alanine_dipeptide import build

    topology = build().topology
    bonds = {atom.index: set() for atom in topology.atoms()}
    residues = {f"{r.chain.id}:{r.id}": r for r in topology.residues()}
    (alanine,) = (name for name, residue in residues.items() if residue.name == "ALA")
    with pytest.raises(SelectionError, match="it is for bonds of ligands and cofactors. Side chains are cut between"):
        cofactor_parts(topology, bonds, residues, [f"{alanine}:CA-CB"])


def test_the_distance_is_that_to_the_part(nadp):
    topology, system, positions = nadp
    site = pick_site(topology, system, positions, "resname NAP", 0.1, cut=f"{label(topology)}:N1N-C1D")
    assert np.all(np.diff(site.atoms) > 0)
    assert "charge +1 (force field +1.00)" in site.text()
