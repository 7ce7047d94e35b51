"""The examples in docstrings run as they stand."""

import doctest
import importlib
import pkgutil

import pytest

import qmmlmm


@pytest.mark.parametrize(
    "name", [module.name for module in pkgutil.walk_packages(qmmlmm.__path__, "qmmlmm.") if ".qm." not in module.name]
)
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
