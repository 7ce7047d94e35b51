from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from qmmlmm.embedding.torch_errors import check_positions, is_of_torch, original_error, raise_error
from qmmlmm.errors import EvaluationError, NonFiniteError


class Checks(torch.nn.Module):
    def forward(self, positions: Tensor) -> Tensor:
        check_positions(positions, "site/ML")
        return positions.sum()


def test_an_exception_has_its_class_in_python_and_names_it_in_torchscript():
    x = torch.zeros((8, 3))
    x[2, 1], x[7, 0] = np.nan, np.inf
    message = "positions that are not numbers reached term 'site/ML', on atoms 2, 7; the simulation was unstable"
    with pytest.raises(NonFiniteError, match=message):
        Checks()(x)
    with pytest.raises(torch.jit.Error, match=f"qmmlmm NonFiniteError: {message}") as caught:
        torch.jit.script(Checks())(x)
    found = original_error("another term", str(caught.value))
    assert type(found) is NonFiniteError
    assert str(found).startswith(message)
    assert float(torch.jit.script(Checks())(torch.ones((8, 3)))) == 24.0


def test_many_atoms_are_cut_in_the_message():
    with pytest.raises(NonFiniteError, match=r"on atoms 0, 1, 2, 3, 4, ... \(9 in all\)"):
        check_positions(torch.full((9, 3), np.nan), "site/ML")


def test_large_positions_are_numbers():
    check_positions(torch.full((9, 3), 3e38), "site/ML")


def test_another_exception_is_one_of_the_evaluation_with_its_last_line():
    text = 'Traceback of TorchScript:\n  File "x.py", line 3\n    raise ValueError("no")\nValueError: no such element\n'
    assert is_of_torch(text)
    assert str(original_error("term 'a/ML'", text)) == "term 'a/ML': the model failed: ValueError: no such element"
    assert str(original_error("term 'a/ML'", "")) == "term 'a/ML': the model failed: no reason given"
    assert not is_of_torch("Particle coordinate is NaN")


def test_the_lock_of_python_gets_advice():
    text = "RuntimeError: The autograd engine was called while holding the GIL. If you are using"
    assert is_of_torch(text)
    with pytest.raises(EvaluationError, match="holds Python's lock.*ml_backend='pythonforce'"):
        raise original_error("term 'a/ML'", text)


def test_a_class_of_its_own_is_raised_by_name():
    with pytest.raises(EvaluationError, match="^why$"):
        raise_error("EvaluationError", "why")
