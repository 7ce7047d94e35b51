"""What holds for all tests: one thread each, since several processes of tests share the cores."""

from __future__ import annotations

import os
import tempfile

# Read by OpenMP and OpenMM when they are loaded, which is later than this.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENMM_CPU_THREADS"):
    os.environ.setdefault(_name, "1")
# Nothing that was compiled on this machine before; nothing is made here unless a test compiles.
os.environ["QMMLMM_CACHE"] = os.path.join(tempfile.gettempdir(), f"qmmlmm-tests-{os.getpid()}")

from tests.truths import (
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    truth,
)

__all__ = ["pytest_addoption", "pytest_collection_modifyitems", "pytest_configure", "truth"]
