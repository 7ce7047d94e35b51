"""The state of a surface-hopping trajectory as arrays, and checkpoint files of it with the state of a Context."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openmm

from qmmlmm.coupling.potential import Memory
from qmmlmm.durable_files import replace_file
from qmmlmm.errors import RunDirectoryError
from qmmlmm.nonadiabatic.amplitudes import ComplexArray
from qmmlmm.nonadiabatic.hop import Hop
from qmmlmm.nonadiabatic.surfaces import SurfacePoint
from qmmlmm.setting_checks import check_mapping
from qmmlmm.units import FloatArray

POINT, SURFACES, OWN, RECORD, CONTEXT = "point.", "surfaces.", "own.", "record", "context"


@dataclass(frozen=True)
class HoppingMemory:
    """The state of a trajectory, besides positions and velocities.

    Parameters
    ----------
    state : int
        Active state.
    hops : sequence of Hop
    random : mapping
        State of the random number generator, as NumPy gives it.
    method : str
        Method and its settings, for a comparison.
    amplitudes : (m,) complex array
    gaps : (k, m) float array, kJ/mol
        Energies of the last steps, among which a minimum of a gap is searched.
    point : SurfacePoint or None
        States at the last geometry.
    surfaces : Memory
        Memory of the surfaces.
    """

    state: int
    hops: Sequence[Hop]
    random: Mapping[str, object]
    method: str
    amplitudes: ComplexArray
    gaps: FloatArray
    point: SurfacePoint | None
    surfaces: Memory

    def to_arrays(self) -> dict[str, FloatArray]:
        """Return everything as arrays."""
        record = {
            "state": self.state,
            "hops": [asdict(hop) for hop in self.hops],
            "random": self.random,
            "method": self.method,
        }
        content: dict[str, npt.NDArray[Any]] = {OWN + "amplitudes": self.amplitudes, OWN + "gaps": self.gaps}
        content |= {SURFACES + name: array for name, array in self.surfaces.items()}
        if self.point is not None:
            content |= {POINT + name: array for name, array in vars(self.point).items() if array is not None}
        content[RECORD] = np.frombuffer(json.dumps(record).encode(), dtype=np.uint8)
        return content

    @classmethod
    def from_arrays(cls, content: Mapping[str, FloatArray]) -> HoppingMemory:
        """Return the memory whose arrays `to_arrays` returned.

        Raises
        ------
        RunDirectoryError
            If it comes from something else, or is damaged.
        """
        check_mapping("memory", content, RunDirectoryError)
        try:
            return cls._from_arrays(content)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunDirectoryError(
                f"this memory is not that of a surface-hopping trajectory, or it is damaged: {type(error).__name__}: "
                f"{error}"
            ) from error

    @classmethod
    def _from_arrays(cls, content: Mapping[str, FloatArray]) -> HoppingMemory:

        def part(prefix: str) -> dict[str, npt.NDArray[Any]]:
            return {name[len(prefix) :]: array for name, array in content.items() if name.startswith(prefix)}

        record = json.loads(np.asarray(content[RECORD]).tobytes())
        own, point = part(OWN), part(POINT)
        return cls(
            int(record["state"]),
            [Hop(**hop) for hop in record["hops"]],
            record["random"],
            record["method"],
            own["amplitudes"],
            own["gaps"],
            SurfacePoint(**point) if point else None,
            part(SURFACES),
        )


def write_checkpoint(path: str | os.PathLike[str], context: openmm.Context, memory: Memory) -> None:
    """Write a file as a whole: the Context, and the memory of the trajectory.

    Raises
    ------
    RunDirectoryError
        If it cannot be written.
    """
    content: dict[str, Any] = {**memory, CONTEXT: np.frombuffer(context.createCheckpoint(), dtype=np.uint8)}
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    try:
        replace_file(Path(path), buffer.getvalue())
    except OSError as error:
        raise RunDirectoryError(f"the checkpoint {path} cannot be written: {error}") from error


def read_checkpoint(path: str | os.PathLike[str], context: openmm.Context) -> dict[str, FloatArray]:
    """Load a checkpoint into the Context, and return the memory of the trajectory.

    Raises
    ------
    RunDirectoryError
        If there is no such file, it is damaged, or it does not fit the Context.
    """
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
        context.loadCheckpoint(content.pop(CONTEXT).tobytes())
    except FileNotFoundError as error:
        raise RunDirectoryError(f"there is no checkpoint {path}") from error
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, ValueError, openmm.OpenMMException) as error:
        raise RunDirectoryError(f"{path} is no checkpoint that this Context can load: {error}") from error
    return content
