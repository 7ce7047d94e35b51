"""``qmmlmm info``, ``qmmlmm --version``, and the help of all commands."""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
import torch

from qmmlmm import __version__
from qmmlmm.commands import info
from qmmlmm.commands.main import EXIT_STATUSES, create_parser, main

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_PACKAGES_OF_THEIR_OWN = {"cuda12", "cuda13", "torchforce-cuda12", "torchforce-cuda13", "test", "lint", "docs"}


def commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = (one for one in create_parser()._actions if isinstance(one, argparse._SubParsersAction))
    return dict(found.choices)


def test_info_names_versions_platforms_backend_threads_and_extras(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for title in ("Versions", "Platforms of OpenMM", "Learned potentials", "GPU", "Threads", "Optional packages"):
        assert re.search(rf"^{title}$", text, re.MULTILINE)
    assert f"torch        {importlib.metadata.version('torch')}" in text
    assert "Reference" in text
    assert "relative speed" in text
    assert "OMP_NUM_THREADS" in text


def test_info_names_no_folders_of_the_machine(capsys):
    main(["info"])
    assert not re.search(r"(?<!\w)/\w+/\w+", capsys.readouterr().out)


def test_info_says_why_learned_potentials_run_in_python(monkeypatch):
    monkeypatch.setattr(
        info.torch_force, "unavailable_because", lambda: "openmmtorch needs torch 2.9, this is torch 2.13"
    )
    assert info.ml_backend() == "openmm.PythonForce, because openmmtorch needs torch 2.9, this is torch 2.13"
    monkeypatch.setattr(info.torch_force, "unavailable_because", lambda: None)
    assert info.ml_backend() == "openmmtorch.TorchForce"


def test_info_names_gpus(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "A GPU")
    main(["info"])
    assert "cuda:0  A GPU" in capsys.readouterr().out


def test_info_says_which_packages_are_missing(monkeypatch, capsys):
    monkeypatch.setitem(info.OPTIONAL, "dask", ("no-such-package",))
    main(["info"])
    assert "no-such-package not installed" in capsys.readouterr().out


def test_info_knows_every_extra():
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = set(tomllib.load(file)["project"]["optional-dependencies"])
    assert set(info.OPTIONAL) == extras - WITHOUT_PACKAGES_OF_THEIR_OWN


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"qmmlmm {__version__}\n"


@pytest.mark.parametrize("name", sorted(commands()))
def test_the_help_of_a_command_has_an_example_and_explains_every_argument(name):
    parser = commands()[name]
    assert "example: qmmlmm " + name in parser.format_help().replace("\n", " ")
    silent = [action.dest for action in parser._actions if action.help is None]
    assert not silent


def test_wrong_arguments_have_the_exit_status_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["spectrun"])
    assert stopped.value.code == 2
    assert "invalid choice: 'spectrun'" in capsys.readouterr().err


def test_the_help_lists_exit_statuses(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    page = (ROOT / "docs" / "reference" / "command_line.md").read_text(encoding="utf-8")
    for number, meaning in EXIT_STATUSES.items():
        assert f"{number} {meaning}" in shown
    assert [int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)] == list(EXIT_STATUSES)


@pytest.mark.parametrize("name", sorted({"run", "learn", "spectrum", "correct", "optimise", "scan", "path", "saddle"}))
def test_a_file_that_is_missing_has_the_exit_status_1(name, tmp_path, capsys):
    assert main([name, str(tmp_path / "gone.toml")]) == 1
    assert capsys.readouterr().err.startswith("qmmlmm: error: ")
