"""The two ways in which a term of a torch module runs, for tests of both."""

from __future__ import annotations

import pytest

from qmmlmm.mm.torch_force import unavailable_because

needs_torch_force = pytest.mark.skipif(
    unavailable_because() is not None, reason=f"no TorchForce: {unavailable_because()}"
)
TORCH_FORCE = pytest.param("torchforce", marks=needs_torch_force)
BACKENDS = [TORCH_FORCE, "pythonforce"]
