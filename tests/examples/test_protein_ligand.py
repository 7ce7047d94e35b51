"""The first example of the README, with a small basis set and few steps."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from openmm import unit

from qmmlmm.analysis.tables import read_energies

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "protein_ligand.py"
SAME_MODEL = 1e-6
"""kJ/mol: ML and -ML at the same geometry."""


def run(tmp_path: Path, *arguments: str) -> str:
    """Return what the example prints."""
    command = [sys.executable, str(EXAMPLE), "--basis", "sto-3g", "--relax-steps", "1", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_example_runs_is_resumed_and_leaves_what_the_readme_says(tmp_path):
    first = run(tmp_path, "--steps", "1")
    assert "23817 atoms, 18 in the ligand" in first
    assert re.search(r"outer step of 4 fs: \d+\.\d+ s, 1 steps", first)
    directory = tmp_path / "protein_ligand_run"
    names = ("trajectory.dcd", "topology.pdb", "energies.csv", "checkpoint.chk", "run.json", "energies.png")
    for name in names:
        assert (directory / name).stat().st_size > 0, name
    before = read_energies(directory)
    resumed = run(tmp_path, "--steps", "2", "--resume")
    assert re.search(r"outer step of 4 fs: \d+\.\d+ s, 1 steps", resumed)
    energies = read_energies(directory)
    assert energies.steps.tolist() == [1, 2]
    assert energies.time.value_in_unit(unit.picosecond) == pytest.approx([0.004, 0.008])
    terms = {name: values.value_in_unit(unit.kilojoule_per_mole) for name, values in energies.terms.items()}
    assert terms["ligand/ML"] == pytest.approx(-terms["ligand/-ML"], abs=SAME_MODEL)
    total = energies.potential_energy.value_in_unit(unit.kilojoule_per_mole)
    # Single precision of the CPU platform leaves 1e-7 of the sum.
    assert sum(terms.values()) == pytest.approx(total, rel=1e-6)
    assert terms["MM"][0] == before.terms["MM"].value_in_unit(unit.kilojoule_per_mole)[0]
    assert np.isfinite(total).all()
    record = json.loads((directory / "run.json").read_text(encoding="utf-8"))
    assert "MultipleTimeStepIntegrator" in json.dumps(record)
