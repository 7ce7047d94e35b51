"""The example of an absorption spectrum, with two snapshots and a small basis set."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "absorption_spectrum.py"
PRINTED = 1e-3
"""eV: the report has three decimals."""


def run(tmp_path: Path) -> str:
    """Return what the example prints."""
    size = ["--frames", "2", "--every", "0.02", "--workers", "1"]
    command = [sys.executable, str(EXAMPLE), *size, "--method", "hf", "--basis", "sto-3g"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_report_has_the_means_of_the_recorded_transitions_and_a_second_run_computes_nothing(tmp_path):
    report = run(tmp_path)
    directory = tmp_path / "spectrum_run"
    record = directory / "transitions.csv"
    rows = list(csv.DictReader(record.read_text(encoding="utf-8").splitlines()[1:]))
    means = [
        sum(float(row["energy_ev"]) for row in rows if row["surroundings"] == surroundings) / 2
        for surroundings in ("1", "0")
    ]
    line = re.search(r"\| 1 \| (\d\.\d+) ± .*\| (\d\.\d+) ± [\d.]+ \| ([-+]\d\.\d+) ±", report)
    water, vacuum, shift = map(float, line.groups())
    assert [water, vacuum] == pytest.approx(means, abs=PRINTED)
    assert shift == pytest.approx(water - vacuum, abs=2 * PRINTED)
    # Hydrogen bonds stabilise the lone pair from which the electron goes.
    assert shift > 0.0
    for name in ("report.md", "spectrum.csv", "spectrum.png"):
        assert (directory / name).stat().st_size > 0, name
    before = record.read_bytes()
    assert run(tmp_path) == report
    assert record.read_bytes() == before
