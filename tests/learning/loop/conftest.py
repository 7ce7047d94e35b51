from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

# Processes that make labels import the case by its name, wherever the tests are.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def one_thread_without_profiling():
    """The profiling executor of TorchScript takes seconds for each model; here each runs a few dozen times."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    executor, mode = torch._C._jit_set_profiling_executor(False), torch._C._jit_set_profiling_mode(False)
    yield
    torch._C._jit_set_profiling_executor(executor)
    torch._C._jit_set_profiling_mode(mode)
    torch.set_num_threads(before)
