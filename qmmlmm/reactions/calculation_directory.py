"""The directory of a calculation: locked while it runs, with a record of what it belongs to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from qmmlmm.durable_files import checksum, replace_file
from qmmlmm.errors import RunDirectoryError
from qmmlmm.reactions.energy_surface import EnergySurface
from qmmlmm.runs.directory_lock import DirectoryLock
from qmmlmm.units import NM_IN_BOHR

RECORD = "calculation.json"


@contextmanager
def calculation_directory(
    folder: Path, kind: str, surface: EnergySurface, settings: Mapping[str, object]
) -> Iterator[Path]:
    """Hold a directory for one calculation, new or continued.

    Parameters
    ----------
    folder : Path
    kind : str
        What is calculated, such as ``"scan"``.
    surface : EnergySurface
        Surface at its start.
    settings : mapping of str to object
        Settings that cannot change between a start and its continuation.

    Raises
    ------
    RunDirectoryError
        If the directory is in use, or belongs to another calculation.
    """
    with identified_directory(folder, _identity(kind, surface, settings)):
        yield folder


@contextmanager
def identified_directory(folder: Path, identity: Mapping[str, object]) -> Iterator[None]:
    """Hold a directory for what has an identity, new or continued.

    Parameters
    ----------
    folder : Path
    identity : mapping of str to object
        All that cannot change between a start and its continuation.

    Raises
    ------
    RunDirectoryError
        If the directory is in use, or belongs to another calculation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = DirectoryLock(folder)
    try:
        # As it is read back from the file.
        identity = dict(json.loads(json.dumps(identity, default=repr)))
        record = folder / RECORD
        if record.exists():
            known = json.loads(record.read_text(encoding="utf-8"))
            changed = sorted(name for name in {*known, *identity} if known.get(name) != identity.get(name))
            if changed:
                raise RunDirectoryError(
                    f"{folder} has another calculation, with different {', '.join(changed)}; choose another directory, "
                    "or delete it to start again"
                )
        elif any(path.name != ".lock" for path in folder.iterdir()):
            raise RunDirectoryError(f"{folder} has files of something else; choose an empty or new directory")
        replace_file(record, json.dumps(identity, indent=1).encode())
        yield
    finally:
        lock.release()


def _identity(kind: str, surface: EnergySurface, settings: Mapping[str, object]) -> dict[str, object]:
    positions = np.round(surface.geometry().positions * NM_IN_BOHR, 8)
    return {
        "kind": kind,
        "atoms": surface.atoms.tolist(),
        "hold": list(surface.hold),
        "start": checksum(positions.tobytes()),
        "terms": surface.mixed.describe()["terms"],
        **settings,
    }
