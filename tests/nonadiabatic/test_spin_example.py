"""The example of a spin crossing, at a size that takes seconds."""

import csv
import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "spin_crossing.py"
SAME = 1e-3
"""kJ/mol: energies of two calculations of one geometry, from other guesses."""


@pytest.fixture(scope="module")
def example():
    specification = importlib.util.spec_from_file_location("spin_crossing", EXAMPLE)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # where dataclasses look for it
    specification.loader.exec_module(module)
    yield module
    del sys.modules[specification.name]


def test_the_example_finds_both_crossings_and_its_curves_meet_there(example, tmp_path, capsys):
    size = ["--waters", "100", "--edge", "1.5", "--picoseconds", "0.1", "--points", "3"]
    level = ["--method", "hf", "--basis", "sto-3g"]
    vacuum, water = example.run(example.parse_options(["--directory", str(tmp_path), *size, *level]))
    for bend in (vacuum, water):
        (here,) = np.flatnonzero(bend.angles == bend.angle)
        for spin in ("singlet", "triplet"):
            assert abs(bend.energies[spin][here]) < abs(bend.point.gap) + SAME
        assert bend.point.projection < 1e-3
        assert 2.0 < bend.s_squared < 2.1
        assert 1.0 < bend.spin_orbit < 30.0
        assert 0.0 < bend.flip < 1e-2
    # Water pulls the singlet down, which has the larger dipole.
    assert water.angle > vacuum.angle + 1.0
    printed = capsys.readouterr().out
    assert re.search(rf"angle \(degrees\) +{vacuum.angle:.1f} +{water.angle:.1f}\n", printed)
    assert (tmp_path / "spin_crossing.png").stat().st_size > 0
    rows = list(csv.reader((tmp_path / "spin_crossing.csv").read_text().splitlines()))
    assert len(rows) == 1 + len(vacuum.angles) + len(water.angles)


def test_the_bend_keeps_bonds_and_plane(example):
    places = np.array([[0.1, 0.2, 0.3], [0.15, 0.29, 0.28], [0.02, 0.17, 0.38], [1.0, 1.0, 1.0]])
    moved = example.bent(places, 131.0)
    assert example.angle_and_length(moved)[0] == pytest.approx(131.0)
    lengths = [np.linalg.norm(x[1:3] - x[0], axis=1) for x in (places, moved)]
    assert lengths[1] == pytest.approx(lengths[0])
    assert (moved[[0, 3]] == places[[0, 3]]).all()
    normals = [np.cross(x[1] - x[0], x[2] - x[0]) for x in (places, moved)]
    assert np.cross(*normals) == pytest.approx(np.zeros(3), abs=1e-12)
    same = example.bent(places, example.angle_and_length(places)[0])
    assert same == pytest.approx(places, abs=1e-12)
