"""Ligands from files and SMILES, what is wrong with them, and their force field XMLs against what these come from."""

from __future__ import annotations

import io

import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm.errors import PreparationError, SettingError
from qmmlmm.preparation import Ligand
from qmmlmm.preparation.ligand_xml import ligand_topology, system_as_xml, templates_in
from systems.raw_structures import raw_structure

SAME_ENERGY = 1e-6
"""kJ/mol: the same parameters, written with all digits."""

SAME_FORCE = 1e-5
"""Relative to the largest force."""

METHANOL = """methanol
     RDKit          3D

  6  5  0  0  0  0  0  0  0  0999 V2000
    0.3700    0.0000    0.0000 C   0  0
   -0.9300   -0.1000    0.5000 O   0  0
    0.7000    1.0400    0.0500 H   0  0
    1.0500   -0.6200    0.5900 H   0  0
    0.3600   -0.3500   -1.0300 H   0  0
   -1.5000    0.4700   -0.0400 H   0  0
  1  2  1  0
  1  3  1  0
  1  4  1  0
  1  5  1  0
  2  6  1  0
M  END
$$$$
"""


def sdf(tmp_path, text, name="x.sdf"):
    path = tmp_path / name
    path.write_text(text)
    return path


def flat(text):
    """Put all atoms into one plane."""
    return "\n".join(
        line[:20] + "    0.0000" + line[30:] if line[31:32] in ("C", "O", "H") else line for line in text.split("\n")
    )


def without_hydrogens(text):
    lines = [line for line in text.split("\n") if " H   0" not in line]
    return "\n".join(
        line for line in lines if line.strip() not in {f"{a}  {b}  1  0" for a in (1, 2) for b in (3, 4, 5, 6)}
    ).replace("  6  5  0", "  2  1  0")


def test_a_ligand_of_a_file_keeps_its_atoms_pose_and_names(tmp_path):
    ligand = Ligand.from_file(sdf(tmp_path, METHANOL), "MOH1")
    assert (ligand.name, ligand.charge, ligand.smiles) == ("MOH1", 0, "CO")
    assert ligand.elements == ("C", "O", "H", "H", "H", "H")
    assert ligand.atom_names == ("C1", "O1", "H1", "H2", "H3", "H4")
    assert ligand.positions[1].tolist() == [-0.93, -0.1, 0.5]
    again = Ligand.from_file(sdf(tmp_path, ligand.sdf + "$$$$\n"), "MOH1")
    assert again.sdf == ligand.sdf


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without_hydrogens, r"4 hydrogens are missing\. Add them in the state that you mean"),
        (flat, "all its atoms lie in one plane, as in a drawing"),
        (lambda text: text + text.replace("methanol", "other"), r"has 2 molecules \(methanol, other\); choose one"),
        (lambda text: text.replace("M  END", "M  CHG  1   2  -1\nM  END"), "is not valid: its bonds, valences"),
        (
            lambda text: text.replace("  6  5", "  6  4").replace("  2  6  1  0\n", ""),
            "2 hydrogens are missing",
        ),
        (
            lambda text: text.replace("   -0.9300", "   -9.9300"),
            r"the bond between atoms 1 and 2 is 10\.\d\d angstrom long",
        ),
        (lambda text: "nothing", "no molecule|is not valid"),
    ],
)
def test_a_ligand_that_cannot_be_right_is_refused(tmp_path, edit, message):
    with pytest.raises(PreparationError, match=message):
        Ligand.from_file(sdf(tmp_path, edit(METHANOL)), "MOL")


def test_hydrogens_are_added_when_asked_for(tmp_path):
    ligand = Ligand.from_file(sdf(tmp_path, without_hydrogens(METHANOL)), "MOL", hydrogens="add")
    assert ligand.elements.count("H") == 4
    with pytest.raises(SettingError, match="hydrogens is one of 'refuse', 'add', got 'maybe'"):
        Ligand.from_file(sdf(tmp_path, METHANOL), "MOL", hydrogens="maybe")


def test_a_molecule_of_a_file_with_several_is_chosen_by_title_or_place(tmp_path):
    path = sdf(tmp_path, METHANOL + METHANOL.replace("methanol", "other"))
    assert Ligand.from_file(path, "MOL", molecule="other").source == "x.sdf, molecule other"
    assert Ligand.from_file(path, "MOL", molecule=1).smiles == "CO"
    with pytest.raises(PreparationError, match=r"has no molecule 'third'; its 2 molecules are methanol, other"):
        Ligand.from_file(path, "MOL", molecule="third")


@pytest.mark.parametrize(
    ("name", "message"),
    [("LIGAND", "one to four letters or digits"), ("ALA", "is the name of an amino acid"), ("", "is a text")],
)
def test_a_name_of_a_ligand_is_short_and_its_own(tmp_path, name, message):
    with pytest.raises(PreparationError, match=message):
        Ligand.from_file(sdf(tmp_path, METHANOL), name)


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(
        PreparationError, match=r"a ligand is a file .sdf, .mol or .mol2, got x.pdb; PDB files have no bond"
    ):
        Ligand.from_file(sdf(tmp_path, "", "x.pdb"), "MOL")
    with pytest.raises(PreparationError, match="cannot be read: No such file"):
        Ligand.from_file(tmp_path / "no.sdf", "MOL")


def test_a_mol2_file_gives_the_inhibitor_of_hiv_protease():
    ligand = Ligand.from_file(raw_structure("1QBS-ligand.mol2"), "DMP")
    assert (len(ligand.elements), ligand.charge) == (80, 0)


def test_partial_charges_of_a_mol2_file_add_up(tmp_path):
    text = raw_structure("1QBS-ligand.mol2").read_text().replace("NO_CHARGES", "USER_CHARGES")
    lines, inside = [], False
    for line in text.splitlines():
        if line.startswith("@"):
            inside = line == "@<TRIPOS>ATOM"
        elif inside and line.strip():
            line = " ".join([*line.split()[:8], "0.0050" if line.split()[0] != "1" else "0.1"])
        lines.append(line)
    with pytest.raises(
        PreparationError, match=r"the partial charges of the MOL2 file add up to \+0\.495, which is no int"
    ):
        Ligand.from_file(sdf(tmp_path, "\n".join(lines) + "\n", "x.mol2"), "DMP")


TESTOSTERONE = "C[C@]12CC[C@H]3[C@H]([C@@H]1CC[C@@H]2O)CCC4=CC(=O)CC[C@]34C"


def test_a_smiles_gives_bonds_and_hydrogens_to_a_residue():
    ligand = Ligand.from_residue(raw_structure("1AFS.pdb"), "TES", TESTOSTERONE, residue="A:325")
    # Without it RDKit reads a saturated alcohol.
    assert (len(ligand.elements), ligand.charge, ligand.residue) == (49, 0, "A:325")
    assert {"O3", "O17", "C19"} <= set(ligand.atom_names)


@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("CCO", r"has 21 heavy atoms in the structure, and the SMILES has 3"),
        ("C1CC(", r"is no valid SMILES"),
        ("CC.CC", "has several molecules"),
        (TESTOSTERONE.replace("[C@@H]2O", "[C@H]2O"), "the pose has the stereochemistry"),
        ("C" * 21, "are not connected as in the SMILES"),
    ],
)
def test_a_smiles_of_something_else_is_refused(smiles, message):
    with pytest.raises(PreparationError, match=message):
        Ligand.from_residue(raw_structure("1AFS.pdb"), "TES", smiles, residue="A:325")


def test_one_of_several_residues_has_to_be_chosen():
    with pytest.raises(PreparationError, match="TES stands at A:325, B:325; choose one with residue=, got None"):
        Ligand.from_residue(raw_structure("1AFS.pdb"), "TES", TESTOSTERONE)
    with pytest.raises(PreparationError, match="has no residue XXX; besides protein, water and ions it has NAP, TES"):
        Ligand.from_residue(raw_structure("1AFS.pdb"), "XXX", TESTOSTERONE)


def energy_and_forces(system, positions):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole), state.getForces(asNumpy=True)._value


def check_round_trip(ligand, system):
    """Compare a System with that of its XML, beside the force field of a protein, off the minimum."""
    field = app.ForceField("amber14-all.xml", "amber14/tip3p.xml", io.StringIO(system_as_xml(ligand, system)))
    read = field.createSystem(ligand_topology(ligand), removeCMMotion=False)
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setNonbondedMethod(openmm.NonbondedForce.NoCutoff)
    positions = 0.1 * (ligand.positions + np.random.default_rng(1).normal(0.0, 0.05, ligand.positions.shape))
    (energy, forces), (read_energy, read_forces) = (energy_and_forces(s, positions) for s in (system, read))
    assert read_energy == pytest.approx(energy, abs=SAME_ENERGY)
    assert np.abs(read_forces - forces).max() < SAME_FORCE * np.abs(forces).max()


def test_the_xml_of_a_ligand_has_the_energy_and_forces_of_openff(tmp_path):
    sage = pytest.importorskip("openff.toolkit", reason='needs pip install "qmmlmm[prepare]"', exc_type=ImportError)
    assert sage is not None
    from qmmlmm.preparation.open_force_field import sage_system

    ligand = Ligand.from_residue(raw_structure("1AFS.pdb"), "TES", TESTOSTERONE, residue="A:325")
    system = sage_system(ligand)
    check_round_trip(ligand, system)
    (names, bonds, charge) = templates_in(system_as_xml(ligand, system), "x")["TES"]
    assert names == ligand.atom_names
    assert bonds == ligand.bonds
    assert charge == pytest.approx(0.0, abs=1e-12)


def test_the_xml_of_a_ligand_has_the_energy_and_forces_of_tleap(tmp_path):
    import shutil

    if shutil.which("antechamber") is None:
        pytest.skip('needs pip install "qmmlmm[prepare-gaff]"')
    from qmmlmm.preparation.amber_tools import gaff_system

    ligand = Ligand.from_file(sdf(tmp_path, METHANOL), "MOL")
    check_round_trip(ligand, gaff_system(ligand))


def test_programs_of_ambertools_leave_no_files_and_take_one_thread(tmp_path, monkeypatch):
    import subprocess

    from qmmlmm.preparation import amber_tools

    seen = []

    def called(command, **options):
        seen.append(options)
        raise subprocess.TimeoutExpired(command, 1)

    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(amber_tools, "_program", lambda name: name)
    monkeypatch.setattr(subprocess, "run", called)
    with pytest.raises(PreparationError, match="ligand MOL: antechamber did not end within"):
        amber_tools.gaff_system(Ligand.from_file(sdf(tmp_path, METHANOL), "MOL"))
    (options,) = seen
    assert options["env"]["OMP_NUM_THREADS"] == options["env"]["MKL_NUM_THREADS"] == "1"
    assert folder.resolve() not in (options["cwd"], *options["cwd"].parents)
    assert not options["cwd"].exists()
    assert list(folder.iterdir()) == []


def test_an_element_without_parameters_is_refused_by_openff(tmp_path):
    pytest.importorskip("openff.toolkit", reason='needs pip install "qmmlmm[prepare]"', exc_type=ImportError)
    from qmmlmm.preparation.open_force_field import sage_system

    silanol = Ligand.from_file(sdf(tmp_path, METHANOL.replace("0.0000 C ", "0.0000 Si")), "SIL")
    with pytest.raises(
        PreparationError, match=r"ligand SIL: OpenFF has no parameters or charges for it .*--ligand-xml"
    ):
        sage_system(silanol)


def test_a_force_field_that_is_no_xml_is_refused():
    with pytest.raises(PreparationError, match="own.xml is no valid XML"):
        templates_in("<ForceField>", "own.xml")
    with pytest.raises(PreparationError, match="own.xml has no residue: an OpenMM force field XML"):
        templates_in("<ForceField/>", "own.xml")
