"""Snapshots of a trajectory."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from qmmlmm.analysis.transitions import TransitionsError
from qmmlmm.units import FloatArray


def read_snapshots(
    path: str | os.PathLike[str], topology: Any, n: int, first: int = 0
) -> list[tuple[FloatArray, FloatArray | None]]:
    """Return evenly spaced frames of a trajectory, the last one among them.

    Parameters
    ----------
    path : path
        Any trajectory that MDTraj reads frame by frame, such as DCD and XTC.
    topology : openmm.app.Topology
    n : int
        Number of frames.
    first : int
        Where they begin.

    Returns
    -------
    list of (positions, box)
        (n_particles, 3) and (3, 3) float arrays, nm; the box is None where the trajectory has none.

    Raises
    ------
    TransitionsError
        If the trajectory is too short or has another number of atoms.
    """
    import mdtraj

    with mdtraj.open(str(path)) as file:
        length = len(file)
    if not 1 <= n <= length - first:
        raise TransitionsError(f"{path} has {length} frames, {n} from frame {first} on cannot be taken")
    top = mdtraj.Topology.from_openmm(topology)
    found = []
    for index in np.unique(np.linspace(first, length - 1, n).round().astype(int)):
        try:
            frame = mdtraj.load_frame(str(path), int(index), top=top)
        except ValueError as error:
            raise TransitionsError(f"{path} does not fit the topology of {top.n_atoms} atoms: {error}") from error
        box = None if frame.unitcell_vectors is None else np.array(frame.unitcell_vectors[0], dtype=float)
        found.append((np.array(frame.xyz[0], dtype=float), box))
    return found
