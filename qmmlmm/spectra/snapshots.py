"""Snapshots of a trajectory."""

from __future__ import annotations

import os

import numpy as np

from qmmlmm.errors import TransitionsError
from qmmlmm.geometry import Geometry
from qmmlmm.setting_checks import check_path, check_whole_number


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
        If the trajectory cannot be read, is too short, or has another number of atoms or positions that are not finite.
    SettingError
        If an argument has another type.
    """
    import mdtraj

    check_path("path", path)
    check_whole_number("n", n, what="a number of snapshots")
    check_whole_number("first", first, at_least=0, what="a number of a frame")
    try:
        top = mdtraj.Topology.from_openmm(topology)
    except TypeError as error:
        raise TransitionsError(f"topology is an openmm.app.Topology, got {topology!r}") from error
    try:
        with mdtraj.open(str(path)) as file:
            length = len(file)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise TransitionsError(f"{path} is no trajectory that MDTraj reads: {error}") from error
    if not 1 <= n <= length - first:
        raise TransitionsError(
            f"{path} has {length} frames, {n} from frame {first} on cannot be taken; take fewer, or an earlier first"
        )
    found = []
    for index in np.unique(np.linspace(first, length - 1, n).round().astype(int)):
        try:
            frame = mdtraj.load_frame(str(path), int(index), top=top)
        except (OSError, RuntimeError, ValueError) as error:
            raise TransitionsError(
                f"{path} cannot be read, or does not fit the topology of {top.n_atoms} atoms: {error}"
            ) from error
        box = None if frame.unitcell_vectors is None else np.array(frame.unitcell_vectors[0], dtype=float)
        if not np.isfinite(frame.xyz).all():
            raise TransitionsError(f"{path}: frame {index} has positions that are not finite")
        found.append(Geometry(np.array(frame.xyz[0], dtype=float), box))
    return found
