"""The example that goes from a raw PDB file and a SMILES to xTB/MM dynamics corrected by B3LYP."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "prepare_t4_lysozyme.py"


def test_the_structure_alone_is_written_without_the_packages_of_the_preparation(tmp_path):
    command = [sys.executable, str(EXAMPLE), "--structure-only"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.iterdir()
    assert written.name == "4w51_xylene.pdb"
    carbons = [line for line in written.read_text().splitlines() if line[17:20] == "PXY"]
    assert len(carbons) == 8


@pytest.mark.slow
def test_the_example_prepares_the_complex_and_runs_it(tmp_path):
    pytest.importorskip("openff.toolkit", reason='needs pip install "qmmlmm[prepare]"', exc_type=ImportError)
    pytest.importorskip("tblite", reason='needs pip install "qmmlmm[xtb]"', exc_type=ImportError)
    command = [sys.executable, str(EXAMPLE), "--minimise", "60", "--steps", "1", "--heat", "10"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "t4_lysozyme_prepared"
    record = json.loads((folder / "prepare.json").read_text())
    assert record["ligands"][0]["smiles"] == "Cc1ccc(C)cc1"
    assert record["states"]["A:31"] == "HIE"
    assert record["charges"]["all"] == pytest.approx(0.0, abs=1e-6)
    regions = tomllib.loads((folder / "site.toml").read_text())["regions"]
    assert (len(regions["ligand"]["atoms"]), regions["ligand"]["charge"]) == (18, 0)
    # Side chains of a hydrophobic cavity; rounded once, their charges would be +1.
    assert regions["site"]["charge"] == 0
    assert (folder / "site.png").stat().st_size > 0
    energies = (folder / "corrected" / "production" / "energies.csv").read_text().splitlines()
    assert '"ligand/QM (kJ/mol)","ligand/-XTB (kJ/mol)"' in energies[0]
    assert len(energies) == 2
