"""Model files: settings as JSON and one binary part in a ZIP archive, with a checksum of each.

The binary part of a `ResponseNetwork` is its weights, and such a file has no code in it. That of any other module is
TorchScript or a program of torch.export, which are code: torch runs it when the module is loaded and evaluated.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qmmlmm.durable_files import checksum, replace_file
from qmmlmm.errors import PotentialError, listed
from qmmlmm.setting_checks import check_path

FORMAT_VERSION = 3
SETTINGS_FILE = "qmmlmm.json"
WEIGHTS_FILE = "weights.pt"
MODULE_FILE = "module.pt"
CHECKSUMS_FILE = "checksums.sha256"
"""Checksums in the format of the command ``sha256sum``."""

ADVICE = "write model files with 'qmmlmm train' or MLPotential(module, ...).save(path)"
# A ZIP archive stores the time of each part; without one the same model gives the same file.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class ModelFile:
    """Content of a model file.

    Parameters
    ----------
    settings : mapping
        What the JSON part says.
    weights : bytes, optional
        Weights of a network.
    module : bytes, optional
        TorchScript or exported program of any other module. A file has weights or a module.
    """

    settings: Mapping[str, object]
    weights: bytes | None = None
    module: bytes | None = None


def write_model_file(path: str | os.PathLike[str], content: ModelFile) -> None:
    """Write a model file, which is complete or not written at all.

    Raises
    ------
    PotentialError
        If the file cannot be written.
    """
    target = check_path("path", path, PotentialError)
    settings = json.dumps({"format_version": FORMAT_VERSION, **content.settings}, indent=1)
    parts = {SETTINGS_FILE: settings.encode()}
    if content.weights is not None:
        parts[WEIGHTS_FILE] = content.weights
    if content.module is not None:
        parts[MODULE_FILE] = content.module
    parts[CHECKSUMS_FILE] = "".join(f"{checksum(data)}  {name}\n" for name, data in parts.items()).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _NO_TIME), data)
    try:
        replace_file(target, buffer.getvalue())
    except OSError as error:
        raise PotentialError(
            f"the model file {str(target)!r} cannot be written: {error.strerror or error}; choose a folder that "
            "exists, that you may write to and that has space"
        ) from error


def read_model_file(path: str | os.PathLike[str]) -> ModelFile:
    """Return the content of a model file after a check of its checksums. Nothing in it is run.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PotentialError
        If it is damaged, of another format version or no model file.
    """
    source = check_path("path", path, PotentialError)
    if not source.is_file():
        raise FileNotFoundError(f"no model file {str(source)!r}; the working directory is {os.getcwd()!r}")
    parts = _parts_of(source)
    if CHECKSUMS_FILE not in parts or SETTINGS_FILE not in parts:
        raise PotentialError(f"{str(source)!r} {_what_else(parts)}")
    expected = [f"{checksum(data)}  {name}" for name, data in parts.items() if name != CHECKSUMS_FILE]
    if sorted(parts[CHECKSUMS_FILE].decode("utf-8", "replace").splitlines()) != sorted(expected):
        raise PotentialError(f"{str(source)!r} is damaged: its content has another checksum; take a copy of the file")
    try:
        settings = json.loads(parts[SETTINGS_FILE])
        version = settings["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise PotentialError(f"{str(source)!r} has settings that cannot be read ({error!r}); {ADVICE}") from error
    if version != FORMAT_VERSION:
        raise PotentialError(
            f"{str(source)!r} has the format version {version}, this qmmlmm reads {FORMAT_VERSION}; train it again "
            "with 'qmmlmm train', or save your own module again with MLPotential(module, ...).save(path)"
        )
    content = ModelFile(settings, parts.get(WEIGHTS_FILE), parts.get(MODULE_FILE))
    if (content.weights is None) == (content.module is None):
        raise PotentialError(f"{str(source)!r} has neither or both of {WEIGHTS_FILE} and {MODULE_FILE}; {ADVICE}")
    return content


def setting_of(content: ModelFile, name: str, source: str | os.PathLike[str]) -> object:
    """Return a setting of a model file.

    Raises
    ------
    PotentialError
        If it is not there.
    """
    if name not in content.settings:
        raise PotentialError(f"{os.fspath(source)!r} has no setting {name!r}; it has {listed(content.settings)}")
    return content.settings[name]


def _parts_of(source: Path) -> dict[str, bytes]:
    """Return the parts of an archive by name."""
    if not zipfile.is_zipfile(source):
        raise PotentialError(f"{str(source)!r} is not a model file, or is cut off; {ADVICE}")
    try:
        with zipfile.ZipFile(source) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    # One changed bit of an archive's directory can ask for a password or another kind of compression.
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
        raise PotentialError(f"{str(source)!r} is damaged ({error}); take a copy of the file") from error


def _what_else(names: Mapping[str, bytes]) -> str:
    """Return what an archive that is no model file is, as the end of a sentence."""
    program = any(name.rpartition("/")[2] == "archive_format" for name in names)
    if program or any(name.endswith("/constants.pkl") for name in names):
        return (
            f"is {'a program of torch.export' if program else 'TorchScript'}, which is code, without elements, "
            "embedding and units; if you trust whoever made it, wrap it: "
            "MLPotential(path, elements=[...], trust_code=True).save(other_path)"
        )
    if any(name.endswith("data.pkl") for name in names):
        return f"looks like a pickle of torch.save, which can run any code and is not read; {ADVICE}"
    return f"is an archive, but not a model file: {SETTINGS_FILE} or {CHECKSUMS_FILE} is not in it; {ADVICE}"
