"""Networks compiled by AOTInductor: the lists of operations of `qmmlmm.ml.recorded_network` as machine code.

Energies and derivatives are those of the list to round-off, in a third to two thirds of its time. A compiled list is
of one network with its weights, one version of torch and of this package, and one kind of processor.
"""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

import contextlib
import copy
import functools
import importlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Tuple  # noqa: UP035  (TorchScript reads it)

import torch
from torch import Tensor

from qmmlmm.durable_files import checksum
from qmmlmm.embedding import python_functions
from qmmlmm.embedding.compiled_cache import Found, Key, cpp_compiler, find_compiled, processor_kind, write_compiled
from qmmlmm.errors import MissingDependencyError, PotentialError
from qmmlmm.ml.network_file import network_checksum
from qmmlmm.ml.recorded_network import OperationsName, example_inputs, operations_of
from qmmlmm.ml.response_network import ResponseNetwork

AGREEMENT = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Largest difference of a compiled result from the list's, relative to the largest value: sums in another order.
Above it, nothing is written."""

_log = logging.getLogger(__name__)

Compiled = Callable[[tuple[Tensor, ...]], list[Tensor]]


class _CompiledAlone(torch.nn.Module):
    """Calls compiled operations of a region in a vacuum."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def forward(self, row: Tensor, positions: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        found = torch.ops.qmmlmm.call(self.key, [row, positions])
        return found[0], found[1]


class _CompiledSurrounded(torch.nn.Module):
    """Calls compiled operations of a region in a field."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def forward(
        self, row: Tensor, positions: Tensor, potential: Tensor, field: Tensor, moments: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # noqa: UP006
        found = torch.ops.qmmlmm.call(self.key, [row, positions, potential, field, moments])
        return found[0], found[1], found[2], found[3], found[4]


def _on_contiguous(function: Compiled) -> python_functions.Function:
    """Return a function for inputs in any order of memory; compiled code reads them in one order and does not ask."""
    return lambda inputs: list(function(tuple(tensor.contiguous() for tensor in inputs)))


def compile_network(
    network: ResponseNetwork, name: OperationsName, device: str = "cpu", output: Path | None = None
) -> Path:
    """Compile a list of operations, and return the path of the file; this takes a minute or more.

    The results of the compiled code are compared with those of the list before anything is written.

    Parameters
    ----------
    network : ResponseNetwork
    name : str
        Of `qmmlmm.ml.recorded_network.ALL_OPERATIONS`.
    device : {"cpu", "cuda"}
        Where the code is to run. It is compiled there.
    output : path, optional
        File to write instead of the one in the cache.

    Raises
    ------
    MissingDependencyError
        If there is no C++ compiler, or no CUDA device for ``"cuda"``.
    PotentialError
        If it fails, gives other results, or cannot be written.
    """
    cpp_compiler()
    if device == "cuda" and not torch.cuda.is_available():
        raise MissingDependencyError("a network is compiled for 'cuda' on a machine with a CUDA device; there is none")
    network = _on_device(network, device)
    operations, examples = operations_of(network, name), example_inputs(network, name)
    content = _compile(operations, examples)
    fault = _disagreement(load_compiled(content), operations, _geometry_like(examples), network)
    if fault:
        raise PotentialError(f"the compiled network has other results ({fault}), and was not written; report this")
    return write_compiled(network_key(network, name, device), content, output)


def find_network(network: ResponseNetwork, name: OperationsName, device: str = "cpu") -> Found:
    """Return the compiled list of operations in the cache, or why there is none."""
    return find_compiled(network_key(network, name, device))


def compiled_module(network: ResponseNetwork, name: OperationsName, device: str = "cpu") -> torch.nn.Module | None:
    """Return a module of the compiled list of operations in the cache, or None if there is none that can be used.

    Parameters
    ----------
    network : ResponseNetwork
    name : str
        Of `qmmlmm.ml.recorded_network.ALL_OPERATIONS`.
    device : {"cpu", "cuda"}
    """
    content = find_network(network, name, device).content
    if content is None:
        return None
    try:
        function = load_compiled(content)
    except PotentialError as error:
        _log.warning("%s; the network is evaluated without it", error)
        return None
    key = python_functions.register(_on_contiguous(function))
    return _CompiledSurrounded(key) if name.endswith("surrounded") else _CompiledAlone(key)


def load_compiled(content: bytes) -> Compiled:
    """Return the function of a compiled list. Its code can be run from then on."""
    try:
        # Each term has its own copy and lock. torch's lock for several threads would disturb a CUDA graph.
        loaded = torch._inductor.aoti_load_package(io.BytesIO(content), run_single_threaded=True)
    except RuntimeError as error:
        raise PotentialError(f"a compiled network cannot be loaded by torch {torch.__version__}: {error}") from error
    return lambda inputs: list(loaded(*inputs))


def network_key(network: ResponseNetwork, name: OperationsName, device: str) -> Key:
    """Return all on which a compiled list depends."""
    return {
        "part": "network",
        "operations": name,
        "network": network_checksum(network),
        "atomic_numbers": " ".join(map(str, network.atomic_numbers)),
        "members": str(network.members),
        "dtype": str(network.centers.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "code": _code_checksum(),
        "processor": _processor_kind(device),
    }


@functools.cache
def _processor_kind(device: str) -> str:
    return processor_kind(device)


@functools.cache
def _code_checksum() -> str:
    """Return a checksum of the modules that say what a network computes."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return checksum(b"".join(source.read_bytes() for source in sources))


def _of_any_strides(operations: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Return operations that do not depend on strides: those in the compiled code are not those of the recording."""
    copied = copy.deepcopy(operations)
    for node in copied.graph.nodes:
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    copied.recompile()
    return copied


def _compile(operations: torch.fx.GraphModule, examples: tuple[Tensor, ...]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "network.pt2")
        try:
            with _of_the_compiler(), torch.no_grad():
                program = torch.export.export(_of_any_strides(operations), examples)
                # One thread always: the tensors are small, and results do not depend on the number of threads.
                torch._inductor.aoti_compile_and_package(
                    program, package_path=path, inductor_configs={"cpp.threads": 1}
                )
        except Exception as error:
            raise PotentialError(f"torch {torch.__version__} cannot compile the network: {error!r}") from error
        return Path(path).read_bytes()


@contextlib.contextmanager
def _of_the_compiler() -> Iterator[None]:
    """Set up what torch compiles with and keep away its warnings, which users can do nothing about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        _import_setuptools()
        yield


def _import_setuptools() -> None:
    """Import setuptools, as torch does to compile, also where it does not get its own distutils.

    With Python 3.11 its import fails with an AssertionError if another package left distutils of Python in its place.
    """
    try:
        importlib.import_module("setuptools")
    except ImportError:  # torch says so if it needs it
        return
    except AssertionError:
        os.environ["SETUPTOOLS_USE_DISTUTILS"] = "stdlib"
        try:
            importlib.import_module("setuptools")
        finally:
            del os.environ["SETUPTOOLS_USE_DISTUTILS"]


def _on_device(network: ResponseNetwork, device: str) -> ResponseNetwork:
    if network.conditions.device.type == device:
        return network
    return copy.deepcopy(network).to(device)


def _geometry_like(examples: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return inputs like the examples, with atoms at distances as in a molecule and a field."""
    generator = torch.Generator().manual_seed(1)
    turns = torch.arange(len(examples[1]), dtype=torch.float64)
    helix = torch.stack([1.5 * turns, 1.6 * torch.sin(2.0 * turns), 1.6 * torch.cos(2.0 * turns)], dim=1)
    others = [0.05 * torch.randn(given.shape, dtype=torch.float64, generator=generator) for given in examples[2:]]
    made = [examples[0], helix, *others]
    return tuple(new.to(given) for new, given in zip(made, examples, strict=True))


def _disagreement(
    compiled: Compiled, operations: torch.fx.GraphModule, inputs: tuple[Tensor, ...], network: ResponseNetwork
) -> str:
    """Return the difference of compiled results, or an empty text if it is round-off."""
    with torch.no_grad():
        expected, found = operations(*inputs), compiled(inputs)
    for k, (one, other) in enumerate(zip(found, expected, strict=True)):
        difference = float((one - other).abs().max() / other.abs().max().clamp(min=1e-300))
        if not difference <= AGREEMENT[network.centers.dtype]:
            return f"result {k} differs by {difference:.1e} of its largest value"
    return ""
