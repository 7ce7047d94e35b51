"""Functions of Python that TorchScript calls, by an operation of torch.

TorchScript has no way to call a compiled program or an exported graph. The operation ``qmmlmm::call`` looks up a
function by its key and calls it. A module with this operation runs only in the process that registered the function, so
that it is never written to a file.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[list[Tensor]], list[Tensor]]

_functions: dict[str, Function] = {}


def _call(key: str, inputs: list[Tensor]) -> list[Tensor]:
    return _functions[key](inputs)


# Composite: autograd sees the operations of the function, and not one operation without a derivative.
_library = torch.library.Library("qmmlmm", "DEF")
_library.define("call(str key, Tensor[] inputs) -> Tensor[]")
_library.impl("call", _call, "CompositeImplicitAutograd")


def register(function: Function) -> str:
    """Return the key of a function for ``torch.ops.qmmlmm.call``.

    The function is kept until the process ends: nothing tells when the last TorchScript with its key is gone.
    """
    key = uuid.uuid4().hex
    _functions[key] = function
    return key
