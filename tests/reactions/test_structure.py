"""Structures as files of other programs, and as starts."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from openmm import app, unit

from qmmlmm import XTBPotential
from qmmlmm.errors import SettingError
from qmmlmm.geometry import Geometry
from qmmlmm.reactions import EnergySurface
from qmmlmm.reactions.structure import start_geometry
from qmmlmm.reactions.whole_molecules import made_whole
from qmmlmm.units import HARTREE_IN_EV
from tests.reactions.molecules import ETHANOL, vacuum


def test_files_have_the_positions_and_the_energy(tmp_path):
    case = vacuum(ETHANOL, XTBPotential())
    surface = EnergySurface(case.mixed, case.positions)
    point = surface.evaluate(surface.coordinates)
    structure = surface.structure(point)
    structure.write_xyz(tmp_path / "ethanol.xyz")
    atoms = ase.io.read(tmp_path / "ethanol.xyz")
    assert np.allclose(atoms.get_positions(), 10.0 * case.positions, atol=1e-7)
    assert abs(atoms.get_potential_energy() - point.energy * HARTREE_IN_EV) < 1e-6
    structure.write_pdb(tmp_path / "ethanol.pdb")
    pdb = app.PDBFile(str(tmp_path / "ethanol.pdb"))
    assert np.allclose(pdb.getPositions(asNumpy=True)._value, case.positions, atol=1e-4)


def test_a_start_is_a_structure_or_positions_with_a_unit():
    case = vacuum(ETHANOL, XTBPotential())
    found = start_geometry(case.mixed, 10.0 * case.positions * unit.angstrom)
    assert np.allclose(found.positions, case.positions)
    with pytest.raises(SettingError, match="positions are lengths"):
        start_geometry(case.mixed, "ethanol.pdb")


def test_a_molecule_that_the_box_cuts_is_made_whole():
    case = vacuum(ETHANOL, XTBPotential())
    box = np.diag([2.0, 2.0, 2.0])
    cut = case.positions % 2.0
    assert np.abs(cut - case.positions).max() > 1.0
    whole = made_whole(case.mixed.topology, Geometry(cut, box), np.arange(9))
    distances = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (whole, case.positions)]
    assert np.allclose(*distances)
