"""Geometries as bytes with a checksum, the way they stand in the store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from qmmlmm.units import FloatArray


@dataclass(frozen=True)
class Snapshot:
    """Where all particles of a System are, and how they move.

    Parameters
    ----------
    positions : (n, 3) float array, nm
    box : (3, 3) float array, nm
        The unit matrix without periodicity.
    velocities : (n, 3) float array, nm/ps, optional
    """

    positions: FloatArray
    box: FloatArray
    velocities: FloatArray | None = None

    def to_bytes(self) -> bytes:
        """Return all numbers, little-endian: box, positions, velocities if there are any."""
        parts = [self.box, self.positions, *([] if self.velocities is None else [self.velocities])]
        return b"".join(np.ascontiguousarray(part, dtype="<f8").tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes, n_particles: int) -> Snapshot:
        """Return what `to_bytes` wrote.

        Raises
        ------
        ValueError
            If the number of bytes is not that of so many particles.
        """
        numbers = np.frombuffer(data, dtype="<f8").astype(float)
        if len(numbers) not in (9 + 3 * n_particles, 9 + 6 * n_particles):
            raise ValueError(f"{len(numbers)} numbers are no geometry of {n_particles} particles")
        parts = numbers[9:].reshape(-1, n_particles, 3)
        return cls(parts[0], numbers[:9].reshape(3, 3), parts[1] if len(parts) > 1 else None)


def checksum(data: bytes | str) -> str:
    """Return the SHA-256 of bytes or of a text."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()
