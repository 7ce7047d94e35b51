from __future__ import annotations

import io
import re
import sys
import time
from types import SimpleNamespace

import pytest

from qmmlmm.progress_display import in_notebook, is_hidden, progress_bar
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


def test_the_log_of_a_batch_job_has_a_line_now_and_then(monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    monkeypatch.setattr("qmmlmm.progress_display.PAUSE", 0.1)
    with progress_bar(4, "scan", "point", initial=1) as bar:
        for k in range(3):
            time.sleep(0.12)
            bar.set_postfix_str(f"{k} kJ/mol", refresh=False)
            bar.update()
    lines = output.getvalue().splitlines()
    assert len(lines) >= 3
    assert bar.miniters == 1  # the thread of tqdm that redraws bars leaves this one alone
    assert re.fullmatch(r"scan: 2/4 points \[00:00 done, .* left, 0 kJ/mol\]", lines[0])
    assert lines[-1].startswith("scan: 4/4 points [00:00 done, 00:00 left")
    with progress_bar(None, "path", "trajectory") as bar:
        time.sleep(0.12)
        bar.update()
    assert output.getvalue().splitlines()[-1] == "path: 1 trajectories [00:00 done]"


def test_what_is_quick_or_not_to_be_shown_writes_nothing_to_a_file(monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    with progress_bar(3, "scan", "point") as bar:
        bar.update(3)
    monkeypatch.setattr("qmmlmm.progress_display.PAUSE", 0.0)
    with progress_bar(3, "scan", "point", shown=False) as bar:
        bar.update(3)
    assert output.getvalue() == ""
    with progress_bar(3, "scan", "point", shown=True) as bar:
        bar.update(3)
    assert "100%" in output.getvalue()


def test_a_run_writes_lines_with_its_speed_to_a_file(monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    monkeypatch.setattr("qmmlmm.progress_display.PAUSE", 0.0)
    simulation = Argon().simulation()
    simulation.reporters.append(ProgressReporter(5, 10))
    simulation.step(10)
    last = output.getvalue().splitlines()[-1]
    assert re.fullmatch(r"MD: 10/10 steps \[.* done, 00:00 left, .* ns/day, .* ms/step\]", last)


def test_a_bar_within_another_goes_away_and_its_lines_in_a_log_stay(monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    monkeypatch.setattr("qmmlmm.progress_display.PAUSE", 0.05)
    with progress_bar(None, "point", "evaluation", leave=False) as bar:
        assert not bar.leave
        time.sleep(0.1)
        bar.update()
    assert output.getvalue() == "point: 1 evaluations [00:00 done]\n"
