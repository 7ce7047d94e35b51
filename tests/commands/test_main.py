"""What the command does with errors: a message for those of the user, a traceback for its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import openmm
import pytest
import torch

from qmmlmm.commands import learn
from qmmlmm.commands.main import BROKEN_PIPE, INTERRUPTED, main
from qmmlmm.errors import LoopError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs the command while reading the input file raises an exception."""

    def run(error, *arguments):
        def raising(path):
            raise error

        monkeypatch.setattr(learn, "read_loop", raising)
        status = main([*arguments])
        return status, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (LoopError("no walker"), 1, "error: no walker\n"),
        (FileNotFoundError(2, "No such file or directory", "x.pdb"), 1, "No such file or directory: 'x.pdb'\n"),
        (openmm.OpenMMException("Illegal property name: Foo"), 1, "error: OpenMM: Illegal property name: Foo; --debug"),
        (KeyboardInterrupt(), INTERRUPTED, "interrupted; the same command continues where this one stopped\n"),
        (torch.OutOfMemoryError("80 GiB"), 1, "the memory of the device is full (80 GiB); take a smaller batch"),
    ],
)
@pytest.mark.parametrize("debug", ["before", "after", "off"])
def test_what_a_user_can_cause_is_one_message(run, error, status, message, debug):
    before, after = (["--debug"] if debug == place else [] for place in ("before", "after"))
    found, text = run(error, *before, "learn", "loop.toml", *after)
    assert found == status
    assert text.splitlines()[-1].startswith("qmmlmm: ")
    assert message in text
    assert ("Traceback" in text) == (debug != "off")


def test_a_loop_that_ends_before_its_bound_holds_has_the_exit_status_3(monkeypatch, capsys, tmp_path):
    report = tmp_path / "report.md"
    report.write_text("not yet\n", encoding="utf-8")
    for passed, status in ((True, 0), (False, 3)):
        result = SimpleNamespace(report=report, passed=passed)
        monkeypatch.setattr(learn, "read_loop", lambda path, found=result: SimpleNamespace(run=lambda progress: found))
        assert main(["learn", "loop.toml"]) == status
        assert capsys.readouterr().out == "not yet\n"


def test_a_fault_of_the_package_has_its_traceback(run):
    with pytest.raises(ZeroDivisionError):
        run(ZeroDivisionError("ours"), "learn", "loop.toml")


@pytest.mark.parametrize("threads", ["0", "-1"])
def test_a_number_of_threads_that_makes_no_sense_is_refused(capsys, threads):
    assert main(["learn", "loop.toml", "--threads", threads]) == 1
    assert "--threads is a whole number of 1 or more" in capsys.readouterr().err


def test_output_that_nobody_reads_ends_the_command_in_silence():
    command = subprocess.Popen(
        [sys.executable, "-c", "import sys; from qmmlmm.commands.main import main; sys.exit(main(['info']))"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    command.stdout.close()
    assert command.stderr.read() == b""
    command.stderr.close()
    assert command.wait() == BROKEN_PIPE


@pytest.mark.parametrize(("given", "used"), [(None, "passive"), ("active", "active")])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(given, used):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if given:
        environment["OMP_WAIT_POLICY"] = given
    command = [sys.executable, "-m", "qmmlmm.commands.entry", "info"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"OMP_WAIT_POLICY     {used}" in done.stdout
