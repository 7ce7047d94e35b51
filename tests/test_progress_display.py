from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from qmmlmm.progress_display import in_notebook, is_hidden
from qmmlmm.runs.reporters import ProgressReporter
from tests.runs.argon import Argon


class ZMQInteractiveShell:
    """Has the name of the shell of a notebook's kernel."""


class TerminalInteractiveShell:
    """Has the name of the shell of IPython in a terminal."""


@pytest.mark.parametrize(("shell", "expected"), [(ZMQInteractiveShell, True), (TerminalInteractiveShell, False)])
def test_a_kernel_is_a_notebook_and_a_shell_is_none(monkeypatch, shell, expected):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=shell))
    assert in_notebook() == expected


def test_progress_is_hidden_in_a_file_and_shown_in_a_notebook(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert is_hidden()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=ZMQInteractiveShell))
    assert not is_hidden()


def test_a_run_shows_its_progress_in_a_notebook(monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=ZMQInteractiveShell))
    simulation = Argon().simulation()
    simulation.reporters.append(ProgressReporter(5, 10))
    simulation.step(10)
    assert "10/10 steps" in output.getvalue()
