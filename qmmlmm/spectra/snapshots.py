"""Snapshots of a trajectory."""

from __future__ import annotations

import os

import numpy as np

from qmmlmm.errors import TransitionsError
from qmmlmm.geometry import Geometry


def read_snapshots(path: str | os.PathLike[str], topology: object, n: int, first: int = 0) -> list[Geometry]:
    """Return evenly spaced frames of a trajectory, including the last one.

    Parameters
    ----------
    path : path
        Trajectory that MDTraj reads frame by frame, such as DCD and XTC.
    topology : openmm.app.Topology
    n : int
        Number of frames.
    first : int
        First frame.

    Returns
    -------
    list of Geometry, nm
        Without a box where the trajectory has none.

    Raises
    ------
    TransitionsError
        If the trajectory is too short or has another number of atoms.
    """
    import mdtraj

    with mdtraj.open(str(path)) as file:
        length = len(file)
    if not 1 <= n <= length - first:
        raise TransitionsError(f"{path} has {length} frames, {n} from frame {first} on cannot be taken; take fewer")
    top = mdtraj.Topology.from_openmm(topology)
    found = []
    for index in np.unique(np.linspace(first, length - 1, n).round().astype(int)):
        try:
            frame = mdtraj.load_frame(str(path), int(index), top=top)
        except ValueError as error:
            raise TransitionsError(f"{path} does not fit the topology of {top.n_atoms} atoms: {error}") from error
        box = None if frame.unitcell_vectors is None else np.array(frame.unitcell_vectors[0], dtype=float)
        found.append(Geometry(np.array(frame.xyz[0], dtype=float), box))
    return found
