"""Checkpoints of a run: files that are each sound by themselves at every moment."""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.errors import QmmlmmWarning, listed
from qmmlmm.sampling.errors import RunDirectoryError
from qmmlmm.sampling.reporters import check_finite
from qmmlmm.units import FloatArray

CHECKPOINT_NAME = "checkpoint.chk"
STATE_NAME = "state.xml"
PROGRESS_NAME = "progress.json"
ELECTRONIC_STATES_NAME = "electronic_states.npz"
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


def save_checkpoint(
    simulation: app.Simulation, folder: Path, memory: Mapping[str, dict[str, FloatArray]] | None = None
) -> None:
    """Write checkpoint, State and progress to a folder; the checkpoint before is kept as ``.previous``.

    Parameters
    ----------
    simulation : app.Simulation
    folder : Path
    memory : mapping of str to dict, optional
        What terms need of the last geometry, as arrays; nothing is written of it if it is empty.

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
    contents = [(CHECKPOINT_NAME, data + SEAL + hashlib.sha256(data).digest()), (STATE_NAME, xml)]
    if memory:
        # First: whichever checkpoint a kill leaves, the electronic states of its step are there.
        contents.insert(0, (ELECTRONIC_STATES_NAME, _packed(memory, simulation.currentStep)))
    # A kill between any two of these lines leaves one of the files, each of which knows its own step.
    for name, content in contents:
        path = folder / name
        fresh = _written_beside(path, content)
        if path.exists():
            os.replace(path, folder / (name + PREVIOUS))
        os.replace(fresh, path)
    replace_file(folder / PROGRESS_NAME, (json.dumps(progress, indent=1) + "\n").encode("utf-8"))


def forget_older(folder: Path) -> None:
    """Remove the previous checkpoint and State, which belong to steps that were cut away."""
    for name in (CHECKPOINT_NAME, STATE_NAME, ELECTRONIC_STATES_NAME):
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


def load_electronic_states(folder: Path, step: int) -> dict[str, dict[str, FloatArray]]:
    """Return what terms need of the geometry of a step, as `save_checkpoint` was given it; empty if it was nothing.

    Files of other steps are removed where one of this step is there. If there are files and none of this step, states
    are counted anew, with a warning.
    """
    path = folder / ELECTRONIC_STATES_NAME
    previous = folder / (ELECTRONIC_STATES_NAME + PREVIOUS)
    failures = []
    for candidate in (path, previous):
        if not candidate.exists():
            continue
        try:
            found, memory = _unpacked(candidate.read_bytes())
        except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
            failures.append(f"{candidate.name} is damaged: {error}")
            continue
        if found != step:
            failures.append(f"{candidate.name} is of step {found}")
            continue
        if candidate == previous:
            os.replace(previous, path)
        return memory
    if failures:
        warnings.warn(
            f"{folder} has no electronic states of step {step} ({listed(failures)}): a state that is followed is "
            "counted by energy again from here on",
            QmmlmmWarning,
            stacklevel=3,
        )
    return {}


def _packed(memory: Mapping[str, dict[str, FloatArray]], step: int) -> bytes:
    # Names of terms are no names of files.
    arrays = {f"{k}.{name}": array for k, part in enumerate(memory.values()) for name, array in part.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, step=np.array(step), terms=np.array(list(memory)), **arrays)
    return buffer.getvalue()


def _unpacked(content: bytes) -> tuple[int, dict[str, dict[str, FloatArray]]]:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    step = int(arrays.pop("step"))
    terms: dict[str, dict[str, FloatArray]] = {str(name): {} for name in arrays.pop("terms")}
    names = list(terms)
    for key, array in arrays.items():
        index, _, name = key.partition(".")
        terms[names[int(index)]][name] = array
    return step, terms


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
