"""Scans along two variables: minima and lowest pass of a known surface, and what is written."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from openmm import app, unit

from qmmlmm.errors import SettingError
from qmmlmm.reactions import GridScan, ScanPoint
from qmmlmm.sampling import Distance
from tests.reactions.molecules import HYDROGEN_CYANIDE, bonded

FIRST = np.array([-1.2, -1.0, -0.5, 0.0, 0.5, 1.0, 1.2])
SECOND = np.array([1.25, 1.0, 0.5, 0.0, -0.5, -1.0])
HEIGHT = 40.0


def surface(x, y):
    """Two minima at (-1, 1) and (1, -1), zero, a saddle of HEIGHT at the origin, and a wall across it, kJ/mol."""
    return HEIGHT * (x**2 - 1.0) ** 2 + 90.0 * (x + y) ** 2


def grid(function, first=FIRST, second=SECOND):
    topology, _ = bonded(HYDROGEN_CYANIDE)
    point = ScanPoint(topology, np.zeros((3, 3)) * unit.nanometer, None, None, (0, 1, 2), ())
    rows = tuple(
        tuple(
            dataclasses.replace(
                point,
                positions=np.array([[x, y, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]) * unit.nanometer,
                energy=(function(x, y) - 500.0) * unit.kilojoule_per_mole,
                centres=(x, y),
                values=(x + 0.001, y - 0.001),
                restraint_energy=0.25 * unit.kilojoule_per_mole,
                evaluations=2,
            )
            for y in second
        )
        for x in first
    )
    return GridScan(None, (Distance(0, 1), Distance(0, 2)), (first, second), rows, None)


def test_minima_are_below_both_ends_and_the_path_goes_over_the_saddle():
    found = grid(surface)
    assert found.minima() == ((1, 1), (5, 5))
    path = found.path()
    places = np.array([structure.positions._value[0, :2] for structure in path.structures])
    assert places[0].tolist() == [-1.0, 1.0]
    assert places[-1].tolist() == [1.0, -1.0]
    assert path.barrier._value == pytest.approx(HEIGHT, abs=1e-12)
    assert path.highest.positions._value[0, :2].tolist() == [0.0, 0.0]
    # Along the diagonal, where the wall is zero, in steps to neighbours.
    assert places.sum(axis=1) == pytest.approx(0.0, abs=1e-12)
    assert found.evaluations == 2 * FIRST.size * SECOND.size
    assert found.last_place == (6, 5)


def test_a_grid_with_one_minimum_has_no_path_of_its_own(tmp_path):
    found = grid(lambda x, y: x**2 + y**2)
    found.save_figure(tmp_path / "scan.png")
    assert (tmp_path / "scan.png").exists()
    with pytest.raises(SettingError, match=r"goes down to one minimum from both of its ends, at place \(3, 3\)"):
        found.path()
    assert len(found.path((0, 0), (6, 5))) > 2


def test_the_table_has_a_row_for_each_pair_and_the_map_is_written(tmp_path):
    found = grid(surface)
    found.write_csv(tmp_path / "scan.csv")
    names, *rows = (tmp_path / "scan.csv").read_text().splitlines()
    assert names == (
        '#"Centre 1","Centre 2","Value 1","Value 2","Potential Energy (kJ/mol)","Restraint Energy (kJ/mol)"'
    )
    table = np.array([[float(number) for number in row.split(",")] for row in rows])
    assert table.shape == (FIRST.size * SECOND.size, 6)
    x, y = table[:, 0], table[:, 1]
    assert table[:, 4] == pytest.approx(surface(x, y) - surface(FIRST[0], SECOND[0]), abs=1e-5)
    assert (table[:, 5] == 0.25).all()
    found.save_figure(tmp_path / "scan.png")
    assert (tmp_path / "scan.png").stat().st_size > 10_000


def test_structures_of_a_path_on_the_grid_are_written(tmp_path):
    grid(surface).path().write_pdb(tmp_path / "path.pdb")
    assert app.PDBFile(str(tmp_path / "path.pdb")).getNumFrames() == 5
