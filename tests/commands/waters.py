"""Two waters in a PDB file, for tests of input files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from openmm import app, unit

WATER = np.array([[0.0, 0.0, 0.0], [0.09572, 0.0, 0.0], [-0.023999, 0.092663, 0.0]])


def write_waters(path: Path, box: float | None = None) -> None:
    """Write two waters, 0.3 nm apart along each axis, with a cubic box of an edge in nm if there is one."""
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(2):
        residue = topology.addResidue("HOH", chain)
        atoms = [topology.addAtom(n, app.Element.getBySymbol(n[0]), residue) for n in ("O", "H1", "H2")]
        topology.addBond(atoms[0], atoms[1])
        topology.addBond(atoms[0], atoms[2])
    if box is not None:
        topology.setPeriodicBoxVectors(box * np.eye(3) * unit.nanometer)
    with path.open("w") as file:
        app.PDBFile.writeFile(topology, np.vstack([WATER, WATER + 0.3]) * unit.nanometer, file)
