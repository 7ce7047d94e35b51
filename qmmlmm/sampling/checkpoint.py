"""Checkpoints of a run: two files, each sound by itself at every moment."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path

import openmm
from openmm import app, unit

from qmmlmm.errors import QmmlmmWarning, listed
from qmmlmm.sampling.errors import RunDirectoryError
from qmmlmm.sampling.reporters import check_finite

CHECKPOINT_NAME = "checkpoint.chk"
STATE_NAME = "state.xml"
PROGRESS_NAME = "progress.json"
PREVIOUS = ".previous"

# OpenMM loads a checkpoint that was cut short without a word, the rest of the numbers being zero. So the file
# ends with a checksum, which OpenMM's own loadCheckpoint does not look at.
SEAL = b"qmmlmm-sha256:"


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that at any moment either the old or the new one is there as a whole."""
    os.replace(_written_beside(path, data), path)


def _written_beside(path: Path, data: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.new")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def save_checkpoint(simulation: app.Simulation, folder: Path) -> None:
    """Write checkpoint, State and progress to a folder; the checkpoint before is kept as ``.previous``.

    Raises
    ------
    NonFiniteError
        If positions or velocities are not finite; the last checkpoint stays.
    OSError
        If the files cannot be written; the last checkpoint stays.
    """
    context = simulation.context
    state = context.getState(positions=True, velocities=True, parameters=True, integratorParameters=True)
    check_finite("positions", state.getPositions(asNumpy=True), simulation.currentStep)
    check_finite("velocities", state.getVelocities(asNumpy=True), simulation.currentStep)
    data = context.createCheckpoint()
    progress = {
        "step": simulation.currentStep,
        "time (ps)": state.getTime().value_in_unit(unit.picosecond),
    }
    xml = openmm.XmlSerializer.serialize(state).encode("utf-8")
    # A kill between any two of these lines leaves one of the files, each of which knows its own step.
    for name, content in ((CHECKPOINT_NAME, data + SEAL + hashlib.sha256(data).digest()), (STATE_NAME, xml)):
        path = folder / name
        fresh = _written_beside(path, content)
        if path.exists():
            os.replace(path, folder / (name + PREVIOUS))
        os.replace(fresh, path)
    replace_file(folder / PROGRESS_NAME, (json.dumps(progress, indent=1) + "\n").encode("utf-8"))


def forget_older(folder: Path) -> None:
    """Remove the previous checkpoint and State, which belong to steps that were cut away."""
    for name in (CHECKPOINT_NAME, STATE_NAME):
        (folder / (name + PREVIOUS)).unlink(missing_ok=True)


def load_checkpoint(simulation: app.Simulation, folder: Path) -> str:
    """Load the newest checkpoint that this Simulation can take and return the name of its file.

    A State is used, with a warning, when no checkpoint fits the platform, the hardware or the version of
    OpenMM: positions and velocities are then the same, random numbers are not.

    Raises
    ------
    RunDirectoryError
        If there is none.
    """
    failures = []
    for name in _candidates():
        path = folder / name
        if not path.exists():
            continue
        try:
            if name.startswith(CHECKPOINT_NAME):
                simulation.context.loadCheckpoint(_unsealed(path.read_bytes()))
            else:
                state = openmm.XmlSerializer.deserialize(path.read_text(encoding="utf-8"))
                simulation.context.setState(state)
        except (openmm.OpenMMException, ValueError) as error:
            failures.append(f"{name}: {error}")
            continue
        if failures:
            warnings.warn(
                f"resumed from {name} at step {simulation.currentStep}, because {listed(failures)}",
                QmmlmmWarning,
                stacklevel=3,
            )
        return name
    reason = f": {listed(failures)}" if failures else ""
    raise RunDirectoryError(f"{folder} holds no checkpoint that can be loaded{reason}; start a new run")


def _candidates() -> tuple[str, ...]:
    # The previous checkpoint comes before the State: a kill while saving leaves just that, and it continues
    # the very same trajectory.
    return (CHECKPOINT_NAME, CHECKPOINT_NAME + PREVIOUS, STATE_NAME, STATE_NAME + PREVIOUS)


def _unsealed(content: bytes) -> bytes:
    length = len(SEAL) + hashlib.sha256().digest_size
    data, seal = content[:-length], content[-length:]
    if seal != SEAL + hashlib.sha256(data).digest():
        raise ValueError("the file is damaged or was cut short")
    return data
