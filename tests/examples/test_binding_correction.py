"""The example of a binding correction, even smaller: it leaves its report, and computes nothing twice."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "binding_correction.py"
SMALL = ["--trajectories", "4", "--switch", "2", "--equilibration", "2", "--between", "1", "--relax", "20"]


def run(folder: Path) -> str:
    """Return what the example prints."""
    command = [sys.executable, "-W", "ignore::UserWarning", str(EXAMPLE), *SMALL]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_example_runs_and_continues(tmp_path):
    shown = run(tmp_path)
    assert re.search(r"complex - solvent: -?\d+\.\d+ \+- \d+\.\d+ kJ/mol", shown)
    directory = tmp_path / "binding_correction_run"
    assert "| solvent | FF-XTB |" in (directory / "report.md").read_text(encoding="utf-8")
    assert (directory / "works.png").stat().st_size > 10_000
    works = {path: path.stat().st_mtime_ns for path in directory.rglob("0*.npz")}
    assert len(works) == 2 * 2 * 8
    assert run(tmp_path) == shown
    assert {path: path.stat().st_mtime_ns for path in works} == works
