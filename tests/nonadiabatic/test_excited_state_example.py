"""The example of an excited molecule in water, with so few and short trajectories that a test can afford it."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from qmmlmm.nonadiabatic import TrajectoryRecord

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "excited_state_dynamics.py"
KEPT = 0.01  # eV, in half a femtosecond


@pytest.fixture(scope="module")
def example():
    specification = importlib.util.spec_from_file_location("excited_state_dynamics", EXAMPLE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_trajectory_that_comes_to_the_ground_state_is_named(example):
    times = 0.001 * np.arange(4)
    energies = 96.485 * np.array([[0.0, 8.0, 10.0], [1.0, 7.0, 10.0], [4.0, 4.9, 10.0], [5.0, 5.1, 10.0]])
    far, near = (
        TrajectoryRecord(times, np.array(states), np.eye(3)[states], energies, np.zeros(4))
        for states in ([2, 2, 2, 2], [2, 1, 1, 1])
    )
    assert "COMES TO S0" not in example.describe(0, far)
    assert "S2 -> S1 after  1.00 fs, gap 3.00 eV" in example.describe(1, near)
    assert "COMES TO S0 after 2.00 fs" in example.describe(1, near)
    fallen = TrajectoryRecord(times, np.array([2, 2, 0, 0]), np.eye(3)[[2, 2, 0, 0]], energies, np.zeros(4))
    assert "COMES TO S0 after 2.00 fs" in example.describe(2, fallen)


@pytest.mark.slow
def test_the_example_runs_goes_on_and_leaves_its_tables_and_figure(example, tmp_path, capsys):
    folder = tmp_path / "excited_run"
    options = ["--directory", str(folder), "--trajectories", "2", "--basis", "sto-3g", "--workers", "1"]
    options += ["--relax", "0.02", "--fs"]
    example.main([*options, "0.25"])
    first = np.loadtxt(folder / "trajectory_1.csv", delimiter=",")
    example.main([*options, "0.5"])
    printed = capsys.readouterr().out
    assert len(re.findall(r"trajectory \d: stays on S2 +0 changes", printed)) == 4
    for number in (0, 1):
        table = np.loadtxt(folder / f"trajectory_{number}.csv", delimiter=",")
        assert table[:, 0] == pytest.approx([0.0, 0.00025, 0.0005])
        assert (np.diff(table[:, 3:6], axis=1) > 0.0).all()  # S0 < S1 < S2
        assert abs(table[:, 2] - table[0, 2]).max() / 96.5 < KEPT
    # The second run has gone on where the first ended.
    assert (table[:2] == first).all()
    for name in ("populations.csv", "states.png", "initial_conditions.npz"):
        assert (folder / name).stat().st_size > 0, name
    with pytest.raises(SystemExit, match="holds a run of 2 trajectories.*take another --directory"):
        example.main([*options, "0.5", "--seed", "2"])
