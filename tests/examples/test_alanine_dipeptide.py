"""The input file of examples/alanine_dipeptide is checked as it stands, and runs with fewer steps."""

from __future__ import annotations

import csv
import shutil
import tomllib
from pathlib import Path

import pytest

from qmmlmm.commands.main import main
from tests.commands.toml_text import toml_text

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "alanine_dipeptide"


def test_the_file_can_run_as_it_stands(tmp_path, capsys):
    for path in EXAMPLE.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    assert main(["run", str(tmp_path / "run.toml"), "--check"]) == 0
    output = capsys.readouterr().out
    assert "region       peptide: 22 atoms, charge 0, multiplicity 1" in output
    assert "term         peptide/XTB: gfn2-xtb, electrostatic, coefficient 1.0" in output
    assert "production   4,000 steps of 0.5 fs = 2 ps, 300 K, constant volume" in output
    assert "production has 200 frames, approximately 4 MB" in output


@pytest.mark.slow
def test_the_file_with_fewer_steps_leaves_frames_energies_and_variables(tmp_path):
    shutil.copy(EXAMPLE / "alanine_dipeptide.pdb", tmp_path)
    content = tomllib.loads((EXAMPLE / "run.toml").read_text())
    for table, length in (("heat", 100), ("equilibrate", 10), ("dynamics", 40)):
        content[table]["length"] = length
    content["platform"] = {"name": "CPU", "threads": 1}
    path = tmp_path / "run.toml"
    path.write_text(toml_text(content))
    assert main(["run", str(path)]) == 0
    production = tmp_path / "run" / "production"
    assert (production / "trajectory.dcd").stat().st_size > 2 * 12 * 1822
    for name, columns in (("energies.csv", ["peptide/XTB (kJ/mol)"]), ("variables.csv", ["phi (rad)", "psi (rad)"])):
        header, *rows = csv.reader((production / name).read_text().removeprefix("#").splitlines())
        assert set(columns) <= set(header)
        assert [int(row[0]) for row in rows] == [10, 20, 30, 40]
