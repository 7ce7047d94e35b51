"""Linear algebra has one thread while PySCF computes, and afterwards as many as before."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from qmmlmm.errors import NonFiniteError
from qmmlmm.geometry import Geometry
from qmmlmm.qm import PySCFPotential, evaluator
from qmmlmm.qm.blas_threads import with_one_blas_thread


def threads() -> set[int]:
    """Return how many threads the libraries have; that of PySCF always has one."""
    libraries = [found for found in threadpool_info() if found["user_api"] == "blas"]
    return {found["num_threads"] for found in libraries if "pyscf" not in found["filepath"]}


@pytest.fixture
def two_threads():
    with threadpool_limits(limits=2, user_api="blas"):
        assert threads() == {2}
        yield


@pytest.mark.parametrize("call", ["evaluate", "energy", "excitations"])
def test_a_calculation_has_one_thread_of_linear_algebra(monkeypatch, two_threads, water, call):
    seen = []
    create = evaluator.create_mean_field

    def looked_at(*arguments, **keywords):
        seen.append(threads())
        return create(*arguments, **keywords)

    monkeypatch.setattr(evaluator, "create_mean_field", looked_at)
    computed = PySCFPotential("hf", "sto-3g").create_evaluator(water.specification)
    getattr(computed, call)(water.geometry, None)
    assert seen == [{1}]
    assert threads() == {2}


def test_after_an_error_there_are_as_many_as_before(two_threads, water):
    computed = PySCFPotential("hf", "sto-3g").create_evaluator(water.specification)
    with pytest.raises(NonFiniteError):
        computed.evaluate(Geometry(np.full((3, 3), np.nan)), None)
    assert threads() == {2}


def test_a_function_keeps_its_name_and_result():
    def energy(scale: float) -> float:
        """Return an energy."""
        return 2.0 * scale

    limited = with_one_blas_thread(energy)
    assert limited(1.5) == 3.0
    assert (limited.__name__, limited.__doc__) == ("energy", "Return an energy.")
