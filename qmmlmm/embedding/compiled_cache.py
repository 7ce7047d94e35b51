"""Compiled parts of ML terms: a folder of the user's own, and files that are used only where they fit.

To load a compiled part is to run code. The folder and its files belong to the user and nobody else can write to them,
each file has a checksum, and its name is a checksum of all on which the compiled code depends.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from qmmlmm.durable_files import checksum, replace_file, sealed, unsealed
from qmmlmm.errors import MissingDependencyError, PotentialError

CACHE_VARIABLE = "QMMLMM_CACHE"
"""Environment variable with the folder of compiled parts."""

ENDING = ".compiled"

COMPILERS = ("g++", "clang++", "c++")

Key = Mapping[str, str]
"""What a compiled part is made of and for, by name; ``part`` says what it is."""


@dataclass(frozen=True)
class Found:
    """A compiled part, or the reason why there is none.

    Parameters
    ----------
    content : bytes, optional
        None if it cannot be used.
    reason : str
        Why it cannot be used.
    """

    content: bytes | None
    reason: str = ""


def cache_folder() -> Path:
    """Return the folder of compiled parts.

    It is what the environment variable ``QMMLMM_CACHE`` says, else ``qmmlmm`` in ``$XDG_CACHE_HOME``, else in
    ``~/.cache``.
    """
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification ignores relative paths.
    return (Path(shared) if os.path.isabs(shared) else Path.home() / ".cache") / "qmmlmm"


def file_of(key: Key) -> Path:
    """Return the file of a compiled part in the cache."""
    return cache_folder() / f"{key['part']}-{checksum(_text(key))[:32]}{ENDING}"


def write_compiled(key: Key, content: bytes, path: Path | None = None) -> Path:
    """Write a compiled part to the cache, or to a path, and return the path.

    Raises
    ------
    PotentialError
        If it cannot be written, or others can write to the folder of the cache.
    """
    target = file_of(key) if path is None else path
    try:
        if path is None:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fault = _unsafe(target.parent)
            if fault:
                raise PotentialError(f"{fault}; code from there is not run. Set {CACHE_VARIABLE} to a folder of yours")
        replace_file(target, sealed(_text(key).encode() + b"\n" + content))
        target.chmod(0o600)
    except OSError as error:
        raise PotentialError(
            f"the compiled file {str(target)!r} cannot be written: {error.strerror or error}"
        ) from error
    return target


def find_compiled(key: Key) -> Found:
    """Return a compiled part of the cache, or why it cannot be used. Nothing is run."""
    path = file_of(key)
    if not path.is_file():
        return Found(None, f"no {key['part']} for it is in {cache_folder()}; 'qmmlmm compile' makes one")
    fault = _unsafe(path.parent) or _unsafe(path)
    if fault:
        return Found(None, f"{fault}, and code from there is not run")
    try:
        found, content = _read(path)
    except PotentialError as error:
        return Found(None, str(error))
    return Found(content) if found == dict(key) else Found(None, f"{path} is of another key")


def install_compiled(path: Path, *, trust_code: bool) -> Path:
    """Copy a compiled part from elsewhere to the cache, and return its path there.

    It is used where its key fits, as if it had been compiled here.

    Parameters
    ----------
    path : path
        File that ``qmmlmm compile --output`` wrote.
    trust_code : bool
        Whether its code may run. Code can read and overwrite your files: trust it only if you know who compiled it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PotentialError
        If it is not trusted, damaged or no compiled part.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no compiled file {str(path)!r}; the working directory is {os.getcwd()!r}")
    if not trust_code:
        raise PotentialError(
            f"{str(path)!r} is compiled code, which runs when it is used; if you trust whoever compiled it, give "
            "--trust-code, in Python trust_code=True"
        )
    key, content = _read(path)
    return write_compiled(key, content)


def processor_kind(device: str) -> str:
    """Return the kind of processor for which code is compiled.

    Parameters
    ----------
    device : {"cpu", "cuda"}
    """
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return f"{torch.cuda.get_device_name()}, {major}.{minor}, CUDA {torch.version.cuda}"
    lines: list[str] = []
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    # Compiled code may use every instruction that this processor has.
    named = sorted(line for line in lines if line.startswith(("model name", "flags", "Features")))
    return f"{platform.machine()}, {checksum(' '.join(named) or platform.processor())[:16]}"


def cpp_compiler() -> str:
    """Return the path of a C++ compiler.

    Raises
    ------
    MissingDependencyError
        If there is none.
    """
    chosen = os.environ.get("CXX")
    for name in [chosen] if chosen else COMPILERS:
        path = shutil.which(name)
        if path is not None:
            return path
    given = f"CXX={chosen!r} is none" if chosen else f"none of {', '.join(COMPILERS)} is on the PATH"
    raise MissingDependencyError(
        f"compilation needs a C++ compiler: {given}; install g++ (Debian and Ubuntu: apt install g++; conda: "
        "gxx_linux-64) or set CXX. It is not needed to use what was compiled"
    )


def _text(key: Key) -> str:
    return json.dumps(dict(key), sort_keys=True)


def _read(path: Path) -> tuple[dict[str, str], bytes]:
    """Return key and content of a compiled file."""
    try:
        head, _, content = unsealed(path.read_bytes()).partition(b"\n")
        key = json.loads(head)
        if not isinstance(key, dict) or "part" not in key or not all(isinstance(v, str) for v in key.values()):
            raise ValueError("it has no key")
    except (OSError, ValueError) as error:
        raise PotentialError(f"{path} is no compiled file of qmmlmm, or is damaged ({error})") from error
    return key, content


def _unsafe(path: Path) -> str:
    """Return why code at a path is not surely the user's own, or an empty text."""
    found = path.stat()
    if found.st_uid != os.getuid():
        return f"{path} belongs to another user"
    if stat.S_IMODE(found.st_mode) & 0o022:
        return f"others can write to {path} (chmod go-w)"
    return ""
