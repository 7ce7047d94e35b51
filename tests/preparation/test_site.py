"""Active sites: what comes in, what is left out, and the charge."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm import Hamiltonian, PySCFPotential, Region, Term, create_mixed_system
from qmmlmm.errors import QmmlmmWarning, SelectionError
from qmmlmm.preparation import pick_site
from qmmlmm.preparation.site_picture import plot_site
from systems.ketosteroid_isomerase import build
from systems.raw_structures import raw_structure


@pytest.fixture(scope="module")
def isomerase():
    """Ketosteroid isomerase with equilenin, whose residues have integer charges."""
    return build(relaxed=True)


@pytest.fixture(scope="module")
def calcium():
    """The LDL receptor's module 5 with its calcium ion, in vacuum."""
    return with_hydrogens("1AJJ.pdb")


def with_hydrogens(name):
    """Return Topology, System and positions of a raw structure in vacuum with its calcium ions, by OpenMM's own pKa."""
    from qmmlmm.preparation.inspection import examine
    from qmmlmm.preparation.settings import PreparationSettings
    from qmmlmm.preparation.solvated_system import force_field

    settings = PreparationSettings(keep=("CA",), remove=tuple(LIGANDS.get(name, ())))
    found = examine(raw_structure(name), [], settings, {}, ())
    modeller = app.Modeller(found.model.topology, found.model.positions * unit.nanometer)
    field = force_field(found.settings, [])
    modeller.addHydrogens(field)
    return modeller.topology, field.createSystem(modeller.topology), modeller.positions


def names(site):
    return {residue.label: residue.part for residue in site.residues}


LIGANDS = {"1K1I.pdb": ("FD1",)}
SITES = {
    "1AJJ.pdb": ("A:9", "A:13", "A:22", "A:25", "A:33", "A:36"),
    # Trypsin: the catalytic triad, the pocket, its calcium's loop, disulfides.
    "1K1I.pdb": ("A:57", "A:102", "A:195", "A:189", "A:70", "A:77", "A:191"),
    # HIV protease: the aspartates, the flaps, and the salt bridges between the chains.
    "1QBS.pdb": ("A:25", "B:125", "A:50", "A:8", "A:29", "B:187", "A:1"),
}


def formal_charge(residue, bonded, inside):
    """Return the charge of a residue's side chain, and of an end of the chain that is inside, by its hydrogens."""
    names = {atom.name for atom in residue.atoms()}
    count = {"ASP": -1 + ("HD2" in names or "HD1" in names), "GLU": -1 + ("HE2" in names or "HE1" in names)}
    count |= {"LYS": int({"HZ1", "HZ2", "HZ3"} <= names), "ARG": int({"HH11", "HH12", "HH21", "HH22", "HE"} <= names)}
    count |= {"HIS": int({"HD1", "HE2"} <= names), "CYS": -int("HG" not in names and residue not in bonded)}
    count |= {"TYR": -int("HH" not in names), "CA": 2}
    ammonium = any(atom.name == "H3" and atom.index in inside for atom in residue.atoms())
    carboxylate = any(atom.name == "OXT" and atom.index in inside for atom in residue.atoms())
    return count.get(residue.name, 0) + ammonium - carboxylate


@pytest.mark.parametrize("name", SITES)
def test_the_charge_of_a_site_is_the_sum_of_formal_charges_on_twenty_sites(name):
    topology, system, positions = with_hydrogens(name)
    residues = {f"{residue.chain.id}:{residue.id}": residue for residue in topology.residues()}
    bonded = {bond[k].residue for bond in topology.bonds() for k in (0, 1) if {a.name for a in bond} == {"SG"}}
    for label in SITES[name]:
        atoms = [a.index for a in residues[label].atoms() if a.name not in ("N", "CA", "C", "O", "H", "HA")]
        site = pick_site(topology, system, positions, atoms, 0.4)
        taken = [item.label.split(" ")[1] for item in site.residues if item.part != "backbone"]
        assert site.charge == sum(formal_charge(residues[key], bonded, site.atoms) for key in taken), label
        assert (site.electrons % 2 == 0) == (site.multiplicity == 1)


def test_a_calcium_ion_brings_its_first_shell_with_carbonyl_groups(calcium):
    topology, system, positions = calcium
    site = pick_site(topology, system, positions, "resname CA and element Ca", 0.28)
    assert names(site) == {
        "TRP A:22": "backbone",
        "ARG A:23": "backbone",
        "ASP A:25": "side chain",
        "GLY A:27": "backbone",
        "PRO A:28": "side chain and backbone",
        "ASP A:29": "side chain",
        "ASP A:35": "side chain",
        "GLU A:36": "side chain",
        "CA I:1": "whole",
    }
    # The force field's charges of the same atoms are no integer.
    assert site.charge == -2
    assert abs(site.force_field_charge + 2) > 0.25
    assert site.multiplicity == 1


def test_the_cuts_of_a_site_can_be_cut_and_its_charge_fits_the_force_field(calcium):
    topology, system, positions = calcium
    site = pick_site(topology, system, positions, "resname CA and element Ca", 0.28)

    def mixed(region):
        term = Term(PySCFPotential("hf", "sto-3g"), region, embedding="electrostatic")
        return create_mixed_system(topology, system, Hamiltonian([term]))

    # The sums of charges of cut side chains differ by more than half a charge, and each by less.
    assert len(mixed(site.region()).describe()["regions"][0]["link_bonds"]) == len(site.cuts) == 8
    with pytest.warns(QmmlmmWarning, match=r"region 'site' has charge 0, but -1\.4\d\d e in the force field"):
        mixed(Region("site", site.atoms, charge=0))


def test_a_disulfide_bridge_comes_in_as_a_whole(calcium):
    topology, system, positions = calcium
    site = pick_site(topology, system, positions, "resSeq 5 and name SG and chainid 0", 0.15)
    assert names(site) == {"CYS A:5": "side chain", "CYS A:17": "side chain"}
    assert site.charge == 0


def test_what_is_left_out_is_listed_and_can_be_taken_or_left(calcium):
    topology, system, positions = calcium
    centre = "resSeq 19 and sidechain"
    site = pick_site(topology, system, positions, centre, 0.45)
    assert any("touches with its backbone only" in item.why for item in site.left_out)
    inside = [item.label.split(" ")[1] for item in site.residues]
    left = pick_site(topology, system, positions, centre, 0.45, leave=inside[-1:])
    assert inside[-1] not in [item.label.split(" ")[1] for item in left.residues]
    assert any(item.why == "left out as asked" for item in left.left_out)
    taken = pick_site(topology, system, positions, centre, 0.45, take=["A:25"])
    assert names(taken)["ASP A:25"] == "side chain"
    assert taken.charge == site.charge - 1
    carbonyl = pick_site(topology, system, positions, centre, 0.2, backbone=["A:27"])
    assert names(carbonyl)["GLY A:27"] == "backbone"


def test_a_proline_is_taken_with_the_carbonyl_group_before_it(calcium):
    topology, system, positions = calcium
    site = pick_site(topology, system, positions, "resSeq 19 and sidechain", 0.2, take=["A:28"])
    assert names(site)["PRO A:28"] == "side chain and backbone"
    assert names(site)["GLY A:27"] == "backbone"


def test_what_cannot_be_taken_is_refused(calcium):
    topology, system, positions = calcium
    with pytest.raises(SelectionError, match=r"take names 'A:99', and the Topology has no such residue"):
        pick_site(topology, system, positions, "resSeq 19", 0.3, take=["A:99"])
    with pytest.raises(SelectionError, match=r"GLY A:27 has no side chain; take its carbonyl group"):
        pick_site(topology, system, positions, "resSeq 19", 0.3, take=["A:27"])
    with pytest.raises(SelectionError, match="matches none of the"):
        pick_site(topology, system, positions, "resname LIG", 0.3)


def test_a_metal_needs_a_multiplicity(calcium):
    topology, system, positions = calcium
    changed = app.Topology()
    atoms = []
    for chain in topology.chains():
        new_chain = changed.addChain(chain.id)
        for residue in chain.residues():
            new = changed.addResidue("MN" if residue.name == "CA" else residue.name, new_chain, residue.id)
            for atom in residue.atoms():
                element = app.element.manganese if residue.name == "CA" else atom.element
                atoms.append(changed.addAtom("MN" if residue.name == "CA" else atom.name, element, new))
    for first, second in topology.bonds():
        changed.addBond(atoms[first.index], atoms[second.index])
    site = pick_site(changed, system, positions, "resname MN", 0.28)
    assert site.multiplicity is None
    with pytest.raises(SelectionError, match="the multiplicity of the site cannot be known"):
        site.region()
    assert site.region(multiplicity=6).multiplicity == 6
    with pytest.raises(SelectionError, match="do not go with the multiplicity 5"):
        site.region(multiplicity=5)


def test_waters_are_taken_whole_and_the_nearest_first(isomerase):
    topology, system, positions = isomerase.topology, isomerase.system, isomerase.positions
    ligand = [a.index for a in topology.atoms() if a.residue.name == "EQU"]
    first = ligand[: len(ligand) // 2]
    none, two = (pick_site(topology, system, positions, first, 0.5, waters=count) for count in (0, 2))
    waters = [item for item in two.residues if item.label.split(" ")[0] in ("HOH", "WAT")]
    if any("waters are within the distance" in note for note in none.notes):
        assert len(waters) == 2
    assert all(item.part == "whole" for item in waters)


def test_distances_are_those_of_the_nearest_image(isomerase):
    topology, system, positions = isomerase.topology, isomerase.system, isomerase.positions
    ligand = [a.index for a in topology.atoms() if a.residue.name == "EQU"]
    bare = np.array(positions.value_in_unit(unit.nanometer))
    box = np.array(topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer))
    bare[ligand] += box[0] - box[2]
    moved, first = pick_site(topology, system, bare, ligand, 0.4), pick_site(topology, system, positions, ligand, 0.4)
    assert moved.atoms == first.atoms
    assert moved.charge == first.charge


def test_the_picture_of_a_site_names_its_residues(calcium):
    topology, system, positions = calcium
    site = pick_site(topology, system, positions, "resname CA and element Ca", 0.28)
    axes = plot_site(topology, positions, site)
    assert {text.get_text() for text in axes.texts} == {item.label for item in site.residues}
    assert axes.get_xlabel() == "first principal axis (angstrom)"


def test_the_text_of_a_site_has_charge_cuts_and_residues(calcium):
    topology, system, positions = calcium
    assert isinstance(system, openmm.System)
    text = pick_site(topology, system, positions, "resname CA and element Ca", 0.28).text()
    assert text.startswith("46 atoms, 8 cut bonds, charge -2 (force field -1.4")
    assert "GLU A:36     side chain               -1  binds CA I:1" in text
