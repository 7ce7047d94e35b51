"""Evaluations of a surface on disk, so that a calculation that was killed repeats none of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qmmlmm.reactions.calculation_files import read_arrays, write_arrays
from qmmlmm.reactions.surroundings import FieldOfRegion
from qmmlmm.units import FloatArray

SAME = 1e-8
"""Largest difference of coordinates that are the same, bohr: rounding of another processor."""

Record = dict[str, FloatArray]


class EvaluationLog:
    """The evaluations of one optimisation, in their order.

    A continued optimisation takes the same steps, for which it gets the results of the log. At the last of them it gets
    the state of the surroundings too, and goes on.

    Parameters
    ----------
    folder : Path
        Existing folder, which may have the evaluations of a calculation that was killed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next = 0
        self._records: list[Record] = []
        while (record := read_arrays(self._path(len(self._records)))) is not None:
            self._records.append(record)
        self._state = read_arrays(folder / "state.npz")
        known = -1 if self._state is None else int(self._state["index"])
        if self._state is not None and known == len(self._records):
            self._records.append({name: self._state[name] for name in ("coordinates", "energy", "gradient", "extra")})
        del self._records[known + 1 :]

    @property
    def length(self) -> int:
        """Number of evaluations in the log."""
        return len(self._records)

    def recalled(self, coordinates: FloatArray) -> tuple[Record, Record | None] | None:
        """Return the next record and, with the last one, the state; None if it has to be computed.

        Parameters
        ----------
        coordinates : (n_atoms, 3) float array, bohr
        """
        if self._next >= len(self._records):
            return None
        record = self._records[self._next]
        if not np.allclose(record["coordinates"], coordinates, rtol=0.0, atol=SAME):
            del self._records[self._next :]
            return None
        self._next += 1
        return record, self._state if self._next == len(self._records) else None

    def keep(
        self,
        coordinates: FloatArray,
        energy: float,
        gradient: FloatArray,
        extra: float,
        positions: FloatArray,
        field: FieldOfRegion | None,
    ) -> None:
        """Keep an evaluation and the state after it.

        Parameters
        ----------
        coordinates : (n_atoms, 3) float array, bohr
        energy : float, hartree
        gradient : (n_atoms, 3) float array, hartree/bohr
        extra : float
            Gain of an evaluation, or force on the surroundings.
        positions : (n_particles, 3) float array, nm
        field : FieldOfRegion or None
        """
        record: Record = {
            "coordinates": np.array(coordinates),
            "energy": np.asarray(energy),
            "gradient": np.array(gradient),
            "extra": np.asarray(extra),
        }
        state = record | {"index": np.asarray(self._next), "positions": positions}
        if field is not None:
            state |= {"charges": field.charges, "forces": field.forces}
        write_arrays(self._folder / "state.npz", state)
        write_arrays(self._path(self._next), record)
        self._records.append(record)
        self._next += 1

    def remove(self) -> None:
        """Delete all files: the optimisation has ended."""
        for index in range(len(self._records)):
            self._path(index).unlink(missing_ok=True)
        (self._folder / "state.npz").unlink(missing_ok=True)
        self._records, self._next = [], 0

    def _path(self, index: int) -> Path:
        return self._folder / f"evaluation_{index:05d}.npz"


def field_of(state: Record) -> FieldOfRegion | None:
    """Return the field of the surroundings in a state."""
    return FieldOfRegion(state["charges"], state["forces"]) if "charges" in state else None
