"""Files of arrays with checksums, written as a whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qmmlmm.durable_files import replace_file, sealed, unsealed
from qmmlmm.units import FloatArray


def write_arrays(path: Path, arrays: Mapping[str, FloatArray | float]) -> None:
    """Write arrays to a file with a checksum, as a whole or not at all."""
    buffer = io.BytesIO()
    named: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez(buffer, **named)
    replace_file(path, sealed(buffer.getvalue()))


def read_arrays(path: Path) -> dict[str, FloatArray] | None:
    """Return the arrays of a file; None if there is no such file, or it is damaged."""
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(unsealed(path.read_bytes()))) as file:
            return {name: file[name] for name in file.files}
    except ValueError:
        return None
