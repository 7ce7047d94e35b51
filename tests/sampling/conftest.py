from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


def load(name: str) -> ModuleType:
    """Import a module that lies beside the tests, under a name of its own."""
    full = f"tests_sampling_{name}"
    if full not in sys.modules:
        specification = importlib.util.spec_from_file_location(full, HERE / f"{name}.py")
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        sys.modules[full] = module
    return sys.modules[full]


@pytest.fixture
def argon_module() -> ModuleType:
    return load("argon")


@pytest.fixture
def argon(argon_module):
    return argon_module.Argon()
