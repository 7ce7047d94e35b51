"""What directories of corrections and ladders share: their legs and levels, their lock and their record."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeAlias

from qmmlmm.coupling.hamiltonian import Hamiltonian, Term
from qmmlmm.coupling.potential import RegionPotential
from qmmlmm.coupling.region import Region
from qmmlmm.durable_files import checksum, replace_file
from qmmlmm.errors import RunDirectoryError, SettingError, listed, shown
from qmmlmm.free_energy.trajectory_tasks import Stage
from qmmlmm.runs.directory_lock import DirectoryLock
from qmmlmm.runs.provenance import hash_system, hash_topology
from qmmlmm.sampling.leg import Leg, check_one_molecule
from qmmlmm.setting_checks import check_instance, check_mapping

RECORD_FORMAT = 1

Level: TypeAlias = "RegionPotential | Callable[[Region], Hamiltonian]"
"""A potential of the region, or a function that returns a Hamiltonian for a region."""


@contextlib.contextmanager
def held_directory(directory: str | os.PathLike[str], executor: object) -> Iterator[Path]:
    """Create a directory if necessary, and hold it in the body.

    Raises
    ------
    SettingError
        If the executor is neither None nor an executor.
    RunDirectoryError
        If the directory cannot be created, or is in use.
    """
    if executor is not None:
        check_instance("executor", executor, Executor, "a concurrent.futures.Executor")
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = DirectoryLock(folder)
    except OSError as error:
        raise RunDirectoryError(f"{folder} cannot be created or written to: {error}") from error
    try:
        yield folder
    finally:
        lock.release()


def check_legs(given: object) -> dict[str, Leg]:
    """Return legs by name, at least one, which are of one molecule."""
    legs = check_mapping("legs", given)
    if not legs:
        raise SettingError("legs has one Leg or more, such as the complex and the solvent, got none")
    for name, leg in legs.items():
        if not re.fullmatch(r"\w[\w. +-]*", name):
            raise SettingError(f"legs: each name is also a folder and has letters, digits and -, got {name!r}")
        check_instance(f"legs: {name!r}", leg, Leg)
    found = {name: leg for name, leg in legs.items() if isinstance(leg, Leg)}
    check_one_molecule(found)
    return found


def check_level(name: str, level: object) -> None:
    """Raise SettingError if it is neither a potential nor a function."""
    if isinstance(level, type) or not (isinstance(level, RegionPotential) or callable(level)):
        raise SettingError(
            f"{name} is a potential such as XTBPotential, or a function that returns a Hamiltonian for a Region, got "
            f"{shown(level)}"
        )


def level_hamiltonian(level: Level, region: Region, embedding: str) -> Hamiltonian:
    """Return the Hamiltonian of a level for a region."""
    if isinstance(level, RegionPotential):
        return Hamiltonian([Term(level, region, embedding=embedding)])
    return check_instance("the result of a level", level(region), Hamiltonian)


def level_names(levels: Sequence[Level]) -> list[str]:
    """Return a short name for each level; all are different."""
    names: list[str] = []
    for k, level in enumerate(levels):
        plain = level.level if isinstance(level, RegionPotential) else f"level{k}"
        same = [name for name in names if name.partition("#")[0] == plain]
        names.append(f"{plain}#{len(same) + 1}" if same else plain)
    return names


def stage_identity(stage: Stage) -> dict[str, object]:
    """Return what makes a stage another one: not its numbers of trajectories, nor the length of switches."""
    settings, leg = stage.settings, stage.leg
    terms = [
        {"potential": repr(term.potential), "coefficient": str(term.coefficient), "embedding": term.embedding}
        for term in stage.hamiltonian.terms
    ]
    box = b"" if leg.box_vectors is None else leg.box_vectors.tobytes()
    return {
        "leg": stage.leg_name,
        "stage": stage.name,
        "terms": terms,
        "region": [list(map(int, leg.region.atoms)), leg.region.charge, leg.region.multiplicity],
        "topology": hash_topology(leg.topology),
        "system": hash_system(leg.system),
        "positions": checksum(leg.positions.tobytes() + box),
        "temperature (K)": settings.temperature,
        "equilibration_steps": settings.equilibration_steps,
        "steps_between_frames": settings.steps_between_frames,
        "replicas": settings.replicas,
        "step_size (ps)": settings.step_size,
        "friction (1/ps)": settings.friction,
        "checkpoint_steps": settings.checkpoint_steps,
        "seed": settings.seed,
        "platform": settings.platform,
    }


def check_record(path: Path, record: Mapping[str, object]) -> None:
    """Write the record of a directory, or compare it with the one that is there.

    Raises
    ------
    RunDirectoryError
        If they differ, or the file is damaged or cannot be written.
    """
    if not path.exists():
        try:
            replace_file(path, (json.dumps(record, indent=1) + "\n").encode())
        except OSError as error:
            raise RunDirectoryError(f"{path} cannot be written: {error}") from error
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"{path} is damaged and does not say what this directory holds: {error}; if these are the same levels and "
            "settings, delete that file, else use another directory"
        ) from error
    if found == json.loads(json.dumps(record)):
        return
    different = _different_keys(found, record)
    raise RunDirectoryError(
        f"{path.parent} holds trajectories with other {different}; use another directory. Numbers of trajectories and "
        "switch_steps may change"
    )


def _different_keys(found: object, record: Mapping[str, object]) -> str:
    stages, old = record["stages"], found.get("stages") if isinstance(found, dict) else None
    if not isinstance(old, list) or not isinstance(stages, list) or len(old) != len(stages):
        return "legs or levels"
    keys = [key for left, right in zip(old, stages, strict=True) for key in right if left.get(key) != right[key]]
    return listed(dict.fromkeys(keys)) or "settings"
