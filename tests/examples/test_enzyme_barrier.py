"""The example of an enzyme, with few steps: it leaves its tables and figure."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "enzyme_barrier.py"
SMALL = ["--centres", "-0.06", "0.0", "0.06", "--one-way", "--max-steps", "1"]


def run(folder: Path) -> str:
    """Return what the example prints."""
    command = [sys.executable, "-W", "ignore", str(EXAMPLE), *SMALL]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_example_leaves_its_points_tables_and_figure(tmp_path):
    shown = run(tmp_path)
    assert "59 atoms in GFN2-xTB of 58553" in shown
    assert re.search(r"^ +-0\.0\d\d +0\.0$", shown, re.MULTILINE)
    assert "with the site, top less first point" in shown or "with the site, last point less first point" in shown
    assert re.search(r"^ARG\d+ +-?\d+\.\d$", shown, re.MULTILINE)
    directory = tmp_path / "enzyme_barrier_run"
    assert (directory / "enzyme_barrier.png").stat().st_size > 20_000
    rows = list(csv.reader((directory / "residues.csv").read_text(encoding="utf-8").splitlines()[1:]))
    assert "ASP103 outside the region" in {row[0] for row in rows}
    assert len(list(directory.glob("forth_*.npz"))) == 3  # from which a run that was stopped continues
