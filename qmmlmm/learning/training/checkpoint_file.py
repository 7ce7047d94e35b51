"""Checkpoint files of trainings: written as a whole or not at all, and checked when they are read."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from qmmlmm.durable_files import is_full, replace_file, sealed, unsealed
from qmmlmm.errors import SettingError, TrainingError, listed, shown
from qmmlmm.setting_checks import check_path

CHECKPOINT_FORMAT = 2
ADVICE = "delete it to start from scratch"


def check_checkpoint(path: object) -> Path:
    """Return the path of a checkpoint in a folder that exists.

    Raises
    ------
    SettingError
        If it is no path, a folder, or in no folder that can be written to.
    """
    target = check_path("checkpoint", path)
    if target.is_dir():
        raise SettingError(f"checkpoint is a file, {str(target)!r} is a folder")
    if not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise SettingError(
            f"checkpoint {str(target)!r}: the folder {str(target.parent)!r} is not there or cannot be written to"
        )
    return target


def write_checkpoint(path: str | os.PathLike[str], content: Mapping[str, object]) -> None:
    """Write a checkpoint.

    Raises
    ------
    TrainingError
        If it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"format": CHECKPOINT_FORMAT, **content}, buffer)
    try:
        replace_file(check_path("checkpoint", path), sealed(buffer.getvalue()))
    except OSError as error:
        advice = "make room, and the training continues" if is_full(error) else "choose another file"
        raise TrainingError(f"the checkpoint {str(path)!r} cannot be written ({error}); {advice}") from error


def read_checkpoint(
    path: str | os.PathLike[str], device: torch.device, expected: Mapping[str, object]
) -> dict[str, object]:
    """Return the content of a checkpoint.

    Parameters
    ----------
    path : path
    device : torch.device
        Device of the tensors.
    expected : mapping of str to object
        Values that tell this training from others.

    Raises
    ------
    TrainingError
        If it is damaged, of another training, or has another format.
    """
    try:
        data = unsealed(Path(path).read_bytes())
        state = torch.load(io.BytesIO(data), weights_only=True, map_location=device)
    except Exception as error:
        raise TrainingError(
            f"{str(path)!r} is no checkpoint of a training, or is damaged ({type(error).__name__}); {ADVICE}"
        ) from error
    if not isinstance(state, dict):
        raise TrainingError(f"{str(path)!r} is no checkpoint of a training; {ADVICE}")
    if state.get("format") != CHECKPOINT_FORMAT:
        raise TrainingError(
            f"the checkpoint {str(path)!r} has the format {state.get('format')!r}, this version of qmmlmm reads "
            f"{CHECKPOINT_FORMAT}; {ADVICE}, or continue with the version that wrote it"
        )
    for key, value in expected.items():
        if state.get(key) != value:
            raise TrainingError(
                f"the checkpoint {str(path)!r} is of another training: {_difference(key, state.get(key), value)}; "
                f"{ADVICE}, or write to another folder"
            )
    return state


def _difference(key: str, found: object, expected: object) -> str:
    """Return in words what is different, of records only the entries that are."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        names = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
        pairs = [f"{name} = {shown(found.get(name))} there and {shown(expected.get(name))} here" for name in names]
        return f"{key} have {listed(pairs)}"
    return f"{key}: {shown(found)} there and {shown(expected)} here"
