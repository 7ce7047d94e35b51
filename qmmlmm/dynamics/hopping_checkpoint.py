"""Checkpoint files of surface hopping."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from qmmlmm.dynamics.surfaces import SurfacePoint
from qmmlmm.sampling.checkpoint import replace_file
from qmmlmm.units import FloatArray

POINT = "point."
MEMORY = "memory."
OWN = "own."


def write_checkpoint(
    path: str | os.PathLike[str],
    context: openmm.Context,
    record: dict[str, Any],
    arrays: dict[str, Any],
    point: SurfacePoint | None,
    memory: dict[str, FloatArray],
) -> None:
    """Write a file as a whole: the Context, a record for `json`, arrays, the last states and their memory."""
    content: dict[str, Any] = {OWN + name: array for name, array in arrays.items()}
    content |= {MEMORY + name: array for name, array in memory.items()}
    if point is not None:
        content |= {POINT + name: array for name, array in vars(point).items() if array is not None}
    content["context"] = np.frombuffer(context.createCheckpoint(), dtype=np.uint8)
    content["record"] = np.frombuffer(json.dumps(record).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    replace_file(Path(path), buffer.getvalue())


def read_checkpoint(
    path: str | os.PathLike[str], context: openmm.Context
) -> tuple[dict[str, Any], dict[str, Any], SurfacePoint | None, dict[str, FloatArray]]:
    """Return record, arrays, states and memory, and bring the Context to where it was.

    Raises
    ------
    ValueError
        If the file is damaged or does not fit the Context.
    """
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
        record = json.loads(content["record"].tobytes())
        context.loadCheckpoint(content["context"].tobytes())
    except (zipfile.BadZipFile, EOFError, KeyError, openmm.OpenMMException) as error:
        raise ValueError(f"{path} is no checkpoint that can be loaded here: {error}") from error

    def part(prefix: str) -> dict[str, Any]:
        return {name[len(prefix) :]: array for name, array in content.items() if name.startswith(prefix)}

    found = part(POINT)
    return record, part(OWN), SurfacePoint(**found) if found else None, part(MEMORY)
