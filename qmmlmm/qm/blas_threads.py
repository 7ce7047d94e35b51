"""One thread for NumPy's and SciPy's linear algebra while PySCF computes.

PySCF shares its work between OpenMP threads. The libraries of NumPy and SciPy have separate threads, which wait by
spinning, as those of OpenMP do. On the same cores they keep each other from working: a Hartree-Fock step of 18 atoms in
a protein takes three times as long (`tests/benchmarks/qm_threads.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def with_one_blas_thread(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return a function during whose calls NumPy and SciPy have one thread, and afterwards as many as before."""

    @functools.wraps(function)
    def call(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> Result:
        with _libraries().limit(limits=1, user_api="blas"):
            return function(*arguments, **keywords)

    return call


@functools.cache
def _libraries() -> ThreadpoolController:
    """Return the libraries that are loaded; to look for them takes some ten milliseconds."""
    return ThreadpoolController()
