"""Checkpoints of a run: files that are each complete at every moment."""

from __future__ import annotations

import io
import json
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from qmmlmm.coupling.potential import Memory
from qmmlmm.durable_files import checksum, replace_file, sealed, unsealed, write_beside
from qmmlmm.errors import QmmlmmWarning, RunDirectoryError, listed
from qmmlmm.runs.reporters import check_finite
from qmmlmm.units import FloatArray

CHECKPOINT_NAME = "checkpoint.chk"
STATE_NAME = "state.xml"
PROGRESS_NAME = "progress.json"
MEMORY_NAME = "memory.npz"
PREVIOUS = ".previous"

# An XML file ends with its checksum in a comment, which OpenMM ignores.
XML_SEAL = re.compile(r"\n<!-- qmmlmm-sha256: ([0-9a-f]{64}) -->\n\Z")

ROWS_NAME = "energy_rows.json"
ROWS_KEPT = 3
"""Checkpoints whose number of rows is kept: that being written, the last and the one before."""


def save_checkpoint(simulation: app.Simulation, folder: Path, memory: Mapping[str, Memory] | None = None) -> None:
    """Write checkpoint, State and progress to a folder; the previous checkpoint is kept as ``.previous``.

    Parameters
    ----------
    simulation : app.Simulation
    folder : Path
    memory : mapping of str to dict, optional
        Arrays from which terms and the sampler continue; no file if it is empty.

    Raises
    ------
    NonFiniteError
        If positions or velocities are not finite; the last checkpoint is kept.
    OSError
        If the files cannot be written; the last checkpoint is kept.
    """
    context = simulation.context
    state = context.getState(positions=True, velocities=True, parameters=True, integratorParameters=True)
    check_finite("positions", state.getPositions(asNumpy=True), simulation.currentStep)
    check_finite("velocities", state.getVelocities(asNumpy=True), simulation.currentStep)
    data = context.createCheckpoint()
    sealed_xml = _sealed_xml(state)
    # OpenMM loads a checkpoint that was cut short without an error, with zeros for the missing numbers.
    contents = [(CHECKPOINT_NAME, sealed(data)), (STATE_NAME, sealed_xml)]
    if memory:
        # First: after a kill at any moment there is the memory of the remaining checkpoint.
        contents.insert(0, (MEMORY_NAME, _packed(memory, simulation.currentStep)))
    # A kill between any two of these lines leaves one of the files, each of which has its step.
    for name, content in contents:
        path = folder / name
        fresh = write_beside(path, content)
        if path.exists():
            os.replace(path, folder / (name + PREVIOUS))
        os.replace(fresh, path)
    write_progress(folder, simulation.currentStep, state.getTime().value_in_unit(unit.picosecond))


def write_progress(folder: Path, step: int, time: float) -> None:
    """Write the step and the time, ps, that a checkpoint has."""
    progress = {"step": step, "time (ps)": time}
    replace_file(folder / PROGRESS_NAME, (json.dumps(progress, indent=1) + "\n").encode("utf-8"))


def write_state(folder: Path, state: openmm.State) -> None:
    """Write a State that `load_state` returns."""
    replace_file(folder / STATE_NAME, _sealed_xml(state))


def _sealed_xml(state: openmm.State) -> bytes:
    xml = openmm.XmlSerializer.serialize(state)
    return f"{xml}\n<!-- qmmlmm-sha256: {checksum(xml)} -->\n".encode()


def forget_older(folder: Path) -> None:
    """Remove the previous checkpoint and State, which belong to removed steps."""
    for name in (CHECKPOINT_NAME, STATE_NAME, MEMORY_NAME):
        (folder / (name + PREVIOUS)).unlink(missing_ok=True)


def load_checkpoint(simulation: app.Simulation, folder: Path) -> str:
    """Load the newest checkpoint for this Simulation and return the name of its file.

    If no checkpoint fits the platform, the hardware or the version of OpenMM, a State is loaded with a warning:
    positions and velocities are then the same, random numbers are not.

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
                simulation.context.loadCheckpoint(unsealed(path.read_bytes()))
            else:
                state = openmm.XmlSerializer.deserialize(_unsealed_xml(path.read_text(encoding="utf-8")))
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


def load_state(folder: Path) -> openmm.State:
    """Return the State of the last checkpoint: positions, velocities, box and parameters.

    Raises
    ------
    RunDirectoryError
        If there is none, or it is damaged.
    """
    path = folder / STATE_NAME
    try:
        return openmm.XmlSerializer.deserialize(_unsealed_xml(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, openmm.OpenMMException) as error:
        raise RunDirectoryError(f"{path} cannot be read: {error}; restore it, or start a new run") from error


def load_step(folder: Path) -> int:
    """Return the step of the last checkpoint; zero if there is none.

    Raises
    ------
    RunDirectoryError
        If the file is damaged.
    """
    path = folder / PROGRESS_NAME
    if not path.exists():
        return 0
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["step"])
    except (ValueError, TypeError, KeyError) as error:
        raise RunDirectoryError(f"{path} is damaged: {error}; remove it to continue") from error


def save_row_count(folder: Path, step: int, rows: int) -> None:
    """Write how many rows the energy table has at a checkpoint; called before the checkpoint is written."""
    counts = {**_row_counts(folder), str(step): rows}
    kept = dict(list(counts.items())[-ROWS_KEPT:])
    replace_file(folder / ROWS_NAME, (json.dumps(kept) + "\n").encode())


def load_row_count(folder: Path, step: int) -> int | None:
    """Return how many rows the energy table had at the checkpoint of a step, or None if this is not known."""
    return _row_counts(folder).get(str(step))


def _row_counts(folder: Path) -> dict[str, int]:
    path = folder / ROWS_NAME
    if not path.exists():
        return {}
    try:
        return {str(int(step)): int(rows) for step, rows in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise RunDirectoryError(
            f"{path} is damaged ({error}); remove it to continue without a check of the energy table"
        ) from error


def load_memory(folder: Path, step: int) -> dict[str, Memory]:
    """Return the memory of a step that `save_checkpoint` wrote; empty if there was none.

    Files of other steps are removed if there is one of this step. If there are files but none of this step, there is a
    warning.
    """
    path = folder / MEMORY_NAME
    previous = folder / (MEMORY_NAME + PREVIOUS)
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
            f"{folder} has no memory of step {step} ({listed(failures)}): followed electronic states are "
            "counted by energy again, and samplers start from scratch",
            QmmlmmWarning,
            stacklevel=3,
        )
    return {}


def _packed(memory: Mapping[str, Memory], step: int) -> bytes:
    # Names of terms are not valid as names of files.
    arrays = {f"{k}.{name}": array for k, part in enumerate(memory.values()) for name, array in part.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, step=np.array(step), terms=np.array(list(memory)), **arrays)
    return buffer.getvalue()


def _unpacked(content: bytes) -> tuple[int, dict[str, Memory]]:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    step = int(arrays.pop("step"))
    terms: dict[str, dict[str, FloatArray]] = {str(name): {} for name in arrays.pop("terms")}
    names = list(terms)
    for key, array in arrays.items():
        index, _, name = key.partition(".")
        terms[names[int(index)]][name] = array
    return step, dict(terms)


def _candidates() -> tuple[str, ...]:
    # The previous checkpoint is before the State: a kill during saving leaves this one, which continues the same
    # trajectory.
    return (CHECKPOINT_NAME, CHECKPOINT_NAME + PREVIOUS, STATE_NAME, STATE_NAME + PREVIOUS)


def _unsealed_xml(content: str) -> str:
    seal = XML_SEAL.search(content)
    if seal is None or checksum(content[: seal.start()]) != seal[1]:
        raise RunDirectoryError("the file is damaged or was cut short")
    return content[: seal.start()]
