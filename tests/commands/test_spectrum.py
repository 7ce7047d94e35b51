from __future__ import annotations

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app, unit

from qmmlmm.commands.main import main

INPUT = """\
trajectory = "run.xtc"

[system]
pdb = "water.pdb"
force_field = ["amber14/tip3p.xml"]
no_box = true

[region]
name = "water"
select = "resid 0"
charge = 0

[qm]
method = "hf"
basis = "sto-3g"

[states]
n_states = 3

[spectrum]
frames = 3
"""


@pytest.fixture
def folder(tmp_path):
    """Three waters, and a trajectory of five frames in which they shake."""
    force_field = app.ForceField("amber14/tip3p.xml")
    modeller = app.Modeller(app.Topology(), [])
    modeller.addSolvent(force_field, boxSize=openmm.Vec3(0.9, 0.9, 0.9) * unit.nanometer)
    keep = list(modeller.topology.residues())[:3]
    modeller.delete([residue for residue in modeller.topology.residues() if residue not in keep])
    modeller.topology.setPeriodicBoxVectors(None)
    with (tmp_path / "water.pdb").open("w") as file:
        app.PDBFile.writeFile(modeller.topology, modeller.positions, file)
    places = np.array(modeller.positions.value_in_unit(unit.nanometer))
    shaken = places + 0.004 * np.random.default_rng(2).standard_normal((5, 9, 3))
    mdtraj.Trajectory(shaken, mdtraj.Topology.from_openmm(modeller.topology)).save(str(tmp_path / "run.xtc"))
    (tmp_path / "dye.toml").write_text(INPUT, encoding="utf-8")
    return tmp_path


def test_a_spectrum_comes_out_and_is_not_computed_twice(folder, capsys):
    assert main(["spectrum", str(folder / "dye.toml"), "--quiet"]) == 0
    report = capsys.readouterr().out
    assert report.startswith("# water: TDA, hf/sto-3g")
    assert "3 snapshots" in report
    output = folder / "dye_run"
    assert sorted(path.name for path in output.iterdir()) == [
        "report.html",
        "report.md",
        "spectrum.csv",
        "spectrum.png",
        "transitions.csv",
    ]
    record = output / "transitions.csv"
    before = record.read_text(encoding="utf-8"), record.stat().st_mtime_ns
    assert main(["spectrum", str(folder / "dye.toml"), "--quiet"]) == 0
    assert (record.read_text(encoding="utf-8"), record.stat().st_mtime_ns) == before
    assert capsys.readouterr().out == report


def test_processes_share_the_snapshots(folder, capsys):
    text = INPUT.replace("frames = 3", "frames = 2\nworkers = 2\nvacuum = false")
    (folder / "dye.toml").write_text(text, encoding="utf-8")
    assert main(["spectrum", str(folder / "dye.toml"), "--quiet"]) == 0
    assert "shift" not in capsys.readouterr().out.split("spectrum.png")[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("frames = 3", "frames = 6", "has 5 frames, 6 from frame 0 on"),
        ("frames = 3", "frame = 3", "unknown key 'frame'"),
        ("n_states = 3", 'n_states = 3\nkind = "CIS"', "'TDA' or 'TDDFT', got 'CIS'"),
        ("[states]\nn_states = 3", "", "lacks 'states'"),
        ("frames = 3", "workers = 0\nframes = 3", "workers is a whole number of 1 or more"),
        ('trajectory = "run.xtc"', 'trajectory = "no.xtc"', "no.xtc"),
    ],
)
def test_a_wrong_file_is_an_error_that_says_what(folder, capsys, old, new, message):
    assert INPUT.count(old) == 1
    (folder / "dye.toml").write_text(INPUT.replace(old, new), encoding="utf-8")
    assert main(["spectrum", str(folder / "dye.toml"), "--quiet"]) == 1
    assert message in capsys.readouterr().err
