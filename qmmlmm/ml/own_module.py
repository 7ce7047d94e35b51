"""Modules of a user's own: TorchScript, or programs of torch.export, in the form that terms call.

Both are code. TorchScript also runs in TorchForce; an exported program is called from Python.
"""

# Annotations are objects (no `from __future__ import annotations`): TorchScript cannot read strings.

import copy
import functools
import hashlib
import io
import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, Dict, List, TypeVar, cast  # noqa: UP035  (TorchScript reads these)

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils._pytree import tree_unflatten

from qmmlmm.embedding import python_functions
from qmmlmm.errors import PotentialError, listed
from qmmlmm.ml.model_file import SETTINGS_FILE
from qmmlmm.ml.network_file import add_numbers
from qmmlmm.setting_checks import check_path

OwnModule = torch.nn.Module | ExportedProgram

_MANGLED = re.compile(r"___torch_mangle_\d+\.")
"""Numbers in the names of types, which count the modules of a process."""

_OF_TORCH = {"training", "_is_full_backward_hook"}
"""Attributes of every module, which do not change its results."""

_Module = TypeVar("_Module", bound=torch.nn.Module)


class _FromPositions(torch.nn.Module):
    """Adapts a module of the form energy(positions) to the contract."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        return {"energy": self.module(inputs["positions"])}


class _FromPositionsAndField(torch.nn.Module):
    """Adapts a module of the form energy(positions, potential, field) to the contract."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        positions = inputs["positions"]
        potential = torch.zeros_like(positions[:, 0])  # mechanical embedding: a vacuum
        field = torch.zeros_like(positions)
        if "potential" in inputs:
            potential = inputs["potential"]
            field = inputs["field"]
        return {"energy": self.module(positions, potential, field)}


class _FromProgram(torch.nn.Module):
    """Calls an exported program with the inputs that it takes, by their names."""

    def __init__(self, key: str, names: List[str], results: List[str]) -> None:  # noqa: UP006
        super().__init__()
        self.key = key
        self.names = names
        self.results = results

    def forward(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:  # noqa: UP006
        given: List[Tensor] = []  # noqa: UP006
        for name in self.names:
            if name in inputs:
                given.append(inputs[name])
            elif name == "potential":  # mechanical embedding: a vacuum
                given.append(torch.zeros_like(inputs["positions"][:, 0]))
            elif name == "field":
                given.append(torch.zeros_like(inputs["positions"]))
            else:
                raise RuntimeError("the exported program asks for " + name + ", which this term does not have")
        found = torch.ops.qmmlmm.call(self.key, given)
        result: Dict[str, Tensor] = {}  # noqa: UP006
        for k, name in enumerate(self.results):
            result[name] = found[k]
        return result


def _run_program(
    module: torch.nn.Module, keys: list[str] | None, results: list[str], inputs: list[Tensor]
) -> list[Tensor]:
    """Return the results of these names; with keys, the program takes a dictionary."""
    found = module(*inputs) if keys is None else module(dict(zip(keys, inputs, strict=True)))
    return [found] if isinstance(found, Tensor) else [found[name] for name in results]


def _result_names(program: ExportedProgram) -> list[str]:
    """Return the names of the results of a program that terms use; one that returns a tensor returns the energy."""
    spec = program.call_spec.out_spec
    found = None if spec is None else tree_unflatten(list(range(spec.num_leaves)), spec)
    if not isinstance(found, dict):
        return ["energy"]
    return [name for name in ("energy", "member_energies", "charges") if name in found]


class OwnProgram:
    """A program of torch.export as a model.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        Of a module whose ``forward`` has one of the forms of `qmmlmm.MLPotential`.

    Raises
    ------
    PotentialError
        If it takes other arguments.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        positional, named = tree_unflatten(list(program.graph_signature.user_inputs), program.call_spec.in_spec)
        takes_dictionary = len(positional) == 1 and isinstance(positional[0], dict)
        names = list(positional[0]) if takes_dictionary else list(positional)
        if named or not (takes_dictionary or names in (["positions"], ["positions", "potential", "field"])):
            raise PotentialError(
                "an exported ML module takes (positions), (positions, potential, field) or one dictionary of inputs, "
                f"this one takes ({listed([*names, *named])})"
            )
        self.names = [str(name) for name in names]
        module = program.module()
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        results = _result_names(program)
        run = functools.partial(_run_program, module, self.names if takes_dictionary else None, results)
        self.scripted = torch.jit.script(_FromProgram(python_functions.register(run), self.names, results))

    def checksum(self) -> str:
        """Return the SHA-256 of code and numbers."""
        digest = hashlib.sha256(self.program.graph_module.code.encode())
        add_numbers(digest, {name: value for name, value in self.program.state_dict.items()})
        constants = self.program.constants.items()
        add_numbers(digest, {name: value for name, value in constants if isinstance(value, Tensor)})
        return digest.hexdigest()

    def archive(self) -> bytes:
        """Return the program as a file, for `read_archive`."""
        buffer = io.BytesIO()
        torch.export.save(self.program, buffer)
        return buffer.getvalue()


def read_own_module(path: str | os.PathLike[str], *, trust_code: bool) -> OwnModule:
    """Return the module in a file of TorchScript or of torch.export.

    Parameters
    ----------
    path : path
        File by ``torch.jit.save`` or ``torch.export.save``.
    trust_code : bool
        Whether its code may run: with the module, and already when it is read.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PotentialError
        If it is not trusted, is of another kind, or torch cannot read it.
    """
    source = check_path("path", path, PotentialError)
    if not source.is_file():
        raise FileNotFoundError(f"no module {str(source)!r}; the working directory is {os.getcwd()!r}")
    if _is_model_file(source):
        raise PotentialError(f"{str(source)!r} is a model file; read it with MLPotential.load")
    if not trust_code:
        raise PotentialError(
            f"{str(source)!r} is code of its author's own, which runs when it is loaded and evaluated; if you trust "
            "whoever made it, give trust_code=True"
        )
    return read_archive(source.read_bytes(), str(source))


def read_archive(archive: bytes, source: str) -> OwnModule:
    """Return the module in the bytes of a trusted file.

    Parameters
    ----------
    archive : bytes
    source : str
        Where it is from, for messages.

    Raises
    ------
    PotentialError
        If torch cannot read it.
    """
    try:
        if _is_torchscript(archive):
            return torch.jit.load(io.BytesIO(archive), map_location="cpu")
        with warnings.catch_warnings():
            # torch reads its own archive through a buffer that it does not write to.
            warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
            return torch.export.load(io.BytesIO(archive))
    # What is wrong with a file shows in many ways.
    except Exception as error:
        raise PotentialError(
            f"{source!r} cannot be read by torch {torch.__version__} as TorchScript or as a program of torch.export: "
            f"{error}"
        ) from error


def archive_of(module: torch.jit.ScriptModule) -> bytes:
    """Return TorchScript as a file, for `read_archive`."""
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    return buffer.getvalue()


def scripted_checksum(module: torch.jit.ScriptModule) -> str:
    """Return the SHA-256 of TorchScript: code and values of the module and of every module in it.

    Plain attributes, such as a float, are neither in the code nor among parameters and buffers.
    """
    digest = hashlib.sha256()
    add_numbers(digest, module.state_dict())
    for name, part in sorted(module.named_modules()):
        compiled = cast(Any, part)._c
        digest.update(f"module {name}\n".encode())
        for method in sorted(compiled._method_names()):
            digest.update(_MANGLED.sub("", compiled._get_method(method).code).encode())
        kind = cast(Any, torch._C).ConcreteModuleType.from_jit_type(compiled._type())
        for attribute in sorted(set(kind.get_attributes()) - _OF_TORCH):
            digest.update(f"attribute {attribute}\n".encode())
            # The attribute of the module that TorchScript made, which torch has no other way to read.
            _add_value(digest, compiled.getattr(attribute))
    return digest.hexdigest()


def _add_value(digest: "hashlib._Hash", value: object) -> None:
    """Add the value of an attribute to a checksum."""
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}\n".encode())
        add_numbers(digest, {"": value})
    elif isinstance(value, dict):
        digest.update(f"dict of {len(value)}\n".encode())
        for key in value:
            _add_value(digest, key)
            _add_value(digest, value[key])
    elif isinstance(value, list | tuple):
        digest.update(f"{type(value).__name__} of {len(value)}\n".encode())
        for item in value:
            _add_value(digest, item)
    elif value is None or isinstance(value, bool | int | float | complex | str):
        digest.update(f"{value!r}\n".encode())


def _is_torchscript(archive: bytes) -> bool:
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        return any(name.endswith("/constants.pkl") and name.count("/") == 1 for name in files.namelist())


def _is_model_file(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        raise PotentialError(f"{str(path)!r} is neither TorchScript nor a program of torch.export, or is cut off")
    with zipfile.ZipFile(path) as files:
        return SETTINGS_FILE in files.namelist()


def argument_names(module: torch.nn.Module) -> list[str]:
    """Return the names of the arguments of a module's ``forward``."""
    if isinstance(module, torch.jit.ScriptModule):
        return [a.name for a in cast(Any, module).forward.schema.arguments if a.name != "self"]
    code = type(module).forward.__code__
    return list(code.co_varnames[1 : code.co_argcount])


def frozen(module: _Module) -> _Module:
    """Return a copy for evaluation; the user's module remains trainable."""
    with torch.no_grad():  # else copies of a ScriptModule's parameters are no leaves
        module = copy.deepcopy(module).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def scripted(module: torch.nn.Module) -> torch.jit.ScriptModule:
    """Return a module as TorchScript, whose ``forward`` takes and returns dictionaries.

    Raises
    ------
    PotentialError
        If it is no module, has other arguments, or cannot be TorchScript.
    """
    if not isinstance(module, torch.nn.Module):
        raise PotentialError(f"an ML potential wraps a torch.nn.Module, got {type(module).__name__}")
    names = argument_names(module)
    if names == ["positions"]:
        module = _FromPositions(module)
    elif names == ["positions", "potential", "field"]:
        module = _FromPositionsAndField(module)
    elif names != ["inputs"]:
        raise PotentialError(
            "forward of an ML module takes (positions), (positions, potential, field) or (inputs), "
            f"this one takes ({listed(names)})"
        )
    module = frozen(module)
    if isinstance(module, torch.jit.ScriptModule):
        return module
    try:
        return torch.jit.script(module)
    except Exception as error:
        raise PotentialError(
            f"the module cannot be turned into TorchScript: {error}; potentials that need Python run through "
            "OpenMMMLPotential or your own EvaluatedPotential"
        ) from error
