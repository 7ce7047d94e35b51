"""Torch for models that are made many times and run a few dozen times each."""

from __future__ import annotations

import contextlib
from unittest import mock

import torch


@contextlib.contextmanager
def quick_torch():
    """Leave out what pays off with more steps alone; all results stay the same.

    The profiling executor of TorchScript takes seconds for each model. So does what torch notes about the shape of
    each operation that it records, which `RecordedNetwork` does not use.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    executor, mode = torch._C._jit_set_profiling_executor(False), torch._C._jit_set_profiling_mode(False)
    with mock.patch("torch.fx.experimental.proxy_tensor.extract_val", return_value=None):
        yield
    torch._C._jit_set_profiling_executor(executor)
    torch._C._jit_set_profiling_mode(mode)
    torch.set_num_threads(before)
