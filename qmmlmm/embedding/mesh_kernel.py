"""Spreading and gathering on the mesh by compiled code, for terms that Python calls.

The operations of torch in `qmmlmm.embedding.bsplines` move each of the 125 mesh points of all charges through memory.
The compiled loops of ``mesh_kernel.cpp`` take one charge after another and are three to four times as fast.
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from qmmlmm.durable_files import checksum
from qmmlmm.embedding.compiled_cache import Key, cpp_compiler, find_compiled, processor_kind, write_compiled
from qmmlmm.errors import PotentialError

ORDERS = (5, 6)
"""The orders of splines that are compiled: of OpenMM's mesh, and of that of xTB and PySCF."""

PART = "mesh-kernel"

# Sums in another order are allowed; NaN and infinity keep their meaning.
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math")


def compile_mesh_kernel(output: Path | None = None) -> Path:
    """Compile spreading and gathering for this processor, and return the path of the file.

    Parameters
    ----------
    output : path, optional
        File to write instead of the one in the cache.

    Raises
    ------
    MissingDependencyError
        If there is no C++ compiler.
    PotentialError
        If it fails or the file cannot be written.
    """
    compiler = cpp_compiler()
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "mesh_kernel.cpp", Path(folder) / "mesh_kernel.so"
        source.write_bytes(_source())
        command = [compiler, *OPTIONS, "-shared", "-fPIC", "-o", str(library), str(source)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            raise PotentialError(f"{compiler} cannot compile the mesh: {finished.stderr.strip()[-500:]}")
        content = library.read_bytes()
    path = write_compiled(_key(), content, output)
    unavailable_because.cache_clear()
    return path


@functools.cache
def unavailable_because() -> str:
    """Return the reason why the mesh is not compiled, or an empty text if it is."""
    found = find_compiled(_key())
    if found.content is None:
        return found.reason
    try:
        _loaded["library"] = _load(found.content)
    except OSError as error:
        return f"the compiled mesh cannot be loaded: {error}"
    return ""


# Loaded by `unavailable_because`.
_loaded: dict[str, ctypes.CDLL] = {}


def _load(content: bytes) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:  # the code that was checked, and not a file that may change
        path = Path(folder) / "mesh_kernel.so"
        path.write_bytes(content)
        return ctypes.CDLL(str(path))


def _spread(mesh: Tensor, start: Tensor, splines: Tensor, charges: Tensor, ny: int, nz: int) -> None:
    """Add charges, (n,), to a flat padded mesh, see `qmmlmm.embedding.bsplines.spread_chunk`."""
    splines, charges, start = splines.contiguous(), charges.contiguous(), start.contiguous()
    _check(mesh, splines, charges)
    n = len(start)
    function = _function("spread", splines)
    function(*map(ctypes.c_int64, (n, ny, nz)), _at(start), _at(splines), ctypes.c_int64(n), _at(charges), _at(mesh))


def _gather(mesh: Tensor, start: Tensor, splines: Tensor, ny: int, nz: int) -> Tensor:
    """Return values and derivatives on a flat padded mesh, (4, n), see `qmmlmm.embedding.bsplines.gather_chunk`."""
    splines, start, mesh = splines.contiguous(), start.contiguous(), mesh.contiguous()
    n = len(start)
    found = torch.empty(4, n, dtype=mesh.dtype)
    _check(mesh, splines, found)
    function = _function("gather", splines)
    length = ctypes.c_int64(n)
    function(length, *map(ctypes.c_int64, (ny, nz)), _at(start), _at(splines), length, _at(mesh), _at(found), length)
    return found


_definitions = torch.library.Library("qmmlmm", "FRAGMENT")
_definitions.define("spread(Tensor(a!) mesh, Tensor start, Tensor splines, Tensor charges, int ny, int nz) -> ()")
_definitions.define("gather(Tensor mesh, Tensor start, Tensor splines, int ny, int nz) -> Tensor")
_definitions.impl("spread", _spread, "CPU")
_definitions.impl("gather", _gather, "CPU")


def _check(*tensors: Tensor) -> None:
    """Raise PotentialError unless all tensors have the type of the first one, and the splines a compiled order."""
    if any(tensor.dtype != tensors[0].dtype for tensor in tensors):
        raise PotentialError(f"mesh, splines and charges have one type, got {[tensor.dtype for tensor in tensors]}")
    if tensors[1].shape[:3] not in [(2, order, 3) for order in ORDERS]:
        orders = " or ".join(map(str, ORDERS))
        raise PotentialError(f"splines have the shape (2, {orders}, 3, n), got {tuple(tensors[1].shape)}")


def _function(name: str, splines: Tensor) -> Callable[..., None]:
    """Return the compiled function for the type and the order of splines."""
    kind = str(splines.dtype).removeprefix("torch.")
    return cast(Callable[..., None], _loaded["library"][f"{name}_{kind}_{splines.shape[1]}"])


def _at(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _source() -> bytes:
    return resources.files("qmmlmm.embedding").joinpath("mesh_kernel.cpp").read_bytes()


@functools.cache
def _key() -> Key:
    return {
        "part": PART,
        "source": checksum(_source()),
        "options": " ".join(OPTIONS),
        "processor": processor_kind("cpu"),
    }
