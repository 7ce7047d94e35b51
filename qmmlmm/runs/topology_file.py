"""The file with the atoms of a run: PDB, or PDBx/mmCIF for large systems."""

from __future__ import annotations

from pathlib import Path

import openmm
from openmm import app

TOPOLOGY_NAME = "topology.pdb"
LARGE_TOPOLOGY_NAME = "topology.cif"
MOST_ATOMS_IN_PDB = 99_999


def topology_file_name(topology: app.Topology) -> str:
    """Return the name of the file for a Topology."""
    return LARGE_TOPOLOGY_NAME if topology.getNumAtoms() > MOST_ATOMS_IN_PDB else TOPOLOGY_NAME


def write_topology(path: Path, topology: app.Topology, state: openmm.State) -> None:
    """Write a Topology with the positions and the box of a State.

    Parameters
    ----------
    path : Path
        Path with a name from `topology_file_name`.
    topology : openmm.app.Topology
    state : openmm.State
    """
    positions = state.getPositions()
    with open(path, "w", encoding="utf-8") as file:
        if path.name == LARGE_TOPOLOGY_NAME:
            app.PDBxFile.writeFile(topology, positions, file, keepIds=True)
            return
        box = app.Topology()
        if topology.getPeriodicBoxVectors() is not None:  # the present box and not that of the Topology
            box.setPeriodicBoxVectors(state.getPeriodicBoxVectors())
        app.PDBFile.writeHeader(box, file)
        app.PDBFile.writeModel(topology, positions, file, keepIds=True)
        app.PDBFile.writeFooter(topology, file)
