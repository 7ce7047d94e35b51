"""States of walkers, and their form in the store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qmmlmm.errors import LoopError
from qmmlmm.geometry import Geometry
from qmmlmm.units import FloatArray

TraceRow = tuple[int, float, float, dict[str, float]]
"""Step, uncertainty in kJ/(mol nm), potential energy in kJ/mol, and collective variables of an observation."""


@dataclass(frozen=True, eq=False)
class WalkerState:
    """Positions and velocities of all particles of a System.

    Parameters
    ----------
    geometry : Geometry, nm
    velocities : (n, 3) float array, nm/ps, optional
    """

    geometry: Geometry
    velocities: FloatArray | None = None

    def to_bytes(self) -> bytes:
        """Return all numbers, little-endian: nine of the box (NaN without one), positions, and velocities if known."""
        box = np.full((3, 3), np.nan) if self.geometry.box is None else self.geometry.box
        parts = [box, self.geometry.positions, *([] if self.velocities is None else [self.velocities])]
        return b"".join(np.ascontiguousarray(part, dtype="<f8").tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes, n_particles: int) -> WalkerState:
        """Return the state whose numbers `to_bytes` returned.

        Raises
        ------
        LoopError
            If the number of particles differs.
        """
        if not isinstance(data, bytes) or len(data) % 8:
            raise LoopError(f"the state of a walker is {8 * (9 + 3 * n_particles)} bytes or more, got {data!r:.40}")
        numbers = np.frombuffer(data, dtype="<f8").astype(float)
        if len(numbers) not in (9 + 3 * n_particles, 9 + 6 * n_particles):
            raise LoopError(f"{len(numbers)} numbers are no state of {n_particles} particles; use the same System")
        box = numbers[:9].reshape(3, 3)
        parts = numbers[9:].reshape(-1, n_particles, 3)
        geometry = Geometry(parts[0], None if np.isnan(box).any() else box)
        return cls(geometry, parts[1] if len(parts) > 1 else None)
