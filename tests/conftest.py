"""What holds for all tests: one thread each, since several processes of tests share the cores."""

from __future__ import annotations

import os

# Read by OpenMP and OpenMM when they are loaded, which is later than this.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENMM_CPU_THREADS"):
    os.environ.setdefault(_name, "1")
