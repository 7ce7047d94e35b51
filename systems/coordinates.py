"""Committed coordinates: positions and box in a small compressed file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from openmm import Vec3, unit


@dataclass(frozen=True)
class Coordinates:
    """Positions of whole molecules and their periodic box.

    Attributes
    ----------
    positions : (n_atoms, 3) float array, nm
        Virtual sites included.
    box_vectors : (3, 3) float array, nm
        Rows are the box vectors in OpenMM's reduced form.
    """

    positions: np.ndarray
    box_vectors: np.ndarray

    @property
    def positions_quantity(self) -> unit.Quantity:
        """Positions as OpenMM takes them, (n_atoms, 3) Quantity, nm."""
        return self.positions * unit.nanometer

    @property
    def box_quantity(self) -> unit.Quantity:
        """Box vectors as OpenMM takes them: three Vec3 with unit nm."""
        return [Vec3(*(float(x) for x in row)) for row in self.box_vectors] * unit.nanometer


def save_coordinates(path: Path, coordinates: Coordinates) -> None:
    """Write coordinates to a compressed file.

    Parameters
    ----------
    path : pathlib.Path
        File to write, suffix ``.npz``. Positions are rounded to float32: 2e-7 nm in a box of 4 nm.
    coordinates : Coordinates
        What to write.
    """
    np.savez_compressed(
        path,
        positions_nm=coordinates.positions.astype(np.float32),
        box_vectors_nm=coordinates.box_vectors.astype(np.float64),
    )


def load_coordinates(path: Path) -> Coordinates:
    """Read coordinates that :func:`save_coordinates` wrote.

    Parameters
    ----------
    path : pathlib.Path
        File to read.

    Returns
    -------
    Coordinates
        In float64.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"the coordinates {path.name} are not in {path.parent}; they belong to the repository, "
            "and the system's README says which command makes them"
        )
    with np.load(path) as data:
        return Coordinates(data["positions_nm"].astype(np.float64), data["box_vectors_nm"].astype(np.float64))


def wrap_molecules(coordinates: Coordinates, molecules: list[list[int]], n_solute: int) -> Coordinates:
    """Put the solute into the middle of the box and every solvent molecule, whole, into the cell.

    Parameters
    ----------
    coordinates : Coordinates
        Positions in which no molecule is broken and the parts of the solute lie together.
    molecules : list of lists of int
        Atom indices of every molecule after the solute; each is moved by the cell of its first atom.
    n_solute : int
        The first n_solute atoms are the solute and move together; zero if there is none.

    Returns
    -------
    Coordinates
        The same energy in another image.
    """
    positions = coordinates.positions.copy()
    box = coordinates.box_vectors
    if n_solute:
        positions += box.sum(axis=0) / 2 - positions[:n_solute].mean(axis=0)
    lengths = np.array([len(molecule) for molecule in molecules])
    first = np.array([molecule[0] for molecule in molecules])
    shift = np.floor(positions[first] @ np.linalg.inv(box)) @ box
    atoms = np.array([atom for molecule in molecules for atom in molecule])
    positions[atoms] -= np.repeat(shift, lengths, axis=0)
    return Coordinates(positions, box)
