"""What an inspection refuses, leaves to decide and does, on the files that ship the traps."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import numpy as np
import pytest

from qmmlmm.errors import PreparationError, QmmlmmError
from qmmlmm.preparation import Ligand, PreparationSettings, inspect
from qmmlmm.preparation.protonation import residue_label
from systems.raw_structures import raw_structure

TESTOSTERONE = "C[C@]12CC[C@H]3[C@H]([C@@H]1CC[C@@H]2O)CCC4=CC(=O)CC[C@]34C"
NADP = (
    "NC(=O)c1ccc[n+](c1)[C@@H]1O[C@H](COP(=O)([O-])OP(=O)([O-])OC[C@H]2O[C@H]([C@H](OP(=O)([O-])[O-])[C@@H]2O)"
    "n2cnc3c(N)ncnc32)[C@@H](O)[C@H]1O"
)
SHORTEST_CONTACT, CIS_CONTACT = 3.0, 2.5
"""Angstrom: heavy atoms that are not bonded do not touch at the first; over a peptide bond the second is usual."""
LONGEST = 20.0
"""Seconds for one damaged file; a whole one takes less than one."""


def texts(findings, topic):
    return [finding.text for finding in findings if finding.topic == topic]


@pytest.fixture(scope="module")
def dmp323():
    return Ligand.from_file(raw_structure("1QBS-ligand.mol2"), "DMP")


def edited(tmp_path, name, edit, new="edited.pdb"):
    path = tmp_path / new
    path.write_text("\n".join(edit(raw_structure(name).read_text().splitlines())) + "\n")
    return path


def test_a_false_chain_break_is_ignored_and_reported():
    report = inspect(raw_structure("1K1I.pdb"))
    assert not report.refused
    (text,) = texts(report.done, "chain breaks")
    assert text.count(" - ") == 6
    assert "LYS A:204 - LEU A:209" in text
    # One C terminus is real.
    assert texts(report.done, "missing atoms") == ["added: ASN A:245 (OXT)"]
    assert texts(report.done, "disulfides")[0].startswith("6:")


def test_a_gap_is_refused_and_modified_residues_are_reported():
    report = inspect(raw_structure("1BHL.pdb"))
    (gap,) = texts(report.refused, "gap")
    assert "GLN A:137 - MET A:154 (19.3 angstrom)" in gap
    assert "--missing cap" in gap
    assert texts(report.decide, "modified residue") == [
        "CAS A:65 becomes CYS and loses its As",
        "CAS A:130 becomes CYS and loses its As",
    ]


def test_the_ends_at_a_gap_can_be_capped():
    report = inspect(raw_structure("1BHL.pdb"), settings=PreparationSettings(missing="cap"))
    assert not report.refused
    (text,) = texts(report.decide, "missing residues")
    assert "GLN A:137 (NME)" in text
    assert "MET A:154 (ACE)" in text


@pytest.fixture(scope="module", params=["1BHL.pdb", "Thrombin_protein.pdb"])
def capped(request):
    """A structure with caps at its gaps."""
    from qmmlmm.preparation.inspection import examine

    return examine(raw_structure(request.param), [], PreparationSettings(missing="cap"), {}, ())


def test_a_cap_never_has_the_label_of_a_residue(capped):
    # PDBFixer numbers the cap behind GLY 251 of thrombin 252, which GLU 252 behind the gap has already.
    found = capped
    labels = [residue_label(residue) for residue in found.model.topology.residues()]
    caps = [r for r in found.model.topology.residues() if r.name in ("ACE", "NME")]
    assert len(labels) == len(set(labels))
    assert len(caps) >= 2
    assert not any(residue_label(cap) in found.states for cap in caps)
    # It is free in the first stage of minimisation.
    atoms = {(residue_label(cap), atom.name) for cap in caps for atom in cap.atoms()}
    assert atoms <= found.model.built


def test_a_cap_is_bonded_as_a_peptide_and_touches_nothing(capped):
    # PDBFixer puts the methyl group of thrombin's NME 147 at 0.54 angstrom from the oxygen before it.
    model = capped.model
    positions = 10.0 * model.positions
    bonds = {frozenset((a.index, b.index)) for a, b in model.topology.bonds()}
    angles = {frozenset(pair) for a in bonds for b in bonds if len(pair := a ^ b) == 2}
    for residue in model.topology.residues():
        if residue.name not in ("ACE", "NME"):
            continue
        for atom in residue.atoms():
            distances = np.linalg.norm(positions - positions[atom.index], axis=1)
            for other in np.flatnonzero(distances < SHORTEST_CONTACT):
                pair = frozenset((atom.index, int(other)))
                if pair in bonds:
                    assert 1.2 < distances[other] < 1.55
                elif pair in angles:
                    assert distances[other] > 2.1
                else:
                    assert len(pair) == 1 or distances[other] > CIS_CONTACT


def test_building_a_loop_needs_its_sequence(tmp_path):
    def without_sequence(lines):
        return [line for line in lines if not line.startswith("SEQRES")]

    path = edited(tmp_path, "1BHL.pdb", without_sequence)
    report = inspect(path, settings=PreparationSettings(missing="build"))
    (gap,) = texts(report.refused, "gap")
    assert "the file has no sequence (SEQRES)" in gap


def test_a_cyclic_peptide_is_refused():
    (text,) = texts(inspect(raw_structure("5vav.pdb")).refused, "cyclic peptide")
    assert "ASP A:14 is bonded to GLY A:1 (1.33 angstrom)" in text


def test_several_models_are_refused():
    (text,) = texts(inspect(raw_structure("1A1P.pdb")).refused, "structure")
    assert "has 21 models" in text


def test_alternates_are_chosen_by_occupancy_and_buffers_are_left_out():
    report = inspect(raw_structure("1BX8.pdb"))
    assert not report.refused
    (text,) = texts(report.done, "alternates")
    assert "VAL A:16 A (0.55)" in text
    assert texts(report.done, "left out") == ["1 SO4"]
    assert "5:" in texts(report.done, "disulfides")[0]
    # The sequence goes on, and the ends of the structure get charges.
    assert "before THR A:5 (THR GLN GLY ASN)" in texts(report.decide, "chain ends")[0]


def test_an_ion_is_kept_and_can_be_left_out():
    report = inspect(raw_structure("1AJJ.pdb"))
    assert texts(report.done, "ions") == ["CA A:73 is kept, a 12-6 ion without bonds"]
    report = inspect(raw_structure("1AJJ.pdb"), settings=PreparationSettings(keep=("HOH",)))
    assert texts(report.decide, "ions") == ["CA A:73 is left out because --keep does not name it"]


@pytest.mark.parametrize(
    ("name", "topic", "words"),
    [
        ("FE", "ions", "iron has two charges"),
        ("HEM", "heme or cluster", "a heme or another porphyrin"),
        ("SF4", "heme or cluster", "a metal cluster"),
        ("NAG", "glycan", "is a sugar. Glycans are not prepared"),
        ("DA", "nucleic acid", "nucleic acids are not prepared"),
        ("XYZ", "unknown group", "is not known: PDB files have no bond orders"),
    ],
)
def test_what_has_no_parameters_is_refused(tmp_path, name, topic, words):
    def rename(lines):
        changed = []
        for line in lines:
            if line.startswith("HETATM") and line[17:20] == " CA":
                line = line[:12] + (f"{name:<4s}" if name == "FE" else " X1 ") + line[16:17] + f"{name:>3s}" + line[20:]
                line = line[:76] + ("FE" if name == "FE" else " C") + line[78:]
            if not line.startswith(("LINK", "CONECT")):
                changed.append(line)
        return changed

    (text,) = texts(inspect(edited(tmp_path, "1AJJ.pdb", rename)).refused, topic)
    assert words in text
    assert f"{name} A:73" in text


def test_a_histidine_that_binds_a_metal_ion_has_its_proton_on_the_other_nitrogen(tmp_path):
    def with_zinc(lines):
        ring = {line[12:16].strip(): line for line in lines if line.startswith("ATOM") and line[17:26] == "HIS A  11"}
        place = {n: np.array([float(ring[n][k : k + 8]) for k in (30, 38, 46)]) for n in ("ND1", "CD2")}
        away = place["ND1"] - place["CD2"]
        x, y, z = place["ND1"] + 2.0 * away / np.linalg.norm(away)
        return [*lines[:-1], f"HETATM 9999 ZN    ZN B 999    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          ZN", "END"]

    report = inspect(edited(tmp_path, "1AJJ.pdb", with_zinc))
    assert "HIS A:11 binds a metal ion: HIE is taken" in texts(report.decide, "state")


def test_groups_of_a_complex_are_not_dropped_in_silence():
    report = inspect(raw_structure("4JSV.pdb"))
    refused = texts(report.refused, "unknown group")
    assert len(refused) == 4
    assert any("MGF A:2604 has Mg" in text for text in refused)
    assert any("ADP B:2601 (27 heavy atoms) is not known" in text for text in refused)
    assert len(texts(report.refused, "gap")[0].split(" - ")) == 5
    # Removed by name, the gaps remain.
    report = inspect(raw_structure("4JSV.pdb"), settings=PreparationSettings(remove=("ADP", "MGF", "MG")))
    assert {finding.topic for finding in report.refused} == {"gap"}


def test_smiles_give_ligands_of_the_structure_their_bonds_and_charges_and_each_has_its_chain():
    from qmmlmm.preparation.inspection import examine

    settings = PreparationSettings(chains=("A",))
    report = inspect(raw_structure("1AFS.pdb"), settings=settings)
    assert len(texts(report.refused, "unknown group")) == 2
    found = examine(raw_structure("1AFS.pdb"), [], settings, {"NAP": NADP, "TES": TESTOSTERONE}, ())
    report = found.report
    assert not report.refused
    ligands = texts(report.done, "ligand")
    assert any(text.startswith("NAP: charge -3") for text in ligands)
    assert any(text.startswith("TES: charge 0") for text in ligands)
    # OpenFF calls both residue 0 of chain X, which mmCIF merges into one.
    labels = {r.name: (r.chain.id, r.id) for r in found.model.topology.residues() if r.name in ("NAP", "TES")}
    assert len({chain for chain, _ in labels.values()}) == len({number for _, number in labels.values()}) == 2
    assert [found.model.places[":".join(label)] for label in labels.values()] == ["A:324", "A:325"]


def test_selenomethionine_becomes_methionine_and_a_phosphate_is_not_taken_away_in_silence(tmp_path):
    def selenium(lines):
        lines = [line.replace("MET A  36", "MSE A  36") if line.startswith("ATOM") else line for line in lines]
        return [line[:12] + "SE  " + line[16:76] + "SE" if line[12:26] == " SD  MSE A  36" else line for line in lines]

    report = inspect(edited(tmp_path, "1QBS.pdb", selenium))
    assert not report.refused
    assert "MSE A:36 becomes MET" in texts(report.done, "modified residue")

    def phosphorylated(lines):
        return [line.replace("SER A  37", "SEP A  37") if line.startswith("ATOM") else line for line in lines]

    path = edited(tmp_path, "1QBS.pdb", phosphorylated)
    (text,) = texts(inspect(path).refused, "modified residue")
    assert "--replace SEP" in text
    assert not inspect(path, settings=PreparationSettings(replace=("SEP",))).refused


def test_a_ligand_shifts_the_pka_of_the_catalytic_dyad(dmp323):
    without, with_ligand = inspect(raw_structure("1QBS.pdb")), inspect(raw_structure("1QBS.pdb"), [dmp323])
    # Without the ligand the proton is on the other aspartate.
    assert any("ASP A:25" in text and "ASH" in text for text in [f.text for f in without])
    assert texts(with_ligand.done, "state") == ["ASP B:125 is ASH (estimated pKa 8.5)"]


def test_states_by_hand_win(dmp323):
    settings = PreparationSettings(states={"A:25": "ASH", "B:125": "ASH"})
    report = inspect(raw_structure("1QBS.pdb"), [dmp323], settings)
    assert not report.refused
    assert [text[:24] for text in texts(report.done, "state")] == [
        "ASP A:25 is ASH, as give",
        "ASP B:125 is ASH, as giv",
    ]


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ({"A:999": "ASH"}, "A:999 was given a state, and the protein has no such residue"),
        ({"A:25": "HIP"}, "ASP A:25 cannot be HIP: it is ASP or ASH"),
        ({"A:1": "ASP"}, "PRO A:1 has one state in the force fields, not ASP"),
    ],
)
def test_a_state_that_cannot_be_is_refused(states, words):
    report = inspect(raw_structure("1QBS.pdb"), settings=PreparationSettings(states=states))
    assert words in texts(report.refused, "state")


def test_a_state_that_contradicts_the_hydrogens_of_the_file_is_refused(tmp_path):
    def renamed(lines):
        return [line.replace("HIS A  69", "HIP A  69") for line in lines]

    path = edited(tmp_path, "1QBS.pdb", renamed)
    assert any("HIS A:69 is HIP by its hydrogens or its name" in text for text in texts(inspect(path).decide, "state"))
    settings = PreparationSettings(states={"A:69": "HID"})
    (text,) = texts(inspect(path, settings=settings).refused, "state")
    assert "was given the state HID, and the file shows HIP" in text
    assert not inspect(path, settings=PreparationSettings(states={"A:69": "HID"}, hydrogens="ignore")).refused


def test_a_ligand_in_another_frame_or_on_top_of_the_protein_is_refused(dmp323):
    far = replace(dmp323, positions=dmp323.positions + 100.0)
    (text,) = texts(inspect(raw_structure("1QBS.pdb"), [far]).refused, "ligand")
    assert "its coordinates are not in the frame of the structure" in text
    near = replace(dmp323, positions=dmp323.positions + np.array([0.0, 3.0, 0.0]))
    assert any("overlaps with the protein" in f.text for f in inspect(raw_structure("1QBS.pdb"), [near]).refused)
    bonded = replace(dmp323, positions=dmp323.positions + np.array([2.0, 0.0, 0.0]))
    assert any("is bonded to ILE B:150 N (1.57" in f.text for f in inspect(raw_structure("1QBS.pdb"), [bonded]).refused)


IRON = """<ForceField>
 <AtomTypes><Type name="FE-own" class="FE-own" element="Fe" mass="55.85"/></AtomTypes>
 <Residues><Residue name="FE"><Atom name="FE" type="FE-own" charge="{charge}"/></Residue></Residues>
 <NonbondedForce coulomb14scale="0.8333333333333334" lj14scale="0.5">
  <UseAttributeFromResidue name="charge"/><Atom type="FE-own" sigma="0.2" epsilon="0.05"/>
 </NonbondedForce>
</ForceField>"""


@pytest.mark.parametrize(
    ("charge", "name", "words"),
    [
        ("2.0", "FE", None),
        ("1.7", "FE", "the force field gives FE A:73 the charge +1.700, which is no integer"),
        ("2.0", "XX", "FE A:73 and its force field have other atoms: the structure lacks XX"),
    ],
)
def test_a_force_field_of_the_users_own_says_what_a_group_is(tmp_path, charge, name, words):
    def iron(lines):
        return [
            line.replace("CA    CA A  73", "FE    FE A  73")[:76] + "FE" if line[17:26] == " CA A  73" else line
            for line in lines
            if not line.startswith(("LINK", "CONECT"))
        ]

    path = edited(tmp_path, "1AJJ.pdb", iron)
    assert "iron has two charges" in texts(inspect(path).refused, "ions")[0]
    xml = tmp_path / "own.xml"
    xml.write_text(IRON.replace("{charge}", charge).replace('Atom name="FE"', f'Atom name="{name}"'))
    refused = inspect(path, ligand_xml=[xml]).refused
    assert [finding.topic for finding in refused] == ([] if words is None else ["ligand"])
    assert words is None or words in refused[0].text


def test_a_covalent_ligand_is_refused(tmp_path):
    def linked(lines):
        link = "LINK         CA    CA A  73                 O   TRP A  22     1555   1555  2.29  "
        changed = [line.replace("CA    CA A  73", "C1   UNL A  73") for line in lines]
        return [link.replace("CA    CA A  73", "C1   UNL A  73"), *changed]

    report = inspect(edited(tmp_path, "1AJJ.pdb", linked))
    assert any("UNL A:73 is bonded to the protein (UNL A:73 C1 - TRP A:22 O)" in f.text for f in report.refused)


def test_two_residues_with_one_number_and_two_names_at_one_place_are_refused(tmp_path):
    def numbers(lines):
        return [line.replace("GLN A  56", "GLN A  55") if line.startswith("ATOM") else line for line in lines]

    (text,) = texts(
        inspect(edited(tmp_path, "1QBS.pdb", lambda lines: [*lines[:-1], *lines[:20], "END"])).refused, "numbers"
    )[:1]
    assert "A:1 is the number of PRO and of PRO in two places" in text

    def mixed(lines):
        changed = []
        for line in lines:
            changed.append(line)
            if line.startswith("ATOM") and line[17:26] == "VAL A  16":
                changed[-1] = line[:16] + "A" + line[17:]
                changed.append(line[:16] + "BTHR" + line[20:])
        return [line for line in changed if not line.startswith("ANISOU")]

    (text,) = texts(inspect(edited(tmp_path, "1BX8.pdb", mixed)).refused, "microheterogeneity")
    assert "A:16 is THR and VAL at once" in text


def test_the_name_of_a_chain_that_does_not_exist_is_refused():
    report = inspect(raw_structure("1QBS.pdb"), settings=PreparationSettings(chains=("C",)))
    assert texts(report.refused, "chains") == ["the structure has no chain C; it has A, B"]


def test_an_inspection_changes_nothing_and_a_report_raises_what_it_refuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = random.getstate()
    report = inspect(raw_structure("1BHL.pdb"))
    inspect(raw_structure("1AJJ.pdb"))
    assert list(tmp_path.iterdir()) == []
    assert random.getstate() == state
    with pytest.raises(PreparationError, match=r"1 thing has to be changed .*\n  gap: residues are missing"):
        report.check()
    assert report.text().startswith("Refused:\n  gap: ")


def damaged(lines, seed):
    """Cut, swap, duplicate, delete or scramble records of a file."""
    draw = random.Random(seed)
    lines = list(lines)
    for _ in range(draw.randint(1, 4)):
        kind, k, m = draw.randrange(8), draw.randrange(len(lines)), draw.randrange(len(lines))
        if kind == 0:
            lines[k] = lines[k][: draw.randrange(81)]
        elif kind == 1:
            lines[k], lines[m] = lines[m], lines[k]
        elif kind == 2:
            lines.insert(m, lines[k])
        elif kind == 3:
            del lines[min(k, m) : min(k, m) + draw.randint(1, 20)]
        elif kind == 4:
            place = draw.randrange(80)
            lines[k] = f"{lines[k]:<80}"[:place] + draw.choice("XZ9 -.*é") + f"{lines[k]:<80}"[place + 1 :]
        elif kind == 5:
            lines[k : k + 30] = reversed(lines[k : k + 30])
        elif kind == 6:
            lines = lines[: max(1, k)]
        else:
            lines[k] = f"{lines[k]:<80}"[:30] + f"{draw.uniform(-999, 999):8.3f}" + f"{lines[k]:<80}"[38:]
        lines = lines or ["END"]
    return lines


@pytest.mark.parametrize("name", ["1AJJ.pdb", "1BX8.pdb", "5vav.pdb"])
def test_damaged_files_are_reported_and_nothing_else_is_raised(tmp_path, name):
    lines = raw_structure(name).read_text().splitlines()
    for seed in range(40):
        path = tmp_path / "damaged.pdb"
        path.write_text("\n".join(damaged(lines, seed)) + "\n", encoding="utf-8")
        started = time.monotonic()
        try:
            report = inspect(path)
        except QmmlmmError:
            continue
        assert report.findings, seed
        assert time.monotonic() - started < LONGEST, seed
