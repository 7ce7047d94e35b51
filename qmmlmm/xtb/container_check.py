"""A test of the installed tblite, in another process, before its first use.

`qmmlmm.xtb.tblite_container` reads and changes memory of tblite, in a layout that another build may not have. A wrong
guess would crash the process, or give wrong numbers. So a child process computes small molecules in fields for which
the result is known. If it fails or crashes, the potential raises an error that says so. If it passes, the checksum of
the library and of this package is remembered in the user's cache directory (``$XDG_CACHE_HOME`` or ``~/.cache``), and
the same build is not tested again.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from qmmlmm.durable_files import checksum, replace_file
from qmmlmm.errors import MissingDependencyError, PotentialError

OLDEST, NEXT = (0, 8), (0, 9)
"""The first version of tblite that works, and the first that is unknown."""

INSTALL = "pip install 'tblite>=0.8,<0.9'"
SECONDS = 120
"""Time limit of the child process, which needs approximately one second."""

LIMIT = 1e-8
"""Largest deviation, hartree and hartree/bohr; 4e-10 is measured."""

TRIAL = "from qmmlmm.xtb.container_trial import main; main()"
"""Code of the child process. It writes the largest deviation as its last line."""


def require_tblite() -> None:
    """Check that tblite is installed, and that its build works.

    Raises
    ------
    MissingDependencyError
        If it is not installed, is another version, or cannot be imported.
    PotentialError
        If the build does not work.
    """
    try:
        version = importlib.metadata.version("tblite")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingDependencyError(
            f"an xTB potential needs tblite, which is not installed: {INSTALL}, or pip install 'qmmlmm[xtb]'"
        ) from error
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if not OLDEST <= numbers < NEXT:
        raise MissingDependencyError(f"an xTB potential needs tblite 0.8, and {version} is installed: {INSTALL}")
    # Found without an import, which a different build might not survive.
    spec = importlib.util.find_spec("tblite")
    folders = [] if spec is None else spec.submodule_search_locations or []
    libraries = [path for folder in folders for path in Path(folder).glob("_libtblite*.so")]
    if len(libraries) != 1:
        raise MissingDependencyError(f"tblite {version} has {len(libraries)} libraries: reinstall it with {INSTALL}")
    _check_build(version, libraries[0])


@functools.cache
def _check_build(version: str, library: Path) -> None:
    """Test a build unless it has passed before."""
    record = cache_file(version, library)
    if record is not None and record.exists():
        return
    deviation = _tested(version)
    if record is None:
        return
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        replace_file(record, json.dumps({"tblite": version, "deviation": deviation}).encode())
    except OSError:
        # Without a writable home the test is repeated in each process.
        return


def cache_file(version: str, library: Path) -> Path | None:
    """Return the path of the record of a build that passed; None if the user has no home directory.

    Parameters
    ----------
    version : str
    library : Path
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    key = checksum(library.read_bytes() + b"".join(path.read_bytes() for path in sources))
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return folder / "qmmlmm" / f"tblite-{version}-{key[:16]}.json"


def _tested(version: str) -> float:
    """Return the largest deviation that the test in a child process found."""
    command = [sys.executable, "-c", TRIAL]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    advice = (
        f"Install the wheel of tblite 0.8 from PyPI ({INSTALL}; it needs the system's libgomp.so.1, in Debian the "
        "package libgomp1). An own build of tblite may have another layout of its classes"
    )
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PotentialError(f"the test of tblite {version} could not run ({error}). {advice}") from error
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise PotentialError(f"tblite {version} does not work with qmmlmm: its test crashed ({name}). {advice}")
    if done.returncode > 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PotentialError(f"tblite {version} does not work with qmmlmm: its test ended with '{last}'. {advice}")
    deviation = float(done.stdout.strip().splitlines()[-1])
    if not deviation <= LIMIT:
        raise PotentialError(
            f"tblite {version} does not work with qmmlmm: energies in a field deviate by {deviation:.1e}, more than "
            f"{LIMIT:g} hartree. {advice}"
        )
    return deviation
